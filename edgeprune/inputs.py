"""What a recipe names, read and checked before torch is even imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.effort import EFFORTS, Effort
from edgeprune.errors import RecipeError
from edgeprune.measure.target import Target
from edgeprune.model_folder import find_model
from edgeprune.recipe import Recipe
from edgeprune.run import check_run_folder
from edgeprune.task import Task, load_auxiliary, load_task


@dataclass(frozen=True)
class Transfer:
    """Where the auxiliary task takes part, of the three places where it can."""

    how: str
    taught: bool
    pooled: bool
    recovered: bool

    @classmethod
    def of(cls, recipe: Recipe) -> Transfer:
        if recipe.auxiliary is None or "none" in (recipe.transfer_how, recipe.transfer_what):
            return cls("none", False, False, False)
        what, when = recipe.transfer_what, recipe.transfer_when
        return cls(
            recipe.transfer_how,
            taught=what in ("weights", "both") and when in ("teacher", "all"),
            pooled=what in ("stats", "both") and when in ("prune", "all"),
            recovered=when in ("recover", "all"),
        )

    @property
    def anywhere(self) -> bool:
        return self.taught or self.pooled or self.recovered


@dataclass(frozen=True)
class Inputs:
    """The recipe's targets, tasks and model, usable as far as can be told without torch."""

    recipe: Recipe
    effort: Effort
    transfer: Transfer
    targets: tuple[Target, ...]
    model: str  # a folder or a hub name
    task: Task
    auxiliary: Task | None


def read_inputs(recipe: Recipe) -> Inputs:
    """Raises InputError, RefusedError, TargetError."""
    check_run_folder(recipe.out)
    targets = _targets(recipe)
    recipe = _as_taken(recipe, targets)
    model = find_model(recipe.model)
    task = load_task(
        recipe.task,
        text=recipe.text,
        text_pair=recipe.text_pair,
        label=recipe.label,
        metric=recipe.metric,
        train_size=recipe.train_size,
        seed=recipe.seed,
        allow_leakage=recipe.allow_leakage,
    )
    transfer = Transfer.of(recipe)
    if transfer.how != "none" and not transfer.anywhere:
        raise RecipeError(
            f"--transfer-what {recipe.transfer_what} --transfer-when {recipe.transfer_when}",
            why="leave the auxiliary task without a part",
            remedy="`weights` act in the teacher, `stats` in pruning: choose a stage that has them",
        )
    auxiliary = None
    if recipe.auxiliary and transfer.anywhere:
        auxiliary = load_auxiliary(
            recipe.auxiliary,
            size=recipe.auxiliary_size,
            seed=recipe.seed,
            target=task,
            allow_leakage=recipe.allow_leakage,
        )
    return Inputs(recipe, EFFORTS[recipe.effort], transfer, targets, model, task, auxiliary)


def _targets(recipe: Recipe) -> tuple[Target, ...]:
    targets = {target.name: target for target in map(Target.parse, recipe.target)}
    for target in targets.values():
        target.require()
    return tuple(targets.values())


def _as_taken(recipe: Recipe, targets: Sequence[Target]) -> Recipe:
    """With the precision that is left where a target's runtime does not take both."""
    for target in targets:
        taken = target.runtime.precisions
        if recipe.precision == "auto" and "int8" not in taken:
            recipe = recipe.model_copy(update={"precision": "fp32"})
        if recipe.precision != "auto" and recipe.precision not in taken:
            raise RecipeError(
                f"--precision {recipe.precision}",
                why=f"{target.name} does not take ONNX files in {recipe.precision}",
                remedy=f"give --precision {taken[0]}, or another target",
            )
    return recipe
