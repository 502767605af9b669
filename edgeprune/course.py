"""How far a run has come, from what it tells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class StageRow:
    """One stage as it stands; `stopped` is one in which its run ended.

    `seconds` is what it took, or has taken so far; of a cached one, what it took when it was made.
    `left_s` is None while nothing can be said.
    """

    name: str
    state: Literal["done", "running", "to come", "stopped"] = "to come"
    cached: bool = False
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    note: str = ""
    left_s: float | None = None

    def later(self, seconds: float) -> StageRow:
        """The same so many seconds on, with nothing told in between."""
        if self.state != "running":
            return self
        left_s = None if self.left_s is None else max(0.0, self.left_s - seconds)
        return replace(self, seconds=self.seconds + seconds, left_s=left_s)


@dataclass(frozen=True)
class Note:
    """A sentence that a stage told."""

    stage: str
    text: str


class Course:
    """A Progress that keeps what it hears: a row for each stage, and every note."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._rows: dict[str, StageRow] = {}
        self._running = ""
        self._heard_s = 0.0  # the running stage's last word
        # A stage may count to its total more than once, as when it trains two models.
        self._loop_s, self._loop_from = 0.0, 0

    def outline(self, stages: Sequence[str]) -> None:
        self._rows = {name: StageRow(name) for name in stages}

    def stage(self, name: str, *, cached: bool) -> None:
        self._running = name
        self._heard_s = self._loop_s = time.monotonic()
        self._loop_from = 0
        self._rows[name] = StageRow(name, "running", cached)

    def step(self, done: int, total: int, note: str = "") -> None:
        row = self._rows.get(self._running)
        if row is None:
            return
        now_s = time.monotonic()
        if row.total and (done < row.done or total != row.total):
            self._loop_s, self._loop_from = now_s, done
        parts = done - self._loop_from
        left_s = (now_s - self._loop_s) * (total - done) / parts if parts > 0 else None
        later = row.later(now_s - self._heard_s)
        self._rows[row.name] = replace(later, done=done, total=total, note=note, left_s=left_s)
        self._heard_s = now_s

    def note(self, text: str) -> None:
        self.notes.append(Note(self._running, text))

    def done(self, name: str, seconds: float) -> None:
        cached = name in self._rows and self._rows[name].cached
        self._rows[name] = StageRow(name, "done", cached, seconds)
        self._running = ""

    @property
    def running(self) -> StageRow | None:
        """The stage that runs, as of now."""
        row = self._rows.get(self._running)
        return row and row.later(time.monotonic() - self._heard_s)

    @property
    def rows(self) -> tuple[StageRow, ...]:
        """Every stage in order, as of now."""
        running = self.running
        rows = list(self._rows.values())  # at once, as another thread may be drawing them
        return tuple(running if running and row.name == running.name else row for row in rows)
