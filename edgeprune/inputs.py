"""What a recipe names, read and checked before torch is even imported."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeprune.effort import EFFORTS, Effort
from edgeprune.errors import DataError, RecipeError, RefusedError
from edgeprune.measure.looks import check_decidable
from edgeprune.measure.profile import RUN_PLANS
from edgeprune.measure.target import Target
from edgeprune.model_folder import find_model
from edgeprune.prune.votes import Vote
from edgeprune.recipe import AUTO, Recipe
from edgeprune.report.folder import read_reports
from edgeprune.run import check_run_folder
from edgeprune.shape import LayerShape
from edgeprune.task import Task, load_auxiliary, load_task, load_text

MOST_IN_ORDER = 7  # auxiliary tasks: 5,040 orders

Statistics = Literal["target", "pooled", "auxiliary"]  # by whose text structures are priced
STATISTICS: Mapping[str, Statistics] = {"stats": "pooled", "both": "pooled", "masks": "auxiliary"}


@dataclass(frozen=True)
class Transfer:
    """Where the auxiliary task takes part, of the three places where it can."""

    how: str
    taught: bool
    statistics: Statistics
    recovered: bool

    @classmethod
    def of(cls, recipe: Recipe) -> Transfer:
        if not recipe.auxiliary or "none" in (recipe.transfer_how, recipe.transfer_what):
            return cls("none", False, "target", False)
        what, when = recipe.transfer_what, recipe.transfer_when
        statistics = STATISTICS.get(what, "target") if when in ("prune", "all") else "target"
        return cls(
            recipe.transfer_how,
            taught=what in ("weights", "both") and when in ("teacher", "all"),
            statistics=statistics,
            recovered=when in ("recover", "all"),
        )

    @property
    def anywhere(self) -> bool:
        return self.taught or self.statistics != "target" or self.recovered


@dataclass(frozen=True)
class Inputs:
    """The recipe's targets, tasks and model, usable as far as can be told without torch."""

    recipe: Recipe
    effort: Effort
    transfer: Transfer
    targets: tuple[Target, ...]
    model: str  # its folder
    task: Task
    candidates: tuple[Task, ...]
    """Auxiliary tasks, of which the stages work with the first."""
    votes: tuple[Vote, ...]
    vocabulary: Task | None = None
    """Text of which every token is kept under a size budget."""

    @property
    def auxiliary(self) -> Task | None:
        return self.candidates[0] if self.candidates else None


def read_inputs(recipe: Recipe) -> Inputs:
    """Raises InputError, RefusedError, TargetError."""
    check_run_folder(recipe.out)
    targets = _targets(recipe)
    recipe = _as_taken(recipe, targets)
    for budget in recipe.budgets:
        check_decidable(budget, RUN_PLANS[recipe.run_plan])
    model, votes = find_model(recipe.model), tuple(_votes(recipe))
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
            remedy="`weights` act in the teacher, `stats` and `masks` in pruning: choose a stage "
            "that has them",
        )
    coupled = transfer.taught or "none" in (recipe.transfer_how, recipe.transfer_what)
    if recipe.order != "random" and not coupled:
        raise RecipeError(
            f"--order {recipe.order}",
            why="is that of the teacher's coupled training, and there is none",
            remedy="give --auxiliary, and let its weights act in the teacher",
        )
    candidates = tuple(_candidates(recipe, task)) if transfer.anywhere else ()
    if recipe.order == "interference" and candidates and not 2 <= len(candidates) <= MOST_IN_ORDER:
        raise RecipeError(
            f"--order interference with {len(candidates)} auxiliary tasks",
            why="puts several in an order",
            remedy=f"give --auxiliary for each of 2 to {MOST_IN_ORDER}",
        )
    text = next((one for one in candidates if one.kind == "text"), None)
    if text is not None and recipe.ranks_auxiliary:
        raise RecipeError(
            f"--auxiliary {text.name}",
            why="is plain text, which cannot be compared with others: it has no labels",
            remedy="give it alone, or tasks only",
        )
    effort, kept = EFFORTS[recipe.effort], _vocabulary_text(recipe)
    return Inputs(recipe, effort, transfer, targets, model, task, candidates, votes, kept)


def _vocabulary_text(recipe: Recipe) -> Task | None:
    if recipe.vocabulary_text is None:
        return None
    if recipe.size is None:
        raise RecipeError(
            f"--vocabulary-text {recipe.vocabulary_text}",
            why="says what to keep of the vocabulary, and without a size budget all of it stays",
            remedy="give --size too, as in --size 8MB",
        )
    return load_text(recipe.vocabulary_text)


def _votes(recipe: Recipe) -> Iterator[Vote]:
    """Each plan of the runs that are named, one for each of their budgets."""
    for source in recipe.votes:
        if Path(source).resolve().is_relative_to(recipe.out.resolve()):
            raise RecipeError(
                f"--votes {source}",
                why="is in this run's own folder",
                remedy="give runs on other tasks, or another --out",
            )
        for report in read_reports(Path(source)):
            rows = report.plan.layers
            yield Vote(
                source,
                dense=tuple(LayerShape(row.heads_before, row.ffn_before) for row in rows),
                kept=tuple(LayerShape(row.heads, row.ffn) for row in rows),
            )


def _candidates(recipe: Recipe, task: Task) -> Iterator[Task]:
    """The auxiliary tasks that are named, and those of folders of them that can serve."""

    def load(source: str) -> Task:
        return load_auxiliary(
            source,
            size=recipe.auxiliary_size,
            seed=recipe.seed,
            target=task,
            allow_leakage=recipe.allow_leakage,
        )

    for source in recipe.auxiliary:
        if source.startswith(AUTO):
            yield from _inside(Path(source.removeprefix(AUTO)), Path(recipe.task), load)
        else:
            yield load(source)


def _inside(folder: Path, task: Path, load: Callable[[str], Task]) -> Iterator[Task]:
    """The folders in a folder that hold a task, but the target's own."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        why = error.strerror or "cannot be read"
        raise DataError(f"auxiliary {AUTO}{folder}", why=why) from None
    found = False
    for path in paths:
        if path.resolve() == task.resolve():
            continue
        with contextlib.suppress(DataError, RefusedError):  # it holds something else
            yield load(str(path))
            found = True
    if not found:
        raise DataError(
            f"auxiliary {AUTO}{folder}",
            why="none of its folders holds rows that can be learned from",
            remedy="give the folder that the data sets lie in",
        )


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
