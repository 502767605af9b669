"""Bundles: written whole, loaded by onnxruntime alone, and refused when a byte is not as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import OnnxError, RefusedError
from edgeprune.ship.bundle import MANIFEST, MODEL, verify_bundle, write_bundle

FACTS: dict[str, Any] = {"task": "mrpc", "score": 0.8125, "sequence": 64, "shape": {"layers": [1]}}
NAMES = {MODEL, "tokenizer.json", "tokenizer_config.json", "config.json", MANIFEST}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file that looks tokens up: its logits are a row of the table for each token."""
    table = np.arange(24, dtype=np.float32).reshape(8, 3)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["words", "input_ids"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 3])],
        [numpy_helper.from_array(table, "words")],
    )
    path = tmp_path / "any name.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture
def bundle(tmp_path: Path, model: Path, tokenizer: Path) -> Path:
    folder = tmp_path / "run" / "budgets" / "50pct" / "bundle"
    write_bundle(folder, model, tokenizer, {"model_type": "bert"}, FACTS)
    return folder


def test_a_bundle_is_verified_as_it_was_written(bundle: Path) -> None:
    manifest = verify_bundle(bundle)
    assert {path.name for path in bundle.iterdir()} == NAMES
    assert set(manifest["files"]) == NAMES - {MANIFEST}
    assert {key: manifest[key] for key in FACTS} == FACTS


def test_onnxruntime_loads_what_is_shipped(bundle: Path, model: Path) -> None:
    assert (bundle / MODEL).read_bytes() == model.read_bytes()
    session = onnxruntime.InferenceSession(bundle / MODEL, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_ids": np.array([[2, 0]])})
    assert np.asarray(logits).tolist() == [[[6, 7, 8], [0, 1, 2]]]


@pytest.mark.parametrize("name", sorted(NAMES - {MANIFEST}))
@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_any_flipped_bit_of_a_file_is_refused(
    bundle: Path, name: str, bit: int, where: float
) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[round(where * (len(data) - 1))] ^= 1 << bit
    (bundle / name).write_bytes(data)
    with pytest.raises(RefusedError, match=f"{name} — not the file that was measured") as caught:
        verify_bundle(bundle)
    assert caught.value.exit_code == 6


def test_any_flipped_byte_that_says_something_of_the_manifest_is_refused(bundle: Path) -> None:
    whole = (bundle / MANIFEST).read_bytes()
    for position in range(len(whole)):
        if whole[position : position + 1].isspace():
            continue
        changed = bytearray(whole)
        changed[position] ^= 0b11
        (bundle / MANIFEST).write_bytes(changed)
        with pytest.raises((RefusedError, OnnxError)):
            verify_bundle(bundle)
    (bundle / MANIFEST).write_bytes(whole)
    verify_bundle(bundle)


@pytest.mark.parametrize("fact", [{"score": 0.99}, {"sequence": 8}, {"files": {}}, {"new": 1}])
def test_a_manifest_with_another_fact_is_refused(bundle: Path, fact: dict[str, Any]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(manifest | fact))
    with pytest.raises(RefusedError, match=MANIFEST):
        verify_bundle(bundle)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def moved_behind_a_link(path: Path) -> None:
    path.rename(path.parent.parent / path.name)
    path.symlink_to(path.parent.parent / path.name)


@pytest.mark.parametrize("name", sorted(NAMES - {MANIFEST}))
@pytest.mark.parametrize(
    "spoil", [longer, shorter, emptied, Path.unlink, replaced_by_a_folder, moved_behind_a_link]
)
def test_a_file_that_is_not_as_it_was_is_refused(
    bundle: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    spoil(bundle / name)
    with pytest.raises(RefusedError, match=name):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", "{}", '{"files": 3}', '{"files": {}}', '{"sha256": ""}']
)
def test_what_is_no_manifest_is_told(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(OnnxError, match=f"its {MANIFEST} cannot be read"):
        verify_bundle(bundle)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match="cannot be read") as caught:
        verify_bundle(tmp_path)
    assert caught.value.exit_code == 2


def test_a_bundle_may_be_copied_anywhere(bundle: Path, tmp_path: Path) -> None:
    bundle.rename(tmp_path / "elsewhere")
    verify_bundle(tmp_path / "elsewhere")


def test_a_bundle_written_again_replaces_the_old_one_whole(
    bundle: Path, model: Path, tokenizer: Path
) -> None:
    (tokenizer / "tokenizer_config.json").unlink()
    write_bundle(bundle, model, tokenizer, {"model_type": "mpnet"}, {})
    assert {path.name for path in bundle.iterdir()} == NAMES - {"tokenizer_config.json"}
    assert "task" not in verify_bundle(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_write_that_fails_leaves_the_old_bundle(bundle: Path, tokenizer: Path) -> None:
    with pytest.raises(OSError):
        write_bundle(bundle, bundle / "nowhere.onnx", tokenizer, {}, {})
    assert verify_bundle(bundle)["task"] == "mrpc"
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
