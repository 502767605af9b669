"""What people see: progress and results on stderr, or what was asked for on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO

import typer

from edgeprune.units import duration, megabytes, ms

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from edgeprune.delivery import Outcome, Verified
    from edgeprune.measure.profile import Profile
    from edgeprune.measure.target import Listed
    from edgeprune.progress import Progress
    from edgeprune.report.report import Report

SECONDS_BETWEEN_LINES = 10.0
COLOURS = {"met": typer.colors.GREEN, "missed": typer.colors.RED}


def out(text: str) -> None:
    """To stdout; a reader who has left (`| head`) changes nothing about the exit code."""
    _write(text, sys.stdout)


def err(text: str, colour: str | None = None) -> None:
    """To stderr, in colour on a terminal."""
    _write(typer.style(text, fg=colour) if colour and sys.stderr.isatty() else text, sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    try:
        print(text.removesuffix("\n"), file=stream, flush=True)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> str:
    """Aligned for the eye, and Markdown once pasted; columns of numbers to the right."""
    columns = zip(head, *rows, strict=True)
    widths = [max(3, *(len(cell) for cell in column)) for column in columns]
    ends = [numbers and column > 0 for column in range(len(head))]
    rule = ["-" * (w - 1) + (":" if end else "-") for w, end in zip(widths, ends, strict=True)]
    lines = [_aligned(row, widths, ends) for row in (head, rule, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _aligned(row: Sequence[str], widths: Sequence[int], ends: Sequence[bool]) -> list[str]:
    cells = zip(row, widths, ends, strict=True)
    return [cell.rjust(width) if end else cell.ljust(width) for cell, width, end in cells]


def summary(reports: Sequence[Report]) -> str:
    """The reports of a run, short enough to be pasted into a message."""
    from edgeprune.report.markdown import budgets_table, comparison_table, transfer_line

    first = reports[0]
    head, rows = comparison_table(first) if len(reports) == 1 else budgets_table(reports)
    lines = [table(head, rows), "", *(_verdict_line(report) for report in reports)]
    lines += dict.fromkeys(f"transfer  {transfer_line(report)}" for report in reports)
    lines.append(f"report    {PurePath(first.run) / 'report.md'}")
    lines += [f"bundle    {PurePath(report.run) / report.bundle}" for report in reports]
    return "\n".join(lines)


def _verdict_line(report: Report) -> str:
    below = "" if report.floor_met else f" - under the quality floor of {report.floor:.0%}"
    return f"{report.verdict.line}{below}"


def as_json(value: object) -> str:
    from edgeprune.report.discretion import discreet

    return json.dumps(discreet(value), indent=2)


def targets(listed: Sequence[Listed]) -> str:
    """Runtimes and devices as a table."""
    rows = [
        (
            one.name,
            one.kind,
            one.check.version,
            ("yes, a proxy" if one.proxy else "yes") if one.check.usable else "no",
            " - ".join(part for part in (one.check.why, one.check.remedy) if part),
        )
        for one in listed
    ]
    return table(("name", "kind", "version", "usable", ""), rows, numbers=False)


def profile(result: Profile) -> str:
    """A measurement as a table, and what a reader of it must know."""
    head = ("target", "p50", "p90", "first inference", "size", "peak memory", "inferences")
    row = (
        f"{result.target} (proxy)" if result.proxy else result.target,
        ms(result.latency.p50_ms),
        ms(result.latency.p90_ms),
        ms(result.cold_ms),
        megabytes(result.size_mb),
        f"{result.peak_mb:.0f} MB",
        f"{result.latency.samples_ms.size} in {len(result.latency.launches_ms)} launches",
    )
    return "\n".join([table(head, [row]), *result.notes])


def verified(result: Verified) -> str:
    """A bundle that is whole, in one line."""
    signed = {"valid": "signature valid", "not checked": "signature not checked (--key)"}
    words = [f"{result.files} files as written", signed.get(result.signature, "not signed")]
    return f"{result.bundle}: {', '.join(words)}, {_answers(result.golden)}"


def outcomes(done: Sequence[Outcome]) -> str:
    """What came of each place as a table, and below it the errors."""
    rows = [_outcome(one) for one in done]
    lines = [table(("place", "state", "release", "previous", "answers"), rows, numbers=False)]
    return "\n".join(lines + [f"error[{e.code}]: {e}" for one in done if (e := one.error)])


def _outcome(one: Outcome) -> Sequence[str]:
    if one.release is None:
        return (one.place, "failed, as it was before", "", "", "")
    release = one.release
    golden = _answers(release.golden)
    return (one.place, release.state, release.release, release.previous or "", golden)


def _answers(golden: Mapping[str, Any] | None) -> str:
    if golden is None:
        return "no golden answers"
    found = "nothing finite" if golden["max_abs"] is None else f"max-abs {golden['max_abs']:.1e}"
    verb = "agree" if golden["agrees"] else "differ"
    return f"{golden['rows']} golden answers {verb} ({found}, cosine {golden['cosine']:.6f})"


def profile_json(result: Profile) -> str:
    summed = {"p50_ms": result.latency.p50_ms, "p90_ms": result.latency.p90_ms}
    return as_json(summed | result.to_dict())


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere, nothing if quiet."""
    from edgeprune.progress import SILENT

    if quiet:
        yield SILENT
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield BarProgress(bars)
    else:
        yield LineProgress()


class LineProgress:
    """One line when a stage starts, one when it ends, and one every few seconds between."""

    def __init__(self) -> None:
        self._cached = False
        self._started_s = self._told_s = time.monotonic()

    def stage(self, name: str, *, cached: bool) -> None:
        err(f"{name}: cached" if cached else f"{name} ...")
        self._cached = cached
        self._started_s = self._told_s = time.monotonic()

    def step(self, done: int, total: int, note: str = "") -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < SECONDS_BETWEEN_LINES:
            return
        self._told_s = now_s
        left = _left(now_s - self._started_s, done, total)
        err(f"  {done}/{total}{left}{f' · {note}' if note else ''}")

    def note(self, text: str) -> None:
        err(f"  {text}")

    def done(self, name: str, seconds: float) -> None:
        if not self._cached:
            err(f"{name}: {duration(seconds)}")


class BarProgress:
    """A bar for the running stage, a line for each that ended."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._bar: TaskID | None = None
        self._started_s = time.monotonic()

    def stage(self, name: str, *, cached: bool) -> None:
        self._clear()
        if cached:
            self._print(f"✓ {name}  cached")
            return
        self._started_s = time.monotonic()
        self._bar = self._bars.add_task(name, total=None, note="")

    def step(self, done: int, total: int, note: str = "") -> None:
        if self._bar is not None:
            left = _left(time.monotonic() - self._started_s, done, total)
            told = " · ".join(part for part in (f"{done}/{total}{left}", note) if part)
            self._bars.update(self._bar, completed=done, total=total, note=told)

    def note(self, text: str) -> None:
        self._print(f"  {text}")

    def done(self, name: str, seconds: float) -> None:
        if self._bar is not None:
            self._print(f"✓ {name}  {duration(seconds)}")
        self._clear()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None

    def _print(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # Each refresh takes time from the core next to the one that a latency is measured on.
        refresh_per_second=2,
    )


def _left(elapsed_s: float, done: int, total: int) -> str:
    if not 0 < done < total:
        return ""
    return f", {duration(elapsed_s * (total - done) / done)} left"
