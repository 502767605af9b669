"""What a run would do and how long it would take, found out in half a minute."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgeprune.inputs import Inputs
from edgeprune.latency import Budget
from edgeprune.learn.answers import Sample
from edgeprune.learn.train import teach
from edgeprune.measure.looks import check_decidable
from edgeprune.measure.profile import GLANCE, RUN_PLANS, Profile, profile
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe
from edgeprune.report.folder import slug
from edgeprune.size import Size
from edgeprune.stages.materials import Materials, prepare
from edgeprune.stages.teaching import EARLIER, TRIAL, trial_depths
from edgeprune.stages.timing import AIM, Probes, rest_bytes, smallest_size


@dataclass(frozen=True)
class Reach:
    """A budget, with the smallest that can be reached and what the unpruned model takes.

    In ms, at its percentile on a target.
    """

    budget: str
    target: str
    ms: float
    smallest_ms: float
    dense_ms: float

    @property
    def feasible(self) -> bool:
        return self.ms >= self.smallest_ms

    @property
    def answer(self) -> str:
        if not self.feasible:
            return "unreachable"
        return "feasible" if self.ms < self.dense_ms else "met without pruning"


@dataclass(frozen=True)
class SizeReach:
    """The size budget, with the smallest that can be reached."""

    size: Size
    smallest: Size
    needed: int  # tokens
    total: int

    @property
    def feasible(self) -> bool:
        return self.smallest.bytes <= self.size.bytes

    @property
    def line(self) -> str:
        answer = "feasible" if self.feasible else "unreachable"
        return (
            f"size       {self.size}, the smallest that can be reached {self.smallest} with "
            f"{self.needed:,} of {self.total:,} tokens: {answer}"
        )


@dataclass(frozen=True)
class DryRun:
    """What a run would do: its stages in order with expected minutes, and what can be reached."""

    recipe: Recipe
    dense_ms: Mapping[str, float]  # by target; medians
    budgets: tuple[Reach, ...]
    stages: tuple[tuple[str, float], ...]  # name, minutes
    size: SizeReach | None = None

    @property
    def feasible(self) -> bool:
        fits = self.size is None or self.size.feasible
        return fits and all(budget.feasible for budget in self.budgets)

    def lines(self) -> Iterator[str]:
        recipe = self.recipe
        yield (
            f"target     {', '.join(self.dense_ms)}, {recipe.threads} thread(s), "
            f"batch {recipe.batch}, {recipe.sequence} tokens"
        )
        several = len(self.dense_ms) > 1
        for target, dense_ms in self.dense_ms.items():
            yield f"dense      {dense_ms:.2f} ms (median){f' on {target}' if several else ''}"
        for reach in self.budgets:
            yield (
                f"budget     {reach.budget}{f' on {reach.target}' if several else ''} is "
                f"{reach.ms:.2f} ms, the smallest that can be reached "
                f"{reach.smallest_ms:.2f} ms: {reach.answer}"
            )
        if self.size is not None:
            yield self.size.line
        for name, minutes in self.stages:
            yield f"stage      {name:<20} {minutes:5.1f} min"
        yield f"total      {sum(minutes for _, minutes in self.stages):.1f} min expected"


def rehearse(inputs: Inputs, progress: Progress) -> DryRun:
    """Read everything, time the dense and the smallest model and a few steps; write nothing."""
    recipe = inputs.recipe
    materials = prepare(inputs)
    dense = materials.encoder.shape
    empty = dense.emptied()
    with tempfile.TemporaryDirectory() as folder:
        write = Probes(materials, Path(folder))
        files = {"dense": write(dense.layers, "fp32"), "smallest": write(empty.layers)}
        settings = materials.settings(GLANCE)
        taken = [profile(files, target, settings, progress) for target in materials.targets]
        size = _size_reach(materials, files["smallest"])
    for budget, one in itertools.product(recipe.budgets, taken):
        check_decidable(budget.resolve(one["dense"].latency), RUN_PLANS[recipe.run_plan])
    budgets = [_reach(budget, one) for budget in recipe.budgets for one in taken]
    stages = _expected(materials, budgets)
    dense_ms = {one["dense"].target: one["dense"].latency.p50_ms for one in taken}
    return DryRun(recipe, dense_ms, tuple(budgets), tuple(stages), size)


def _size_reach(materials: Materials, smallest: Path) -> SizeReach | None:
    size, vocabulary = materials.recipe.size_budget, materials.vocabulary
    if size is None or vocabulary is None:
        return None
    least = smallest_size(materials, rest_bytes(materials, smallest))
    return SizeReach(size, least, vocabulary.needed, len(vocabulary.order))


def _reach(budget: Budget, taken: Mapping[str, Profile]) -> Reach:
    dense = taken["dense"]
    smallest_ms = dense.expected_ms(taken["smallest"].undisturbed_ms, budget.percentile) / AIM
    dense_ms = dense.latency.percentile(budget.percentile)
    ms = cast(float, budget.resolve(dense.latency).ms)
    return Reach(str(budget), dense.target, ms, smallest_ms, dense_ms)


def _expected(materials: Materials, budgets: Sequence[Reach]) -> Iterator[tuple[str, float]]:
    """Minutes of each stage, from a few timed steps of training."""
    effort, transfer, recipe = materials.effort, materials.transfer, materials.recipe
    alone = _seconds_a_step(materials, None)
    coupled = _seconds_a_step(materials, materials.auxiliary_train) if materials.auxiliary else 0.0
    exports = effort.table_models + 5
    yield "table", (5.0 * exports + 20) / 60
    taught = alone + (coupled if transfer.taught else 0.0)
    steps = materials.schedule(effort.teacher_steps).steps
    depths = trial_depths(len(materials.encoder.shape.layers))
    tried = TRIAL * len(depths) * alone if recipe.frozen_layers == "auto" else 0.0
    earlier = EARLIER * alone if recipe.order == "interference" and transfer.taught else 0.0
    yield "teacher", steps * (taught + tried + earlier) / 60
    yield "curves", (effort.statistics_tokens / 400 * alone / 16 + 20) / 60
    yield "dense", (10 + 0.02 * len(materials.task.test)) / 60
    for budget in recipe.budgets:
        name = slug(str(budget))
        yield f"plan-{name}", (effort.draws * effort.judged_rows / 16 * alone / 4 + 40) / 60
        if recipe.size is not None:
            yield f"vocabulary-{name}", 0.1
        share = min(one.ms / one.dense_ms for one in budgets if one.budget == str(budget))
        # On rows twice, as they are and noised; the teacher tells no gradient, a third of a step.
        recovered = alone * (2 * share + 1 / 3)
        arms = [recovered] if effort.judge_students or not transfer.recovered else []
        if transfer.recovered:
            arms.append(recovered + (coupled - alone) * (share + 1 / 3))
        yield f"student-{name}", materials.recovery(share).steps * sum(arms) / 60
        yield f"export-{name}", (10 + 0.01 * len(materials.task.test)) / 60
    yield "latency", (1 + len(recipe.budgets)) * (0.2 if recipe.run_plan == "quick" else 0.6)


def _seconds_a_step(materials: Materials, auxiliary: Sample | None) -> float:
    outputs = materials.outputs if auxiliary else {"target": materials.task.outputs}
    schedule, frozen = materials.schedule(6), materials.recipe.frozen_layers
    started = time.monotonic()
    teach(
        materials.encoder,
        materials.train,
        auxiliary,
        outputs,
        "joint" if auxiliary else "none",
        schedule,
        lambda _: (0.0, 0.0),
        SILENT,
        frozen_layers=0 if frozen == "auto" else frozen,
    )
    return (time.monotonic() - started) / schedule.steps
