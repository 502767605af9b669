"""What people see: progress and results on stderr, or what was asked for on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, TextIO

import typer

from edgeprune.errors import printable
from edgeprune.units import age, count, duration, megabytes, ms

if TYPE_CHECKING:
    from rich.console import Console

    from edgeprune.course import Course, StageRow
    from edgeprune.delivery import Outcome, Verified
    from edgeprune.errors import EdgepruneError
    from edgeprune.gate.check import Checked
    from edgeprune.gate.convert import Converted
    from edgeprune.measure.doctor import Diagnosis
    from edgeprune.measure.profile import Profile
    from edgeprune.measure.target import Check, Listed
    from edgeprune.progress import Progress
    from edgeprune.report.pareto import Choice
    from edgeprune.report.report import Report
    from edgeprune.runs import Rubbish, RunFolder
    from edgeprune.status import Status

SECONDS_BETWEEN_LINES = 10.0
COLOURS = {
    "met": typer.colors.GREEN,
    "fine": typer.colors.GREEN,
    "missed": typer.colors.RED,
    "slower": typer.colors.RED,
}


def out(text: str) -> None:
    """To stdout; a reader who has left (`| head`) changes nothing about the exit code."""
    _write(text, sys.stdout)


def err(text: str, colour: str | None = None) -> None:
    """To stderr, in colour on a terminal; where nobody can be told, nobody is."""
    try:
        _write(text, sys.stderr, colour if sys.stderr.isatty() else None)
    except OSError:
        _mute(sys.stderr)


def _write(text: str, stream: TextIO, colour: str | None = None) -> None:
    shown = _shown(text.removesuffix("\n"), stream.encoding or "utf-8")
    try:
        print(typer.style(shown, fg=colour) if colour else shown, file=stream, flush=True)
    except BrokenPipeError:
        _mute(stream)


def _mute(stream: TextIO) -> None:
    """Python flushes once more at its end, and would complain there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _shown(text: str, encoding: str) -> str:
    """Without letters that a terminal would obey, or that a stream cannot hold."""
    lines = printable(text, keeping="\n\t")
    return lines.encode(encoding, "backslashreplace").decode(encoding)


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
    lines = [table(head, rows), "", *(line for report in reports for line in _verdict(report))]
    lines += dict.fromkeys(f"transfer  {transfer_line(report)}" for report in reports)
    lines.append(f"report    {PurePath(first.run) / 'report.md'}")
    lines += [f"bundle    {PurePath(report.run) / report.bundle}" for report in reports]
    return "\n".join(lines)


def _verdict(report: Report) -> list[str]:
    """A line for each target, and one for a size budget."""
    from edgeprune.report.markdown import size_lines, verdict_lines

    below = "" if report.floor_met else f" - under the quality floor of {report.floor:.0%}"
    return [*(f"{line}{below}" for line in verdict_lines(report)), *size_lines(report)]


def error(told: EdgepruneError) -> str:
    """The one line of an error; its paths are as they were written, but no secret is told."""
    from edgeprune.report.discretion import without_secrets

    return without_secrets(f"error[{told.code}]: {told}")


def as_json(value: object) -> str:
    from edgeprune.report.discretion import discreet

    return json.dumps(discreet(value), indent=2)


def paths_json(value: object) -> str:
    """As JSON, with paths as they are: whoever reads it opens them."""
    return json.dumps(value, indent=2, default=str)


def converted(made: Converted) -> str:
    facts = made.facts
    parity = facts["parity"]
    alike = "" if parity is None else f", max difference {parity['max_abs']:.1e}"
    shape = f"{facts['batch']}x{facts['sequence']}"
    return f"{made.model}  {facts['target']} {facts['version']}, {shape}{alike}"


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


def doctor(found: Sequence[Diagnosis]) -> str:
    """The parts of each target as a table: what is there, or what repairs it."""
    parts = [
        (one.target, part, check)
        for one in found
        for part, check in (("runtime", one.runtime), ("device", one.device), ("there", one.there))
    ]
    rows = [
        (target, part, "yes" if check.usable else "no", _said_of(check))
        for target, part, check in parts
    ]
    return table(("target", "part", "usable", ""), rows, numbers=False)


def _said_of(check: Check) -> str:
    said = [check.version] if check.usable else [check.why, check.remedy]
    return " - ".join(part for part in said if part)


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


def checked(found: Checked) -> None:
    """Every gate that failed and every verdict, a line each, and what would decide an open one."""
    for line in found.lines():
        err(line, COLOURS.get(line.split(maxsplit=1)[0]))
    for one in found.targets:
        if one.verdict["more"]:
            err(f"  it would take {one.verdict['more']}")
    if found.outcome == "inconclusive" and found.demands.inconclusive != "fail":
        err(f"  inconclusive is let through, as --inconclusive {found.demands.inconclusive} asks")


