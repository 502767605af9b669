"""Error curves, a latency table and a budget: the plan with the least expected loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune.errors import Unreachable
from edgeprune.latency import LatencyTable
from edgeprune.shape import LayerShape, Shape, SubLayer

Errors = Mapping[SubLayer, Mapping[int, float]]  # sub-layer -> width -> expected loss

Allocate = Callable[[Errors, LatencyTable, Shape, float, Mapping[SubLayer, float] | None], "Plan"]
"""The plan for some milliseconds, given errors and how much each sub-layer's count."""

HALVINGS = 12  # of the milliseconds that a plan may lack for its file's size
RESOLUTION = 2_000  # Q: steps that the budget is divided into
SPREAD = 0.5  # of the logarithm of a sub-layer's sensitivity, over the draws


@dataclass(frozen=True)
class Plan:
    """The shape that a budget buys, with what the table and the curves say of it."""

    shape: Shape
    predicted_ms: float
    predicted_loss: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "shape": self.shape.to_dict(),
            "predicted_ms": self.predicted_ms,
            "predicted_loss": self.predicted_loss,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Plan:
        return cls(Shape.from_dict(data["shape"]), data["predicted_ms"], data["predicted_loss"])


def minimum_ms(table: LatencyTable, dense: Shape) -> float:
    """The latency with every sub-layer removed, below which nothing can be reached."""
    return table.predict(dense.emptied())


def search(
    errors: Errors,
    table: LatencyTable,
    dense: Shape,
    budget_ms: float,
    sensitivity: Mapping[SubLayer, float] | None = None,
) -> Plan:
    """min sum s_j e_j(k_j) under sum of milliseconds <= budget, exactly, by dynamic programming.

    A knapsack with one choice of width for each sub-layer; costs are rounded up to 1/2000 of the
    budget, so the plan never exceeds it. `budget_ms` is in the
    table's own milliseconds. Raises Unreachable.
    """
    room_ms = budget_ms - table.rest_ms
    if budget_ms < minimum_ms(table, dense):
        raise _unreachable(budget_ms, table, dense)
    best = np.zeros(RESOLUTION + 1)  # least loss for every number of steps of the budget
    choices: list[tuple[SubLayer, np.ndarray[Any, Any], list[int]]] = []
    for key, curve in errors.items():
        scale = sensitivity[key] if sensitivity else 1.0
        widths = sorted(curve)
        extended = np.full((len(widths), RESOLUTION + 1), math.inf)
        for row, width in enumerate(widths):
            steps = _steps(_cost_ms(table, key, width), room_ms)
            if steps <= RESOLUTION:
                extended[row, steps:] = best[: RESOLUTION + 1 - steps] + scale * curve[width]
        choice = extended.argmin(axis=0)
        best = np.take_along_axis(extended, choice[None], axis=0)[0]
        choices.append((key, choice, widths))
    if not math.isfinite(best[RESOLUTION]):
        raise _unreachable(budget_ms, table, dense)
    widths_by_key: dict[SubLayer, int] = {}
    left = RESOLUTION
    for key, choice, widths in reversed(choices):
        widths_by_key[key] = widths[choice[left]]
        left -= _steps(_cost_ms(table, key, widths_by_key[key]), room_ms)
    shape = shape_of(dense, widths_by_key)
    loss = sum(errors[key][width] for key, width in widths_by_key.items())
    return Plan(shape, table.predict(shape), loss)


def shape_of(dense: Shape, widths: Mapping[SubLayer, int]) -> Shape:
    """The shape with these widths; a sub-layer that is not named is gone."""
    return dense.with_layers(
        [
            LayerShape(widths.get((i, "attention"), 0), widths.get((i, "ffn"), 0))
            for i in range(len(dense.layers))
        ]
    )


