"""How a long step tells what it does; the library itself prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Progress(Protocol):
    """Hears what a run does: `outline`, then for each stage `stage`, `step`, `note` and `done`."""

    def outline(self, stages: Sequence[str]) -> None:
        """The stages that are to come; not told where there are none but the one that begins."""

    def stage(self, name: str, *, cached: bool) -> None:
        """A stage begins; `cached` when its result is taken from an earlier run."""

    def step(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` equal parts of the stage are finished."""

    def note(self, text: str) -> None:
        """Something worth a line now, in one sentence."""

    def done(self, name: str, seconds: float) -> None:
        """The stage ended."""


class Silent:
    """The default: hears everything and tells nothing."""

    def outline(self, stages: Sequence[str]) -> None: ...

    def stage(self, name: str, *, cached: bool) -> None: ...

    def step(self, done: int, total: int, note: str = "") -> None: ...

    def note(self, text: str) -> None: ...

    def done(self, name: str, seconds: float) -> None: ...


SILENT: Progress = Silent()
