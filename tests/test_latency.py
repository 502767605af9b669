"""Budgets, samples and the table that predicts an architecture."""

import json
import math

import pytest

from edgeprune.errors import BudgetError
from edgeprune.latency import Budget, Latency, LatencyTable
from edgeprune.measure.table import assemble, isotonic, spreads, undisturbed_ms
from edgeprune.shape import LayerShape, Shape

TABLE = LatencyTable({0: 0.0, 2: 1.0, 4: 3.0}, {0: 0.0, 100: 2.0}, rest_ms=0.5, slope=1.1)


def shape(*layers: tuple[int, int]) -> Shape:
    return Shape(tuple(LayerShape(*layer) for layer in layers), hidden=8, head_dim=2, vocab=32)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("12ms", Budget(ms=12)),
        (" 12.5 ms ", Budget(ms=12.5)),
        ("0.5s", Budget(ms=500)),
        ("250us", Budget(ms=0.25)),
        ("12 ms@p95", Budget(ms=12, percentile=95)),
        ("50%", Budget(share=0.5)),
        ("25 % @ p99", Budget(share=0.25, percentile=99)),
    ],
)
def test_a_budget_is_a_number_with_a_unit(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text", ["12ms", "0.123456789ms", "29%", "50%@p99.5", "1234567.5ms", "12ms@p95"]
)
def test_a_budget_is_written_as_it_is_read(text: str) -> None:
    assert Budget.parse(str(Budget.parse(text))) == Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5", "no unit"),
        ("abc", "not a number"),
        ("0ms", "above zero"),
        ("-3ms", "above zero"),
        ("nan ms", "above zero"),
        ("inf ms", "above zero"),
        ("1.2.3ms", "not a number"),
        ("0,5ms", "point, not a comma"),
        ("5 parsecs", "unknown unit"),
        ("100%", "under 100%"),
        ("5ms@p0", "percentile"),
        ("5ms@p1.5", "percentile"),
        ("5ms@p49", "percentile"),
        ("5ms@p100", "percentile"),
        ("5ms@p0.9", "in percent"),
    ],
)
def test_a_budget_that_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(BudgetError, match=why):
        Budget.parse(text)


def test_a_share_is_taken_of_the_same_percentile_of_the_dense_model() -> None:
    dense = Latency.of([[float(ms) for ms in range(1, 101)]])
    assert Budget.parse("50%").resolve(dense).ms == 45.0
    assert Budget.parse("50%@p50").resolve(dense).ms == 25.0
    assert Budget.parse("7ms").resolve(dense) == Budget.parse("7ms")


def test_a_percentile_is_a_sample_that_was_measured() -> None:
    latency = Latency.of([[1.0, 2.0], [3.0, 10.0]])
    assert latency.percentile(90) == 10.0
    assert latency.percentile(75) == 3.0
    assert latency.p50_ms == 2.0


def test_a_bad_launch_does_not_move_what_is_typical_of_launches() -> None:
    latency = Latency.of([[1.0, 2.0], [1.0, 3.0], [1.0, 30.0]])
    assert latency.percentile(90) == 30.0
    assert latency.typical_percentile(90) == 3.0


def test_the_table_adds_sub_layers_and_is_linear_between_its_points() -> None:
    assert TABLE.predict(shape()) == 0.5
    assert TABLE.predict(shape((2, 100))) == pytest.approx(0.5 + 1.1 * 3.0)
    assert TABLE.predict(shape((3, 0), (0, 50))) == pytest.approx(0.5 + 1.1 * (2.0 + 1.0))


def test_a_scaled_table_predicts_in_the_measure_it_was_scaled_to() -> None:
    dense, half = shape((4, 100)), shape((2, 50))
    scaled = TABLE.scaled_to(dense, 12.0)
    assert scaled.predict(dense) == pytest.approx(12.0)
    assert scaled.predict(half) / 12.0 == pytest.approx(TABLE.predict(half) / TABLE.predict(dense))


def test_the_worst_of_tables_predicts_no_less_than_any_of_them() -> None:
    heads = LatencyTable({0: 0.0, 2: 2.0, 4: 4.0}, {0: 0.0, 100: 1.0}, rest_ms=0.2, spread=0.1)
    for factor in (0.5, 1.0, 2.0):
        worst = LatencyTable.worst([(TABLE, 1.0), (heads, factor)])
        for layers in (((4, 100), (0, 50)), ((1, 0), (3, 70)), ((0, 0), (0, 0))):
            told = worst.predict(shape(*layers))
            assert told >= TABLE.predict(shape(*layers)) - 1e-9
            assert told >= factor * heads.predict(shape(*layers)) - 1e-9
    assert LatencyTable.worst([(TABLE, 1.0), (heads, 0.1)]).predict(shape((4, 100))) == (
        pytest.approx(TABLE.predict(shape((4, 100))))
    )
    assert worst.spread == 0.1


