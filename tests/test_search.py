"""The plan that a budget buys, against enumeration of every plan there is."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeprune.errors import Unreachable
from edgeprune.latency import LatencyTable
from edgeprune.prune.search import (
    Errors,
    Plan,
    drop_layers,
    fitting,
    minimum_ms,
    search,
    search_sensitivity,
)
from edgeprune.shape import LayerShape, Shape, SubLayer

HEADS, FFN = (0, 1, 2), (0, 5, 10)
DENSE = Shape.uniform(2, 2, 10, hidden=8, head_dim=4, vocab=10)
KEYS: list[SubLayer] = [(i, kind) for i in (0, 1) for kind in ("attention", "ffn")]
SLACK = 1 + 1e-9


def widths(kind: Literal["attention", "ffn"]) -> tuple[int, ...]:
    return HEADS if kind == "attention" else FFN


def every_shape() -> list[Shape]:
    layers = [LayerShape(h, w) for h, w in itertools.product(HEADS, FFN)]
    return [DENSE.with_layers(pair) for pair in itertools.product(layers, repeat=2)]


Scale = Mapping[SubLayer, float]


def loss(shape: Shape, errors: Errors, sensitivity: Scale | None = None) -> float:
    scale = sensitivity or dict.fromkeys(KEYS, 1.0)
    return sum(
        scale[i, "attention"] * errors[i, "attention"][layer.heads]
        + scale[i, "ffn"] * errors[i, "ffn"][layer.ffn]
        for i, layer in enumerate(shape.layers)
    )


def least_loss(
    errors: Errors, table: LatencyTable, budget_ms: float, sensitivity: Scale | None = None
) -> float:
    within = [shape for shape in every_shape() if table.predict(shape) <= budget_ms * SLACK]
    return min((loss(shape, errors, sensitivity) for shape in within), default=math.inf)


def _rounded(value: float) -> float:
    return round(value, 3)  # sums of 1 and 1e-300 compare as nobody means


@st.composite
def curves(draw: st.DrawFn) -> dict[SubLayer, dict[int, float]]:
    """0 for the dense sub-layer, more for narrower ones."""
    steps = st.floats(0, 10).map(_rounded)
    errors: dict[SubLayer, dict[int, float]] = {}
    for key in KEYS:
        small, middle = draw(steps), draw(steps)
        low, mid, high = widths(key[1])
        errors[key] = {low: small + middle, mid: small, high: 0.0}
    return errors


@st.composite
def tables(draw: st.DrawFn, whole: bool = False) -> LatencyTable:
    numbers = st.integers(0, 9).map(float) if whole else st.floats(0, 9).map(_rounded)
    first, second = sorted((draw(numbers), draw(numbers)))
    third, fourth = sorted((draw(numbers), draw(numbers)))
    rest = draw(st.integers(0, 3).map(float) if whole else st.floats(0, 3).map(_rounded))
    slope = 1.0 if whole else draw(st.floats(0.5, 2))
    return LatencyTable({0: 0.0, 1: first, 2: second}, {0: 0.0, 5: third, 10: fourth}, rest, slope)


sensitivities = st.fixed_dictionaries({key: st.floats(0.1, 10) for key in KEYS})


@given(
    errors=curves(),
    table=tables(whole=True),
    steps=st.sampled_from([1, 2, 4, 5, 8, 10, 20, 25, 40]),
)
def test_the_plan_is_the_best_of_all_plans(errors: Errors, table: LatencyTable, steps: int) -> None:
    """The room is one that 2000 is a multiple of, so that no cost is rounded."""
    budget_ms = table.rest_ms + steps
    plan = search(errors, table, DENSE, budget_ms)
    assert loss(plan.shape, errors) == pytest.approx(least_loss(errors, table, budget_ms))


@given(errors=curves(), table=tables(whole=True), sensitivity=sensitivities)
def test_sensitivities_weigh_the_sub_layers(
    errors: Errors, table: LatencyTable, sensitivity: Scale
) -> None:
    budget_ms = table.rest_ms + 10
    plan = search(errors, table, DENSE, budget_ms, sensitivity)
    found = loss(plan.shape, errors, sensitivity)
    assert found == pytest.approx(least_loss(errors, table, budget_ms, sensitivity))


@given(errors=curves(), table=tables(), share=st.floats(0, 1.2))
def test_the_plan_is_within_the_budget_and_near_the_best(
    errors: Errors, table: LatencyTable, share: float
) -> None:
    smallest = minimum_ms(table, DENSE)
    budget_ms = smallest + share * (table.predict(DENSE) - smallest)
    plan = search(errors, table, DENSE, budget_ms)
    assert plan.predicted_ms <= budget_ms * SLACK
    # Each of the four costs is rounded up by at most one step.
    tighter_ms = budget_ms - 4 * (budget_ms - table.rest_ms) / 2_000
    best, best_of_tighter = (least_loss(errors, table, ms) for ms in (budget_ms, tighter_ms))
    assert best - 1e-9 <= loss(plan.shape, errors) <= best_of_tighter + 1e-9


@given(errors=curves(), table=tables(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_more_budget_never_raises_the_loss(
    errors: Errors, table: LatencyTable, shares: tuple[float, float]
) -> None:
    smallest, dense = minimum_ms(table, DENSE), table.predict(DENSE)
    less, more = (
        search(errors, table, DENSE, smallest + share * (dense - smallest))
        for share in sorted(shares)
    )
    assert more.predicted_loss <= less.predicted_loss + 1e-9


@given(errors=curves(), table=tables())
def test_a_plan_says_what_the_table_and_the_curves_say_of_it(
    errors: Errors, table: LatencyTable
) -> None:
    plan = search(errors, table, DENSE, minimum_ms(table, DENSE) + 5)
    assert plan.predicted_ms == table.predict(plan.shape)
    assert plan.predicted_loss == pytest.approx(loss(plan.shape, errors))
    assert Plan.from_dict(plan.to_dict()) == plan


@given(errors=curves(), table=tables())
def test_with_room_for_all_nothing_is_lost(errors: Errors, table: LatencyTable) -> None:
    plan = search(errors, table, DENSE, table.predict(DENSE) * 1.01 + 1e-6)
    assert plan.predicted_loss == 0


@given(errors=curves(), table=tables(), share=st.floats(0.01, 0.99))
def test_below_the_smallest_plan_the_smallest_is_named(
    errors: Errors, table: LatencyTable, share: float
) -> None:
    smallest = minimum_ms(table, DENSE)
    assume(smallest > 0.01)
    with pytest.raises(Unreachable, match=re.escape(f"{smallest:.2f} ms")) as caught:
        search(errors, table, DENSE, smallest * share)
    assert caught.value.exit_code == 1
    assert f"{smallest:.2f} ms" in caught.value.remedy


def test_exactly_the_smallest_plan_can_be_reached() -> None:
    table = LatencyTable({0: 0.0, 2: 4.0}, {0: 0.0, 10: 4.0}, rest_ms=1.0)
    errors: Errors = {key: {w: float(9 - w) for w in widths(key[1])} for key in KEYS}
    assert search(errors, table, DENSE, 1.0).shape.layers == (LayerShape(0, 0),) * 2


@pytest.mark.parametrize(("cost_ms", "fits"), [(2.5, True), (2.501, False)])
def test_a_plan_that_is_a_hair_over_the_budget_is_not_taken(cost_ms: float, fits: bool) -> None:
    table = LatencyTable({0: 0.0, 2: cost_ms}, {0: 0.0, 10: cost_ms}, rest_ms=1.0)
    errors: Errors = {key: {0: 1.0, widths(key[1])[-1]: 0.0} for key in KEYS}
    plan = search(errors, table, DENSE, 11.0)
    assert (plan.predicted_loss == 0) is fits
    assert plan.predicted_ms <= 11.0


def test_sub_layers_without_a_curve_stay_gone() -> None:
    table = LatencyTable({0: 0.0, 2: 4.0}, {0: 0.0, 10: 4.0}, rest_ms=1.0)
    errors: Errors = {(0, "ffn"): {0: 1.0, 5: 0.5, 10: 0.0}}
    plan = search(errors, table, DENSE, 99.0)
    assert plan.shape.layers == (LayerShape(0, 10), LayerShape(0, 0))


# --- the sensitivity search --------------------------------------------------------------------

TABLE = LatencyTable({0: 0.0, 1: 2.0, 2: 4.0}, {0: 0.0, 5: 3.0, 10: 6.0}, rest_ms=1.0)
ERRORS: Errors = {
    (0, "attention"): {0: 3.0, 1: 1.0, 2: 0.0},
    (0, "ffn"): {0: 4.0, 5: 1.5, 10: 0.0},
    (1, "attention"): {0: 3.1, 1: 1.1, 2: 0.0},
    (1, "ffn"): {0: 4.2, 5: 1.4, 10: 0.0},
}


def away_from_the_first_layer(plan: Plan) -> float:
    """A judge who, unlike the curves, finds that only the first layer matters."""
    first = plan.shape.layers[0]
    return (2 - first.heads) + (10 - first.ffn) / 5


def test_the_judge_decides_among_the_plans() -> None:
    judged: list[Plan] = []

    def judge(plan: Plan) -> float:
        judged.append(plan)
        return away_from_the_first_layer(plan)

    plan, _ = search_sensitivity(ERRORS, TABLE, DENSE, 12.0, judge, draws=40, seed=0)
    assert judged[0] == search(ERRORS, TABLE, DENSE, 12.0)  # where nothing is drawn yet
    assert away_from_the_first_layer(plan) == min(map(away_from_the_first_layer, judged))
    assert away_from_the_first_layer(plan) < away_from_the_first_layer(judged[0])
    assert all(one.predicted_ms <= 12.0 * SLACK for one in judged)


PRIOR: Scale = {(0, "attention"): 1.0, (0, "ffn"): 1.0, (1, "attention"): 2.7, (1, "ffn"): 2.7}


def test_a_prior_is_judged_first_and_then_the_curves_alone() -> None:
    judged: list[Plan] = []

    def judge(plan: Plan) -> float:
        judged.append(plan)
        return away_from_the_first_layer(plan)

    plan, _ = search_sensitivity(ERRORS, TABLE, DENSE, 12.0, judge, draws=40, seed=0, prior=PRIOR)
    assert judged[0] == search(ERRORS, TABLE, DENSE, 12.0, PRIOR)
    assert judged[1] == search(ERRORS, TABLE, DENSE, 12.0)
    assert judged[0].shape != judged[1].shape
    # It sends the plan the wrong way, which the judge sees.
    assert away_from_the_first_layer(plan) <= away_from_the_first_layer(judged[1])
    assert away_from_the_first_layer(judged[1]) < away_from_the_first_layer(judged[0])


def test_draws_are_around_the_prior() -> None:
    """Where nothing is ever better than it, it is what is found."""
    plan, found = search_sensitivity(
        ERRORS, TABLE, DENSE, 12.0, lambda _: 1.0, draws=20, seed=0, prior=PRIOR
    )
    assert plan == search(ERRORS, TABLE, DENSE, 12.0, PRIOR)
    assert found == pytest.approx(PRIOR)


def test_no_plan_is_judged_twice() -> None:
    judged: list[str] = []

    def judge(plan: Plan) -> float:
        judged.append(str(plan.shape))
        return away_from_the_first_layer(plan)

    search_sensitivity(ERRORS, TABLE, DENSE, 12.0, judge, draws=30, seed=0)
    assert len(judged) == len(set(judged)) > 1


def test_the_sensitivities_that_were_found_give_the_plan_again() -> None:
    plan, found = search_sensitivity(
        ERRORS, TABLE, DENSE, 12.0, away_from_the_first_layer, draws=40, seed=3
    )
    assert search(ERRORS, TABLE, DENSE, 12.0, found) == plan


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_finds_the_same_plan(seed: int) -> None:
    first, second = (
        search_sensitivity(
            ERRORS, TABLE, DENSE, 12.0, away_from_the_first_layer, draws=20, seed=seed
        )
        for _ in range(2)
    )
    assert first == second


def test_a_judge_that_finds_nothing_finite_gets_the_first_plan() -> None:
    plan, found = search_sensitivity(
        ERRORS, TABLE, DENSE, 12.0, lambda _: math.inf, draws=10, seed=0
    )
    assert plan == search(ERRORS, TABLE, DENSE, 12.0)
    assert set(found.values()) == {1.0}


SIX = Shape.uniform(6, 2, 10, hidden=8, head_dim=4, vocab=10)
LAYERS = LatencyTable({0: 0.0, 2: 1.0}, {0: 0.0, 10: 1.0}, 1.0)  # 2 ms a layer


@pytest.mark.parametrize(
    ("budget_ms", "kept"),
    [(13.0, [0, 1, 2, 3, 4, 5]), (7.5, [0, 2, 4]), (5.0, [0, 3]), (3.0, [0]), (1.0, [])],
)
def test_whole_layers_are_dropped_evenly(budget_ms: float, kept: list[int]) -> None:
    plan = drop_layers({}, LAYERS, SIX, budget_ms)
    assert [i for i, layer in enumerate(plan.shape.layers) if layer.heads] == kept
    assert all(bool(layer.heads) == bool(layer.ffn) for layer in plan.shape.layers)
    assert plan.predicted_ms == LAYERS.predict(plan.shape) <= budget_ms


def test_no_layer_left_to_drop_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"smallest plan takes 1\.00 ms"):
        drop_layers({}, LAYERS, SIX, 0.9)


# --- bytes beside milliseconds ------------------------------------------------------------------


def size_of(shape: Shape) -> int:
    return sum(3 * layer.heads + layer.ffn for layer in shape.layers)


@given(errors=curves(), table=tables(), share=st.floats(0, 1), most=st.integers(0, 40))
def test_a_plan_fits_and_is_the_usual_one_where_that_does(
    errors: dict[SubLayer, dict[int, float]], table: LatencyTable, share: float, most: int
) -> None:
    least_ms = minimum_ms(table, DENSE)
    budget_ms = least_ms + share * (table.predict(DENSE) - least_ms)
    usual = search(errors, table, DENSE, budget_ms)
    plan = fitting(search, lambda shape: size_of(shape) <= most)(
        errors, table, DENSE, budget_ms, None
    )
    assert size_of(plan.shape) <= most
    assert table.predict(plan.shape) <= budget_ms * SLACK
    if size_of(usual.shape) <= most:
        assert plan == usual


def test_as_many_milliseconds_as_fit_are_used() -> None:
    table = LatencyTable({0: 0.0, 2: 2.0}, {0: 0.0, 10: 2.0}, 1.0)
    errors = {key: {width: -float(width) for width in widths(key[1])} for key in KEYS}
    sizes = []
    for most in range(33):
        allocate = fitting(search, lambda shape: size_of(shape) <= most)  # noqa: B023 - used at once
        sizes.append(size_of(allocate(errors, table, DENSE, 9.0, None).shape))
    assert sizes == sorted(sizes)
    assert sizes[0] == 0
    assert sizes[-1] == 32
    assert len(set(sizes)) > 3


def test_sensitivities_are_judged_on_plans_that_fit() -> None:
    table = LatencyTable({0: 0.0, 2: 2.0}, {0: 0.0, 10: 2.0}, 1.0)
    errors = {key: {width: -float(width) for width in widths(key[1])} for key in KEYS}
    judged: list[int] = []

    def judge(plan: Plan) -> float:
        judged.append(size_of(plan.shape))
        return 0.0

    allocate = fitting(search, lambda shape: size_of(shape) <= 20)
    search_sensitivity(errors, table, DENSE, 9.0, judge, draws=6, seed=0, allocate=allocate)
    assert judged
    assert max(judged) <= 20
