"""Where the reports of a run lie.

RUN/budgets/<budget>/report.json, report.md, bundle/    each budget's own: `50pct`, `12ms-p95`
RUN/report.json                                         the first budget's
RUN/report.md                                           all budgets, compared
RUN/bundle -> budgets/<first budget>/bundle             a relative link
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgeprune.errors import InputError, ResourceError
from edgeprune.progress import Progress
from edgeprune.publish import publish, publish_link
from edgeprune.report.markdown import to_markdown
from edgeprune.report.report import Report
from edgeprune.room import no_room
from edgeprune.run import BUDGETS


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
        if not (run / "bundle").is_dir() or (run / "bundle").is_symlink():
            publish_link(first / "bundle", run / "bundle")
        publish(run / "report.md", to_markdown(reports))
        publish(run / "report.json", reports[0].to_json())
    except OSError as error:
        raise no_room(f"report in {run}", error, run) from None


def keep_reports(run: Path, reports: Sequence[Report], progress: Progress) -> list[Report]:
    """As `write_reports`. What was measured stands also where it cannot be written: it is told."""
    try:
        write_reports(run, reports)
    except ResourceError as error:
        progress.note(f"{error}; the verdict stands")
        return [one.model_copy(update={"notes": (*one.notes, str(error))}) for one in reports]
    return list(reports)


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
