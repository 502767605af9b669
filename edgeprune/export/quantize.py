"""int8 weights by onnxruntime: per channel, on the unfused graph."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx


def to_int8(source: Path, path: Path) -> Path:
    """Write a dynamically quantised copy: MatMul weights per channel, embeddings too.

    Signed weights: unsigned ones are slow on x86. Seven bits of them: the sums of two products of
    eight bits overflow on x86 processors without VNNI, or take the slow way around that everywhere
    (docs/runtimes.md). Per channel is not onnxruntime's default, and halves the error.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a pre-processing that the exporter already did
    try:
        quantize_dynamic(
            str(source),
            str(path),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    model = onnx.load(path)
    del model.graph.value_info[:]  # as in `to_onnx`: for its latency
    onnx.save(model, path)
    return path
