"""Met, missed or inconclusive, and the arithmetic behind the interval."""

import json
import math

import numpy as np
import pytest

from edgeprune.errors import BudgetError
from edgeprune.latency import Budget, Latency
from edgeprune.measure.tails import beta_cdf, t_cdf, t_quantile
from edgeprune.measure.verdict import (
    Reason,
    effective_size,
    judge,
    least_size,
    percentile_interval,
)


def even(launches: int = 10, inferences: int = 100, ms: float = 6.0) -> Latency:
    """Independent samples, one percent apart."""
    random = np.random.default_rng(0)
    samples_ms = ms * np.exp(random.normal(0, 0.01, (launches, inferences)))
    return Latency.of(samples_ms.tolist())


def test_a_percentile_within_the_budget_is_met() -> None:
    verdict = judge(even(), Budget.parse("16ms"), target="ort")
    assert (verdict.outcome, verdict.exit_code, verdict.rule) == ("met", 0, "plain")
    assert verdict.exceeded == 0
    assert [reason.code for reason in verdict.reasons] == ["within_budget"]


def test_a_percentile_over_the_budget_is_missed() -> None:
    verdict = judge(even(), Budget.parse("5ms"))
    assert (verdict.outcome, verdict.exit_code) == ("missed", 1)
    assert verdict.exceeded == 1000
    assert [reason.code for reason in verdict.reasons] == ["over_budget"]


def test_a_budget_at_exactly_the_percentile_is_met() -> None:
    latency = even()
    assert judge(latency, Budget(ms=latency.p90_ms)).outcome == "met"


def test_the_budget_s_own_percentile_counts() -> None:
    latency = Latency.of([[1.0] * 950 + [9.0] * 50])
    assert judge(latency, Budget.parse("5ms@p90")).outcome == "met"
    assert judge(latency, Budget.parse("5ms@p99")).outcome == "missed"


@pytest.mark.parametrize(
    ("latency", "code"),
    [
        (Latency.of([]), "no_samples"),
        (Latency.of([[], []]), "no_samples"),
        (Latency.of([[1.0] * 99 + [math.nan]]), "samples_not_finite"),
        (Latency.of([[1.0] * 99 + [math.inf]]), "samples_not_finite"),
        (Latency.of([[1.0] * 43]), "too_few_samples"),
    ],
)
def test_what_cannot_be_told_is_inconclusive_and_says_why(latency: Latency, code: str) -> None:
    verdict = judge(latency, Budget.parse("16ms"))
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 3)
    assert [reason.code for reason in verdict.reasons] == [code]
    assert verdict.more
    assert verdict.reasons[0].text in verdict.line()
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_a_rare_percentile_takes_more_samples() -> None:
    assert judge(even(3, 22), Budget.parse("16ms")).outcome == "met"
    verdict = judge(even(3, 22), Budget.parse("16ms@p99"))
    assert verdict.outcome == "inconclusive"
    assert verdict.more == "at least 459 inferences"
    assert (least_size(0.9, 0.01), least_size(0.99, 0.01)) == (44, 459)


def test_a_doubt_from_elsewhere_allows_only_inconclusive() -> None:
    doubt = Reason("outputs_not_finite", "the outputs are not numbers")
    verdict = judge(even(), Budget.parse("16ms"), doubts=[doubt])
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons == (doubt,)


def test_a_share_that_was_not_resolved_is_refused() -> None:
    with pytest.raises(BudgetError, match="50%"):
        judge(even(), Budget.parse("50%"))


def test_one_line_says_it_all() -> None:
    verdict = judge(Latency.of([[6.0] * 50] * 20), Budget.parse("5ms"), target="ort@pi4")
    assert verdict.line() == (
        "missed  ort@pi4  p90 6.00 ms [6.00, 6.00] at 99 % > budget 5.00 ms "
        "(n=1000 in 20 launches, n*=1000)"
    )


def test_a_verdict_survives_json() -> None:
    data = json.loads(json.dumps(judge(even(3, 22), Budget.parse("16ms")).to_dict()))
    assert data["outcome"] == "met"
    assert data["reasons"][0]["code"] == "within_budget"
    assert data["exit_code"] == 0


def test_the_interval_of_independent_samples_is_that_of_the_binomial() -> None:
    # Ranks from the binomial with n = 1000, p = 0.9, one percent a side.
    ordered = np.arange(1.0, 1001.0)
    assert percentile_interval(ordered, 0.9, 0.01, 1000) == (877.0, 922.0)
    assert percentile_interval(ordered[:44], 0.9, 0.01, 44) == (34.0, 44.0)


def test_few_samples_do_not_bound_a_percentile_from_above() -> None:
    low, high = percentile_interval(np.arange(1.0, 31.0), 0.9, 0.01, 30)
    assert low > 0
    assert high == math.inf


def test_samples_that_hang_together_are_worth_fewer() -> None:
    random = np.random.default_rng(0)
    independent = random.normal(10, 1, (10, 100))
    shifted = independent + random.normal(0, 2, (10, 1))

    def size(samples: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return effective_size(list(samples), float(np.percentile(samples, 90)), 0.01)

    assert 200 < size(independent) <= 1000
    assert size(shifted) < 0.3 * size(independent)


def test_slow_waves_within_a_launch_lower_the_effective_size() -> None:
    wave = np.repeat([[1.0] * 9 + [2.0]], 10, axis=1)  # ten slow inferences in a row
    wave = np.sort(wave.reshape(-1))
    launches = [np.roll(wave, 10 * i) + 1e-6 * np.arange(100) for i in range(10)]
    assert effective_size(launches, 1.5, 0.01) < 500


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    truth = 10 + 1.2815515655 * math.sqrt(1 + 0.3**2)
    covered = 0
    for _ in range(60):
        samples = random.normal(10, 1, (10, 100)) + random.normal(0, 0.3, (10, 1))
        low, high = judge(Latency.of(samples.tolist()), Budget.parse("10ms")).interval_ms
        covered += low <= truth <= high
    assert covered >= 56  # 98 % of 60


@pytest.mark.parametrize(
    ("x", "a", "b", "expected"),
    [
        (0.5, 1.0, 1.0, 0.5),
        (0.3, 2.0, 1.0, 0.09),
        (0.25, 0.5, 0.5, 1 / 3),
        (0.1, 1.0, 44.0, 1 - 0.9**44),
        (0.0, 2.0, 3.0, 0.0),
        (1.0, 2.0, 3.0, 1.0),
    ],
)
def test_the_beta_distribution(x: float, a: float, b: float, expected: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 31.820516), (2, 6.964557), (9, 2.821438), (999, 2.330086)]
)
def test_student_s_t_has_its_tabulated_quantiles(freedom: int, quantile: float) -> None:
    assert t_quantile(0.99, freedom) == pytest.approx(quantile, rel=1e-6)
    assert t_cdf(-quantile, freedom) == pytest.approx(0.01, rel=1e-5)
