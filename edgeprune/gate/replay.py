"""A verdict again, from the samples that it was given on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from edgeprune.errors import BudgetError, InputError, RefusedError
from edgeprune.latency import Budget
from edgeprune.measure.samples import Question, Sampled, read_samples
from edgeprune.measure.verdict import Verdict


def replay(path: Path, budget: str | None = None, confidence: float | None = None) -> list[Verdict]:
    """The verdict on each measurement of a file, asked as it was then unless told otherwise.

    `confidence` is in percent. Raises InputError for a file that cannot be read, BudgetError where
    none was asked, RefusedError where the file holds another verdict than its samples give.
    """
    return [_again(path, one, budget, confidence) for one in read_samples(path)]


def _again(path: Path, one: Sampled, budget: str | None, confidence: float | None) -> Verdict:
    question = _question(one, budget)
    if confidence is not None:
        question = replace(question, confidence=confidence / 100)
    try:
        verdict = question.answer(one.profile)
        said = json.loads(json.dumps(verdict.to_dict()))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        why = f"its samples answer no question: {error!r}"[:300]
        remedy = "give the file as `check --samples` or `profile --samples` wrote it"
        raise InputError(f"samples {path}", why=why, remedy=remedy) from error
    if question == one.question and one.verdict and said != one.verdict:
        why = f"holds {one.verdict.get('line')!r}, its samples give {verdict.line()!r}"
        raise RefusedError(f"samples {path}", why=why, remedy="trust neither; measure again")
    return verdict


def _question(one: Sampled, budget: str | None) -> Question:
    if budget is not None:
        limit = Budget.parse(budget)
        if limit.ms is None:
            why = "a share of a model that is not in the file"
            raise BudgetError(f"budget {budget!r}", why=why, remedy='give milliseconds: "12ms"')
        asked = one.question or Question(limit.ms)
        return replace(asked, budget_ms=limit.ms, percentile=limit.percentile)
    if one.question is None:
        why = "was not asked when these samples were taken"
        raise BudgetError("budget", why=why, remedy='give one: --budget "12ms"')
    return one.question
