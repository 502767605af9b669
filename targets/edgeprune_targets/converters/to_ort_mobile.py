"""ONNX to ONNX Runtime's own format, fully optimised, for any processor.

Beside the model lie what a reduced build must have (`*.config`, types included), and what ONNX
Runtime thinks of running it on a phone's accelerators (`usability.txt`).
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnxruntime
from onnxruntime.tools.convert_onnx_models_to_ort import (
    OptimizationStyle,
    convert_onnx_models_to_ort,
)
from onnxruntime.tools.mobile_helpers.usability_checker import analyze_model


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    source, out = Path(onnx), Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        convert_onnx_models_to_ort(
            optimized(source, Path(scratch)),
            output_dir=out,
            optimization_styles=[OptimizationStyle.Fixed],
            enable_type_reduction=True,
        )
    analyze_model(source, logger=writing_to(out / "usability.txt"))
    return str(out / source.with_suffix(".ort").name)


def optimized(source: Path, folder: Path) -> Path:
    """The same model, with int8 weights that overflow on no processor.

    A session that opens the finished file comes too late to ask for it.
    """
    path = folder / source.name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns that other processors may want other files
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.x64quantprecision", "1")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return path


def writing_to(path: Path) -> logging.Logger:
    logger = logging.getLogger("usability")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.FileHandler(path, mode="w"))
    return logger