def test_a_table_survives_json() -> None:
    table = LatencyTable({0: 0.0, 1: 0.1}, {0: 0.0}, 0.5, 1.01, 0.02, 0.03, ("busy",))
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_isotonic_pools_what_falls_and_leaves_the_rest() -> None:
    assert isotonic([1.0, 3.0, 2.0, 4.0]) == [1.0, 2.5, 2.5, 4.0]
    assert isotonic([3.0, 2.0, 1.0]) == [2.0, 2.0, 2.0]
    assert isotonic([1.0, 1.0, 2.0]) == [1.0, 1.0, 2.0]
    assert isotonic([]) == []


def stacks(stack: int, layer_norms_ms: float = 0.05) -> tuple[dict[int, float], dict[int, float]]:
    """What exactly additive stacks take: 0.2 ms a head, 0.01 ms a unit, 1 ms for the rest."""
    empty = 1.0 + stack * layer_norms_ms
    attention = {heads: empty + stack * 0.2 * heads for heads in (2, 4)}
    return attention, {width: empty + stack * 0.01 * width for width in (50, 100)}


def test_an_additive_machine_is_predicted_exactly() -> None:
    attention, ffn = stacks(4)
    whole = [(shape((4, 100), (2, 50), (0, 0)), 1.15 + 6 * 0.2 + 150 * 0.01)]
    whole += [(shape((0, 0), (0, 0), (0, 0)), 1.15)]
    table = assemble(attention, ffn, 1.2, whole, stack=4)
    assert table.rest_ms == pytest.approx(1.15)
    assert table.slope == pytest.approx(1.0)
    assert table.fit_error == pytest.approx(0.0, abs=1e-9)
    assert table.predict(shape((3, 75), (1, 0), (0, 20))) == pytest.approx(1.15 + 0.8 + 0.95)


def test_the_empty_stack_stands_in_for_an_empty_architecture() -> None:
    attention, ffn = stacks(3)
    dense = shape((4, 100), (4, 100), (4, 100))
    table = assemble(attention, ffn, 1.15, [(dense, 1.15 + 1.2 * 3 * 1.8)], stack=3)
    assert table.rest_ms == pytest.approx(1.15)
    assert table.slope == pytest.approx(1.2)


def test_a_table_without_whole_models_is_the_plain_sum() -> None:
    attention, ffn = stacks(2)
    table = assemble(attention, ffn, 1.1, [], stack=2)
    assert (table.rest_ms, table.slope) == (1.1, 1.0)


def test_noise_makes_no_sub_layer_cheaper_than_nothing_and_no_wider_one_cheaper() -> None:
    table = assemble({1: 0.9, 2: 1.4, 3: 1.3}, {8: 0.99}, 1.0, [], stack=1)
    assert table.attention_ms == {0: 0.0, 1: 0.0, 2: pytest.approx(0.35), 3: pytest.approx(0.35)}
    assert table.ffn_ms == {0: 0.0, 8: 0.0}


def test_noisy_whole_models_never_make_the_rest_negative() -> None:
    whole = [(shape((2, 0)), 0.1), (shape((4, 0)), 5.0)]
    table = assemble({2: 1.4, 4: 1.8}, {}, 0.001, whole, stack=1)
    assert table.rest_ms >= 0
    assert table.slope > 0


def test_a_disturbed_launch_neither_moves_a_figure_nor_its_spread() -> None:
    calm, calm_too, busy = [1.0] * 20, [1.01] * 20, [5.0] * 20
    assert undisturbed_ms([calm, calm_too, busy]) == pytest.approx(1.0)
    assert spreads({"a": [calm, calm_too, busy]})["a"] < 0.02
    assert spreads({"a": [calm, busy]})["a"] == pytest.approx(4.0)


def test_what_a_short_model_is_off_by_does_not_count_beside_a_long_one() -> None:
    apart = spreads({"short": [[0.1], [0.15]], "long": [[30.0], [30.1]]})
    assert apart["short"] == 0.0
    assert not math.isnan(apart["long"])
