"""The main job on real text: four tasks, three budgets, what is left of the score and the minutes.

    python benchmarks/compress.py --data DIR --runs DIR [--only mrpc …] [--effort standard]
    python benchmarks/compress.py --data DIR --runs DIR --only trec6 --budget 50% 25% --together

DIR holds mrpc, qqp, trec6, clinc150, rte, mnli, stsb and snli as folders of JSON Lines. The budgets
of a task are commands of their own on one run folder, as a user would type them: the first pays
for teacher, table and curves, the others find them. benchmarks/results/compress-<effort>.json is
written after every command; a budget that stands there is not run again, unless --again. Under
--together the budgets of a task are one command on a fresh run folder, of which the minutes are
kept: what a further budget costs, where it shares the measurement of the dense model too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.report.folder import budget_folder
from edgeprune.report.report import Report

RESULTS = Path(__file__).parent / "results"
TASKS = {  # task: auxiliary task, training rows
    "mrpc": ("qqp", 500),
    "trec6": ("clinc150", 300),
    "rte": ("mnli", 500),
    "stsb": ("snli", 500),
}
BUDGETS = ("50%", "25%", "12%")


def compress(arguments: list[str], out: Path, budgets: Sequence[str]) -> dict[str, Any]:
    """One command: wall seconds, peak memory, exit code, and its last line if that is an error."""
    words = [sys.executable, "-m", "edgeprune_cli", "compress", *arguments, "--out", str(out)]
    words += [word for budget in budgets for word in ("--budget", budget)]
    started = time.monotonic()
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        last = ""
        for line in child.stderr:
            print(f"  {line}", end="", flush=True)
            last = line.strip() or last
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    cost = {
        "wall_seconds": round(time.monotonic() - started, 1),
        "peak_mb": round(used.ru_maxrss * 1024 / 1e6),
        "exit_code": child.returncode,
    }
    failed = child.returncode not in (0, 1, 3) or last.startswith("error")
    return cost | ({"error": last} if failed else {})


def told_of(out: Path, budget: str) -> dict[str, Any]:
    path = budget_folder(out, budget) / "report.json"
    return row(Report.model_validate_json(path.read_text(encoding="utf-8")))


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
        "test_rows": report.task.rows.test,
        "notes": list(report.notes),
        "environment": report.environment,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--budget", nargs="*", default=list(BUDGETS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--together", action="store_true")
    asked = parser.parse_args()
    path = RESULTS / f"compress-{asked.effort}.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["command"] = f"python benchmarks/compress.py --effort {asked.effort}"
    for name in asked.only:
        auxiliary, rows = TASKS[name]
        told = result.setdefault(name, {"auxiliary": auxiliary, "rows": rows, "budgets": {}})
        out = asked.runs / f"{name}-{asked.effort}"
        arguments = ["--model", "demo", "--effort", asked.effort, "--train-size", str(rows)]
        arguments += ["--task", str(asked.data / name), "--auxiliary", str(asked.data / auxiliary)]
        if asked.together:
            shutil.rmtree(out.with_suffix(".together"), ignore_errors=True)
            cost = compress(arguments, out.with_suffix(".together"), asked.budget)
            told["together"] = {"budgets": asked.budget} | cost
            path.write_text(json.dumps(result, indent=1) + "\n")
            continue
        for budget in asked.budget:
            if budget in told["budgets"] and not asked.again:
                continue
            print(f"{name} + {auxiliary}, {rows} rows, {budget}", flush=True)
            found = {"budget": budget} | compress(arguments, out, [budget])
            if "error" not in found:
                found |= told_of(out, budget)
            told["environment"] = found.pop("environment", told.get("environment"))
            told["budgets"][budget] = found
            path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
