"""The doors to a compression: its inputs are checked first, torch is imported after that."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import TargetError
from edgeprune.inputs import Inputs, read_inputs
from edgeprune.model_folder import folder_digest
from edgeprune.preflight import check_room
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe
from edgeprune.report.report import Report
from edgeprune.stages import stage_names
from edgeprune.status import facts_of, read_status

if TYPE_CHECKING:
    from edgeprune.rehearsal import DryRun


def compress(recipe: Recipe, *, progress: Progress = SILENT, restart: bool = False) -> Report:
    """As `compress_all`; the report of the first budget."""
    return compress_all(recipe, progress=progress, restart=restart)[0]


def compress_all(
    recipe: Recipe, *, progress: Progress = SILENT, restart: bool = False
) -> list[Report]:
    """Compress the recipe's encoder to each of its budgets; a report each, in their order.

    Stages that an earlier call completed are taken from the run folder, unless `restart`. Raises
    InputError, RefusedError, Unreachable, ParityError, Diverged, TargetError, ResourceError.
    """
    _require_torch()
    return _run(read_inputs(recipe), progress, restart=restart)


def resume(folder: Path, *, progress: Progress = SILENT, restart: bool = False) -> list[Report]:
    """Go on with the run of a folder, by its own recipe; a report for each of its budgets.

    Raises DataError where data or model changed since the run began, unless `restart`, and what
    `compress_all` raises.
    """
    status = read_status(folder)
    _require_torch()
    inputs = read_inputs(status.recipe)
    if not restart:
        status.refuse_changed(facts_of(inputs), folder_digest(inputs.model))
    return _run(inputs, progress, restart=restart)


def _require_torch() -> None:
    """Not imported yet, but said at once: nobody should mend their data for it."""
    if find_spec("torch") is None:
        remedy = "pip install 'edgeprune[train]'"
        raise TargetError("compressing", why="needs torch, not installed", remedy=remedy)


def _run(inputs: Inputs, progress: Progress, *, restart: bool) -> list[Report]:
    check_room(inputs)
    progress.outline(stage_names(inputs.recipe))
    from edgeprune.pipeline import run_pipeline

    return run_pipeline(inputs, progress, restart=restart)


def dry_run(recipe: Recipe, *, progress: Progress = SILENT) -> DryRun:
    """What `compress_all` would do, whether it can, and how long it would take; nothing is written.

    Raises what `compress_all` raises for its input.
    """
    _require_torch()
    inputs = read_inputs(recipe)
    from edgeprune.rehearsal import rehearse

    return rehearse(inputs, progress)
