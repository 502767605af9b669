"""Safetensors files as they lie on disk: what can be wrong with one, said before it is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import ModelError

MAX_HEADER_BYTES = 100_000_000  # as safetensors has it
# Of one element, by the format's names.
BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "C64": 64},
    **{"F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}

FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
BF16_EXPONENT = 0x7F80  # all ones in what is not finite
PART_BYTES = 1 << 24  # looked at together; a multiple of any element's size


def tensor_bytes(path: Path) -> dict[str, int]:
    """The bytes of each tensor by its name, of a file that `check_safetensors` let pass."""
    with path.open("rb") as file:
        rows = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    rows.pop("__metadata__", None)
    return {name: row["data_offsets"][1] - row["data_offsets"][0] for name, row in rows.items()}


def check_safetensors(path: Path) -> None:
    """That the header can be read, the tensors fill the file, and their numbers are finite.

    Raises ModelError.
    """
    whole = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(20)
        if start.startswith(b"version https://git-"):
            raise ModelError(f"{path}", why="a Git LFS pointer", remedy="run `git lfs pull`")
        size = int.from_bytes(start[:8], "little")
        if 8 + size > whole:
            raise _cut_short(path)
        if size > MAX_HEADER_BYTES:
            raise ModelError(f"{path}", why=f"its header is {size} bytes", remedy="save it again")
        file.seek(8)
        header = file.read(size)
    try:
        rows = json.loads(header)
        rows.pop("__metadata__", None)
        parts = sorted(_part(name, row) for name, row in rows.items())
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _cut_short(path) from None
    end = 0
    for first, last, needed, _, _ in parts:
        if first < end:
            raise ModelError(f"{path}", why="its tensors overlap", remedy="save it again")
        if first > end or last - first != needed:
            why = f"a tensor of {needed} bytes has {last - first}, {first - end} after the last one"
            raise ModelError(f"{path}", why=why, remedy="save it again")
        end = last
    if 8 + size + end != whole:
        raise _cut_short(path)
    with path.open("rb") as file:
        for first, last, _, name, kind in parts:
            file.seek(8 + size + first)
            if kind in FLOATS and not all(map(_finite, _elements(file, last - first, kind))):
                remedy = "give a model that was trained well"
                what = f"{path}: tensor {name!r}"
                raise ModelError(what, why="holds NaN or infinite weights", remedy=remedy)


def _elements(file: IO[bytes], size: int, kind: str) -> Iterator[NDArray[Any]]:
    for start in range(0, size, PART_BYTES):
        yield np.frombuffer(file.read(min(PART_BYTES, size - start)), FLOATS[kind])


def _finite(elements: NDArray[Any]) -> bool:
    if elements.dtype == np.uint16:
        return not (elements & BF16_EXPONENT == BF16_EXPONENT).any()
    return bool(np.isfinite(elements).all())


def _part(name: str, row: Mapping[str, Any]) -> tuple[int, int, int, str, str]:
    """Where a tensor begins and ends, the bytes that it needs, its name and its type."""
    (first, last), shape = row["data_offsets"], row["shape"]
    if not all(type(number) is int and number >= 0 for number in (first, last, *shape)):
        raise ValueError(row)
    return first, last, (math.prod(shape) * BITS[row["dtype"]] + 7) // 8, name, row["dtype"]


def _cut_short(path: Path) -> ModelError:
    return ModelError(f"{path}", why="truncated, or not safetensors", remedy="copy it again")
