"""Bundles: written whole, loaded by onnxruntime alone, and refused when a byte is not as it was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import OnnxError, RefusedError
from edgeprune.ship import prove
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


def test_any_flipped_byte_of_the_manifest_is_refused(bundle: Path) -> None:
    whole = (bundle / MANIFEST).read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0b11
        (bundle / MANIFEST).write_bytes(changed)
        with pytest.raises(RefusedError, match=MANIFEST):
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
    with pytest.raises(RefusedError, match=f"{MANIFEST} — cannot be read"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    "files", [{}, {"config.json": {"size": 1, "sha256": ""}}, {MODEL: 5}, {MODEL: {"size": "1"}}]
)
def test_a_manifest_that_describes_no_model_is_refused(bundle: Path, files: Any) -> None:
    manifest: dict[str, Any] = {"files": files}
    manifest["sha256"] = prove.digest(manifest)
    (bundle / MANIFEST).write_bytes(prove.written(manifest))
    with pytest.raises(RefusedError, match="does not describe its files"):
        verify_bundle(bundle)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match=r"has no edgeprune\.json") as caught:
        verify_bundle(tmp_path)
    assert caught.value.exit_code == 2


def test_a_manifest_behind_a_link_is_refused(bundle: Path) -> None:
    moved_behind_a_link(bundle / MANIFEST)
    with pytest.raises(RefusedError, match=MANIFEST):
        verify_bundle(bundle)


def a_file(path: Path) -> None:
    path.write_text("import os")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to("config.json")


@pytest.mark.parametrize("add", [a_file, a_folder, a_link, os.mkfifo])
@pytest.mark.parametrize("name", ["modeling.py", ".hidden", "model.onnx.data", "ü"])
def test_what_does_not_belong_to_it_is_refused(
    bundle: Path, add: Callable[[Path], object], name: str
) -> None:
    add(bundle / name)
    with pytest.raises(RefusedError, match="does not belong to it"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "..", "a/b", "a\0b"])
def test_a_manifest_that_leads_out_of_the_bundle_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_text("x")
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    manifest["sha256"] = prove.digest(manifest)
    (bundle / MANIFEST).write_bytes(prove.written(manifest))
    with pytest.raises(RefusedError, match="not the plain name of a file"):
        verify_bundle(bundle)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    os.mkfifo(bundle / "config.json")
    with pytest.raises(RefusedError, match="not a plain file"):
        verify_bundle(bundle)


def flipped(bundle: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(bundle.iterdir()))
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(data)


def swapped(bundle: Path, rng: random.Random) -> None:
    one, other = rng.sample(sorted(bundle.iterdir()), 2)
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def test_a_thousand_flips_and_swaps_are_all_refused(small_bundle: Path) -> None:
    rng = random.Random(0)
    whole = {path: path.read_bytes() for path in small_bundle.iterdir()}
    for number in range(1_000):
        (swapped if number % 10 == 0 else flipped)(small_bundle, rng)
        with pytest.raises(RefusedError):
            verify_bundle(small_bundle)
        for path, data in whole.items():
            path.write_bytes(data)
    verify_bundle(small_bundle)


PAGE = (Path(__file__).parent.parent / "docs" / "bundle.md").read_text(encoding="utf-8")


def test_the_lines_of_the_page_load_a_bundle_with_nothing_of_ours(small_bundle: Path) -> None:
    _, _, rest = PAGE.partition("### onnxruntime and tokenizers alone")
    code = rest.split("```python\n")[1].split("```")[0]
    statements = [line for line in code.splitlines() if line and not line.startswith(("imp", "fr"))]
    assert len(statements) <= 10
    assert "runs/mrpc/bundle" in code
    code = code.replace("runs/mrpc/bundle", str(small_bundle))
    code = code.replace('"He sold it .", "It was sold ."', '"p1 q2 q3 q4 r5"')
    code += "\nimport sys; print(sorted({'edgeprune', 'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["mostly q", "[]"]


def test_golden_answers_are_read_as_they_were_written(small_bundle: Path) -> None:
    told = json.loads((small_bundle / "golden.json").read_text())
    manifest = verify_bundle(small_bundle)
    assert manifest["golden"] == {"rows": 8, "max_abs": 1e-3, "cosine": 0.9999, "agreement": 1.0}
    assert np.asarray(told["inputs"]["input_ids"]).shape == (8, 12)
    assert np.asarray(told["outputs"]["logits"], np.float32).shape == (8, 3)
    assert "p1" not in json.dumps(told)


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
