"""A sixth of the latency, an eighth of the bytes: pruned, int8, and a smaller vocabulary.

    python benchmarks/footprint.py --data DIR --runs DIR [--only trec6 …] [--effort quick]

DIR holds the tasks of benchmarks/compress.py and their auxiliary tasks. Each is compressed to 16 %
of the dense fp32 model's latency and to 11 MB, in int8. Writes benchmarks/results/footprint.json
after every task: how many times faster and smaller than the dense fp32 model, and what is left of
its score. Wants a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from compress import TASKS, compress, told_of

RESULT = Path(__file__).parent / "results" / "footprint.json"
BUDGET, SIZE, FLOOR = "16%", "11MB", "0.97"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=["trec6", "stsb", "mrpc"])
    parser.add_argument("--effort", default="quick")
    asked = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result["command"] = f"python benchmarks/footprint.py --effort {asked.effort}"
    for name in asked.only:
        auxiliary, rows = TASKS[name]
        out = asked.runs / f"footprint-{name}-{asked.effort}"
        shutil.rmtree(out, ignore_errors=True)
        arguments = ["--model", "demo", "--effort", asked.effort, "--train-size", str(rows)]
        arguments += ["--task", str(asked.data / name), "--auxiliary", str(asked.data / auxiliary)]
        arguments += ["--precision", "int8", "--size", SIZE, "--floor", FLOOR]
        found = compress(arguments, out, [BUDGET])
        result[name] = found if "error" in found else found | shown(told_of(out, BUDGET))
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps({k: v for k, v in result[name].items() if k != "environment"}))


def shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "times_faster": round(row["p90_before_ms"] / row["p90_after_ms"], 2),
        "times_smaller": round(row["size_before_mb"] / row["size_after_mb"], 2),
        **row,
    }


if __name__ == "__main__":
    main()
