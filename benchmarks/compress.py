"""The main job on real text: four tasks, three budgets, what is left of the score and the minutes.

    python benchmarks/compress.py --data DIR --runs DIR [--only mrpc …] [--effort standard]

DIR holds mrpc, qqp, trec6, clinc150, rte, mnli, stsb and snli as folders of JSON Lines. Writes
benchmarks/results/compress-<effort>.json after every task; run folders are kept and resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.compression import compress_all
from edgeprune.errors import EdgepruneError
from edgeprune.recipe import Recipe
from edgeprune.report.report import Report

RESULTS = Path(__file__).parent / "results"
TASKS = {  # task: auxiliary task, training rows
    "mrpc": ("qqp", 500),
    "trec6": ("clinc150", 300),
    "rte": ("mnli", 500),
    "stsb": ("snli", 500),
}
BUDGETS = ("50%", "25%", "12%")


class Lines:
    """Progress as one line a stage."""

    def outline(self, stages: Sequence[str]) -> None: ...

    def stage(self, name: str, *, cached: bool) -> None: ...

    def step(self, done: int, total: int, note: str = "") -> None: ...

    def note(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def done(self, name: str, seconds: float) -> None:
        print(f"  {name}: {seconds:.0f} s", flush=True)


def row(report: Report) -> dict[str, Any]:
    """What the tables of the README and the docs are made from."""
    return {
        "budget": report.budget.text,
        "outcome": report.verdict.outcome,
        "line": report.verdict.line,
        "p90_share_of_budget": round(report.after.p90_ms / report.budget.ms, 4),
        "metric": report.before.metric,
        "score_before": round(report.before.score, 4),
        "score_after": round(report.after.score, 4),
        "score_ratio": report.score_ratio and round(report.score_ratio, 4),
        "p90_before_ms": round(report.before.p90_ms, 3),
        "p90_after_ms": round(report.after.p90_ms, 3),
        "size_before_mb": round(report.before.size_mb, 2),
        "size_after_mb": round(report.after.size_mb, 2),
        "layers": [f"{layer.heads}h/{layer.ffn}" for layer in report.plan.layers],
        "rounds": len(report.plan.rounds),
        "transfer": report.transfer.model_dump(),
        "seconds": report.seconds,
        "total_seconds": round(sum(report.seconds.values()), 1),
        "peak_mb": round(report.peak_mb),
        "test_rows": report.task.rows.test,
        "notes": list(report.notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--budget", nargs="*", default=list(BUDGETS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    path = RESULTS / f"compress-{asked.effort}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    for name in asked.only:
        auxiliary, rows = TASKS[name]
        recipe = Recipe(
            model="demo",
            task=str(asked.data / name),
            auxiliary=str(asked.data / auxiliary),
            train_size=rows,
            budget=asked.budget,
            effort=asked.effort,
            seed=asked.seed,
            out=asked.runs / f"{name}-{asked.effort}-{asked.seed}",
        )
        print(f"{name} + {auxiliary}, {rows} rows", flush=True)
        started = time.monotonic()
        try:
            reports = compress_all(recipe, progress=Lines())
        except EdgepruneError as error:
            print(f"  {error}", flush=True)
            result[name] = {"auxiliary": auxiliary, "rows": rows, "error": str(error)}
        else:
            result[name] = {
                "auxiliary": auxiliary,
                "rows": rows,
                "seed": asked.seed,
                "wall_seconds": round(time.monotonic() - started, 1),
                "budgets": [row(report) for report in reports],
                "environment": reports[0].environment,
            }
            for report in reports:
                print(f"  {report.verdict.line}; score ratio {report.score_ratio:.4f}", flush=True)
        command = f"python benchmarks/compress.py --effort {asked.effort}"
        told = {"command": command, **{k: v for k, v in result.items() if k != "command"}}
        result = told
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
