"""Milliseconds as values: a budget, measured samples, and a table that predicts an architecture."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from edgeprune.errors import BudgetError
from edgeprune.shape import Shape

_BUDGET = re.compile(
    r"""\s*(?P<number>[-+]?[0-9.]+(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf)\s*(?P<unit>[a-zµ%]*)
        \s*(?:@\s*p(?P<percentile>[-+0-9.]+))?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_EXAMPLES = 'write it as "12ms", "12 ms@p95" or "50%" (of the unpruned model)'


@dataclass(frozen=True)
class Budget:
    """At least `percentile` percent of inferences take at most `ms`, or `share` of the dense ones.

    Exactly one of `ms` and `share` is set until `resolve`; afterwards `ms` always is.
    """

    ms: float | None = None
    share: float | None = None
    percentile: float = 90.0

    @classmethod
    def parse(cls, text: str, *, percentile: float = 90.0) -> Budget:
        """Read "12ms", "0.5 s", "12 ms@p95" or "50%"; raises BudgetError with the remedy."""
        match = _BUDGET.fullmatch(text)
        if match is None:
            why = "decimals take a point, not a comma" if "," in text else "not a number and a unit"
            raise BudgetError(f"budget {text!r}", why=why, remedy=_EXAMPLES)
        try:
            number = float(match["number"])
            at = float(match["percentile"]) if match["percentile"] else percentile
        except ValueError:
            raise BudgetError(f"budget {text!r}", why="not a number", remedy=_EXAMPLES) from None
        if not (math.isfinite(number) and number > 0):
            raise BudgetError(f"budget {text!r}", why="must be above zero", remedy=_EXAMPLES)
        check_percentile(at)
        unit = match["unit"].lower()
        if unit == "%":
            if number >= 100:
                why = "a share of the dense model's latency must be under 100%"
                raise BudgetError(f"budget {text!r}", why=why, remedy='for example "50%"')
            return cls(share=number / 100, percentile=at)
        factors_ms = {"ms": 1.0, "s": 1000.0, "us": 0.001, "µs": 0.001}
        if unit not in factors_ms:
            why = f"unknown unit {unit!r}" if unit else "no unit"
            raise BudgetError(f"budget {text!r}", why=why, remedy=_EXAMPLES)
        return cls(ms=number * factors_ms[unit], percentile=at)

    def resolve(self, dense: Latency) -> Budget:
        """The budget in milliseconds, a share being taken of the dense model's same percentile."""
        if self.share is None:
            return self
        return replace(self, ms=self.share * dense.percentile(self.percentile))

    def __str__(self) -> str:
        number = f"{self.share * 100:.12g}%" if self.share is not None else f"{self.ms:.12g}ms"
        return number if self.percentile == 90 else f"{number}@p{self.percentile:g}"


def check_percentile(percentile: float) -> None:
    """Raises BudgetError unless 50 <= percentile < 100."""
    if not 50 <= percentile < 100:
        share = ", in percent" if 0 < percentile < 1 else ""
        why = f"a percentile lies from 50 to under 100{share}"
        raise BudgetError(f"percentile {percentile:g}", why=why, remedy='for example "12ms@p95"')


@dataclass(frozen=True)
class Latency:
    """Every sample of a measurement, launch by launch (a launch is one fresh process)."""

    launches_ms: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, launches_ms: Sequence[Sequence[float]]) -> Latency:
        return cls(tuple(tuple(float(x) for x in launch) for launch in launches_ms))

    @cached_property
    def samples_ms(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.concatenate([np.asarray(launch) for launch in self.launches_ms])

    def percentile(self, percentile: float) -> float:
        """The smallest sample in ms that at least `percentile` percent do not exceed."""
        return float(np.percentile(self.samples_ms, percentile, method="inverted_cdf"))

    def typical_percentile(self, percentile: float) -> float:
        """The median over launches of each launch's own percentile, in ms.

        Of few samples it is steadier than that of all of them, which one bad launch can decide.
        """
        own = [Latency((launch,)).percentile(percentile) for launch in self.launches_ms]
        return statistics.median(own)

    @property
    def p50_ms(self) -> float:
        return self.percentile(50)

    @property
    def p90_ms(self) -> float:
        return self.percentile(90)


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of one attention or FFN sub-layer by its width; sub-layers add up.

    Measured on a target in its own runtime; linear between the measured widths. `rest_ms` and
    `slope` fit the sum to whole models. The milliseconds are those of an undisturbed inference
    until `scaled_to` puts them into another measure.
    """

    attention_ms: Mapping[int, float]
    ffn_ms: Mapping[int, float]
    rest_ms: float
    slope: float = 1.0
    fit_error: float = 0.0
    """The largest relative error on the whole models that it was fitted to."""
    spread: float = 0.0
    """The largest relative difference between repeats of one measurement."""
    notes: tuple[str, ...] = ()
    """What a reader of the figures must know."""

    def attention(self, heads: int) -> float:
        return interpolated(self.attention_ms, heads)

    def ffn(self, width: int) -> float:
        return interpolated(self.ffn_ms, width)

    def sublayers(self, shape: Shape) -> float:
        """The sum over an architecture's sub-layers, before the fit to whole models."""
        return sum(self.attention(layer.heads) + self.ffn(layer.ffn) for layer in shape.layers)

    def predict(self, shape: Shape) -> float:
        """The latency of an architecture, in ms."""
        return self.rest_ms + self.slope * self.sublayers(shape)

    def scaled_to(self, shape: Shape, ms: float) -> LatencyTable:
        """The same table in the measure in which `shape` takes `ms`.

        Scaled to the 90th percentile of the dense model, it predicts 90th percentiles.
        """
        factor = ms / self.predict(shape)
        return replace(self, rest_ms=self.rest_ms * factor, slope=self.slope * factor)

    @classmethod
    def worst(cls, tables: Sequence[tuple[LatencyTable, float]]) -> LatencyTable:
        """Each part as it is in that table where it costs most, once multiplied by its factor.

        So no table predicts more for any architecture; the sum of the worst parts may.
        """
        first = tables[0][0]

        def most(cost: Callable[[LatencyTable], float]) -> float:
            return max(factor * cost(table) for table, factor in tables)

        def attention(heads: int) -> float:
            return most(lambda table: table.slope * table.attention(heads))

        def ffn(width: int) -> float:
            return most(lambda table: table.slope * table.ffn(width))

        return cls(
            {heads: attention(heads) for heads in first.attention_ms},
            {width: ffn(width) for width in first.ffn_ms},
            most(lambda table: table.rest_ms),
            fit_error=max(table.fit_error for table, _ in tables),
            spread=max(table.spread for table, _ in tables),
            notes=tuple(dict.fromkeys(note for table, _ in tables for note in table.notes)),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "attention_ms": {str(k): v for k, v in self.attention_ms.items()},
            "ffn_ms": {str(k): v for k, v in self.ffn_ms.items()},
            "rest_ms": self.rest_ms,
            "slope": self.slope,
            "fit_error": self.fit_error,
            "spread": self.spread,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LatencyTable:
        return cls(
            {int(k): float(v) for k, v in data["attention_ms"].items()},
            {int(k): float(v) for k, v in data["ffn_ms"].items()},
            float(data["rest_ms"]),
            float(data["slope"]),
            float(data["fit_error"]),
            float(data["spread"]),
            tuple(data["notes"]),
        )


def interpolated(points: Mapping[int, float], width: int) -> float:
    """What a width costs, in a line between those that are known."""
    widths = sorted(points)
    return float(np.interp(width, widths, [points[w] for w in widths]))
