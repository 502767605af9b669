"""The stages in which the recipe's method says what each structure of the teacher is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgeprune.encoder import Classifier, load, save
from edgeprune.latency import Budget
from edgeprune.learn.answers import accelerator, inputs_of
from edgeprune.learn.fit import Schedule
from edgeprune.learn.gates import Openness, learn_gates
from edgeprune.learn.memory import within_memory
from edgeprune.progress import Progress
from edgeprune.prune.curves import Curves, Price, error_curves, grid_of
from edgeprune.prune.learnt import by_gates
from edgeprune.prune.methods import METHODS, Method
from edgeprune.prune.moments import Moments, collect_moments, pool
from edgeprune.prune.structures import sub_layers
from edgeprune.report.folder import slug
from edgeprune.run import Run, Stage
from edgeprune.shape import SubLayer
from edgeprune.stages.materials import Materials, learnt_how
from edgeprune.stages.teaching import COUPLED, Teacher, snapshots_of
from edgeprune.stages.timing import Timing
from edgeprune.tokens import Tokens, endless

CURVES = "curves.safetensors"


@dataclass(frozen=True)
class Priced:
    """A model as large as the teacher, and what each width of its sub-layers costs."""

    model: Classifier
    curves: Curves
    method: Method
    stage: Stage


def price_structures(
    run: Run, materials: Materials, timing: Timing, teacher: Teacher
) -> dict[str, Priced]:
    """By budget; all budgets share one set of curves, unless the method learns gates for each."""
    budgets, method = materials.recipe.budgets, METHODS[materials.recipe.method]
    if method.price is None:
        return {str(b): _learnt(run, materials, timing, teacher, method, b) for b in budgets}
    once = _measured(run, materials, teacher, method, method.price)
    return {str(budget): once for budget in budgets}


def _measured(
    run: Run, materials: Materials, teacher: Teacher, method: Method, price: Price
) -> Priced:
    """The teacher's error curves, on the text that the recipe's transfer says."""
    statistics = materials.transfer.statistics

    def build(folder: Path) -> None:
        price_model(materials, price, teacher.model, run.progress).save(folder / CURVES)

    auxiliary = materials.auxiliary
    made_from = {
        "teacher": teacher.stage.key,
        "price": price.__name__,
        "statistics": statistics,
        "auxiliary": auxiliary.digest if auxiliary and statistics != "target" else None,
        "tokens": materials.effort.statistics_tokens,
        "seed": materials.recipe.seed,
        "learnt": learnt_how(),
    }
    stage = run.stage("curves", made_from, build)
    return Priced(teacher.model, Curves.read(stage.folder / CURVES), method, stage)


def price_model(
    materials: Materials, price: Price, model: Classifier, progress: Progress
) -> Curves:
    """The error curves of a model, on the text that the recipe's transfer says."""
    statistics = materials.transfer.statistics

    def moments_on(split: str) -> dict[SubLayer, Moments]:
        return collect_moments(model, _text(materials, materials.tokens[split], model))

    model.to(accelerator().device)
    moments = moments_on("auxiliary" if statistics == "auxiliary" else "train")
    if statistics == "pooled":
        others = moments_on("auxiliary")
        moments = {key: pool(moments[key], others[key]) for key in moments}
    torch.manual_seed(materials.recipe.seed)
    return error_curves(model.to("cpu"), moments, price, progress.step)


def _text(
    materials: Materials, tokens: Tokens, model: Classifier
) -> Iterator[Mapping[str, Tensor]]:
    """Batches of rows, until enough tokens or all rows have been seen."""
    enough = min(materials.effort.statistics_tokens, int(tokens.lengths.sum()))
    seen = 0
    for rows in endless(tokens, 32, materials.recipe.seed):
        yield inputs_of(tokens, rows, model.encoder)
        seen += int(tokens.lengths[rows].sum())
        if seen >= enough:
            return


def _learnt(
    run: Run,
    materials: Materials,
    timing: Timing,
    teacher: Teacher,
    method: Method,
    budget: Budget,
) -> Priced:
    """The teacher trained on while gates shut what it can do without in so many milliseconds."""
    transfer, effort = materials.transfer, materials.effort
    auxiliary = materials.auxiliary_train if transfer.recovered else None
    schedule = materials.schedule(effort.recovery_steps, recovery=True)

    def build(folder: Path) -> None:
        def train(schedule: Schedule) -> tuple[Classifier, dict[SubLayer, Openness]]:
            return learn_gates(
                teacher.model,
                materials.train,
                auxiliary,
                transfer.how if auxiliary else "none",
                timing.table(budget),
                timing.aim_ms(budget),
                schedule,
                run.progress,
                snapshots_of(run, COUPLED, schedule),
            )

        (model, found), notes = within_memory(train, schedule, run.progress)
        for note in notes:
            run.progress.note(f"gates: {note}")
        options = {}
        for key, matrices in sub_layers(model).items():
            grid = grid_of(key[1], matrices.width)
            one = found[key]
            options[key] = by_gates(matrices, one.open, one.factors, one.whole, grid)
        Curves(options).save(folder / CURVES)
        save(model, folder / "model", labels=materials.task.labels)

    made_from = {
        "teacher": teacher.stage.key,
        "table": timing.stage.key,
        "budget": str(budget),
        "auxiliary": materials.auxiliary.digest if auxiliary and materials.auxiliary else None,
        "how": transfer.how,
        "schedule": asdict(schedule),
        "learnt": learnt_how(),
    }
    stage = run.stage(f"gates-{slug(str(budget))}", made_from, build)
    model, curves = load(stage.folder / "model"), Curves.read(stage.folder / CURVES)
    return Priced(model, curves, method, stage)
