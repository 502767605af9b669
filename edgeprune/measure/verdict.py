"""Whether a budget is met, missed or neither, at a stated confidence."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.errors import BudgetError
from edgeprune.latency import Budget, Latency
from edgeprune.measure.tails import beta_cdf, t_quantile

Outcome = Literal["met", "missed", "inconclusive"]
EXIT_CODES: dict[Outcome, int] = {"met": 0, "missed": 1, "inconclusive": 3}
Samples = npt.NDArray[np.float64]
LEAST_LAUNCHES = 5  # what differs between processes is most of the noise
LEAST_SECONDS = 10.0  # a burst of samples sees one mood of the machine
MOST_LOOKS = 3


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is; the code is stable."""

    code: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The answer, and all that it rests on.

    `interval_ms` holds the percentile at `confidence` a side: budgets below it would be missed,
    those from its upper end on met, which is infinite where the `n_effective` independent samples
    that the `n` are worth do not bound it. `more` says what would decide an inconclusive one.
    `look` is the number of this look at growing data, of at most `looks`.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...]
    percentile: float
    observed_ms: float
    budget_ms: float
    interval_ms: tuple[float, float]
    confidence: float
    n: int
    n_effective: float
    exceeded: int
    launches: int
    more: str = ""
    target: str = ""
    look: int = 1
    looks: int = 1
    targets: int = 1

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def is_open(self) -> bool:
        """Whether more samples of the same kind could decide it."""
        return [reason.code for reason in self.reasons] == ["undecided"]

    def line(self) -> str:
        """All of it in one line."""
        numbers = self._numbers() if math.isfinite(self.observed_ms) else ""
        inconclusive = self.outcome == "inconclusive"
        why = "; ".join(reason.text for reason in self.reasons) if inconclusive else ""
        return "  ".join(word for word in (self.outcome, self.target, numbers, why) if word)

    def _numbers(self) -> str:
        low, high = self.interval_ms
        upper = f"{high:.2f}" if math.isfinite(high) else "∞"
        sign = ">" if self.observed_ms > self.budget_ms else "≤"
        return (
            f"p{self.percentile:g} {self.observed_ms:.2f} ms [{low:.2f}, {upper}] "
            f"at {self.confidence * 100:g} % {sign} budget {self.budget_ms:.2f} ms "
            f"(n={self.n} in {self.launches} launches, n*={self.n_effective:.0f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: an end of the interval, or a percentile, that does not exist is None."""
        data = asdict(self) | {"reasons": [asdict(reason) for reason in self.reasons]}
        data["interval_ms"] = [_finite(end) for end in self.interval_ms]
        data["observed_ms"] = _finite(self.observed_ms)
        return data | {"exit_code": self.exit_code, "line": self.line()}


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Of several: missed if any is, met if all are."""
    found = set(outcomes)
    return "missed" if "missed" in found else "inconclusive" if "inconclusive" in found else "met"


def judge(
    latency: Latency,
    budget: Budget,
    *,
    confidence: float = 0.99,
    target: str = "",
    doubts: Sequence[Reason] = (),
    look: int = 1,
    looks: int = 1,
    targets: int = 1,
) -> Verdict:
    """Whether at least `budget.percentile` percent of inferences take at most `budget.ms`.

    One-sided tests at 1 - `confidence` a side on the share of inferences over the budget, by
    Clopper and Pearson's bounds at the effective sample size of Korn and Graubard (1998). `doubts`
    are findings from elsewhere that allow only an inconclusive answer. Of several `looks` at
    growing data each has its part of the error, and of several `targets` each its part of the
    chance to miss wrongly: that all are met needs no correction (Holm). Raises BudgetError for a
    share of the dense model that was not resolved to milliseconds.
    """
    if budget.ms is None:
        raise BudgetError(f"budget {budget}", why="a share of a latency that is not known here")
    share, alpha = budget.percentile / 100, (1 - confidence) / looks
    launches = [np.asarray(launch, dtype=np.float64) for launch in latency.launches_ms if launch]
    pooled = np.sort(np.concatenate(launches)) if launches else np.empty(0)
    reasons = (*doubts, *_doubts(launches, share, alpha))
    sample, missed_alpha = Sample(0, 0.0, 0), alpha / targets
    observed, interval = math.nan, (math.nan, math.nan)
    if pooled.size and np.isfinite(pooled).all():
        observed = latency.percentile(budget.percentile)
        worth = effective_size(launches, observed, alpha)
        sample = Sample(pooled.size, worth, int((pooled > budget.ms).sum()))
        interval = percentile_interval(pooled, worth, share, alpha, missed_alpha)
    outcome, why = decide(sample, share, alpha, missed_alpha)
    undecided = outcome == "inconclusive" or bool(reasons)
    return Verdict(
        outcome="inconclusive" if reasons else outcome,
        reasons=reasons or (why,),
        percentile=budget.percentile,
        observed_ms=observed,
        budget_ms=budget.ms,
        interval_ms=interval,
        confidence=confidence,
        n=sample.n,
        n_effective=sample.worth,
        exceeded=sample.exceeded,
        launches=len(launches),
        more=_more(reasons, sample, len(launches), share, alpha) if undecided else "",
        target=target,
        look=look,
        looks=looks,
        targets=targets,
    )


@dataclass(frozen=True)
class Sample:
    """`exceeded` of `n` inferences took longer than the budget; they are `worth` so many."""

    n: int
    worth: float
    exceeded: int

    @property
    def exceeded_of_worth(self) -> float:
        """k* = n* k / n."""
        return self.worth * self.exceeded / self.n


def decide(
    sample: Sample, share: float, met_alpha: float, missed_alpha: float
) -> tuple[Outcome, Reason]:
    """What the share of inferences over the budget says, by bounds on the true share.

    met iff BetaInv(1 - alpha; k* + 1, n* - k*) <= 1 - p, missed iff BetaInv(alpha; k*,
    n* - k* + 1) > 1 - p; the distribution is compared where its inverse would be.
    """
    if not sample.n:
        return "inconclusive", Reason("no_samples", "nothing was measured")
    over, worth, allowed = sample.exceeded_of_worth, sample.worth, 1 - share
    told = f"{sample.exceeded / sample.n:.1%} of inferences are over the budget"
    if over < worth and beta_cdf(allowed, over + 1, worth - over) >= 1 - met_alpha:
        return "met", Reason("within_budget", f"{told}, {allowed:.3g} may be")
    if over > 0 and beta_cdf(allowed, over, worth - over + 1) < missed_alpha:
        return "missed", Reason("over_budget", f"{told}, {allowed:.3g} may be")
    text = f"{told}: too near the {allowed:.3g} that may be, for so few samples"
    return "inconclusive", Reason("undecided", text)


def _doubts(launches: Sequence[Samples], share: float, alpha: float) -> list[Reason]:
    n = sum(launch.size for launch in launches)
    if not n:
        return [Reason("no_samples", "nothing was measured")]
    if not all(np.isfinite(launch).all() for launch in launches):
        return [Reason("samples_not_finite", "some samples are not finite numbers")]
    least = least_size(share, alpha)
    if n < least:
        text = f"{n} samples cannot tell of p{share * 100:g}: it takes {least}"
        return [Reason("too_few_samples", text)]
    found = []
    if len(launches) < LEAST_LAUNCHES:
        text = f"{_counted(len(launches), 'launch')}, it takes {LEAST_LAUNCHES}"
        found.append(Reason("few_launches", text))
    return found


def _more(
    doubts: Sequence[Reason], sample: Sample, launches: int, share: float, alpha: float
) -> str:
    """What would decide an inconclusive verdict."""
    codes = {reason.code for reason in doubts}
    if codes & {"too_few_samples", "no_samples"}:
        return f"at least {least_size(share, alpha)} inferences"
    if codes - {"few_launches", "short_timing"}:
        return "a measurement without what is named in the reasons"
    if "few_launches" in codes:
        return _counted(LEAST_LAUNCHES - launches, "more launch")
    if "short_timing" in codes:
        return f"{LEAST_SECONDS:g} s of timing"
    more = launches_to_decide(sample, launches, share, alpha)
    return _counted(more, "more launch") if more else "no number of launches: it is at the budget"


def launches_to_decide(sample: Sample, launches: int, share: float, alpha: float) -> int | None:
    """How many more launches like these would decide; None where even 1000 times as many do not."""

    def decided(total: int) -> bool:
        factor = total / launches
        n, exceeded = round(sample.n * factor), round(sample.exceeded * factor)
        return decide(Sample(n, sample.worth * factor, exceeded), share, alpha, alpha)[0] != (
            "inconclusive"
        )

    high = launches
    while not decided(high):
        high *= 2
        if high > 1000 * launches:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return max(1, high - launches)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}es"


def least_size(share: float, alpha: float) -> int:
    """So many samples that their largest is above the percentile with probability 1 - alpha."""
    return math.ceil(math.log(alpha) / math.log(share))


def effective_size(launches: Sequence[Samples], quantile_ms: float, alpha: float) -> float:
    """How many independent samples these are worth: Korn and Graubard's n*, launches as clusters.

    Of the indicator of exceeding the pooled quantile, so that it exists when no sample exceeds
    the budget.
    """
    over = [(launch > quantile_ms).astype(np.float64) for launch in launches]
    n = sum(rows.size for rows in over)
    share = float(np.concatenate(over).mean())
    spread = share * (1 - share)
    within = _variance_of_mean(np.concatenate([_batch_means(rows) for rows in over]))
    between = _variance_of_mean(np.array([rows.mean() for rows in over]))
    variance = max(within, between, spread / n)
    if spread == 0:
        return float(n)
    correction = 1.0
    if variance == between:
        freedom = len(over) - 1
        correction = (t_quantile(1 - alpha, n - 1) / t_quantile(1 - alpha, freedom)) ** 2
    return min(float(n), spread / variance * correction)


def _batch_means(rows: Samples) -> Samples:
    """Means of consecutive samples, in batches so long that they hardly depend on one another."""
    size = max(10, math.isqrt(rows.size))
    whole = rows[: rows.size // size * size]
    means: Samples = whole.reshape(-1, size).mean(axis=1)
    return means


def _variance_of_mean(means: Samples) -> float:
    return float(means.var(ddof=1) / means.size) if means.size > 1 else 0.0


def percentile_interval(
    ordered_ms: Samples, worth: float, share: float, met_alpha: float, missed_alpha: float
) -> tuple[float, float]:
    """The budgets that are neither met nor missed by these samples: `decide`, turned around.

    From the smallest that would not be missed, or 0, up to the smallest that would be met, or
    infinity: at that many samples over it, which are order statistics.
    """

    def first(holds: Callable[[Outcome], bool]) -> int:
        def so_many(exceeded: int) -> bool:
            sample = Sample(ordered_ms.size, worth, exceeded)
            return holds(decide(sample, share, met_alpha, missed_alpha)[0])

        return bisect_left(range(ordered_ms.size + 1), True, key=so_many)

    not_met = first(lambda outcome: outcome != "met")
    missed = first(lambda outcome: outcome == "missed")
    return (
        float(ordered_ms[-missed]) if missed <= ordered_ms.size else 0.0,
        float(ordered_ms[-not_met]) if not_met else math.inf,
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
