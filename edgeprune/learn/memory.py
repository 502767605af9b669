"""A training that does not fit into memory, tried again with fewer rows a step."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from edgeprune.errors import ResourceError
from edgeprune.learn.fit import Schedule
from edgeprune.progress import Progress

HALVINGS = 3

_Trained = TypeVar("_Trained")


def within_memory(
    train: Callable[[Schedule], _Trained], schedule: Schedule, progress: Progress
) -> tuple[_Trained, tuple[str, ...]]:
    """What the training led to, with a note of each halving of its batch. Raises ResourceError."""
    notes: list[str] = []
    while True:
        try:
            return train(schedule), tuple(notes)
        except (MemoryError, RuntimeError) as error:
            if not _wants_memory(error):
                raise
            if len(notes) == HALVINGS or schedule.batch == 1:
                raise ResourceError(
                    f"memory, for {schedule.batch} rows a step",
                    why=_first_line(error),
                    remedy="free some, or choose a smaller --sequence or encoder",
                ) from None
        smaller = replace(schedule, batch=schedule.batch // 2)
        notes.append(
            f"memory was too little for {schedule.batch} rows a step: trained with {smaller.batch}"
        )
        progress.note(notes[-1])
        schedule = smaller
        gc.collect()  # what the failed step held


def _wants_memory(error: BaseException) -> bool:
    # On a processor torch raises a plain RuntimeError of its allocator.
    allocator = "can't allocate memory" in str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or allocator


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else "not enough"
