"""Runs as one HTML file that needs no network: what was asked, what came out, and why.

The page is made from the reports and from what lies beside them in the run folder. What is not
there is left out, and the page says so. The template engine escapes every text; pictures are inline
SVG; there is no script.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError, ResourceError, TargetError
from edgeprune.publish import publish
from edgeprune.report.figures import Figures, comparison_figures, run_figures, write_figures
from edgeprune.report.folder import read_reports
from edgeprune.report.report import Report

PAGE = "report.html"  # in the run folder, unless another file is named
MACHINE = ("target", "device", "machine", "cpu", "cores", "governor", "runtime")


@dataclass(frozen=True)
class Told:
    """A run as it was read: its label in a comparison, where it lies, and a report a budget."""

    label: str
    path: Path
    reports: Sequence[Report]


def read_runs(runs: Sequence[Path]) -> list[Told]:
    """Runs by their letters. Raises InputError."""
    return [Told(_letter(at), path, read_reports(path)) for at, path in enumerate(runs)]


def figures_of(runs: Sequence[Told]) -> Figures:
    """Those of one run, or those that compare several."""
    if len(runs) == 1:
        return run_figures(runs[0].reports, runs[0].path)
    return comparison_figures(_labelled(runs))


def write_run_figures(runs: Sequence[Path], folder: Path) -> list[Path]:
    """The page's figures as CSV and JSON. Raises InputError, ResourceError."""
    return write_figures(figures_of(read_runs(runs)).made, folder)


def write_page(runs: Sequence[Path], file: Path | None = None) -> Path:
    """One run as a page, or several compared; into RUN/report.html unless a file is named.

    Raises InputError for what is no run and for several runs without a file, TargetError where the
    extra `html` is not installed, ResourceError where the file cannot be written.
    """
    if file is None and len(runs) > 1:
        remedy = "name it: edgeprune report RUN1 RUN2 --html comparison.html"
        raise InputError("--html", why=f"a page of {len(runs)} runs lies in none", remedy=remedy)
    if file is None:
        file = (runs[0].parent if runs[0].is_file() else runs[0]) / PAGE
    html = to_html(read_runs(runs))
    try:
        publish(file, html)
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(f"page {file}", why=why, remedy="name another file") from None
    return file


def to_html(runs: Sequence[Told]) -> str:
    """The page's text. Raises TargetError where the extra `html` is not installed."""
    try:
        from edgeprune.report.drawing import draw
        from edgeprune.report.typesetting import typeset
    except ModuleNotFoundError as error:
        if str(error.name).startswith("edgeprune"):
            raise
        why, remedy = f"needs {error.name}, not installed", "pip install 'edgeprune[html]'"
        raise TargetError("the HTML page", why=why, remedy=remedy) from None
    figures = figures_of(runs)
    engine = typeset(draw)
    if len(runs) == 1:
        reports = runs[0].reports
        return engine.get_template("run.html").render(
            reports=reports,
            first=reports[0],
            figures=figures,
            environment={key: told for key, told in _flat(reports[0].environment).items() if told},
            command=_lines(reports[0].command),
            seconds=_merged([report.seconds for report in reports]),
            cached={stage for report in reports for stage in report.cached},
            stage_keys=_merged([report.stages for report in reports]),
        )
    return engine.get_template("comparison.html").render(
        runs=runs,
        commands={run.label: _lines(run.reports[0].command) for run in runs},
        labelled=_labelled(runs),
        figures=figures,
        recipes=_differences({run.label: run.reports[0].recipe for run in runs}),
        environments=_differences({run.label: _flat(run.reports[0].environment) for run in runs}),
        comparable=_comparable([run.reports[0] for run in runs]),
    )


def _merged(by_budget: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all budgets, each stage once: some are shared."""
    return {name: value for of_one in by_budget for name, value in of_one.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested facts as lines: {"runtime.version": "1.32.0"}."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            found[f"{prefix}{name}"] = ", ".join(str(one) for one in value)
        else:
            found[f"{prefix}{name}"] = "" if value is None else str(value)
    return found


def _lines(command: str) -> str:
    """The same command, an option a line."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    starts = [0, *(at for at, word in enumerate(words) if word.startswith("--")), len(words)]
    return " \\\n    ".join(shlex.join(words[start:end]) for start, end in pairwise(starts))


def _letter(at: int) -> str:
    """A, B, …, Z, A1, B1, …"""
    return chr(ord("A") + at % 26) + (str(at // 26) if at >= 26 else "")


def _labelled(runs: Sequence[Told]) -> dict[str, Report]:
    """Every budget of every run: "A" where a run has one, else "A 50%"."""
    return {
        f"{run.label} {report.budget.text}" if len(run.reports) > 1 else run.label: report
        for run in runs
        for report in run.reports
    }


def _differences(by_label: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The keys whose values are not the same in all runs, with the value of each run."""
    flats = [_flat(values) for values in by_label.values()]
    names = dict.fromkeys(name for values in flats for name in values)
    rows = {name: [values.get(name, "") for values in flats] for name in names}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def _comparable(reports: Sequence[Report]) -> bool:
    """Whether milliseconds of these runs are of the same machine and runtime."""
    return len({json.dumps([r.environment.get(name) for name in MACHINE]) for r in reports}) == 1
