"""How far a training has come, kept by time and at signals, for another process to go on from.

FOLDER/<step>/ holds tensors.safetensors, state.json and a manifest, and is published whole. The
last two are kept: where the last one is damaged the one before it serves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from edgeprune.progress import Progress
from edgeprune.publish import Torn, discard, manifest, publishing, remove_parts, set_aside
from edgeprune.tensors import save_tensors

FORMAT = 1  # 1: {"format", "step", "files": {name: {size, sha256}}}
TENSORS, STATE = "tensors.safetensors", "state.json"
KEPT = 2
EVERY_S = 60.0


@dataclass(frozen=True)
class Snapshot:
    """A training after some steps: its tensors, and all else as JSON holds it."""

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    @property
    def finite(self) -> bool:
        numbers = (tensor for tensor in self.tensors.values() if tensor.is_floating_point())
        return all(bool(torch.isfinite(tensor).all()) for tensor in numbers)


class Snapshots:
    """Those of one training, in a folder of their own; broken ones are moved to `aside`."""

    def __init__(self, folder: Path, aside: Path, progress: Progress) -> None:
        self.folder = folder
        self._aside, self._progress = aside, progress
        self._kept_s = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._kept_s >= EVERY_S

    def latest(self) -> Snapshot | None:
        """The last one that is whole; those after it are put aside. Raises OSError."""
        for folder in reversed(self._folders()):
            try:
                said = manifest(folder, format=FORMAT, step=int(folder.name))
            except Torn as why:
                there = set_aside(folder, self._aside)
                where = f"{self.folder.parent.name}/{self.folder.name}, step {folder.name}"
                self._progress.note(f"snapshot of {where}: {why}; the one before, kept as {there}")
                continue
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            return Snapshot(said["step"], load_file(folder / TENSORS), state)
        return None

    def keep(self, snapshot: Snapshot) -> bool:
        """Publish it, unless it has left the finite numbers, as the answer says. Raises OSError."""
        if not snapshot.finite:
            return False
        if self.folder.is_dir():
            remove_parts(self.folder)
        with publishing(
            self.folder / str(snapshot.step), {"format": FORMAT, "step": snapshot.step}
        ) as part:
            save_tensors(snapshot.tensors, part / TENSORS)
            (part / STATE).write_text(json.dumps(snapshot.state), encoding="utf-8")
        for old in self._folders()[:-KEPT]:
            discard(old)
        self._kept_s = time.monotonic()
        return True

    def _folders(self) -> list[Path]:
        steps = [path for path in self.folder.glob("*") if path.name.isdecimal()]
        return sorted(steps, key=lambda path: int(path.name))
