"""What is left of the score at equal measured milliseconds: our methods, and Torch-Pruning.

    pip install torch-pruning==1.6.1
    python benchmarks/quality.py --data DIR --runs DIR [--only mrpc …] [--effort quick] [--seeds 3]
                                 [--budget 50% 25% 12%] [--methods obs fisher …]

DIR holds the tasks as folders of JSON Lines. Every cell is a whole `edgeprune compress`; a call
that was stopped goes on. benchmarks/results/quality-<effort>.json is written after every task: the
rows, the mean over tasks at each budget, and each method's difference from the default, with the
95 % interval of a paired bootstrap over tasks and seeds. What was left out is told in `subset`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import torch_pruning_method

from edgeprune.ablation import Cell, ablate
from edgeprune.recipe import Method, Recipe
from edgeprune_cli.show import progress

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
DEFAULT = "obs"
ALONE, PEER = "obs, no transfer", "Torch-Pruning"
RESAMPLES = 10_000


def compared(data: Path, task: str, asked: argparse.Namespace) -> list[Cell]:
    """The default, every other method, and the default without its auxiliary task."""
    recipe = Recipe(
        model="demo",
        task=str(data / task),
        auxiliary=[str(data / TASKS[task])],
        train_size=ROWS,
        effort=asked.effort,
        budget=asked.budget,
        floor=0.5,
        runs="rapid",  # the milliseconds are compared, not judged
    )
    names = [name for name in asked.methods if name != DEFAULT]
    others = [Cell(name, recipe.model_copy(update={"method": name})) for name in names]
    alone = Cell(ALONE, recipe.model_copy(update={"transfer_how": "none"}))
    return [Cell(DEFAULT, recipe), *others, alone]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--methods", nargs="*", default=list(get_args(Method)))
    parser.add_argument("--budget", nargs="*", default=["50%", "25%", "12%"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--no-peer", action="store_true", help="without Torch-Pruning")
    asked = parser.parse_args()
    path = RESULTS / f"quality-{asked.effort}.json"
    rows: list[dict[str, Any]] = []
    for task in asked.only:
        out = asked.runs / f"quality-{task}-{asked.effort}"
        cells = compared(asked.data, task, asked)
        with progress(quiet=False) as told:
            ablate(cells, seeds=asked.seeds, out=out, progress=told)
            if not asked.no_peer:
                peer = [cells[0], Cell(PEER, cells[0].recipe)]
                theirs = torch_pruning_method.price_structures
                with patch("edgeprune.pipeline.price_structures", theirs):
                    # In this process, as only here it stands in for a method.
                    ablate(peer, seeds=asked.seeds, jobs=1, out=out, progress=told)
        stored = json.loads((out / "ablation.json").read_text())["rows"]
        rows += [{"task": task, **row} for row in stored]
        path.write_text(json.dumps(result(rows, asked), indent=1) + "\n")
        print(table(rows, asked.budget), flush=True)


def result(rows: Sequence[Mapping[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    tasks = sorted({row["task"] for row in rows})
    whole = set(tasks) == set(TASKS) and set(asked.methods) == set(get_args(Method))
    return {
        "what": "test scores at equal measured milliseconds, in points; differences from the "
        "default over the same tasks and seeds",
        "command": "python benchmarks/quality.py --effort " + asked.effort,
        "subset": "none: everything" if whole and asked.seeds >= 3 else _subset(tasks, asked),
        "rows_of_training": ROWS,
        "budgets": {budget: summary(rows, budget) for budget in asked.budget},
        "rows": list(rows),
    }


def _subset(tasks: Sequence[str], asked: argparse.Namespace) -> str:
    methods = ", ".join(asked.methods)
    return f"tasks {', '.join(tasks)}; methods {methods}; {asked.seeds} seeds"


def summary(rows: Sequence[Mapping[str, Any]], budget: str) -> dict[str, Any]:
    """Each cell's means, and what it is off the default by."""
    base = {(r["task"], r["seed"]): r for r in _scored(rows, DEFAULT, budget)}
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
    """The middle 95 % of means of as many differences, drawn again and again; None of one."""
    if len(change) < 2:
        return None
    draws = np.random.default_rng(0).integers(0, len(change), (RESAMPLES, len(change)))
    low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
    return [round(float(low), 2), round(float(high), 2)]


def table(rows: Sequence[Mapping[str, Any]], budgets: Sequence[str]) -> str:
    lines = []
    for budget in budgets:
        for cell, one in summary(rows, budget).items():
            low, high = one["interval"] or (float("nan"), float("nan"))
            score = f"{one['points']:6.1f} points, {one['of_dense']:6.1%} of dense"
            spent = f"{one['of_budget']:4.0%} of budget"
            change = f"{one['change']:+6.1f} [{low:+.1f}, {high:+.1f}]"
            lines.append(f"{budget:>5} {cell:18} {score} {change} {spent}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
