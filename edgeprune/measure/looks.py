"""A measurement in looks: more launches only where the first ones did not decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgeprune.errors import BudgetError
from edgeprune.latency import Budget
from edgeprune.measure.launch import Feeds
from edgeprune.measure.profile import Profile, Settings, profile
from edgeprune.measure.samples import Question, Sampled
from edgeprune.measure.target import Target
from edgeprune.measure.verdict import MOST_LOOKS, least_size
from edgeprune.progress import SILENT, Progress


def check_decidable(budget: Budget, settings: Settings, confidence: float = 0.99) -> None:
    """That the last look has enough inferences of about the budget's ms to tell its percentile.

    Raises BudgetError.
    """
    if budget.ms is None:
        return  # not known yet
    needed = least_size(budget.percentile / 100, (1 - confidence) / MOST_LOOKS)
    first = max(settings.launches * settings.iterations, 1000 * settings.least_s / budget.ms)
    most = int(first * 2 ** (MOST_LOOKS - 1))
    if most < needed:
        raise BudgetError(
            f"budget {budget}",
            why=f"p{budget.percentile:g} takes {needed} inferences to tell, {most} are measured",
            remedy="give a lower percentile, or --runs mlperf",
        )


def look(
    models: Mapping[str, Path],
    target: Target,
    settings: Settings,
    budgets: Mapping[str, Budget],
    *,
    dense: str | None = None,
    confidence: float = 0.99,
    first: int = 1,
    last: int | None = None,
    looks: int = MOST_LOOKS,
    targets: int = 1,
    rows: Mapping[str, Feeds | None] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Sampled]:
    """Measure models, again and as often as before while a verdict is open, at most `looks` times.

    The data of the looks grow as n, 2n, 4n and are judged together; each look has its part of the
    error that `confidence` allows, so looking again costs certainty, not honesty. A budget that is
    a share is one of the `dense` model's latency in the same looks; a model that neither has a
    budget nor is needed for one is measured in the first of them only. `first` and `last` are the
    looks that this call takes, for a gate that is started again. What was converted must answer
    alike on its `rows`, as in `profile`. Raises ParityError, TargetError, OnnxError, ResourceError.
    """
    pending, still_open = dict(models), dict(budgets)
    taken: dict[str, Profile] = {}
    answered: dict[str, Sampled] = {}
    launches = settings.launches * 2 ** (first - 1)
    for number in range(first, (last or looks) + 1):
        so_many = replace(settings, launches=launches, seed=settings.seed + 1000 * number)
        for name, new in profile(pending, target, so_many, progress, rows=rows).items():
            taken[name] = taken[name].joined(new) if name in taken else new
        for name, budget in [*still_open.items()]:
            if dense is not None:
                budget = budget.resolve(taken[dense].latency)
            question = Question.of(budget, confidence, look=number, looks=looks, targets=targets)
            verdict = question.answer(taken[name])
            answered[name] = Sampled(taken[name], question, verdict.to_dict())
            if not verdict.is_open:
                del still_open[name]
        if not still_open:
            break
        pending = {name: models[name] for name in still_open}
        launches = len(taken[next(iter(pending))].latency.launches_ms)
        if dense is not None and any(budget.share is not None for budget in still_open.values()):
            pending[dense] = models[dense]
    return {name: answered.get(name, Sampled(taken[name])) for name in models}
