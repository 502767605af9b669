"""Safetensors files as they lie on disk: what can be wrong with a header, said before loading."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import ModelError

MAX_HEADER_BYTES = 100_000_000  # as safetensors has it
# Of one element, by the format's names.
BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "C64": 64},
    **{"F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}


def tensor_bytes(path: Path) -> dict[str, int]:
    """The bytes of each tensor by its name, of a file that `check_safetensors` let pass."""
    with path.open("rb") as file:
        rows = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    rows.pop("__metadata__", None)
    return {name: row["data_offsets"][1] - row["data_offsets"][0] for name, row in rows.items()}


def check_safetensors(path: Path) -> None:
    """That the header can be read, and the tensors fill the file one after the other.

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
        parts = sorted(map(_part, rows.values()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _cut_short(path) from None
    end = 0
    for first, last, needed in parts:
        if first < end:
            raise ModelError(f"{path}", why="its tensors overlap", remedy="save it again")
        if first > end or last - first != needed:
            why = f"a tensor of {needed} bytes has {last - first}, {first - end} after the last one"
            raise ModelError(f"{path}", why=why, remedy="save it again")
        end = last
    if 8 + size + end != whole:
        raise _cut_short(path)


def _part(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Where a tensor begins and ends, and the bytes that its type and shape need."""
    (first, last), shape = row["data_offsets"], row["shape"]
    if not all(type(number) is int and number >= 0 for number in (first, last, *shape)):
        raise ValueError(row)
    return first, last, (math.prod(shape) * BITS[row["dtype"]] + 7) // 8


def _cut_short(path: Path) -> ModelError:
    return ModelError(f"{path}", why="truncated, or not safetensors", remedy="copy it again")
