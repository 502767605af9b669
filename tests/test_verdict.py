"""Met, missed or inconclusive, and the arithmetic behind the interval."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import BudgetError
from edgeprune.latency import Budget, Latency
from edgeprune.measure.tails import beta_cdf, t_cdf, t_quantile
from edgeprune.measure.verdict import (
    Reason,
    Sample,
    decide,
    effective_size,
    judge,
    launches_to_decide,
    least_size,
    percentile_interval,
    together,
)


def even(launches: int = 20, inferences: int = 100, ms: float = 6.0) -> Latency:
    """Independent samples, one percent apart."""
    random = np.random.default_rng(0)
    samples_ms = ms * np.exp(random.normal(0, 0.01, (launches, inferences)))
    return Latency.of(samples_ms.tolist())


def exceeding(share: float, launches: int = 20, inferences: int = 100) -> Latency:
    """10 ms, but for a share of inferences that take 30 ms, evenly over the launches."""
    slow = round(share * inferences)
    launch = [10.0] * (inferences - slow) + [30.0] * slow
    random = np.random.default_rng(0)
    return Latency.of([random.permutation(launch).tolist() for _ in range(launches)])


def test_a_share_of_slow_inferences_well_under_what_may_be_is_met() -> None:
    verdict = judge(exceeding(0.02), Budget.parse("20ms"), target="ort")
    assert (verdict.outcome, verdict.exit_code) == ("met", 0)
    assert verdict.exceeded == 40
    assert [reason.code for reason in verdict.reasons] == ["within_budget"]
    assert not verdict.more


def test_a_share_of_slow_inferences_well_over_what_may_be_is_missed() -> None:
    verdict = judge(exceeding(0.3), Budget.parse("20ms"))
    assert (verdict.outcome, verdict.exit_code) == ("missed", 1)
    assert verdict.exceeded == 600
    assert [reason.code for reason in verdict.reasons] == ["over_budget"]


@pytest.mark.parametrize("share", [0.09, 0.1, 0.11])
def test_a_share_near_what_may_be_is_undecided_and_says_what_would_decide(share: float) -> None:
    verdict = judge(exceeding(share), Budget.parse("20ms"))
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 3)
    assert [reason.code for reason in verdict.reasons] == ["undecided"]
    assert "launches" in verdict.more
    assert verdict.is_open


def test_so_many_more_launches_decide() -> None:
    sample = Sample(1000, 400.0, 80)
    more = launches_to_decide(sample, 10, 0.9, 0.01)
    assert more is not None

    def outcome(total: int) -> str:
        factor = total / 10
        grown = Sample(round(1000 * factor), 400 * factor, round(80 * factor))
        return decide(grown, 0.9, 0.01, 0.01)[0]

    assert outcome(10 + more) == "met"
    assert outcome(10 + more - 1) == "inconclusive"
    assert launches_to_decide(Sample(1000, 400.0, 100), 10, 0.9, 0.01) is None


def test_the_budget_s_own_percentile_counts() -> None:
    latency = exceeding(0.05)
    assert judge(latency, Budget.parse("20ms@p90")).outcome == "met"
    assert judge(latency, Budget.parse("20ms@p99")).outcome == "missed"


# Independent samples at p90 and 1 % a side: the most that are met, the fewest that are missed.
CUT_OFFS = {
    64: (1, 13),
    128: (5, 22),
    256: (14, 38),
    500: (34, 67),
    1024: (80, 126),
    2048: (173, 238),
}


@pytest.mark.parametrize("n", CUT_OFFS)
def test_the_cut_offs_of_independent_samples(n: int) -> None:
    outcomes = [decide(Sample(n, float(n), k), 0.9, 0.01, 0.01)[0] for k in range(n + 1)]
    met, missed = CUT_OFFS[n]
    assert outcomes[: met + 1] == ["met"] * (met + 1)
    assert outcomes[met + 1 : missed] == ["inconclusive"] * (missed - met - 1)
    assert outcomes[missed:] == ["missed"] * (n + 1 - missed)


@pytest.mark.parametrize(("share", "least"), [(0.9, 64), (0.99, 662)])
def test_the_early_stopping_counts_of_load_generators(share: float, least: int) -> None:
    one_slow = {n: decide(Sample(n, float(n), 1), share, 0.01, 0.01)[0] for n in (least - 1, least)}
    assert one_slow == {least - 1: "inconclusive", least: "met"}


def test_several_looks_and_targets_share_the_error() -> None:
    budget = Budget.parse("20ms")
    met, missed = exceeding(0.0825, 5, 400), exceeding(0.1175, 5, 400)
    assert judge(met, budget).outcome == "met"
    assert judge(met, budget, looks=3).outcome == "inconclusive"
    assert judge(met, budget, targets=9).outcome == "met"  # all met needs no correction
    assert judge(missed, budget).outcome == "missed"
    assert judge(missed, budget, looks=3).outcome == "inconclusive"
    assert judge(missed, budget, targets=9).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("latency", "code"),
    [
        (Latency.of([]), "no_samples"),
        (Latency.of([[], []]), "no_samples"),
        (Latency.of([[1.0] * 99 + [math.nan]]), "samples_not_finite"),
        (Latency.of([[1.0] * 99 + [math.inf]]), "samples_not_finite"),
        (Latency.of([[1.0] * 43]), "too_few_samples"),
        (Latency.of([[1000.0] * 44] * 4), "few_launches"),
    ],
)
def test_what_cannot_be_told_is_inconclusive_and_says_why(latency: Latency, code: str) -> None:
    verdict = judge(latency, Budget.parse("16ms"))
    assert (verdict.outcome, verdict.exit_code) == ("inconclusive", 3)
    assert [reason.code for reason in verdict.reasons] == [code]
    assert verdict.more
    assert not verdict.is_open
    assert verdict.reasons[0].text in verdict.line()
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_a_rare_percentile_takes_more_samples() -> None:
    verdict = judge(even(3, 22), Budget.parse("16ms@p99"))
    assert verdict.outcome == "inconclusive"
    assert verdict.more == "at least 459 inferences"
    assert (least_size(0.9, 0.01), least_size(0.99, 0.01)) == (44, 459)


def test_a_doubt_from_elsewhere_allows_only_inconclusive() -> None:
    doubt = Reason("outputs_not_finite", "the outputs are not numbers")
    verdict = judge(even(), Budget.parse("16ms"), doubts=[doubt])
    assert verdict.outcome == "inconclusive"
    assert verdict.reasons == (doubt,)


def test_a_timing_that_was_too_short_says_how_long_it_takes() -> None:
    doubt = Reason("short_timing", "2 s of timing")
    assert judge(even(), Budget.parse("16ms"), doubts=[doubt]).more == "10 s of timing"


def test_a_share_that_was_not_resolved_is_refused() -> None:
    with pytest.raises(BudgetError, match="50%"):
        judge(even(), Budget.parse("50%"))


def test_one_line_says_it_all() -> None:
    verdict = judge(Latency.of([[12.0] * 50] * 20), Budget.parse("5ms"), target="ort@pi4")
    assert verdict.line() == (
        "missed  ort@pi4  p90 12.00 ms [12.00, 12.00] at 99 % > budget 5.00 ms "
        "(n=1000 in 20 launches, n*=1000)"
    )


def test_a_verdict_survives_json() -> None:
    data = json.loads(json.dumps(judge(even(), Budget.parse("16ms")).to_dict()))
    assert data["outcome"] == "met"
    assert data["reasons"][0]["code"] == "within_budget"
    assert data["exit_code"] == 0


def test_several_verdicts_together() -> None:
    assert together(["met", "met"]) == "met"
    assert together(["met", "inconclusive"]) == "inconclusive"
    assert together(["inconclusive", "missed", "met"]) == "missed"


def test_the_interval_of_independent_samples_is_that_of_the_binomial() -> None:
    # Ranks from the binomial with n = 1000, p = 0.9, one percent a side.
    ordered = np.arange(1.0, 1001.0)
    assert percentile_interval(ordered, 1000, 0.9, 0.01, 0.01) == (877.0, 922.0)
    assert percentile_interval(ordered[:44], 44, 0.9, 0.01, 0.01) == (34.0, 44.0)


def test_few_samples_do_not_bound_a_percentile_from_above() -> None:
    low, high = percentile_interval(np.arange(1.0, 31.0), 30, 0.9, 0.01, 0.01)
    assert low > 0
    assert high == math.inf


def test_samples_worth_next_to_nothing_bound_a_percentile_on_no_side() -> None:
    assert percentile_interval(np.arange(1.0, 31.0), 1.5, 0.9, 0.01, 0.01) == (0.0, math.inf)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    launches=st.integers(5, 12),
    size=st.integers(5, 60),
    drift=st.floats(0, 1),
    targets=st.integers(1, 3),
)
def test_the_interval_says_what_each_budget_would_get(
    seed: int, launches: int, size: int, drift: float, targets: int
) -> None:
    random = np.random.default_rng(seed)
    samples = random.normal(10, 1, (launches, size)) + random.normal(0, drift, (launches, 1))
    latency = Latency.of(samples.round(2).tolist())  # with ties
    low, high = judge(latency, Budget(ms=10), targets=targets).interval_ms
    for ms in (low, high, *np.percentile(latency.samples_ms, [50, 85, 95, 100]), 100.0):
        for budget_ms in (ms - 0.001, ms):
            if not 0 < budget_ms < math.inf:
                continue
            verdict = judge(latency, Budget(ms=budget_ms), targets=targets)
            if verdict.reasons[0].code != "too_few_samples":
                by_interval = "met" if budget_ms >= high else "missed" if budget_ms < low else ""
                assert verdict.outcome == (by_interval or "inconclusive")


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


def test_the_beta_distribution_is_scipy_s() -> None:
    beta = pytest.importorskip("scipy.stats").beta
    random = np.random.default_rng(0)
    a, b = np.exp(random.uniform(-0.7, 7.6, (2, 10_000)))
    # Where the distribution is neither 0 nor 1.
    x = np.clip(a / (a + b) + random.normal(0, 1, a.size) * np.sqrt(a * b / (a + b) ** 3), 0, 1)
    own = [beta_cdf(*row) for row in zip(x.tolist(), a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_allclose(own, beta.cdf(x, a, b), rtol=0, atol=1e-9)


WITHIN = "2.0% of inferences are over the budget, 0.1 may be"
NEAR = (
    "{}% of inferences are over the budget: too near the 0.1 that may be, for so few samples"
).format
NUMBERS = "p90 10.00 ms [10.00, {}] at 99 % ≤ budget 20.00 ms (n={} in {} launches, n*={})".format
NAN = "some samples are not finite numbers"
FEW = "1 launch, it takes 5"
# Latencies with a budget; then the reasons, what would decide, and the line after outcome, target.
TOLD = [
    (
        exceeding(0.02),
        "20ms",
        [("within_budget", WITHIN)],
        "",
        "met  ort  " + NUMBERS("10.00", 2000, 20, 2000),
    ),
    (
        exceeding(0.09),
        "20ms",
        [("undecided", NEAR("9.0"))],
        "31 more launches",
        f"inconclusive  ort  {NUMBERS('30.00', 2000, 20, 1940)}  {NEAR('9.0')}",
    ),
    (
        exceeding(0.1),
        "20ms",
        [("undecided", NEAR("10.0"))],
        "no number of launches: it is at the budget",
        f"inconclusive  ort  {NUMBERS('30.00', 2000, 20, 1968)}  {NEAR('10.0')}",
    ),
    (
        exceeding(0.02, launches=1),
        "20ms",
        [("few_launches", FEW)],
        "4 more launches",
        f"inconclusive  ort  {NUMBERS('10.00', 100, 1, 100)}  {FEW}",
    ),
    (
        Latency.of([[1.0, math.nan], [2.0, 3.0]]),
        "20ms",
        [("samples_not_finite", NAN)],
        "a measurement without what is named in the reasons",
        f"inconclusive  ort  {NAN}",
    ),
]


@pytest.mark.parametrize(("latency", "budget", "reasons", "more", "line"), TOLD)
def test_what_a_verdict_says_is_said_to_the_letter(
    latency: Latency, budget: str, reasons: list[tuple[str, str]], more: str, line: str
) -> None:
    verdict = judge(latency, Budget.parse(budget), target="ort")
    assert [(reason.code, reason.text) for reason in verdict.reasons] == reasons
    assert verdict.more == more
    assert verdict.line() == line
    told = verdict.to_dict()
    assert (told["line"], told["exit_code"]) == (line, verdict.exit_code)


def test_a_verdict_keeps_what_it_was_asked() -> None:
    told = judge(
        exceeding(0.3), Budget.parse("20ms@p95"), target="x", look=2, looks=3, targets=4
    ).to_dict()
    asked = ("target", "look", "looks", "targets", "percentile", "budget_ms", "confidence")
    assert [told[name] for name in asked] == ["x", 2, 3, 4, 95.0, 20.0, 0.99]
    assert (told["n"], told["launches"], told["exceeded"]) == (2000, 20, 600)
    unknown = judge(Latency.of([[math.inf]]), Budget.parse("20ms"), target="x").to_dict()
    assert (unknown["n"], unknown["n_effective"], unknown["exceeded"]) == (0, 0.0, 0)
    assert (unknown["observed_ms"], unknown["interval_ms"]) == (None, [None, None])


def test_a_budget_that_is_a_share_is_told_with_the_reason() -> None:
    with pytest.raises(BudgetError, match="a share of a latency that is not known here"):
        judge(even(), Budget.parse("50%"))
