"""Files with bytes changed at random: whatever they hold, only our own errors come of it."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeprune.errors import ModelError
from edgeprune.onnx_preflight import PreflightError, look_through
from edgeprune.safetensors_file import check_safetensors

TIMES = 2_000


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes exchanged, left out, added, or copied from elsewhere in it."""
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, size = rng.randrange(len(made) or 1), rng.randrange(1, 20)
        kind = rng.randrange(4)
        if kind == 0:
            made[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del made[at : at + size]
        elif kind == 2:
            made[at:at] = rng.randbytes(size)
        else:
            start = rng.randrange(len(made) or 1)
            made[at : at + 4] = made[start : start + size]
    return bytes(made)


def survived(path: Path, data: bytes, look: Callable[[Path], None], ours: type[Exception]) -> int:
    """How many of the mutations were taken; any other error than ours ends the test."""
    rng, taken = random.Random(0), 0
    for _ in range(TIMES):
        path.write_bytes(mutated(data, rng))
        with contextlib.suppress(ours):
            look(path)
            taken += 1
    return taken


def test_onnx_files_are_taken_or_told(small_onnx: Path) -> None:
    taken = survived(small_onnx, small_onnx.read_bytes(), look_through, PreflightError)
    assert 0 < taken < TIMES


@pytest.mark.parametrize("header_only", [True, False])
def test_safetensors_headers_are_taken_or_told(tmp_path: Path, header_only: bool) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.float16)}, path)
    data = path.read_bytes()
    if not header_only:
        taken = survived(path, data, check_safetensors, ModelError)
    else:
        size = int.from_bytes(data[:8], "little")
        rows = json.loads(data[8 : 8 + size])

        def look(changed: Path) -> None:
            text = changed.read_bytes()
            changed.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
            check_safetensors(changed)

        taken = survived(path, json.dumps(rows).encode(), look, ModelError)
    assert 0 < taken < TIMES
