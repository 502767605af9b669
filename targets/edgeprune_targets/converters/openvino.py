"""ONNX to OpenVINO's own format, at one input shape, which is faster than any."""

from __future__ import annotations

from pathlib import Path

import openvino


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    # Not `convert_model`: that one asks whether it may send usage data.
    model = openvino.Core().read_model(onnx)
    model.reshape({port.get_any_name(): [batch, sequence] for port in model.inputs})
    converted = Path(folder) / "openvino"
    converted.mkdir()
    # Its default halves the weights' precision.
    openvino.save_model(model, str(converted / "model.xml"), compress_to_fp16=False)
    return str(converted)
