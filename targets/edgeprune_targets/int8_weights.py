"""An int8 ONNX file for runtimes that quantize activations by themselves.

ONNX Runtime has x in 8 bits, a product of integers, and a product with its scales:

    x → DynamicQuantizeLinear → MatMulInteger(·, W) → Cast → Mul(·, scale of x · scales of W)

Here it becomes a product of floats; the 8 bits of W stay in the file:

    x → MatMul(·, DequantizeLinear(W, scales of W))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def with_float_products(model: ModelProto) -> ModelProto:
    """The model, changed in place; a product of integers in another form stays as it is."""
    from onnx import helper

    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        found = _scaled_product(node, makers, weights)
        if found is None:
            nodes.append(node)
            continue
        x, weight, scales, zero = found
        floats = f"{node.output[0]} weights"
        nodes += [
            helper.make_node("DequantizeLinear", [weight, scales, zero], [floats], axis=1),
            helper.make_node("MatMul", [x, floats], [node.output[0]]),
        ]
    del graph.node[:]
    graph.node.extend(_needed(nodes, {value.name for value in graph.output}))
    return model


def _scaled_product(
    last: NodeProto, makers: Mapping[str, NodeProto], weights: set[str]
) -> tuple[str, str, str, str] | None:
    """x, W, the scales of W and their zero points, if a node is the last one of the form above."""

    def made_by(operator: str, names: list[str]) -> NodeProto | None:
        nodes = (makers.get(name) for name in names)
        return next((n for n in nodes if n is not None and n.op_type == operator), None)

    if last.op_type != "Mul":
        return None
    cast, scale = made_by("Cast", [*last.input]), made_by("Mul", [*last.input])
    product = made_by("MatMulInteger", [*cast.input]) if cast else None
    if product is None or scale is None or len(product.input) != 4:
        return None
    quantized = made_by("DynamicQuantizeLinear", [product.input[0]])
    scales = [name for name in scale.input if name in weights]
    if quantized is None or len(scales) != 1 or quantized.output[1] not in scale.input:
        return None
    return quantized.input[0], product.input[1], scales[0], product.input[3]


def _needed(nodes: list[NodeProto], names: set[str]) -> list[NodeProto]:
    """Those that the named values are made from, in their order."""
    asked, kept = set(names), []
    for node in reversed(nodes):
        if asked & set(node.output):
            kept.append(node)
            asked |= set(node.input)
    return kept[::-1]
