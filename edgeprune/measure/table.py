"""From timed stacks of equal sub-layers to a LatencyTable: arithmetic only, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.latency import LatencyTable
from edgeprune.shape import Shape

# Neighbours on the machine only ever add time. Of the minimum, the 5th, 10th and 25th percentile
# and the median of processor time on a busy machine, the 5th predicted whole models best.
UNDISTURBED_PERCENTILE = 5
# A figure is trusted when two launches agree on it: within this share of it, or of the slowest
# model's (what a short model is off by hardly counts in a sum).
SPREAD_LIMIT = 0.10
SPREAD_FLOOR = 0.01


def undisturbed_ms(launches_ms: Sequence[Sequence[float]]) -> float:
    """What an inference takes when little else happens on the machine."""
    pooled = np.concatenate([np.asarray(launch) for launch in launches_ms])
    return float(np.percentile(pooled, UNDISTURBED_PERCENTILE))


def spreads(timings: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float]:
    """How far apart each model's two fastest launches lie, as a share; 0 if that is nothing."""
    figures = {
        name: sorted(undisturbed_ms([launch]) for launch in launches)
        for name, launches in timings.items()
    }
    floor_ms = SPREAD_FLOOR * max(row[0] for row in figures.values())
    return {
        name: row[1] / row[0] - 1 if len(row) > 1 and row[1] - row[0] > floor_ms else 0.0
        for name, row in figures.items()
    }


def assemble(
    attention_ms: Mapping[int, float],
    ffn_ms: Mapping[int, float],
    empty_ms: float,
    whole: Sequence[tuple[Shape, float]],
    *,
    stack: int,
) -> LatencyTable:
    """The table of one sub-layer, from the latency of `stack` of them and of the empty stack.

    The layers' LayerNorms and residuals stand in `empty_ms`, for `stack` layers. `whole` models
    of any depth correct that: `rest_ms` and `slope` are fitted on them by least squares of the
    relative error, the empty stack counting as one of them unless they hold an empty architecture
    of their own depth (which pins `rest_ms` and is cheap to time).
    """
    table = LatencyTable(
        _per_layer(attention_ms, empty_ms, stack),
        _per_layer(ffn_ms, empty_ms, stack),
        rest_ms=empty_ms,
    )
    points = [(table.sublayers(shape), ms) for shape, ms in whole]
    if all(sum_ms > 0 for sum_ms, _ in points):
        points.append((0.0, empty_ms))
    rest_ms, slope = _fit(points, empty_ms)
    fitted = LatencyTable(table.attention_ms, table.ffn_ms, rest_ms, slope)
    errors = [abs(fitted.predict(shape) / ms - 1) for shape, ms in whole]
    return LatencyTable(
        table.attention_ms, table.ffn_ms, rest_ms, slope, fit_error=max(errors, default=0.0)
    )


def _per_layer(stack_ms: Mapping[int, float], empty_ms: float, stack: int) -> dict[int, float]:
    widths = sorted(width for width in stack_ms if width > 0)
    costs = [max(0.0, (stack_ms[width] - empty_ms) / stack) for width in widths]
    return {0: 0.0, **dict(zip(widths, isotonic(costs), strict=True))}


def _fit(points: Sequence[tuple[float, float]], empty_ms: float) -> tuple[float, float]:
    """`rest_ms` and `slope` of ms = rest + slope · sum, by least squares of the relative error."""
    sums, ms = np.array(points).T
    if np.unique(sums).size < 2:
        return empty_ms, 1.0
    (rest, slope), *_ = np.linalg.lstsq(np.stack([1 / ms, sums / ms], 1), np.ones(len(ms)))
    if rest >= 0:
        return float(rest), float(slope)
    # Noise on few points: no constant cost, and the best slope for that.
    return 0.0, float((sums / ms).sum() / ((sums / ms) ** 2).sum())


def isotonic(values: Sequence[float]) -> list[float]:
    """The nearest never-falling sequence in least squares, by pooling adjacent violators."""
    pools: list[tuple[float, int]] = []  # mean and length
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (right, n), (left, m) = pools.pop(), pools.pop()
            pools.append(((left * m + right * n) / (m + n), m + n))
    return [mean for mean, length in pools for _ in range(length)]
