"""Disk, memory and permission for a whole run, looked at before its first minute is spent."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import ResourceError
from edgeprune.inputs import Inputs
from edgeprune.room import disk_left_mb, existing, memory_left_mb
from edgeprune.run import SNAPSHOTS, STAGES
from edgeprune.runs import disk_mb
from edgeprune.safetensors_file import tensor_bytes

LIBRARIES_MB = 600.0  # of memory, with nothing loaded yet
SNAPSHOTS_AT_ONCE = 3  # two are kept while the third is written


@dataclass(frozen=True)
class Needs:
    """What a run comes to at its widest, in MB of 10⁶ bytes; `memory_mb` is the least of it."""

    disk_mb: float
    scratch_mb: float
    memory_mb: float

    @classmethod
    def of(cls, inputs: Inputs) -> Needs:
        files = [tensor_bytes(path) for path in Path(inputs.model).glob("*.safetensors")]
        rows = {name: size / 1e6 for file in files for name, size in file.items()}
        whole = sum(rows.values())
        # The embeddings stay as they are, so that snapshots leave them out.
        learned = sum(mb for name, mb in rows.items() if "embeddings." not in name)
        # Teacher, its error curves and its ONNX file; for each budget student, files and bundle.
        kept = whole * (3 + len(inputs.recipe.budgets) * (2 + len(inputs.recipe.precisions)))
        # Weights, the best so far, and two moments of the optimizer.
        snapshots = SNAPSHOTS_AT_ONCE * 4 * learned
        # The encoder, the teacher, the student and the best; gradients and moments.
        memory = LIBRARIES_MB + 4 * whole + 3 * learned
        return cls(kept + snapshots + whole, 2 * whole, memory)


def check_room(inputs: Inputs) -> None:
    """Raises ResourceError, which tells what the run needs and what there is."""
    needs, out = Needs.of(inputs), inputs.recipe.out
    there = sum(disk_mb(out / name) for name in (STAGES, SNAPSHOTS) if (out / name).is_dir())
    _check_disk(out, max(0.0, needs.disk_mb - there), "another --out")
    _check_disk(_temporary(), needs.scratch_mb, "another TMPDIR")
    left_mb = memory_left_mb()
    if left_mb is not None and left_mb < needs.memory_mb:
        raise ResourceError(
            "memory",
            why=f"needs {needs.memory_mb:.0f} MB, has {left_mb:.0f} MB",
            remedy="free some, or choose a smaller encoder",
        )


def _check_disk(folder: Path, needed_mb: float, other: str) -> None:
    place = existing(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        raise ResourceError(
            f"folder {place}", why="cannot be written", remedy=f"give permission, or {other}"
        )
    left_mb = disk_left_mb(place)
    if left_mb < needed_mb:
        raise ResourceError(
            f"disk for {folder}",
            why=f"needs {needed_mb:.0f} MB, has {left_mb:.0f} MB in {place}",
            remedy=f"make room, or choose {other}",
        )


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it tried to write in each
        raise ResourceError("temporary files", why=str(error.strerror)) from None
