"""Does a gate flip? The same check of the same file, again and again beside a background load.

    python benchmarks/check_repeats.py BUNDLE [--times 100] [--result FILE]

Each time is a whole `edgeprune check --runs rapid`, its own process included, while another process
works and rests at random on one core. The budgets are shares of the file's 90th percentile on the
quiet machine; one measurement answers all of them. A call that was cut short goes on where it
stopped, for the same file on the same machine. 100 times take half an hour for a model of 5 ms.

Writes benchmarks/results/check_repeats.json: how often met, missed and inconclusive came out at
each budget and why, whether any flipped, and what a check takes beside its launches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.gate.check import profile
from edgeprune.gate.subject import Subject
from edgeprune.hashing import file_digest
from edgeprune.measure.profile import Profile
from edgeprune.measure.samples import Question
from edgeprune.report.environment import environment

RESULT = Path(__file__).parent / "results" / "check_repeats.json"
SHARES = (0.9, 0.95, 1.0, 1.05, 1.1, 1.25)  # of the quiet p90
LOAD = """
import random, time
while True:
    end = time.monotonic() + random.uniform(0.2, 3)
    while time.monotonic() < end: sum(range(10_000))
    time.sleep(random.uniform(0.2, 6))
"""
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args()
    started = taken_up(asked.result, asked.bundle) or begun(asked.bundle)
    with subprocess.Popen([sys.executable, "-c", LOAD]) as load:
        try:
            while len(started["checks"]) < asked.times:
                started["checks"].append(once(asked.bundle, started["quiet_p90_ms"]))
                write(asked.result, started)
                print(len(started["checks"]), started["checks"][-1], flush=True)
        finally:
            load.kill()
    write(asked.result, started)


def taken_up(result: Path, bundle: Path) -> Row | None:
    """What an earlier call left of the same file, None without one."""
    if not result.is_file():
        return None
    found: Row = json.loads(result.read_text())
    return found if found.get("sha256") == file_digest(Subject.find(bundle).onnx) else None


def begun(bundle: Path) -> Row:
    """The file, and its 90th percentile while nothing else works."""
    quiet = profile(bundle, runs="standard")
    return {
        "sha256": quiet.sha256,
        "environment": environment(quiet.target, quiet.facts),
        "quiet_p90_ms": quiet.latency.p90_ms,
        "quiet_doubts": [doubt.code for doubt in quiet.doubts],
        "checks": [],
    }


def once(bundle: Path, quiet_ms: float) -> Row:
    """One check as a user starts it, and what its measurement says of every budget."""
    words = ["check", str(bundle), "--runs", "rapid", "--json", "--quiet"]
    words += ["--budget", f"{1.25 * quiet_ms:.6f}ms"]
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune_cli", *words], stdout=subprocess.PIPE, check=False
    )
    seconds = time.monotonic() - started_s
    told = json.loads(done.stdout)
    if not told["targets"]:
        failed = [gate for gate in told["gates"] if not gate["passed"]]
        raise SystemExit(f"nothing was measured: {failed}")
    taken = Profile.from_dict(told["targets"][0]["profile"])
    verdicts = {share: Question(share * quiet_ms, looks=3).answer(taken) for share in SHARES}
    return {
        "outcomes": {f"{share:g}": verdict.outcome for share, verdict in verdicts.items()},
        "reasons": sorted({reason.code for one in verdicts.values() for reason in one.reasons}),
        "p90_ms": taken.latency.p90_ms,
        "seconds": round(seconds, 2),
        "measuring_seconds": told["seconds"]["measuring"],
    }


def write(result: Path, found: Row) -> None:
    checks = found["checks"]
    outcomes = {
        f"{share:g}": Counter(row["outcomes"][f"{share:g}"] for row in checks) for share in SHARES
    }
    overheads = [row["seconds"] / row["measuring_seconds"] - 1 for row in checks]
    summary = {
        "what": "verdicts of one rapid check of one file beside a background load, by budget as a "
        "share of the quiet p90; none may flip between met and missed",
        "command": "python benchmarks/check_repeats.py BUNDLE",
        "times": len(checks),
        "flips": [share for share, seen in outcomes.items() if seen["met"] and seen["missed"]],
        "outcomes": outcomes,
        "inconclusive_share": {
            s: seen["inconclusive"] / len(checks) for s, seen in outcomes.items()
        },
        "reasons": Counter(code for row in checks for code in row["reasons"]),
        "seconds": spread([row["seconds"] for row in checks]),
        "overhead_share": spread(overheads),
    }
    result.parent.mkdir(exist_ok=True)
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(summary | found, indent=1) + "\n")
    partial.replace(result)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The whole command's, against the time of its launches alone."""
    found = {"least": min(values), "median": statistics.median(values), "most": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
