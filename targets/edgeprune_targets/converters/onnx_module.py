"""An ONNX file as a torch module of plain operators, which is what torch's converters take.

Batch and length are fixed, so that all that follows from them is computed here and never reaches
a converter: shapes, positions, the buckets of relative positions. What is left of an encoder is
embeddings, linear layers, LayerNorms, products, and a mask that is added.

The attention mask becomes a float input: most converters fail on an integer one, and the graph
casts it first thing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

MASK = "attention_mask"
NAMES = ("input_ids", MASK, "token_type_ids")


@dataclass(frozen=True)
class Loaded:
    """A module, and an example of each of its inputs, in order: the mask float32, ids int32.

    Of an int8 file it is the fp32 module of its weights: `quantized`, and activations not rounded.
    """

    module: fx.GraphModule
    inputs: Mapping[str, Tensor]
    quantized: bool


def load(path: str, *, batch: int, sequence: int) -> Loaded:
    """Raises NotImplementedError for an operator that is not in the table below."""
    graph = onnx.load(path).graph
    given = {value.name for value in graph.input}
    unknown = sorted(given - set(NAMES))
    if unknown:
        raise ValueError(f"input {unknown[0]!r}; known are {', '.join(NAMES)}")
    inputs = {
        name: torch.ones((batch, sequence), dtype=torch.float32 if name == MASK else torch.int32)
        for name in NAMES
        if name in given
    }
    quantized = any(node.op_type == "MatMulInteger" for node in graph.node)
    with torch.no_grad():
        module = _Translation(graph, inputs).module().eval()
    return Loaded(module, inputs, quantized)


class _Translation:
    """Goes through the graph once: computes what is constant, writes down a call for the rest."""

    def __init__(self, graph: GraphProto, inputs: Mapping[str, Tensor]) -> None:
        self._onnx = graph
        self._root = nn.Module()
        self._graph = fx.Graph()
        # What every value is for the inputs above, and the node of each that depends on them.
        self._values: dict[str, Any] = dict(inputs)
        self._nodes = {name: self._graph.placeholder(name) for name in inputs}
        self._values |= {tensor.name: _tensor(tensor) for tensor in graph.initializer}
        self._constants: dict[str, fx.Node] = {}

    def module(self) -> fx.GraphModule:
        for node in self._onnx.node:
            self._add(node)
        self._graph.output(tuple(self._nodes[value.name] for value in self._onnx.output))
        for call in list(self._graph.nodes):
            self._merge(call)
        self._graph.eliminate_dead_code()
        return fx.GraphModule(self._root, self._graph)  # with those constants that are used

    def _add(self, node: NodeProto) -> None:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise NotImplementedError(f"operator {node.op_type}")
        function = OPERATORS[node.op_type]
        values = [self._value(node, index) for index in range(len(node.input))]
        options = {a.name: _attribute(a) for a in node.attribute}
        result = function(*values, **options)
        results = result if isinstance(result, tuple) else (result,)
        self._values |= dict(zip(node.output, results, strict=False))
        if self._is_known(node, values):
            return
        if results[0] is values[0]:  # a cast to what it is already
            self._nodes[node.output[0]] = self._nodes[node.input[0]]
            return
        arguments = tuple(
            self._argument(name) if isinstance(value, Tensor) else value
            for name, value in zip(node.input, values, strict=True)
        )
        self._nodes[node.output[0]] = self._graph.call_function(function, arguments, options)

    def _is_known(self, node: NodeProto, values: Sequence[Any]) -> bool:
        """Whether an output is the same whatever the inputs hold."""
        if node.op_type == "Shape" or not any(name in self._nodes for name in node.input):
            return True
        # RoBERTa takes its token types, all of them 0, from where the positions say.
        alike = node.op_type == "GatherElements" and node.input[0] not in self._nodes
        return alike and bool((values[0] == values[0].flatten()[0]).all())

    def _value(self, node: NodeProto, index: int) -> Any:
        """An input: None, a tensor, or plain numbers where the operator wants no tensor."""
        name = node.input[index]
        if not name:
            return None
        value = self._values[name]
        if index in PLAIN.get(node.op_type, ()):
            if name in self._nodes:
                raise NotImplementedError(f"operator {node.op_type} with a computed argument")
            return value.tolist()
        # x * 0.5 has no constant that would have to be carried along.
        is_number = name not in self._nodes and value.ndim == 0
        return value.item() if is_number and node.op_type in ARITHMETIC else value

    def _argument(self, name: str) -> fx.Node:
        if name in self._nodes:
            return self._nodes[name]
        if name not in self._constants:
            self._constants[name] = self._constant(self._values[name])
        return self._constants[name]

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"constant_{sum(1 for _ in self._root.buffers())}"
        self._root.register_buffer(name, value.contiguous())
        return self._graph.get_attr(name)

    def _held(self, argument: Any) -> Tensor | None:
        """The value of a constant argument."""
        if isinstance(argument, fx.Node):
            is_constant = argument.op == "get_attr"
            return self._root.get_buffer(str(argument.target)) if is_constant else None
        return None if argument is None else torch.tensor(argument)

    def _merge(self, call: fx.Node) -> None:
        """What converters know as one layer: x @ W, times a scale, plus a bias; a table's rows."""
        if call.target in (torch.matmul, _matmul_integer):
            self._merge_matrix(call)
        elif call.target in (operator.mul, operator.add):
            self._merge_vector(call, call.args[0], call.args[1])
            self._merge_vector(call, call.args[1], call.args[0])
        elif call.target is _dequantize:
            self._merge_table(call, call.args[0])

    def _merge_matrix(self, call: fx.Node) -> None:
        x, matrix, *zeros = call.args
        weight = self._held(matrix)
        if weight is None or weight.ndim != 2:
            return
        if len(zeros) == 2:
            weight = _dequantize(weight, torch.tensor(1.0), self._held(zeros[1]))
        with self._graph.inserting_before(call):
            call.target, call.args = F.linear, (x, self._constant(weight.T), None)

    def _merge_vector(self, call: fx.Node, layer: Any, constant: Any) -> None:
        vector = self._held(constant)
        if not isinstance(layer, fx.Node) or layer.target is not F.linear or vector is None:
            return
        x, matrix, bias = layer.args
        weight = self._held(matrix)
        if weight is None or bias is not None or vector.ndim > 1 or len(layer.users) > 1:
            return
        vector = vector.expand(len(weight))
        with self._graph.inserting_before(layer):
            if call.target is operator.add:
                layer.args = (x, matrix, self._constant(vector))
            else:
                layer.args = (x, self._constant(weight * vector[:, None]), None)
        call.replace_all_uses_with(layer)

    def _merge_table(self, call: fx.Node, rows: Any) -> None:
        table = self._held(rows.args[0]) if rows.target is _gather else None
        if table is not None and len(rows.users) == 1:
            scale, zero = (self._held(argument) for argument in call.args[1:])
            assert scale is not None and zero is not None  # both are constants of the file
            with self._graph.inserting_before(rows):
                rows.args = (self._constant(_dequantize(table, scale, zero)), *rows.args[1:])
            call.replace_all_uses_with(rows)


