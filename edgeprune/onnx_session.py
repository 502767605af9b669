"""ONNX files opened by ONNX Runtime on this machine, for what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import OnnxError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(path: Path, threads: int | None = None) -> InferenceSession:
    """A CPU session. Raises OnnxError for a file that onnxruntime does not take."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if threads:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        why = str(error).splitlines()[0][:300]
        raise OnnxError(f"ONNX file {path}", why=f"does not load: {why}") from error
