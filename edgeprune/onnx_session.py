"""ONNX files opened by ONNX Runtime on this machine, for what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import OnnxError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Without it int8 products overflow on x86 processors that have no VNNI: such a file then answers
# something else. On all other processors it changes nothing.
INT8_OPTION = "session.x64quantprecision"


def open_session(path: Path, threads: int | None = None) -> InferenceSession:
    """A CPU session. Raises OnnxError for a file that onnxruntime does not take."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(INT8_OPTION, "1")
    if threads:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        why = str(error).splitlines()[0][:300]
        raise OnnxError(f"ONNX file {path}", why=f"does not load: {why}") from error
