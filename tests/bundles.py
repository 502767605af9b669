"""Bundles as tests need them: another one, a forged one, one that answers otherwise."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeprune.hashing import file_digest
from edgeprune.ship import prove
from edgeprune.ship.bundle import MANIFEST

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(f"{letter}{i}" for letter in "pqr" for i in range(20))
CLASSES = ("mostly p", "mostly q", "mostly r")


def rewritten(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A manifest that agrees with itself, as only its maker or a forger writes one."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["sha256"]
    change(manifest)
    manifest["sha256"] = prove.digest(manifest)
    (bundle / MANIFEST).write_bytes(prove.written(manifest))


def other_answers(bundle: Path) -> None:
    """Golden answers that the model does not give."""
    path = bundle / "golden.json"
    golden = json.loads(path.read_text())
    golden["outputs"]["logits"] = [row[::-1] for row in golden["outputs"]["logits"]]
    path.write_text(json.dumps(golden))
    said = {"size": path.stat().st_size, "sha256": file_digest(path)}
    rewritten(bundle, lambda manifest: manifest["files"].update({"golden.json": said}))


def another(bundle: Path, name: str) -> Path:
    """A second bundle, of another task."""
    copy = Path(shutil.copytree(bundle, bundle.parent / name))
    rewritten(copy, lambda manifest: manifest.update(task=name))
    return copy


def digits(bundle: Path) -> str:
    return str(json.loads((bundle / MANIFEST).read_text())["sha256"])[:12]


# Runs what puts a bundle to work on a device, which copies the first file and hangs.
HANG = """
import os, runpy, sys, time
def fsync(handle):
    open(f"{sys.argv.pop()}.{os.getpid()}", "w").close()
    time.sleep(600)
os.fsync = fsync
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def python_that_hangs_while_copying(mark: Path) -> list[str]:
    """Lines of a shell script that does for a device's Python; each that hangs leaves a mark."""
    program = mark.with_name("hang.py")
    program.write_text(HANG)
    return [
        f'case "$2" in *\'"do"\'*) exec {sys.executable} {program} "$@" {mark};; esac',
        f'exec {sys.executable} "$@"',
    ]


def hung(mark: Path) -> int:
    """How many of them hang."""
    return len([*mark.parent.glob(f"{mark.name}.*")])


# --- a bundle that needs no torch to be made ----------------------------------------------------


def make_small_onnx(path: Path) -> Path:
    """A classifier by ONNX alone: a token votes for the letter that it begins with."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    words = SPECIAL + WORDS
    votes = [[float(word.startswith(letter)) for letter in "pqr"] for word in words]
    scatter = np.random.default_rng(0).normal(0, 0.05, (len(words), len(CLASSES)))
    shape: list[str | int] = ["batch", "sequence"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["votes", "input_ids"], ["each"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["each", "column"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "middle"], ["logits"], keepdims=0),
        ],
        "small",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, shape),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [
            numpy_helper.from_array((votes + scatter).astype(np.float32), "votes"),
            numpy_helper.from_array(np.array([-1]), "last"),
            numpy_helper.from_array(np.array([1]), "middle"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def make_small_bundle(folder: Path, model: Path, *, int8: bool = False) -> Path:
    """The bundle of such a model, with all that the bundle of a run has."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace

    from edgeprune.hashing import file_digest
    from edgeprune.ship.bundle import Golden, write_bundle

    tokenizer = Tokenizer(
        WordPiece({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    ids = np.random.default_rng(1).integers(5, len(SPECIAL + WORDS), (8, 12))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(["logits"], inputs)[0])
    with TemporaryDirectory() as room:
        saved = Path(room)
        tokenizer.save(str(saved / "tokenizer.json"))
        (saved / "tokenizer_config.json").write_text("{}")
        write_bundle(
            folder,
            model,
            saved,
            {"model_type": "bert", "id2label": {str(i): name for i, name in enumerate(CLASSES)}},
            {"task": "letters", "sequence": 12, "measured": {"sha256": file_digest(model)}},
            golden=Golden(inputs, logits, *((None, 0.99, 0.9) if int8 else (1e-3, 0.9999, 1.0))),
            documents={"README.md": "# letters\n", "bom.cdx.json": "{}\n"},
        )
    return folder
