"""Where the reports of a run lie.

RUN/budgets/<budget>/report.json, report.md, bundle/    each budget's own: `50pct`, `12ms-p95`
RUN/report.json                                         the first budget's
RUN/report.md                                           all budgets, compared
RUN/bundle -> budgets/<first budget>/bundle             a relative link
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from edgeprune.errors import InputError, ResourceError
from edgeprune.report.markdown import to_markdown
from edgeprune.report.report import Report

BUDGETS = "budgets"


def slug(budget: str) -> str:
    """A budget's folder name: "50%" is `50pct`, "12ms@p95" is `12ms-p95`."""
    return re.sub(r"[^a-z0-9.]+", "-", budget.lower().replace("%", "pct")).strip("-")


def budget_folder(run: Path, budget: str) -> Path:
    return run / BUDGETS / slug(budget)


def write_reports(run: Path, reports: Sequence[Report]) -> None:
    """Publish the reports of a run, whose bundles already lie in their budgets' folders.

    Each file is whole or absent at any moment, and the run's own report.json comes last, so that
    its existence means that all others are there. Raises ResourceError.
    """
    try:
        for report in reports:
            folder = budget_folder(run, report.budget.text)
            publish(folder / "report.md", to_markdown([report]))
            publish(folder / "report.json", report.to_json())
        first = budget_folder(run, reports[0].budget.text)
        _link(run / "bundle", first / "bundle")
        publish(run / "report.md", to_markdown(reports))
        publish(run / "report.json", reports[0].to_json())
    except OSError as error:
        what = f"report in {run}"
        why = error.strerror or "cannot be written"
        raise ResourceError(what, why=why, remedy="make room or choose another --out") from None


def read_reports(run: Path) -> list[Report]:
    """The reports of a run folder in the order of its recipe's budgets. Raises InputError."""
    if run.is_file():
        return [Report.read(run)]
    if not (run / "report.json").is_file():
        raise InputError(
            f"run {run}",
            why="holds no report.json" if run.is_dir() else "no such folder",
            remedy="give the --out folder of a finished `edgeprune compress`",
        )
    first = Report.read(run / "report.json")
    folders = [budget_folder(run, str(text)) for text in first.recipe.get("budget", [])[1:]]
    paths = [folder / "report.json" for folder in folders]
    others = [Report.read(path) for path in paths if path.is_file()]
    # An earlier recipe may have left the report of a budget that this one did not finish.
    return [first, *(other for other in others if other.recipe == first.recipe)]


def publish(path: Path, text: str) -> None:
    """Write a file that is whole or absent at any moment. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _link(link: Path, goal: Path) -> None:
    """Point `link` at `goal` by a relative path; a bundle that is a real folder stays."""
    if link.is_dir() and not link.is_symlink():
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(goal, link.parent), target_is_directory=True)
    temporary.replace(link)


def _sync(folder: Path) -> None:
    # A rename is only lasting once the folder that holds the name is on disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
