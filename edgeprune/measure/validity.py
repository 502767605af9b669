"""What may have spoilt a measurement: findings that allow only an inconclusive verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.latency import Latency
from edgeprune.measure.verdict import LEAST_SECONDS, Reason, Samples

COARSE = 0.01  # the clock's step as a share of the median
THROTTLED = 1.10  # the reference kernel, against its fastest time in the measurement
THROTTLED_SHARE = 0.1  # of launches; a neighbour's second among eighty launches is none
DRIFTED = 0.05  # a launch's last third against its first, in the median over launches
LEAST_THIRD = 4  # inferences
CORRELATED = 0.95  # lag 1, within launches
OF_THE_MOMENT = {
    *("drift", "autocorrelated", "throttled", "overloaded"),
    *("rebooted", "affinity_changed", "governor_changed"),
}
"""Codes of what may be gone when it is measured again."""

Facts = Mapping[str, Any]


def find_doubts(latency: Latency, facts: Facts, sha256: str) -> tuple[Reason, ...]:
    """Every reason not to trust the samples of a Profile with these facts.

    `sha256` is that of the file or folder that was to be run. A synthetic runtime has no clock and
    no machine that could spoil its figures.
    """
    launches: Sequence[Facts] = facts["launches"]
    found = [*_of_the_model(launches, sha256), *_of_the_runtime(facts["runtime"])]
    if not facts["runtime"].get("synthetic"):
        found += [*_of_the_samples(latency, launches), *_of_the_machine(launches, facts)]
    return tuple(found)


def _of_the_model(launches: Sequence[Facts], sha256: str) -> Iterator[Reason]:
    if not all(launch["outputs_finite"] for launch in launches):
        yield Reason("outputs_not_finite", "the model's outputs are not finite numbers")
    if any(launch["sha256"] != sha256 for launch in launches):
        yield Reason("another_file", "the file on the device is not the one that was sent")


def _of_the_runtime(runtime: Facts) -> Iterator[Reason]:
    asked, got = runtime.get("requested_providers"), runtime.get("providers")
    if asked and asked != got:
        yield Reason("placement", f"ran on {', '.join(got or ['?'])}, not {', '.join(asked)}")


def _of_the_samples(latency: Latency, launches: Sequence[Facts]) -> Iterator[Reason]:
    samples = [np.asarray(launch) for launch in latency.launches_ms if len(launch) > 2]
    if not samples or not all(np.isfinite(launch).all() for launch in samples):
        return  # the verdict says so itself
    seconds = float(latency.samples_ms.sum()) / 1e3
    if seconds < LEAST_SECONDS:
        yield Reason("short_timing", f"{seconds:.1f} s of timing, it takes {LEAST_SECONDS:g} s")
    step_ms = max(launch["resolution_ns"] for launch in launches) / 1e6
    if step_ms > COARSE * latency.p50_ms:
        text = f"the clock moves in steps of {step_ms:.3f} ms, over 1 % of an inference"
        yield Reason("coarse_clock", text)
    long = [launch for launch in samples if launch.size >= 3 * LEAST_THIRD]
    if long and abs(drift := statistics.median(map(_drift, long))) > DRIFTED:
        yield Reason("drift", f"the last third of a launch is {drift:+.1%} from its first")
    if (correlation := autocorrelation(samples)) > CORRELATED:
        text = f"each inference predicts the next one (autocorrelation {correlation:.2f})"
        yield Reason("autocorrelated", text)


def _drift(launch: Samples) -> float:
    third = launch.size // 3
    return float(np.median(launch[-third:]) / np.median(launch[:third]) - 1)


def autocorrelation(launches: Sequence[Samples]) -> float:
    """At lag 1, pooled over launches, each about its own mean; 0 where nothing varies."""
    about_mean = [launch - launch.mean() for launch in launches]
    together = sum(float(rows[1:] @ rows[:-1]) for rows in about_mean)
    power = sum(float(rows @ rows) for rows in about_mean)
    return together / power if power > 0 else 0.0


def _of_the_machine(launches: Sequence[Facts], facts: Facts) -> Iterator[Reason]:
    if facts["device"].get("emulated"):
        text = "the processor is emulated: its times are those of no device"
        yield Reason("emulated", text)
    moments = [launch[when] for launch in launches for when in ("before", "after")]
    if (slow := _slow_launches(launches)) > THROTTLED_SHARE * len(launches):
        text = (
            f"the processor was slow in {slow} of {len(launches)} launches, by a reference kernel"
        )
        yield Reason("throttled", text)
    for name in ("affinity", "governor"):
        if len({str(moment.get(name)) for moment in moments}) > 1:
            yield Reason(f"{name}_changed", f"the {name} changed while it was timed")
    if len({moment.get("boot") for moment in moments}) > 1:
        yield Reason("rebooted", "the device was started anew while it was timed")
    cores = facts["device"].get("cores")
    loads = [moment["load"][0] for moment in moments if moment.get("load")]
    if cores and loads and (load := statistics.median(loads)) > cores:
        yield Reason("overloaded", f"{load:.1f} processes wanted the {cores} cores")


def _slow_launches(launches: Sequence[Facts]) -> int:
    kernels_ms = [
        [launch[when].get("kernel_ms") or 0.0 for when in ("before", "after")]
        for launch in launches
    ]
    fastest_ms = min((ms for pair in kernels_ms for ms in pair if ms), default=0.0)
    return sum(max(pair) > THROTTLED * fastest_ms for pair in kernels_ms)
