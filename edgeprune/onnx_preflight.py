"""Looks through an ONNX file before any runtime opens it: `python onnx_preflight.py FILE`.

Runs confined (see confined.py), so it imports nothing of ours. onnx's own loader and full checker
take files that no runtime should be handed: weights that are not numbers, external data shorter
than its tensor or found under another key, opset 999, a graph without inputs or outputs.

The last line on stdout is MARK and {"fault": null}, or {"fault": {"kind", "why", "remedy"}} with
"input" or "refused" as the kind.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

MARK = "edgeprune-said"
MAX_DIMENSION = 2**31 - 1
MAX_BYTES = 2**40  # of one value; a terabyte
MAX_NODES = 1_000_000
PART = 1 << 24  # elements of a tensor that are looked at together
EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
# Where a tensor without raw bytes keeps its elements.
FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.STRING: "string_data",
}
AGAIN = "export the model again"

Operator = tuple[str, str]  # domain, name
Names = frozenset[str]


class PreflightError(Exception):
    """What is wrong with a file; the message is the reason."""

    def __init__(self, why: str, remedy: str = AGAIN, kind: str = "input") -> None:
        super().__init__(why)
        self.why, self.remedy, self.kind = why, remedy, kind


def look_through(path: Path) -> None:
    """Raises PreflightError."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, RecursionError) as error:
        raise PreflightError("truncated, or not ONNX", "copy it again") from error
    if not model.HasField("graph") or not model.graph.node:
        raise PreflightError(
            "truncated, or holds no model", "copy it again, or export the model again"
        )
    if not model.graph.output:
        raise PreflightError("its graph has no outputs")
    if not {i.name for i in model.graph.input} - {t.name for t in model.graph.initializer}:
        raise PreflightError("its graph has no inputs")
    known = Known.of(model)
    known.check_versions(model)
    check_calls(model)
    check_graph(model.graph, known, frozenset())
    for function in model.functions:
        check_nodes(function.node, known.within(function), frozenset(function.input))
    with opened_folder(path) as folder:
        for tensor in tensors(model):
            check_tensor(tensor, folder)


class Known:
    """The operators and opsets that onnx or onnxruntime knows, and those of the file itself."""

    def __init__(self, since: dict[Operator, int], opsets: dict[str, int], own: set[Operator]):
        self.since, self.opsets, self.own = since, opsets, own
        newest: dict[str, int] = {}
        for (domain, _), version in NEWEST.items():
            newest[domain] = max(version, newest.get(domain, 0))
        self.newest = newest

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Known:
        opsets = {domain_of(one.domain): one.version for one in model.opset_import}
        own = {(domain_of(f.domain), f.name) for f in model.functions}
        return cls(OLDEST, opsets, own)

    def within(self, function: onnx.FunctionProto) -> Known:
        own = {domain_of(one.domain): one.version for one in function.opset_import}
        return Known(self.since, self.opsets | own, self.own)

    def check_versions(self, model: onnx.ModelProto) -> None:
        if not 1 <= model.ir_version <= onnx.IR_VERSION:
            why = f"its format is version {model.ir_version}, onnx {onnx.__version__} reads up to "
            raise PreflightError(f"{why}{onnx.IR_VERSION}", "install a newer onnx")
        for domain, version in self.opsets.items():
            newest = self.newest.get(domain)
            if newest is not None and not 1 <= version <= newest:
                name = domain or "ai.onnx"
                why = f"opset {version} of {name}; onnxruntime {onnxruntime.__version__} has "
                raise PreflightError(f"{why}up to {newest}", "export the model at an older opset")

    def check(self, node: onnx.NodeProto) -> None:
        domain, _ = operator = called(node)
        if operator in self.own:
            return
        name = f"{domain}.{node.op_type}" if domain else node.op_type
        if domain not in self.newest:
            raise PreflightError(f"operator {name} is of an unknown domain")
        if domain not in self.opsets:
            raise PreflightError(f"operator {name} without an opset of {domain or 'ai.onnx'}")
        if operator not in self.since:
            raise PreflightError(f"unknown operator {name}")
        if self.since[operator] > self.opsets[domain]:
            why = f"operator {name} came with opset {self.since[operator]}, "
            raise PreflightError(f"{why}the file states {self.opsets[domain]}")


