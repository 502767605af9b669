"""Does a gate flip? The same check of the same file, again and again beside a background load.

    python benchmarks/check_repeats.py BUNDLE [--times 100] [--folder runs/check_repeats]

Each time is a whole `edgeprune check --runs rapid`, its own process included, while another process
works and rests at random on one core. The budgets are the bundle's own, and shares of the file's
90th percentile on the quiet machine; one measurement answers all of them. Each check's result is
kept in the folder, and a call that was cut short goes on from there. 100 times take half an hour
for a model of some milliseconds.

Writes benchmarks/results/check_repeats.json: how often met, missed and inconclusive came out at
each budget and why, of each check alone and of every four joined, as many launches as a third look
has; whether any flipped; how far the latency itself wandered from check to check; and what a check
takes beside its launches, there and on the quiet machine.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.gate.check import profile
from edgeprune.measure.profile import Profile
from edgeprune.measure.samples import Question
from edgeprune.report.environment import environment

RESULT = Path(__file__).parent / "results" / "check_repeats.json"
SHARES = (0.9, 0.95, 1.0, 1.05, 1.1, 1.25)  # of the quiet p90
OWN = "its own"
JOINED = 4
QUIET = 5  # checks beside no load, for what they cost
LOAD = """
import os, random, time
parent = os.getppid()
while os.getppid() == parent:  # it outlives nobody
    end = time.monotonic() + random.uniform(0.2, 3)
    while time.monotonic() < end: sum(range(10_000))
    time.sleep(random.uniform(0.2, 6))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path("runs/check_repeats"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    quiet = quiet_profile(asked.bundle, asked.folder / "quiet.json")
    for number in range(QUIET):
        path = asked.folder / f"quiet-{number}.json.gz"
        if not path.is_file():
            check_once(asked.bundle, quiet.latency.p90_ms, path)
    with subprocess.Popen([sys.executable, "-c", LOAD]) as load:
        try:
            for number in range(asked.times):
                path = asked.folder / f"{number:04}.json.gz"
                if not path.is_file():
                    check_once(asked.bundle, quiet.latency.p90_ms, path)
                    print(path, flush=True)
        finally:
            load.kill()
    budgets_ms = {f"{share:g}": share * quiet.latency.p90_ms for share in SHARES}
    own = json.loads((asked.bundle / "edgeprune.json").read_text())["budget"]
    budgets_ms[OWN] = own["ms"]
    found = result(quiet, read(asked.folder, "0*"), read(asked.folder, "quiet-*"), budgets_ms)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(RESULT.read_text())


def read(folder: Path, names: str) -> list[dict[str, Any]]:
    paths = sorted(folder.glob(f"{names}.json.gz"))
    return [json.loads(gzip.decompress(path.read_bytes())) for path in paths]


def quiet_profile(bundle: Path, path: Path) -> Profile:
    """While nothing else works; taken once."""
    if not path.is_file():
        path.write_text(json.dumps(profile(bundle, runs="standard").to_dict()))
    return Profile.from_dict(json.loads(path.read_text()))


def check_once(bundle: Path, quiet_ms: float, path: Path) -> None:
    """One check as a user starts it."""
    words = ["check", str(bundle), "--runs", "rapid", "--json", "--quiet"]
    words += ["--budget", f"{max(SHARES) * quiet_ms:.6f}ms"]
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edgeprune_cli", *words], stdout=subprocess.PIPE, check=False
    )
    wall_s = time.monotonic() - started_s
    told = json.loads(done.stdout)
    if not all(gate["passed"] for gate in told["gates"]):
        raise SystemExit(f"not a file to measure: {told['gates']}")
    partial = path.with_suffix(".part")
    partial.write_bytes(gzip.compress(json.dumps(told | {"wall_s": wall_s}).encode()))
    partial.replace(path)


def result(
    quiet: Profile,
    checks: Sequence[Mapping[str, Any]],
    calm: Sequence[Mapping[str, Any]],
    budgets_ms: Mapping[str, float],
) -> dict[str, Any]:
    taken = [Profile.from_dict(check["targets"][0]["profile"]) for check in checks]
    fours = [taken[at : at + JOINED] for at in range(0, len(taken) - JOINED + 1, JOINED)]
    joined = [functools.reduce(Profile.joined, four) for four in fours]
    return {
        "what": "verdicts of one rapid check of one file beside a background load, at the bundle's "
        "own budget and at shares of the quiet p90; none may flip between met and missed",
        "command": "python benchmarks/check_repeats.py BUNDLE",
        "times": len(checks),
        "quiet_p90_ms": quiet.latency.p90_ms,
        "own_budget_ms": budgets_ms[OWN],
        "p90_ms": spread([one.latency.p90_ms for one in taken]),
        "p50_ms": spread([one.latency.p50_ms for one in taken]),
        "quiet_doubts": [doubt.code for doubt in quiet.doubts],
        "alone": judged(taken, budgets_ms, look=1),
        "four joined": judged(joined, budgets_ms, look=3),
        "seconds": spread([check["wall_s"] for check in checks]),
        "overhead_share": overhead(checks),
        "quiet_seconds": spread([check["wall_s"] for check in calm]),
        "quiet_overhead_share": overhead(calm),
        "environment": environment(quiet.target, quiet.facts),
    }


def judged(taken: Sequence[Profile], budgets_ms: Mapping[str, float], look: int) -> dict[str, Any]:
    found: dict[str, Counter[str]] = {}
    codes: Counter[str] = Counter()
    for name, budget_ms in budgets_ms.items():
        question = Question(budget_ms, look=look, looks=3)
        verdicts = [question.answer(one) for one in taken]
        found[name] = Counter(verdict.outcome for verdict in verdicts)
        codes.update(reason.code for verdict in verdicts for reason in verdict.reasons)
    return {
        "launches": sorted({len(one.latency.launches_ms) for one in taken}),
        "outcomes": found,
        "flips": [name for name, seen in found.items() if seen["met"] and seen["missed"]],
        "inconclusive_share": {
            name: round(seen["inconclusive"] / max(1, seen.total()), 3)
            for name, seen in found.items()
        },
        "reasons": codes,
    }


def overhead(checks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return spread([check["wall_s"] / check["seconds"]["measuring"] - 1 for check in checks])


def spread(values: Sequence[float]) -> dict[str, float]:
    found = {"least": min(values), "median": statistics.median(values), "most": max(values)}
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
