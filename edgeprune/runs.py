"""Run folders from outside: which there are, and what in one of them is of no more use."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import InputError, ResourceError
from edgeprune.publish import discard
from edgeprune.report.folder import read_reports, slug
from edgeprune.report.markdown import answer
from edgeprune.run import ASIDE, BUDGETS, MARKS, SNAPSHOTS, STAGES, check_run_folder, locked
from edgeprune.status import Status, read_status, seconds_since


@dataclass(frozen=True)
class RunFolder:
    """One run folder: its state ("unknown" without a status), and the answers of its reports."""

    path: Path
    state: str
    verdicts: tuple[tuple[str, str], ...]  # budget, answer
    size_mb: float  # on disk
    age_s: float | None  # since its last word


def list_runs(below: Path) -> list[RunFolder]:
    """Every run folder in a folder or anywhere below it, by path. Raises InputError."""
    if not below.is_dir():
        why = "is a file" if below.exists() else "no such folder"
        raise InputError(f"folder {below}", why=why)
    return [_looked_at(folder) for folder in sorted(_run_folders(below))]


def _run_folders(below: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(below):
        if STAGES in names and MARKS & {*files}:
            names.clear()
            yield Path(folder)
        names[:] = [name for name in names if not name.startswith(".")]


def _looked_at(folder: Path) -> RunFolder:
    try:
        status = read_status(folder)
        state, age_s = str(status.state), seconds_since(status.updated)
    except InputError:
        state, age_s = "unknown", None
    try:
        reports = read_reports(folder)
    except InputError:
        reports = []
    verdicts = tuple((report.budget.text, answer(report)) for report in reports)
    return RunFolder(folder, state, verdicts, disk_mb(folder), age_s)


@dataclass(frozen=True)
class Rubbish:
    """Something in a run folder that its last call did not use."""

    path: Path
    size_mb: float


def clean(folder: Path, *, keep_bundles: bool = False, dry_run: bool = False) -> list[Rubbish]:
    """Remove what no report of the run's recipe rests on; what that was, and its size on disk.

    That is stages of other recipes, half-built and broken ones, and other recipes' budgets with
    their bundles; `keep_bundles` leaves the latter. Raises InputError unless the run is finished:
    of another one it is not known which stages it would still find.
    """
    if dry_run:
        return _rubbish(_finished(folder), keep_bundles=keep_bundles)
    _finished(folder)
    with locked(folder):
        found = _rubbish(_finished(folder), keep_bundles=keep_bundles)
        for one in found:
            _remove(one.path)
    return found


def _finished(folder: Path) -> Status:
    status = read_status(folder)
    check_run_folder(folder)
    if status.state != "finished":
        known = "is running" if status.state == "running" else "did not end"
        raise InputError(
            f"run {folder}",
            why=f"its last call {known}, so that what it will use is not known",
            remedy=f"`edgeprune resume {shlex.quote(str(folder))}` ends it",
        )
    return status


def _rubbish(status: Status, *, keep_bundles: bool) -> list[Rubbish]:
    stages, budgets = status.folder / STAGES, status.folder / BUDGETS
    asked = {slug(str(budget)) for budget in status.recipe.budgets}
    others = [path for path in _inside(budgets) if path.name not in asked]
    if keep_bundles:  # but not the links to stages that go
        others = [link for path in others if (link := path / "model").is_symlink()]
    others += [path for path in _inside(stages) if path.name not in status.used]
    others += [*_inside(status.folder / SNAPSHOTS), *_inside(status.folder / ASIDE)]
    return [Rubbish(path, disk_mb(path)) for path in others]


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            discard(path)
        else:
            path.unlink()
    except OSError as error:
        raise ResourceError(str(path), why=error.strerror or "cannot be removed") from None


def disk_mb(path: Path) -> float:
    """What a file or folder takes on the disk, in 10⁶ bytes; links are not followed."""
    found = [path]
    for folder, names, files in os.walk(path) if not path.is_symlink() else ():
        found += [Path(folder) / name for name in (*names, *files)]
    return sum(_blocks(one) for one in found) * 512 / 1e6


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks
    except FileNotFoundError:  # a running process tidies up
        return 0
