"""ONNX to ONNX Runtime's own format, fully optimised, for any processor.

Beside the model lie what a reduced build must have (`*.config`, types included), and what ONNX
Runtime thinks of running it on a phone's accelerators (`usability.txt`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Unsupported
from onnxruntime.tools.convert_onnx_models_to_ort import (
    OptimizationStyle,
    convert_onnx_models_to_ort,
)
from onnxruntime.tools.mobile_helpers.usability_checker import analyze_model


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    source, out = Path(onnx), Path(folder)
    try:
        convert_onnx_models_to_ort(
            source,
            output_dir=out,
            optimization_styles=[OptimizationStyle.Fixed],
            enable_type_reduction=True,
        )
    except Unsupported as error:
        raise NotImplementedError(str(error)) from None
    analyze_model(source, logger=writing_to(out / "usability.txt"))
    return str(out / source.with_suffix(".ort").name)


def writing_to(path: Path) -> logging.Logger:
    logger = logging.getLogger("usability")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.FileHandler(path, mode="w"))
    return logger