def verified(result: Verified) -> str:
    """A bundle that is whole, in one line."""
    from edgeprune.ship.golden import told

    signed = {"valid": "signature valid", "not checked": "signature not checked (--key)"}
    words = [f"{result.files} files as written", signed.get(result.signature, "not signed")]
    return f"{result.bundle}: {', '.join(words)}, {told(result.golden)}"


def outcomes(done: Sequence[Outcome]) -> str:
    """What came of each place as a table, and below it the errors."""
    rows = [_outcome(one) for one in done]
    lines = [table(("place", "state", "release", "previous", "answers"), rows, numbers=False)]
    return "\n".join(lines + [error(one.error) for one in done if one.error])


def _outcome(one: Outcome) -> Sequence[str]:
    if one.release is None:
        return (one.place, "failed, as it was before", "", "", "")
    from edgeprune.ship.golden import told

    release = one.release
    golden = told(release.golden)
    return (one.place, release.state, release.release, release.previous or "", golden)


def profile_json(result: Profile) -> str:
    summed = {"p50_ms": result.latency.p50_ms, "p90_ms": result.latency.p90_ms}
    return as_json(summed | result.to_dict())


@contextlib.contextmanager
def progress(*, quiet: bool, live: bool = False) -> Iterator[Progress]:
    """A list of stages on a terminal or where it is wanted, else plain lines; nothing if quiet."""
    from edgeprune.course import Course
    from edgeprune.progress import SILENT

    if quiet:
        yield SILENT
    elif live or sys.stderr.isatty():
        course = Course()
        with _live(lambda height: stages(course.rows, height=height)) as console:
            yield LiveProgress(course, console)
    else:
        yield LineProgress(Course())


class LineProgress:
    """One line when a stage starts, one when it ends, and one every few seconds between."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._told_s = 0.0

    def outline(self, stages: Sequence[str]) -> None:
        self._course.outline(stages)

    def stage(self, name: str, *, cached: bool) -> None:
        self._course.stage(name, cached=cached)
        self._told_s = time.monotonic()
        err(f"{name}: cached" if cached else f"{name} ...")

    def step(self, done: int, total: int, note: str = "") -> None:
        self._course.step(done, total, note)
        now_s = time.monotonic()
        row = self._course.running
        if row is not None and now_s - self._told_s >= SECONDS_BETWEEN_LINES:
            self._told_s = now_s
            err(f"  {_reached(row)}")

    def note(self, text: str) -> None:
        err(f"  {text}")

    def done(self, name: str, seconds: float) -> None:
        row = self._course.running
        self._course.done(name, seconds)
        if row is None or not row.cached:
            err(f"{name}: {duration(seconds)}")


class LiveProgress:
    """The stages as a list that is drawn again and again; notes go by above it."""

    def __init__(self, course: Course, console: Console) -> None:
        self._course, self._console = course, console

    def outline(self, stages: Sequence[str]) -> None:
        self._course.outline(stages)

    def stage(self, name: str, *, cached: bool) -> None:
        self._course.stage(name, cached=cached)

    def step(self, done: int, total: int, note: str = "") -> None:
        self._course.step(done, total, note)

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", markup=False, highlight=False)

    def done(self, name: str, seconds: float) -> None:
        self._course.done(name, seconds)


@contextlib.contextmanager
def _live(draw: Callable[[int], Sequence[str]], *, transient: bool = False) -> Iterator[Console]:
    """Lines on stderr, taken for a terminal of so many rows, drawn anew as time goes by."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, force_terminal=True)

    def drawn() -> Text:
        return Text("\n".join(draw(console.height)), no_wrap=True, overflow="ellipsis")

    # Each refresh takes time from the core next to the one that a latency is measured on.
    with Live(get_renderable=drawn, console=console, refresh_per_second=2, transient=transient):
        yield console


MARKS = {"done": "✓", "running": "▸", "stopped": "✗", "to come": " "}
BAR = 16  # characters


