"""What torch's converters are fed answers as the ONNX file, of all families, widths and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from test_families import (
    TestBert,
    TestDistilBert,
    TestElectra,
    TestMpnet,
    TestRoberta,
    TestXlmRoberta,
)

from edgeprune.encoder import Classifier, Encoder, adopt
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.shape import LayerShape
from edgeprune.testing import FamilyContract, save_tiny_onnx
from edgeprune.testing.families import random_model
from edgeprune_targets.converters import onnx_module

FAMILIES = (TestBert, TestDistilBert, TestElectra, TestMpnet, TestRoberta, TestXlmRoberta)
UNEVEN = (LayerShape(3, 17), LayerShape(0, 48), LayerShape(1, 0))
LENGTHS = ((16,), (16, 1, 5))


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda contract: contract.__name__)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uneven encoder of each family, with random weights."""
    contract: type[FamilyContract] = request.param
    dense = adopt(random_model(contract.config()))
    torch.manual_seed(0)
    encoder = Encoder(dense.config, dense.shape.with_layers(UNEVEN))
    model = Classifier(encoder, {"target": 3}).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return to_onnx(model, tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.mark.parametrize("lengths", LENGTHS, ids=["whole", "padded"])
def test_it_answers_as_the_exported_file(exported: Path, lengths: Sequence[int]) -> None:
    feeds = padded(lengths)
    ours = answer(exported, feeds)
    np.testing.assert_allclose(ours, wanted(exported, feeds), atol=1e-5, rtol=1e-5)


def test_nothing_is_left_of_shapes_and_positions(exported: Path) -> None:
    module = onnx_module.load(str(exported), batch=1, sequence=16).module
    names = {getattr(node.target, "__name__", "") for node in module.graph.nodes}
    assert "linear" in names
    assert not names & {"_shape", "_concat", "_expand", "arange", "where"}


def test_an_int8_file_becomes_its_weights(exported: Path, tmp_path: Path) -> None:
    int8 = to_int8(exported, tmp_path / "int8.onnx")
    loaded = onnx_module.load(str(int8), batch=1, sequence=16)
    assert loaded.quantized
    assert all(tensor.is_floating_point() for tensor in loaded.module.buffers())
    feeds = padded(LENGTHS[1])
    ours, theirs = answer(int8, feeds), wanted(int8, feeds)
    cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.99


def test_an_operator_that_is_not_in_the_table_is_named(tmp_path: Path) -> None:
    path = save_tiny_onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Hardmax", ["logits"], ["more"]))
    onnx.save(model, path)
    with pytest.raises(NotImplementedError, match="Hardmax"):
        onnx_module.load(str(path), batch=1, sequence=8)


def test_an_input_that_nothing_is_known_of_is_named(tmp_path: Path) -> None:
    path = save_tiny_onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    extra = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1])
    model.graph.input.append(extra)
    onnx.save(model, path)
    with pytest.raises(ValueError, match="pixels"):
        onnx_module.load(str(path), batch=1, sequence=8)


def padded(lengths: Sequence[int]) -> dict[str, NDArray[Any]]:
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.random.default_rng(0).integers(2, 60, mask.shape)
    return {
        "input_ids": np.where(mask, ids, 1),  # RoBERTa's padding, by which it counts positions
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
    }


def answer(path: Path, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    batch, sequence = feeds["input_ids"].shape
    loaded = onnx_module.load(str(path), batch=batch, sequence=sequence)
    given = [torch.from_numpy(feeds[name]).to(e.dtype) for name, e in loaded.inputs.items()]
    with torch.no_grad():
        (logits,) = loaded.module(*given)
    return np.asarray(logits)


def wanted(path: Path, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return np.asarray(session.run(None, {name: feeds[name] for name in names})[0])