def domain_of(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _schemas() -> Iterator[tuple[Operator, int]]:
    for schema in (*get_all_operator_schema(), *onnx.defs.get_all_schemas_with_history()):
        yield (domain_of(schema.domain), schema.name), schema.since_version


OLDEST: dict[Operator, int] = {}
NEWEST: dict[Operator, int] = {}
for _operator, _version in _schemas():
    OLDEST[_operator] = min(_version, OLDEST.get(_operator, _version))
    NEWEST[_operator] = max(_version, NEWEST.get(_operator, _version))


def check_calls(model: onnx.ModelProto) -> None:
    """That the functions of a file, each call written out, come to an end and are not too many."""
    bodies = {(domain_of(f.domain), f.name): list(nested(f.node)) for f in model.functions}
    calls = {name: {called(node) for node in body} & bodies.keys() for name, body in bodies.items()}
    if unordered(calls):
        raise PreflightError("its functions call one another in a circle")
    sizes: dict[Operator, int] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        return sum(sizes.get(called(node), 1) for node in nodes)

    while left := calls.keys() - sizes.keys():
        for name in left:
            if calls[name] <= sizes.keys():
                sizes[name] = size(bodies[name])
    if size(nested(model.graph.node)) > MAX_NODES:
        raise PreflightError(f"its functions unfold to over {MAX_NODES} nodes")


def called(node: onnx.NodeProto) -> Operator:
    return domain_of(node.domain), node.op_type


def nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from nested(graph.node)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def unordered(needs: dict[Any, set[Any]]) -> set[Any]:
    """What stands in a circle, or behind one: what is left after all that can be done is done."""
    left = {name: set(wanted) for name, wanted in needs.items()}
    needed_by: dict[Any, list[Any]] = {}
    for name, wanted in needs.items():
        for one in wanted:
            needed_by.setdefault(one, []).append(name)
    ready = [name for name, wanted in left.items() if not wanted]
    while ready:
        done = ready.pop()
        del left[done]
        for name in needed_by.get(done, ()):
            left[name].discard(done)
            if not left[name]:
                ready.append(name)
    return set(left)


def check_graph(graph: onnx.GraphProto, known: Known, outer: Names) -> set[str]:
    """Returns the names of `outer` that it uses. Raises PreflightError."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        check_value(value)
    given = {value.name for value in graph.input}
    given |= {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    made = [name for node in graph.node for name in node.output]
    used = check_nodes(graph.node, known, outer | given)
    for value in graph.output:
        if value.name not in outer and value.name not in given and value.name not in made:
            raise PreflightError(f"nothing makes its output {value.name!r}")
    ends = {value.name for value in graph.output} - set(made)
    return (used | ends) - given


def check_nodes(nodes: Iterable[onnx.NodeProto], known: Known, given: Names) -> set[str]:
    """Returns the names of `given` that they use. Raises PreflightError."""
    maker: dict[str, int] = {}
    nodes = list(nodes)
    for number, node in enumerate(nodes):
        known.check(node)
        for name in filter(None, node.output):
            if name in maker:
                raise PreflightError(f"{name!r} is made twice")
            maker[name] = number
    scope = given | maker.keys()
    used: set[str] = set()
    needs: dict[int, set[int]] = {}
    for number, node in enumerate(nodes):
        wanted = set(filter(None, node.input))
        for graph in subgraphs(node):
            wanted |= check_graph(graph, known, scope)
        for name in wanted - scope:
            raise PreflightError(f"nothing makes {name!r}, which {node.op_type} needs")
        used |= wanted
        needs[number] = {maker[name] for name in wanted & maker.keys()}
    if unordered(needs):
        raise PreflightError("its graph has a cycle")
    return used - maker.keys()


def check_value(value: onnx.ValueInfoProto) -> None:
    if not value.type.HasField("tensor_type"):
        return
    sizes = [d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value")]
    check_sizes(sizes, bits_of(value.type.tensor_type.elem_type), value.name)


def check_sizes(sizes: Iterable[int], bits: int, name: str) -> int:
    """The number of elements. Raises PreflightError."""
    elements = 1
    for size in sizes:
        if size < 0:
            remedy = "name a dimension that may change, `batch` for example"
            raise PreflightError(f"{name!r} has the negative dimension {size}", remedy)
        if size > MAX_DIMENSION:
            raise PreflightError(f"{name!r} has the dimension {size}")
        elements *= size
    if elements * bits > 8 * MAX_BYTES:
        raise PreflightError(f"{name!r} has {elements} elements")
    return elements


def bits_of(kind: int) -> int:
    """Of one element; 8 for what has no fixed size."""
    try:
        name = TensorProto.DataType.Name(kind)
    except ValueError:
        raise PreflightError(f"elements of the unknown type {kind}") from None
    if name in ("UNDEFINED", "STRING"):
        return 8
    small = re.fullmatch(r"U?INT([24])|FLOAT4E2M1", name)
    if small:
        return int(small[1] or 4)
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize * 8)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a file, wherever it stands."""
    yield from graph_tensors(model.graph)
    for function in model.functions:
        yield from node_tensors(function.node)


def graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from node_tensors(graph.node)


def node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for graph in subgraphs(node):
            yield from graph_tensors(graph)


def check_tensor(tensor: onnx.TensorProto, folder: int) -> None:
    kind = tensor.data_type
    if kind == TensorProto.UNDEFINED:
        if tensor.ByteSize():
            raise PreflightError(f"tensor {tensor.name!r} states no type")
        return  # of a sparse tensor that is not there
    bits = bits_of(kind)
    elements = check_sizes(tensor.dims, bits, tensor.name)
    size = (elements * bits + 7) // 8
    if tensor.data_location == TensorProto.EXTERNAL:
        check_external(tensor, folder, size)
    elif kind != TensorProto.STRING and tensor.HasField("raw_data"):
        if len(tensor.raw_data) != size:
            why = f"tensor {tensor.name!r} has {len(tensor.raw_data)} bytes, its shape {size}"
            raise PreflightError(why)
        if kind in FLOATS:
            refuse_nan(np.frombuffer(tensor.raw_data, dtype=dtype_of(kind)), tensor.name)
    else:
        values = getattr(tensor, FIELDS.get(kind, "int32_data"))
        wanted = elements * (2 if kind in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1)
        wanted = size if bits < 8 else wanted
        if len(values) != wanted:
            raise PreflightError(
                f"tensor {tensor.name!r} has {len(values)} elements, its shape {wanted}"
            )
        if kind in FLOATS:
            found = np.asarray(values)
            if found.dtype.kind == "i":  # the bits of halves
                found = found.astype(np.uint16).view(dtype_of(kind))
            refuse_nan(found, tensor.name)


def dtype_of(kind: int) -> Any:
    return helper.tensor_dtype_to_np_dtype(kind)


def refuse_nan(values: Any, name: str) -> None:
    for start in range(0, len(values), PART):
        if np.isnan(values[start : start + PART]).any():
            raise PreflightError(
                f"tensor {name!r} holds NaN", "export a model that was trained well"
            )


def check_external(tensor: onnx.TensorProto, folder: int, size: int) -> None:
    told: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in EXTERNAL_KEYS or entry.key in told:
            raise PreflightError(
                f"tensor {tensor.name!r} has external data with the key {entry.key!r}"
            )
        if not isinstance(entry.value, str):  # bytes, where they are not UTF-8
            raise PreflightError(f"external data {entry.value!r} is not UTF-8")
        told[entry.key] = entry.value
    location = told.get("location", "")
    numbers = [told.get("offset") or "0", told.get("length") or str(size)]
    if not all(re.fullmatch(r"[0-9]{1,18}", number) for number in numbers):
        raise PreflightError(f"external data {location!r} at {numbers[0]!r}, {numbers[1]!r} bytes")
    offset, length = map(int, numbers)
    if length != size:
        raise PreflightError(
            f"external data of {tensor.name!r} is {length} bytes, its shape {size}"
        )
    with os.fdopen(open_inside(folder, location), "rb") as file:
        there = os.fstat(file.fileno()).st_size
        if offset + length > there:
            why = (
                f"external data {location!r} ends at byte {there}, a tensor needs {offset + length}"
            )
            raise PreflightError(why, "copy it again")
        if tensor.data_type not in FLOATS:
            return
        file.seek(offset)
        dtype = dtype_of(tensor.data_type)
        for start in range(0, length, PART):
            part = file.read(min(PART, length - start))
            refuse_nan(np.frombuffer(part, dtype=dtype), tensor.name)


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


def open_inside(folder: int, location: str) -> int:
    """A descriptor of a plain file below the folder, reached through no link."""
    what = f"external data {location!r}"
    parts = re.split(r"[/\\]", location)
    if not parts[0] or ":" in parts[0] or ".." in parts or "\0" in location:
        raise PreflightError(
            f"{what} is not a path below its folder", "put it beside the file", "refused"
        )
    handle = os.dup(folder)
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        try:
            mode = os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(mode) if last else stat.S_ISDIR(mode)):
                raise PreflightError(
                    f"{what} is a link or no plain file", "put it there itself", "refused"
                )
            # Again without following: it may have been exchanged since.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | (0 if last else os.O_DIRECTORY)
            inner = os.open(part, flags, dir_fd=handle)
        except OSError as error:
            remedy = "copy it along with the file"
            raise PreflightError(f"{what}: {error.strerror}", remedy) from error
        finally:
            os.close(handle)
        handle = inner
    return handle


def main(words: list[str]) -> int:
    fault = None
    try:
        look_through(Path(words[0]))
    except PreflightError as found:
        fault = {"kind": found.kind, "why": found.why, "remedy": found.remedy}
    print(f"\n{MARK} {json.dumps({'fault': fault})}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
