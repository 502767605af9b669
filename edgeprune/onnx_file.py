"""ONNX files as they lie on disk: what can be wrong with one, said before any runtime opens it."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.confined import confined
from edgeprune.errors import OnnxError, RefusedError

if TYPE_CHECKING:
    from onnx import ModelProto

PREFLIGHT = Path(__file__).with_name("onnx_preflight.py")
MAX_BYTES = 2**31 - 1  # of one protobuf message
CPU_S, WALL_S = 60, 180.0
MEMORY_MB = 1_000.0  # and five times the file
LFS = b"version https://git-"


def load_onnx(path: Path, *, weights: bool = True) -> ModelProto:
    """A file's graph, with external data unless that is left out. Raises OnnxError."""
    import onnx  # 0.2 s, which most commands need not wait for
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=weights)
    except (OSError, DecodeError) as error:
        raise OnnxError(f"ONNX file {path}", why=f"cannot be read: {error}") from None
    if not model.graph.node:
        raise OnnxError(f"ONNX file {path}", why="holds no model")
    return model


def is_int8(model: ModelProto) -> bool:
    """Whether any of its products is of 8-bit integers."""
    from onnx import TensorProto

    kinds = (TensorProto.INT8, TensorProto.UINT8)
    return any(len(t.dims) == 2 and t.data_type in kinds for t in model.graph.initializer)


def check_onnx(path: Path) -> None:
    """Looks through a file that may come from anybody, in a confined process.

    Raises OnnxError, and RefusedError where its external data leads out of its folder.
    """
    what = f"ONNX file {path}"
    try:
        # Without waiting for the other end of a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            start = file.read(512) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise OnnxError(what, why=error.strerror or "cannot be read") from None
    _check_start(what, status, start)
    memory_mb = MEMORY_MB + 5 * status.st_size / 1e6
    words = [str(path.absolute())]
    with confined(PREFLIGHT, words, memory_mb=memory_mb, cpu_s=CPU_S, wall_s=WALL_S) as wait:
        for package in ("onnx", "onnxruntime"):  # who asked goes on with them: 0.3 s, meanwhile
            importlib.import_module(package)
        ended = wait()
    if ended.answer is None:
        raise OnnxError(what, why=f"looking through it {ended.why}", remedy="export it again")
    fault = ended.answer["fault"]
    if fault is not None:
        kind = RefusedError if fault["kind"] == "refused" else OnnxError
        raise kind(what, why=fault["why"], remedy=fault["remedy"])


def _check_start(what: str, status: os.stat_result, start: bytes) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OnnxError(what, why="not a file")
    if not start:
        raise OnnxError(what, why="empty", remedy="copy it again")
    if status.st_size > MAX_BYTES:
        remedy = "export the weights as external data beside it"
        raise OnnxError(what, why="over 2 GB, which one protobuf file cannot hold", remedy=remedy)
    if start.startswith(LFS):
        raise OnnxError(what, why="a Git LFS pointer", remedy="run `git lfs pull`")
    if start.startswith(b"PK\x03\x04"):
        raise OnnxError(what, why="a zip archive, as PyTorch saves one", remedy="export it as ONNX")
    if _is_text(start):
        raise OnnxError(what, why="text, not ONNX", remedy="give the .onnx file")


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not merely cut within a character
            return False
        text = start[: error.start].decode("utf-8")
    return all(letter.isprintable() or letter.isspace() for letter in text)
