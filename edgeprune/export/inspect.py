"""What is inside an ONNX file: operators, parameters, and what onnxruntime fuses of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgeprune.shape import Shape


@dataclass(frozen=True)
class Contents:
    opset: int
    inputs: tuple[str, ...]
    operators: dict[str, int]
    parameters: int  # elements of the initializers, shape constants left out
    initializer_bytes: int
    fusions: dict[str, dict[str, int]]  # name -> {"expected", "found"}, in onnxruntime's graph

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def inspect(path: Path, shape: Shape) -> Contents:
    """The operators and weights of a file, and the fusions that onnxruntime makes when it loads it.

    `shape` says how many fusions of each kind there could be.
    """
    model = onnx.load(str(path))
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 0]
    weights = [tensor for tensor in weights if tensor.data_type != onnx.TensorProto.INT64]
    return Contents(
        opset=next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        inputs=tuple(value.name for value in model.graph.input),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        parameters=sum(int(np.prod(tensor.dims)) for tensor in weights),
        initializer_bytes=sum(tensor.ByteSize() for tensor in model.graph.initializer),
        fusions=_fusions(path, shape),
    )


def _fusions(path: Path, shape: Shape) -> dict[str, dict[str, int]]:
    found = Counter(node.op_type for node in _optimised(path).graph.node)
    attention = sum(layer.heads > 0 for layer in shape.layers)
    ffn = sum(layer.ffn > 0 for layer in shape.layers)
    expected = {
        "Attention": (attention, found["Attention"] + found["MultiHeadAttention"]),
        "SkipLayerNormalization": (2 * len(shape.layers), found["SkipLayerNormalization"]),
        "BiasGelu": (ffn, found["BiasGelu"] + found["FastGelu"]),
    }
    return {name: {"expected": want, "found": have} for name, (want, have) in expected.items()}


def _optimised(path: Path) -> onnx.ModelProto:
    """The graph as onnxruntime runs it."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)
