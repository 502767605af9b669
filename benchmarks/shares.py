"""How well does a glance tell what share of the dense model's latency a candidate takes?

    python benchmarks/shares.py --runs DIR … [--trials 200]

The DIRs hold finished runs; each whole measurement in it is taken as the truth, for the 90th
percentile. A glance is as many launches and inferences of it as planning takes, drawn at random.
benchmarks/results/shares.json gets each way's error by budget, in percent of the share.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.latency import Latency
from edgeprune.measure.profile import GLANCE, Profile
from edgeprune.measure.table import undisturbed_ms

RESULT = Path(__file__).parent / "results" / "shares.json"
AT = 90.0

Way = Callable[[Latency, Latency], float]


def typical(candidate: Latency, dense: Latency) -> float:
    return candidate.typical_percentile(AT) / dense.typical_percentile(AT)


def pooled(candidate: Latency, dense: Latency) -> float:
    return candidate.percentile(AT) / dense.percentile(AT)


def undisturbed(candidate: Latency, dense: Latency) -> float:
    return undisturbed_ms(candidate.launches_ms) / undisturbed_ms(dense.launches_ms)


def root_law(candidate: Latency, dense: Latency) -> float:
    """Undisturbed ms, and of the dense model's delay the root of their share."""
    own_ms, dense_ms = undisturbed_ms(candidate.launches_ms), undisturbed_ms(dense.launches_ms)
    slow_ms = dense.percentile(AT)
    return (own_ms + (slow_ms - dense_ms) * math.sqrt(own_ms / dense_ms)) / slow_ms


WAYS: dict[str, Way] = {
    "each launch's percentile, the median of launches": typical,
    "the percentile of all samples": pooled,
    "undisturbed": undisturbed,
    "undisturbed, delays by the root of the time": root_law,
}


def measurements(runs: Sequence[Path]) -> Iterator[tuple[str, Latency, Latency]]:
    """Of each finished budget: its text, the student and the dense model."""
    found = (path for run in runs for path in run.rglob("stages/latency-*/ort.dense.json"))
    for dense in sorted(found):
        for student in sorted(dense.parent.glob("ort.fp32-*pct.json")):
            budget = student.name.removeprefix("ort.fp32-").removesuffix("pct.json")
            both = (
                Profile.from_dict(json.loads(path.read_text())).latency for path in (student, dense)
            )
            yield f"{budget}%", *both


def glance(latency: Latency, launches: Any, random: np.random.Generator) -> Latency:
    """GLANCE's number of inferences on end, somewhere in each of some launches."""
    taken = []
    for launch in (latency.launches_ms[i] for i in launches):
        start = int(random.integers(0, max(1, len(launch) - GLANCE.iterations)))
        taken.append(launch[start : start + GLANCE.iterations])
    return Latency(tuple(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--trials", type=int, default=200)
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for budget, student, dense in measurements(asked.runs):
        seen[budget] += 1
        truth = pooled(student, dense)
        launches = min(len(student.launches_ms), len(dense.launches_ms))
        for _ in range(asked.trials):
            drawn = random.choice(launches, GLANCE.launches, replace=False)
            looks = glance(student, drawn, random), glance(dense, drawn, random)
            for name, way in WAYS.items():
                errors[budget, name].append(100 * (way(*looks) / truth - 1))
    result: dict[str, Any] = {
        "what": "error of a share of the dense model's p90 as told by a glance, in percent of it",
        "command": "python benchmarks/shares.py --runs DIR …",
        "trials": asked.trials,
        "measurements": dict(seen),
    }
    for (budget, name), values in errors.items():
        told = {
            "mean": round(float(np.mean(values)), 2),
            "root_mean_square": round(float(np.sqrt(np.mean(np.square(values)))), 2),
        }
        result.setdefault(budget, {})[name] = told
        print(f"{budget:>4} {name:50} {told['mean']:+5.1f} {told['root_mean_square']:5.1f}")
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
