"""The doors to a compression: its inputs are checked first, torch is imported after that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.inputs import read_inputs
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe
from edgeprune.report.report import Report

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
    inputs = read_inputs(recipe)
    from edgeprune.pipeline import run_pipeline

    return run_pipeline(inputs, progress, restart=restart)


def dry_run(recipe: Recipe, *, progress: Progress = SILENT) -> DryRun:
    """What `compress_all` would do, whether it can, and how long it would take; nothing is written.

    Raises what `compress_all` raises for its input.
    """
    inputs = read_inputs(recipe)
    from edgeprune.rehearsal import rehearse

    return rehearse(inputs, progress)
