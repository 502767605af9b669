"""What benchmarks of cells have in common: tasks on real text, and differences from the default."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.recipe import Recipe

RESULTS = Path(__file__).parent / "results"
TASKS = {  # task: auxiliary task
    "mrpc": "qqp",
    "rte": "mnli",
    "trec6": "clinc150",
    "scicite": "snli",  # none fits: it shows the guard
    "banking77": "clinc150",
    "stsb": "snli",
    "sst2": "mnli",
}
ROWS = 500
SEEDS = 3
RESAMPLES = 10_000
LEAST_PAIRS = 6  # of fewer, one sign throughout comes by chance in more than one case of twenty

Rows = list[dict[str, Any]]


def options(what: str | None, budgets: Sequence[str]) -> argparse.ArgumentParser:
    """What every such benchmark takes; some budgets by default."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--budget", nargs="*", default=list(budgets))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--effort", default="quick")
    return parser


def left_out(rows: Rows, seeds: int, compared: Sequence[str], every: Sequence[str]) -> str:
    """What there is of the whole grid, where it is not all."""
    tasks = sorted({row["task"] for row in rows})
    if {*tasks} == {*TASKS} and {*compared} == {*every} and seeds >= SEEDS:
        return ""
    return f"tasks {', '.join(tasks)}; {', '.join(compared)}; {seeds} seeds"


def recipe_of(data: Path, task: str, effort: str, budgets: Sequence[str]) -> Recipe:
    return Recipe.model_validate(
        {
            "model": "demo",
            "task": str(data / task),
            "auxiliary": [str(data / TASKS[task])],
            "train_size": ROWS,
            "effort": effort,
            "budget": list(budgets),
            "floor": 0.5,
            "runs": "rapid",  # the milliseconds are compared, not judged
        }
    )


def rows_of(out: Path, task: str) -> Rows:
    """Those of a finished ablation."""
    stored = json.loads((out / "ablation.json").read_text(encoding="utf-8"))["rows"]
    return [{"task": task, **row} for row in stored]


def write_result(
    name: str, rows: Rows, default: str, budgets: Sequence[str], effort: str, subset: str
) -> None:
    told = {
        "what": "test scores at equal measured milliseconds, in points; differences from the "
        "default over the same tasks and seeds",
        "command": f"python benchmarks/{name}.py --effort {effort}",
        "subset": subset or "none: everything",
        "rows_of_training": ROWS,
        "budgets": {budget: summary(rows, default, budget) for budget in budgets},
        "rows": rows,
    }
    path = RESULTS / f"{name}-{effort}.json"
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def summary(rows: Sequence[Mapping[str, Any]], default: str, budget: str) -> dict[str, Any]:
    """Each cell's means, and what it is off the default by."""
    base = {(r["task"], r["seed"]): r for r in _scored(rows, default, budget)}
    found = {}
    for cell in dict.fromkeys(row["cell"] for row in rows):
        mine = _scored(rows, cell, budget)
        pairs = [(r, base[r["task"], r["seed"]]) for r in mine if (r["task"], r["seed"]) in base]
        if not pairs:
            continue
        change = np.array([100 * (row["score"] - other["score"]) for row, other in pairs])
        found[cell] = {
            "pairs": len(pairs),
            "points": round(100 * float(np.mean([r["score"] for r, _ in pairs])), 2),
            "of_dense": round(float(np.mean([r["score"] / r["dense_score"] for r, _ in pairs])), 4),
            "of_budget": round(float(np.mean([r["p90_ms"] / r["budget_ms"] for r, _ in pairs])), 3),
            "met": sum(r["outcome"] == "met" for r, _ in pairs),
            "change": round(float(change.mean()), 2),
            "interval": bootstrap(change),
        }
    return found


def _scored(rows: Sequence[Mapping[str, Any]], cell: str, budget: str) -> list[Mapping[str, Any]]:
    return [r for r in rows if r["cell"] == cell and r["budget"] == budget and "score" in r]


def bootstrap(change: Any) -> list[float] | None:
    """The middle 95 % of means of as many differences, drawn again and again; None of too few."""
    if len(change) < LEAST_PAIRS:
        return None
    draws = np.random.default_rng(0).integers(0, len(change), (RESAMPLES, len(change)))
    low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
    return [round(float(low), 2), round(float(high), 2)]


def table(rows: Sequence[Mapping[str, Any]], default: str, budgets: Sequence[str]) -> str:
    lines = []
    for budget in budgets:
        for cell, one in summary(rows, default, budget).items():
            low, high = one["interval"] or (float("nan"), float("nan"))
            score = f"{one['points']:6.1f} points, {one['of_dense']:6.1%} of dense"
            spent = f"{one['of_budget']:4.0%} of budget"
            change = f"{one['change']:+6.1f} [{low:+.1f}, {high:+.1f}]"
            lines.append(f"{budget:>5} {cell:18} {score} {change} {spent}")
    return "\n".join(lines)
