"""Does a gate flip? The same check of the same file, again and again beside a background load.

    python benchmarks/check_repeats.py MODEL [--times 100]

Another process works and rests at random on one core. Writes benchmarks/results/check_repeats.json:
how often met, missed and inconclusive came out, at budgets around the file's own p90, with why.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from edgeprune.gate.check import check, profile
from edgeprune.measure.samples import Question

RESULT = Path(__file__).parent / "results" / "check_repeats.json"
SHARES = (0.9, 1.0, 1.1, 1.25)  # of the quiet p90
LOAD = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0.2, 3)
    while time.monotonic() < end: sum(range(10_000))
    time.sleep(random.uniform(0.2, 6))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--times", type=int, default=100)
    asked = parser.parse_args()
    quiet_ms = profile(asked.model, runs="standard").latency.p90_ms
    outcomes: dict[str, Counter[str]] = {f"{share:g}": Counter() for share in SHARES}
    codes: Counter[str] = Counter()
    seconds: list[float] = []
    overhead: list[float] = []
    load = subprocess.Popen([sys.executable, "-c", LOAD])
    try:
        for number in range(asked.times):
            started_s = time.monotonic()
            found = check(asked.model, f"{SHARES[number % len(SHARES)] * quiet_ms}ms", runs="rapid")
            seconds.append(time.monotonic() - started_s)
            overhead.append(found.total_s / found.measuring_s - 1)
            # One measurement answers every budget.
            taken = found.targets[0].profile
            for share in SHARES:
                verdict = Question(share * quiet_ms, looks=3).answer(taken)
                outcomes[f"{share:g}"][verdict.outcome] += 1
                codes.update(reason.code for reason in verdict.reasons)
            print(number + 1, dict(outcomes["1"]), f"{seconds[-1]:.1f} s", flush=True)
            result = {
                "what": "verdicts of the same rapid check beside a background load, by budget as "
                "a share of the quiet p90; none may flip between met and missed",
                "command": "python benchmarks/check_repeats.py MODEL",
                "times": number + 1,
                "quiet_p90_ms": quiet_ms,
                "outcomes": outcomes,
                "flips": [s for s, found in outcomes.items() if found["met"] and found["missed"]],
                "reasons": codes,
                "slowest_check_seconds": round(max(seconds), 1),
                "median_overhead_share": round(sorted(overhead)[len(overhead) // 2], 4),
            }
            RESULT.parent.mkdir(exist_ok=True)
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
            time.sleep(random.uniform(0, 1))
    finally:
        load.kill()


if __name__ == "__main__":
    main()
