"""Which of several bundles to take: a rule such as "min ms with score >= 0.98", and the front.

    min|max QUANTITY [with QUANTITY OP NUMBER [and …]]

QUANTITY is ms (the 90th percentile), p50 (ms), score (as a share of the unpruned model's), size
(MB) or parameters. OP is >=, <=, > or <. A number may have a unit: ms, %, MB, k, M.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.report.folder import read_reports
from edgeprune.report.report import Report

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-pareto/1"
EXAMPLE = 'write it as "min ms with score >= 0.98 and size < 30"'
QUANTITIES: Mapping[str, Callable[[Report], float | None]] = {
    "ms": lambda report: report.after.p90_ms,
    "p50": lambda report: report.after.p50_ms,
    "score": lambda report: report.score_ratio,
    "size": lambda report: report.after.size_mb,
    "parameters": lambda report: float(report.after.parameters),
}
UNITS: Mapping[str, Mapping[str, float]] = {
    "ms": {"ms": 1},
    "p50": {"ms": 1},
    "score": {"%": 0.01},
    "size": {"mb": 1},
    "parameters": {"k": 1e3, "m": 1e6},
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "≥": operator.ge,
    "<=": operator.le,
    "≤": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(r"\s*(min|max)\s+(\w+)(?:\s+with\s+(.+?))?\s*")
_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|≥|≤|>|<)\s*([0-9.]+(?:e[-+]?\d+)?)\s*([a-z%]*)\s*")


@dataclass(frozen=True)
class Condition:
    quantity: str
    comparison: str
    number: float

    def holds(self, report: Report) -> bool:
        value = QUANTITIES[self.quantity](report)
        return value is not None and COMPARISONS[self.comparison](value, self.number)


@dataclass(frozen=True)
class Rule:
    """What is wanted: the least or the most of a quantity, where all conditions hold."""

    text: str
    goal: str
    quantity: str
    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Raises InputError, with the remedy."""
        match = _RULE.fullmatch(text.lower())
        if match is None:
            why = "not `min` or `max`, a quantity, and what it has to fulfil"
            raise InputError(f"rule {text!r}", why=why, remedy=EXAMPLE)
        goal, quantity, rest = match.groups()
        parts = re.split(r"\s+and\s+", rest) if rest else []
        conditions = tuple(_condition(part, text) for part in parts)
        return cls(text, goal, _known(quantity, text), conditions)

    def holds(self, report: Report) -> bool:
        known = QUANTITIES[self.quantity](report) is not None
        return known and all(condition.holds(report) for condition in self.conditions)

    def rank(self, report: Report) -> tuple[float, float, float]:
        """Of one that holds; smaller is better, then the better score, then the faster one."""
        value = QUANTITIES[self.quantity](report) or 0.0
        signed = value if self.goal == "min" else -value
        return signed, -(report.score_ratio or 0.0), report.after.p90_ms


def _condition(part: str, rule: str) -> Condition:
    match = _CONDITION.fullmatch(part)
    if match is None:
        why = f"{part.strip()!r} is not a quantity, one of >= <= > <, and a number"
        raise InputError(f"rule {rule!r}", why=why, remedy=EXAMPLE)
    quantity, comparison, number, unit = match.groups()
    factors = {"": 1.0, **UNITS[_known(quantity, rule)]}
    if unit not in factors:
        told = ", ".join(name for name in factors if name)
        why = f"{quantity} is not told in {unit!r}"
        raise InputError(f"rule {rule!r}", why=why, remedy=f"give a number alone or with {told}")
    try:
        return Condition(quantity, comparison, float(number) * factors[unit])
    except ValueError:
        raise InputError(f"rule {rule!r}", why=f"{number!r} is not a number") from None


def _known(quantity: str, rule: str) -> str:
    if quantity in QUANTITIES:
        return quantity
    close = difflib.get_close_matches(quantity, QUANTITIES, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(QUANTITIES)}"
    raise InputError(f"rule {rule!r}", why=f"unknown quantity {quantity!r}", remedy=remedy)


@dataclass(frozen=True)
class Candidate:
    """A bundle, and how it stands among the others."""

    run: Path
    report: Report
    on_front: bool  # none other is both as fast and as good, and better in one
    fulfils: bool  # the rule's conditions
    chosen: bool

    @property
    def bundle(self) -> Path:
        return self.run / self.report.bundle

    def to_dict(self) -> dict[str, Any]:
        figures = {name: value(self.report) for name, value in QUANTITIES.items()}
        return {
            "run": str(self.run),
            "budget": self.report.budget.text,
            "verdict": self.report.verdict.outcome,
            "bundle": str(self.bundle),
            **figures,
            "on_front": self.on_front,
            "fulfils": self.fulfils,
            "chosen": self.chosen,
        }


@dataclass(frozen=True)
class Choice:
    """Every bundle of the runs, and the one that the rule chooses, if any fulfils it."""

    rule: Rule
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        return next((one for one in self.candidates if one.chosen), None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": FORMAT,
            "rule": self.rule.text,
            "bundle": str(self.chosen.bundle) if self.chosen else None,
            "candidates": [one.to_dict() for one in self.candidates],
        }


def choose(runs: Sequence[Path], rule: Rule) -> Choice:
    """Choose among all budgets of some runs, measured alike.

    Raises InputError for a run without reports or without the chosen bundle, and for runs whose
    figures do not compare.
    """
    found = [(run, report) for run in runs for report in read_reports(run)]
    _refuse_unlike(found)
    reports = [report for _, report in found]
    fulfilling = [report for report in reports if rule.holds(report)]
    best = min(fulfilling, key=rule.rank, default=None)
    choice = Choice(
        rule,
        tuple(
            Candidate(
                run,
                report,
                on_front=not any(_dominates(other, report) for other in reports),
                fulfils=rule.holds(report),
                chosen=report is best,
            )
            for run, report in found
        ),
    )
    if choice.chosen and not choice.chosen.bundle.is_dir():
        remedy = "give the run folder that holds it; its command, run again, writes it anew"
        raise InputError(f"bundle {choice.chosen.bundle}", why="no such folder", remedy=remedy)
    return choice


def _dominates(one: Report, other: Report) -> bool:
    ours, theirs = ((r.after.p90_ms, -(r.score_ratio or 0.0)) for r in (one, other))
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def _refuse_unlike(found: Sequence[tuple[Path, Report]]) -> None:
    """Milliseconds compare where they were taken alike, scores where the task is the same."""
    first, facts = found[0][0], _compared(found[0][1])
    for run, report in found[1:]:
        for name, value in _compared(report).items():
            if value != facts[name]:
                raise InputError(
                    f"runs {first} and {run}",
                    why=f"do not compare: {name} {facts[name]} and {value}",
                    remedy="give runs of one task, measured alike on one target",
                )


def _compared(report: Report) -> dict[str, object]:
    measured = {name: report.recipe.get(name) for name in ("threads", "batch", "sequence")}
    machine = {name: report.environment.get(name) for name in ("target", "machine", "cpu")}
    task = {
        "task": report.task.name,
        "metric": report.task.metric,
        "test rows": report.task.rows.test,
    }
    return machine | measured | task
