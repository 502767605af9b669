"""A small non-uniform model as an ONNX file: its answers, its contents, and the gate of parity."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from transformers import BertConfig

from edgeprune.encoder import Classifier, Encoder
from edgeprune.errors import OnnxError, ParityError
from edgeprune.export.answers import Inputs, answer_rows, check_parity
from edgeprune.export.inspect import inspect
from edgeprune.export.onnx import OPSET, to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.onnx_session import open_session
from edgeprune.parity import compare
from edgeprune.shape import LayerShape, Shape
from edgeprune.tokens import Tokens

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=32,
)
DENSE = Shape.uniform(3, 4, 64, hidden=32, head_dim=8, vocab=60)
SHAPE = DENSE.with_layers([LayerShape(3, 40), LayerShape(0, 16), LayerShape(0, 0)])
Floats = NDArray[np.float32]


def made(outputs: dict[str, int]) -> Classifier:
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        model = Classifier(Encoder(CONFIG, SHAPE), outputs).eval()
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def model() -> Classifier:
    return made({"target": 3, "auxiliary": 7})


@pytest.fixture(scope="module")
def exported(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    with (folder / "said.txt").open("w") as said, redirect_stdout(said), redirect_stderr(said):
        return to_onnx(model, folder / "model.onnx")


@pytest.fixture(scope="module")
def quantised(exported: Path) -> Path:
    return to_int8(exported, exported.with_name("int8.onnx"))


@pytest.fixture
def tokens() -> Tokens:
    random = np.random.default_rng(0)
    ids = tuple(random.integers(1, 60, size).astype(np.int64) for size in (7, 3, 20, 1, 12, 5))
    types = tuple((np.arange(len(row)) > len(row) // 2).astype(np.int64) for row in ids)
    return Tokens(ids, types, 0)


def reference(model: Classifier) -> Callable[[Inputs], Floats]:
    def answers(inputs: Inputs) -> Floats:
        with torch.no_grad():
            logits, _ = model({name: torch.from_numpy(ids) for name, ids in inputs.items()})
        return np.asarray(logits.numpy(), dtype=np.float32)

    return answers


NAMES = ["input_ids", "attention_mask", "token_type_ids"]


def test_the_file_takes_any_batch_and_length(exported: Path) -> None:
    graph = onnx.load(exported).graph
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {name: ["batch", "sequence"] for name in NAMES} | {"logits": ["batch", 3]}


def test_the_file_is_one_valid_file_without_the_auxiliary_head(
    exported: Path, model: Classifier
) -> None:
    onnx.checker.check_model(exported, full_check=True)
    assert [path.name for path in exported.parent.glob("model*")] == ["model.onnx"]
    contents = inspect(exported, SHAPE)
    auxiliary = sum(p.numel() for p in model.heads["auxiliary"].parameters())
    assert contents.parameters == sum(p.numel() for p in model.parameters()) - auxiliary


def test_contents_tell_operators_inputs_and_fusions(exported: Path) -> None:
    contents = inspect(exported, SHAPE)
    assert contents.opset == OPSET
    assert list(contents.inputs) == NAMES
    assert contents.operators["LayerNormalization"] == 1 + 6  # the embeddings' and two a layer
    assert contents.operators["Gelu"] == 2
    assert contents.initializer_bytes == pytest.approx(4 * contents.parameters, rel=0.05)
    assert {name: row["expected"] for name, row in contents.fusions.items()} == {
        "Attention": 1,
        "BiasGelu": 2,
    }
    assert all(0 <= row["found"] <= row["expected"] for row in contents.fusions.values())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnxruntime_makes_no_skip_layer_normalization(
    exported: Path, tmp_path: Path, precision: str
) -> None:
    path = exported if precision == "fp32" else to_int8(exported, tmp_path / "int8.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "runs.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "runs.onnx").graph.node}
    assert "LayerNormalization" in operators
    assert "SkipLayerNormalization" not in operators


def test_the_file_answers_each_row_as_its_model(
    exported: Path, model: Classifier, tokens: Tokens
) -> None:
    told: list[tuple[int, int]] = []
    answers = answer_rows(exported, tokens, lambda done, total: told.append((done, total)))
    wanted = [reference(model)(tokens.batch([row], NAMES))[0] for row in range(len(tokens))]
    np.testing.assert_allclose(answers, wanted, atol=1e-5)
    assert told == [(0, 6)]


def test_parity_is_looked_at_at_three_shapes(
    exported: Path, model: Classifier, tokens: Tokens
) -> None:
    found = check_parity(exported, reference(model), tokens, NAMES, 24)
    assert [parity.shape for parity in found] == [(1, 7), (1, 24), (6, 24)]
    assert all(parity.max_abs < 1e-4 for parity in found)
    assert all(parity.cosine > 0.9999 and parity.agreement == 1 for parity in found)


def off_by(size: float) -> Callable[[Floats], Floats]:
    return lambda logits: (logits + size * np.arange(3)).astype(np.float32)


def off_where_padded(logits: Floats) -> Floats:
    return logits if len(logits) == 1 else off_by(0.05)(logits)


@pytest.mark.parametrize("spoil", [off_by(2e-3), off_by(-1.0), np.negative, off_where_padded])
def test_a_file_that_answers_unlike_its_model_is_refused(
    exported: Path, model: Classifier, tokens: Tokens, spoil: Callable[[Floats], Floats]
) -> None:
    right = reference(model)
    with pytest.raises(ParityError, match="answers unlike its model: max-abs") as caught:
        check_parity(exported, lambda inputs: spoil(right(inputs)), tokens, NAMES, 24)
    assert caught.value.exit_code == 1


def test_likeness_in_numbers() -> None:
    ours = np.array([[1.0, 2.0], [3.0, -1.0]], dtype=np.float32)
    same = compare((2, 5), ours, ours)
    assert (same.max_abs, same.agreement) == (0, 1)
    assert same.cosine == pytest.approx(1)
    other = compare((2, 5), ours, np.array([[1.0, 0.5], [3.0, -1.0]], dtype=np.float32))
    assert (other.max_abs, other.agreement) == (1.5, 0.5)
    score = compare((2, 5), ours[:, :1], ours[:, :1] + 1)
    assert (score.max_abs, score.agreement) == (1, 1)  # scores have no label to disagree on
    nothing = np.zeros((2, 2), dtype=np.float32)
    assert compare((2, 5), nothing, nothing).cosine == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_like_nothing(value: float) -> None:
    ours = np.array([[value, 1.0]], dtype=np.float32)
    found = compare((1, 3), ours, ours)
    assert (found.max_abs, found.cosine, found.agreement) == (float("inf"), 0, 0)


def test_int8_is_much_smaller_and_near_in_its_answers(
    exported: Path, quantised: Path, model: Classifier, tokens: Tokens
) -> None:
    before, after = inspect(exported, SHAPE), inspect(quantised, SHAPE)
    # Scales and biases stay as they are, and count for something in so small a model.
    assert after.initializer_bytes < 0.5 * before.initializer_bytes
    assert after.operators["MatMulInteger"] == 4 + 2 + 2 + 1  # attention, two FFNs, the head
    ours, theirs = answer_rows(quantised, tokens), answer_rows(exported, tokens)
    assert compare((6, 20), ours, theirs).cosine > 0.98
    assert not np.array_equal(ours, theirs)


def test_every_column_of_an_int8_matrix_has_a_scale_of_its_own(quantised: Path) -> None:
    sizes = {tensor.name: list(tensor.dims) for tensor in onnx.load(quantised).graph.initializer}
    matrices = [name for name in sizes if name.endswith("_quantized") and "embedding" not in name]
    assert len(matrices) == 9
    for name in matrices:
        assert sizes[name.replace("_quantized", "_scale")] == sizes[name][1:]


def test_no_two_products_of_an_int8_file_can_overflow_16_bits(quantised: Path) -> None:
    """As they are added up on x86 processors without VNNI; activations have eight bits."""
    weights = [
        numpy_helper.to_array(tensor).astype(int)
        for tensor in onnx.load(quantised).graph.initializer
        if tensor.name.endswith("_quantized") and "embedding" not in tensor.name
    ]
    assert max(2 * 255 * abs(one).max() for one in weights) < 2**15


def test_quantising_leaves_the_source_and_the_logging_as_they_were(
    exported: Path, tmp_path: Path
) -> None:
    before, level = exported.read_bytes(), logging.getLogger().level
    to_int8(exported, tmp_path / "int8.onnx")
    assert exported.read_bytes() == before
    assert logging.getLogger().level == level


def test_exporting_says_nothing(exported: Path) -> None:
    assert exported.with_name("said.txt").read_text() == ""
    assert logging.getLogger("torch.onnx").level == logging.NOTSET


def test_a_model_over_two_gigabytes_is_told_at_once(tmp_path: Path) -> None:
    big = BertConfig(vocab_size=600_000, hidden_size=1024, num_hidden_layers=0)
    shape = Shape((), 1024, 64, 600_000)
    with torch.device("meta"):
        model = Classifier(Encoder(big, shape), {"target": 2})
    with pytest.raises(OnnxError, match=r"2\.5 GB — one file holds at most 2 GB"):
        to_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x0a"])
def test_a_file_that_does_not_load_is_told_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(OnnxError, match="does not load") as caught:
        open_session(tmp_path / "model.onnx")
    assert len(str(caught.value).splitlines()) == 1


def test_threads_are_those_that_were_asked_for(exported: Path) -> None:
    options = open_session(exported, threads=3).get_session_options()
    assert options.intra_op_num_threads == 3
