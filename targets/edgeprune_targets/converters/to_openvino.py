"""ONNX to OpenVINO's own format, at one input shape, which is faster than any."""

from __future__ import annotations

import re
import sys
from pathlib import Path

# It sends usage data when it is imported, unless it finds this package missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    model = read(onnx)
    model.reshape({port.get_any_name(): [batch, sequence] for port in model.inputs})
    converted = Path(folder) / "openvino"
    converted.mkdir()
    # Its default halves the weights' precision.
    openvino.save_model(model, str(converted / "model.xml"), compress_to_fp16=False)
    return str(converted)


def read(onnx: str) -> openvino.Model:
    try:
        return openvino.Core().read_model(onnx)
    except RuntimeError as error:
        lacking = re.search(r"No conversion rule found for operations: (.+)", str(error))
        if lacking:
            raise NotImplementedError(f"lacks the operator {lacking[1].strip()}") from None
        raise
