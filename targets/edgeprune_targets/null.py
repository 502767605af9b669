"""The reference adapter, and the test double: milliseconds from a model's weights, not a clock.

It shows all that a runtime must bring, and lets the whole road be walked in tests at once and to
the same figures each time. Nothing is inferred and nothing is timed: its figures are synthetic
and are labelled `proxy` wherever they go.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeprune.measure.target import Check, Program, Runtime
from edgeprune.onnx_file import load_onnx
from edgeprune_targets import BENCH, SESSIONS

BASE_MS = 0.02
# 10 ns per fp32 parameter: the cost is exactly additive over heads and FFN units.
MS_PER_MB_AT_128_TOKENS = 2.5


class Null(Runtime):
    """Costs a base plus a price for each byte of the matrices that no Gather looks up in."""

    proxy = True
    note = "synthetic milliseconds, derived from the weights; no device was timed"

    def check(self) -> Check:
        return Check(True, "1")

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        graph = load_onnx(onnx, weights=False).graph
        tokens = batch * sequence
        ms = BASE_MS + MS_PER_MB_AT_128_TOKENS * _matrix_mb(graph) * tokens / 128
        cost = folder / "cost.json"
        inputs = {value.name: "int64" for value in graph.input}
        cost.write_text(json.dumps({"ms": ms, "inputs": inputs}), encoding="utf-8")
        return cost

    def program(self) -> Program:
        return Program(BENCH, SESSIONS / "null.py")


def _matrix_mb(graph: Any) -> float:
    from onnx.helper import tensor_dtype_to_np_dtype

    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    matrices = [
        tensor
        for tensor in graph.initializer
        if len(tensor.dims) == 2 and tensor.name not in looked_up
    ]
    sizes = [tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in matrices]
    counts = [tensor.dims[0] * tensor.dims[1] for tensor in matrices]
    return float(sum(n * size for n, size in zip(counts, sizes, strict=True))) / 1e6
