"""Files with bytes changed at random: whatever they hold, only our own errors come of it.

The long loop is `python benchmarks/fuzz.py`, guided by coverage; what it kept is gone through here.
"""

from __future__ import annotations

import contextlib
import json
import random
import runpy
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.onnx_preflight import PreflightError, look_through
from edgeprune.safetensors_file import check_safetensors

TIMES = 2_000
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LOOKS = runpy.run_path(str(BENCHMARKS / "fuzz.py"))["LOOKS"]


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


def test_the_corpus_is_of_what_is_fuzzed() -> None:
    kept = {path.stem for path in (BENCHMARKS / "corpus").glob("*.zip")}
    assert kept
    assert kept <= LOOKS.keys()


@pytest.mark.parametrize(
    "path", sorted((BENCHMARKS / "corpus").glob("*.zip")), ids=lambda p: p.stem
)
def test_what_was_kept_of_it_is_taken_or_told(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()
        for name in archive.namelist():
            with contextlib.suppress(EdgepruneError, PreflightError):
                LOOKS[path.stem](archive.read(name), tmp_path)