def stages(rows: Sequence[StageRow], *, height: int | None = None) -> list[str]:
    """A line for each stage; where there are more than rows on a terminal, those about the next."""
    width = max((len(row.name) for row in rows), default=0)
    lines = [f"{MARKS[row.state]} {row.name:<{width}}  {_told(row)}".rstrip() for row in rows]
    if height is None or len(lines) <= (room := max(height - 4, 3)):
        return lines
    at = next((i for i, row in enumerate(rows) if row.state != "done"), len(rows))
    if at == len(rows):
        return lines  # the last time that they are drawn
    first = min(max(at - room // 2, 0), len(lines) - room)
    before, after = first, len(lines) - room - first
    return [
        *([f"✓ {before} more"] if before else []),
        *lines[first : first + room],
        *([f"  {after} more"] if after else []),
    ]


def _told(row: StageRow) -> str:
    if row.state == "to come":
        return ""
    if row.cached:
        return "cached"
    reached = f"  {_bar(row)} {_reached(row)}" if row.state != "done" and row.total else ""
    return f"{duration(row.seconds)}{reached}"


def _bar(row: StageRow) -> str:
    full = BAR * row.done // row.total
    return "█" * full + "░" * (BAR - full)


def _reached(row: StageRow) -> str:
    """12/60, 41.0 s left · loss 0.312"""
    left = f", {duration(row.left_s)} left" if row.left_s is not None and row.left_s > 0 else ""
    return " · ".join(part for part in (f"{row.done}/{row.total}{left}", row.note) if part)


# --- run folders ----------------------------------------------------------------------------


def status(told: Status, reports: Sequence[Report] = ()) -> str:
    """How far a run has come: what it is, its stages, and its verdicts if it is at its end."""
    from edgeprune.report.discretion import discreet

    recipe = told.recipe
    what = [
        f"model {recipe.model}",
        f"task {recipe.task}",
        f"auxiliary {', '.join(recipe.auxiliary)}",
    ]
    asked = [*what[: 3 if recipe.auxiliary else 2], f"target {', '.join(recipe.target)}"]
    lines = [
        _state(told),
        str(discreet(" · ".join([*asked, f"budget {', '.join(recipe.budget)}"]))),
        *stages(told.rows),
        *(line for report in reports for line in _verdict(report)),
    ]
    return "\n".join(lines)


def _state(told: Status) -> str:
    from edgeprune.status import seconds_since

    ago = f"{age(seconds_since(told.updated))} ago"
    took = duration((told.updated - told.started).total_seconds())
    again = f"run the same command to go on, or `edgeprune resume {shlex.quote(str(told.folder))}`"
    if told.state == "running":
        since = duration(seconds_since(told.started))
        line = f"running for {since}, process {told.pid}"
    elif told.state == "finished":
        line = f"finished {ago}, in {took}"
    elif told.state == "failed":
        line = f"failed {ago} {_where(told)}: {told.error}"
    elif told.state == "interrupted":
        line = f"interrupted {ago} {_where(told)}; {again}"
    else:
        line = f"stopped {_where(told)} (process {told.pid} is gone); {again}"
    return f"{told.folder}: {line}"


def _where(told: Status) -> str:
    row = told.current
    if row is not None:
        step = f" at step {row.done} of {row.total}" if row.total else ""
        return f"in stage {row.name}{step}"
    following = next((row.name for row in told.stages if row.state == "to come"), None)
    return f"before stage {following}" if following else "after the last stage"


def watch(statuses: Iterable[Status]) -> Status:
    """Each status as it comes, on stderr: in place on a terminal, lines elsewhere; the last one."""
    return (_watch_live if sys.stderr.isatty() else _watch_lines)(iter(statuses))


def _watch_live(statuses: Iterator[Status]) -> Status:
    shown = latest = next(statuses)

    def drawn(height: int) -> list[str]:
        return [_state(shown), *stages(shown.rows, height=height)]

    with _live(drawn, transient=True):
        for latest in statuses:
            # At its end all stages are listed, which may be more than can be wiped away again.
            shown = latest if latest.state == "running" else shown
    return latest


def _watch_lines(statuses: Iterator[Status]) -> Status:
    stage, told_s = "", 0.0
    for latest in statuses:
        row, now_s = latest.current, time.monotonic()
        if row is not None and (row.name != stage or now_s - told_s >= SECONDS_BETWEEN_LINES):
            stage, told_s = row.name, now_s
            err(f"{row.name}  {_told(row)}")
    return latest


def run_folders(found: Sequence[RunFolder]) -> str:
    rows = [
        (
            str(one.path),
            one.state,
            ", ".join(f"{budget} {answer}" for budget, answer in one.verdicts),
            megabytes(one.size_mb),
            "" if one.age_s is None else age(one.age_s),
        )
        for one in found
    ]
    return table(("run", "state", "verdicts", "on disk", "age"), rows, numbers=False)


def rubbish(found: Sequence[Rubbish], *, removed: bool) -> str:
    lines = [f"{megabytes(one.size_mb):>12}  {one.path}" for one in found]
    total = megabytes(sum(one.size_mb for one in found))
    verb = "freed" if removed else "would be freed"
    return "\n".join([*lines, f"{total:>12}  {verb}"])


def choice(made: Choice) -> str:
    """Every bundle as a table: the one that was chosen, and the Pareto front."""
    from edgeprune.report.markdown import answer

    rows = []
    for one in made.candidates:
        report, after = one.report, one.report.after
        ratio = "" if report.score_ratio is None else f"{report.score_ratio:.1%}"
        marks = ["chosen"] * one.chosen + ["front"] * one.on_front
        rows.append(
            (
                f"{one.run} {report.budget.text}",
                answer(report),
                ms(after.p90_ms),
                ms(after.p50_ms),
                ratio,
                megabytes(after.size_mb),
                count(after.parameters),
                ", ".join(marks) or ("" if one.fulfils else "not fulfilled"),
            )
        )
    head = ("bundle", "verdict", "p90", "p50", "score kept", "size", "parameters", "")
    return table(head, rows)