def drop_layers(
    errors: Errors,
    table: LatencyTable,
    dense: Shape,
    budget_ms: float,
    sensitivity: Mapping[SubLayer, float] | None = None,
) -> Plan:
    """As many whole layers as the budget holds, evenly spread, the first one always among them.

    LayerDrop's plan (Fan, Grave, Joulin 2019, arXiv 1909.11556); the errors do not choose. Raises
    Unreachable.
    """
    depth = len(dense.layers)
    for count in range(depth, -1, -1):
        kept = {i * depth // count for i in range(count)}
        layers = [old if i in kept else LayerShape(0, 0) for i, old in enumerate(dense.layers)]
        shape = dense.with_layers(layers)
        if table.predict(shape) <= budget_ms:
            return Plan(shape, table.predict(shape), float(depth - count))
    raise _unreachable(budget_ms, table, dense)


def fitting(allocate: Allocate, fits: Callable[[Shape], bool]) -> Allocate:
    """The same way to plan, with fewer milliseconds where their plan does not fit.

    Widths cost bytes as they cost milliseconds, so the most milliseconds whose plan fits are
    searched by halving. The shape with all sub-layers gone is taken to fit.
    """

    def allocated(
        errors: Errors,
        table: LatencyTable,
        dense: Shape,
        budget_ms: float,
        sensitivity: Mapping[SubLayer, float] | None = None,
    ) -> Plan:
        plan = allocate(errors, table, dense, budget_ms, sensitivity)
        if fits(plan.shape):
            return plan
        least_ms, most_ms = minimum_ms(table, dense), budget_ms
        best = Plan(dense.emptied(), least_ms, sum(curve[0] for curve in errors.values()))
        for _ in range(HALVINGS):
            middle_ms = (least_ms + most_ms) / 2
            plan = allocate(errors, table, dense, middle_ms, sensitivity)
            if fits(plan.shape):
                best, least_ms = plan, middle_ms
            else:
                most_ms = middle_ms
        return best

    return allocated


def _cost_ms(table: LatencyTable, key: SubLayer, width: int) -> float:
    sub_layer = table.attention(width) if key[1] == "attention" else table.ffn(width)
    return table.slope * sub_layer


def _steps(cost_ms: float, room_ms: float) -> int:
    if cost_ms <= 0:
        return 0
    if room_ms <= 0:
        return RESOLUTION + 1
    return math.ceil(RESOLUTION * cost_ms / room_ms - 1e-9)


def _unreachable(budget_ms: float, table: LatencyTable, dense: Shape) -> Unreachable:
    smallest_ms = minimum_ms(table, dense)
    return Unreachable(
        f"{budget_ms:.2f} ms by the latency table",
        why="unreachable",
        remedy=f"the smallest plan takes {smallest_ms:.2f} ms",
    )


def search_sensitivity(
    errors: Errors,
    table: LatencyTable,
    dense: Shape,
    budget_ms: float,
    judge: Callable[[Plan], float],
    *,
    draws: int,
    seed: int,
    prior: Mapping[SubLayer, float] | None = None,
    allocate: Allocate = search,
) -> tuple[Plan, dict[SubLayer, float]]:
    """The plan that `judge` likes best (least is best) among those of random sensitivities.

    s_j = exp(N(0, 0.5)), the first draw being 1; later draws start from the best so far. With a
    `prior` the draws are around it, itself the first and 1 the second, so that the judge can prefer
    to go without. The curves take sub-layers as independent, which they are not: the judge sees
    them together.
    """
    random = np.random.default_rng(seed)
    keys = list(errors)
    even = np.zeros(len(keys))
    start = even if prior is None else np.log([prior[key] for key in keys])
    undrawn = [even] if prior is None else [start, even]
    best_logs = even
    best_plan: Plan | None = None
    best_value = math.inf
    seen: set[str] = set()
    for draw in range(draws):
        # Halfway, explore around the best instead of around the start.
        centre = best_logs if draw >= draws // 2 else start
        drawn = draw >= len(undrawn)
        logs = centre + random.normal(0, SPREAD, len(keys)) if drawn else undrawn[draw]
        sensitivity = dict(zip(keys, np.exp(logs).tolist(), strict=True))
        plan = allocate(errors, table, dense, budget_ms, sensitivity)
        if str(plan.shape) in seen:
            continue
        seen.add(str(plan.shape))
        value = judge(plan)
        if best_plan is None or value < best_value:
            best_plan, best_value, best_logs = plan, value, logs
    assert best_plan is not None  # the first draw is always judged
    return best_plan, dict(zip(keys, np.exp(best_logs).tolist(), strict=True))
