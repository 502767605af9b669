"""What is inside an ONNX file: operators, parameters, and what onnxruntime fuses of them."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgeprune.errors import OnnxError
from edgeprune.onnx_file import load_onnx
from edgeprune.shape import Shape

LARGE = 1024  # elements; what shapes are computed from is smaller
PRODUCTS = {"MatMul", "Gemm", "MatMulInteger"}


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

    `shape` says how many fusions of each kind there could be. Raises OnnxError.
    """
    found = fusions_found(path)
    could = {
        "Attention": sum(layer.heads > 0 for layer in shape.layers),
        "BiasGelu": sum(layer.ffn > 0 for layer in shape.layers),
    }
    fusions = {name: {"expected": could[name], "found": found[name]} for name in could}
    return replace(contents_of(load_onnx(path)), fusions=fusions)


def contents_of(model: onnx.ModelProto) -> Contents:
    """The operators and weights of a model; no fusions are looked for."""
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 0]
    weights = [tensor for tensor in weights if tensor.data_type != onnx.TensorProto.INT64]
    return Contents(
        opset=next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
        inputs=tuple(value.name for value in model.graph.input),
        operators=dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
        parameters=sum(int(np.prod(tensor.dims)) for tensor in weights),
        initializer_bytes=sum(tensor.ByteSize() for tensor in model.graph.initializer),
        fusions={},
    )


def fusions_found(path: Path) -> dict[str, int]:
    """How many of each kind stand in the graph that onnxruntime runs. Raises OnnxError."""
    found = Counter(node.op_type for node in _optimised(path).graph.node)
    return {
        "Attention": found["Attention"] + found["MultiHeadAttention"],
        "BiasGelu": found["BiasGelu"] + found["FastGelu"],
    }


def multiply_adds(model: onnx.ModelProto, batch: int, sequence: int) -> int | None:
    """Of one inference's matrix products; None where a shape cannot be inferred.

    Takes the weights out of `model`. Raises OnnxError.
    """
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, (batch, sequence), strict=False):
            if not dim.HasField("dim_value"):
                dim.dim_value = size
    # The exporter's notes are in symbols; with numbers, what was computed from shapes folds away.
    del model.graph.value_info[:]
    _leave_out_weights(model.graph)
    with tempfile.TemporaryDirectory() as folder:
        sized = Path(folder) / "sized.onnx"
        onnx.save(model, str(sized))
        folded = _optimised(sized, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    graph = onnx.shape_inference.infer_shapes(folded).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    total = 0
    for node in graph.node:
        if node.op_type in PRODUCTS:
            left, out = shapes.get(node.input[0], ()), shapes.get(node.output[0], ())
            if not left or not out or 0 in (*left, *out):
                return None
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(out) * left[-2 if transposed else -1]
    return total


def _leave_out_weights(graph: onnx.GraphProto) -> None:
    """Makes inputs of them: their shapes are all that counts, and megabytes take their time."""
    given = {value.name for value in graph.input}
    for at in reversed(range(len(graph.initializer))):
        tensor = graph.initializer[at]
        if math.prod(tensor.dims) >= LARGE and tensor.data_type != onnx.TensorProto.INT64:
            if tensor.name not in given:
                graph.input.append(
                    onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                )
            del graph.initializer[at]


def _optimised(
    path: Path,
    level: onnxruntime.GraphOptimizationLevel = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ),
) -> onnx.ModelProto:
    """The graph as onnxruntime runs it, by default whole. Raises OnnxError."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.graph_optimization_level = level
        # The graph is wanted: not its weights again, nor as they are laid out for inference.
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights"
        )
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.intra_op_num_threads = 1
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors share no base but this
            raise OnnxError(f"ONNX file {path}", why=f"cannot be loaded: {error}") from None
        return onnx.load(options.optimized_model_filepath, load_external_data=False)