def _gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    if axis == 0 and data.ndim == 2 and indices.ndim > 0:
        return F.embedding(indices, data)
    axis %= data.ndim
    indices = torch.where(indices < 0, indices + data.shape[axis], indices)
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    return data.index_select(axis, indices.reshape(-1)).reshape(shape)


def _gather_elements(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return data.gather(axis, indices.long())


def _slice(
    data: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[index] if axes else index) % data.ndim
        step = steps[index] if steps else 1
        data = data[(*[slice(None)] * axis, slice(start, end, step))]
    return data


def _reshape(x: Tensor, shape: Sequence[int], *, allowzero: int = 0) -> Tensor:
    if not allowzero:  # a zero stands for the input's own size
        shape = [size or x.shape[axis] for axis, size in enumerate(shape)]
    return x.reshape(shape)


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _sum(
    x: Tensor, axes: Sequence[int], *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return x.sum(list(axes), keepdim=bool(keepdims))


def _mean(
    x: Tensor, axes: Sequence[int], *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return x.mean(list(axes), keepdim=bool(keepdims))


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _constant_of_shape(shape: Sequence[int], *, value: Tensor) -> Tensor:
    return value.expand(shape)


def _cumulative_sum(x: Tensor, axis: int, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    if exclusive or reverse:
        raise NotImplementedError("operator CumSum, exclusive or in reverse")
    return x.cumsum(axis)


def _expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, shape))


def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end])


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _transpose(x: Tensor, *, perm: Sequence[int]) -> Tensor:
    return x.permute(list(perm))


def _divide(x: Any, y: Any) -> Any:
    kinds = (torch.as_tensor(value).is_floating_point() for value in (x, y))
    return x / y if any(kinds) else torch.div(x, y, rounding_mode="trunc")


def _cast(x: Tensor, *, to: int, **_: Any) -> Tensor:
    return x.to(_dtype(to))


def _layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    return F.layer_norm(x, x.shape[axis:], weight, bias, epsilon)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - as ONNX spells them
    transB: int = 0,  # noqa: N803
) -> Tensor:
    product = F.linear(a.T if transA else a, b if transB else b.T)
    product = product if alpha == 1.0 else product * alpha
    return product if c is None else product + (c if beta == 1.0 else c * beta)


def _quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leaves activations as they are: in units of 1 from 0."""
    return x, torch.tensor(1.0), torch.tensor(0)


def _matmul_integer(a: Tensor, b: Tensor, a_zero: Any = None, b_zero: Any = None) -> Tensor:
    return a @ _dequantize(b, torch.tensor(1.0), b_zero)


def _dequantize(x: Tensor, scale: Tensor, zero: Any = None, *, axis: int = 1) -> Tensor:
    return (x.float() - (0 if zero is None else zero)) * scale


def _dtype(onnx_type: int) -> torch.dtype:
    return torch.from_numpy(np.empty(0, helper.tensor_dtype_to_np_dtype(onnx_type))).dtype


def _tensor(tensor: TensorProto) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


def _attribute(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return _tensor(value) if isinstance(value, TensorProto) else value


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": operator.add,
    "And": torch.logical_and,
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _cumulative_sum,
    "DequantizeLinear": _dequantize,
    "Div": _divide,
    "DynamicQuantizeLinear": _quantize,
    "Equal": operator.eq,
    "Erf": torch.erf,
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "Less": operator.lt,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "MatMulInteger": _matmul_integer,
    "Min": torch.minimum,
    "Mul": operator.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Pow": operator.pow,
    "Range": torch.arange,
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "Relu": F.relu,
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": torch.sigmoid,
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": torch.sqrt,
    "Squeeze": _squeeze,
    "Sub": operator.sub,
    "Tanh": torch.tanh,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": torch.where,
}
# Arguments that are tensors in ONNX and plain numbers in torch, by position.
PLAIN: Mapping[str, Sequence[int]] = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "Range": (0, 1, 2),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
# Where a constant of no dimension is as good as a number.
ARITHMETIC = {"Add", "Div", "Equal", "Less", "Mul", "Pow", "Sub", "Where"}
