"""Is one model slower than another? Both measured in turn on one device, judged by their ratio."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune.errors import InputError
from edgeprune.gate.subject import Subject
from edgeprune.measure.profile import Profile, profile
from edgeprune.measure.tails import t_quantile
from edgeprune.measure.target import Target
from edgeprune.measure.verdict import Reason
from edgeprune.onnx_file import check_onnx
from edgeprune.progress import SILENT, Progress
from edgeprune.report.discretion import discreet

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-compare/1"
LEAST_BLOCKS = 20
ITERATIONS = 30  # of each model in a block
# What makes a ratio worthless too; a machine in a bad mood slows both.
SPOILT = {"outputs_not_finite", "another_file", "placement", "rebooted", "coarse_clock"}

Finding = Literal["fine", "slower", "inconclusive"]
EXIT_CODES: dict[Finding, int] = {"fine": 0, "slower": 1, "inconclusive": 3}


@dataclass(frozen=True)
class Comparison:
    """`ratio` is B's median latency over A's, with its interval; `delta` is what is allowed."""

    finding: Finding
    reasons: tuple[Reason, ...]
    ratio: float
    interval: tuple[float, float]
    confidence: float
    delta: float
    blocks: int
    a: Profile
    b: Profile
    command: str

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.finding]

    def line(self) -> str:
        low, high = self.interval
        why = "; ".join(reason.text for reason in self.reasons)
        told = (
            f"{self.finding}  {self.a.target}  B/A {self.ratio:.3f} [{low:.3f}, {high:.3f}] at "
            f"{self.confidence:.0%}, {1 + self.delta:.3g} may be  (p50 {self.a.latency.p50_ms:.2f} "
            f"and {self.b.latency.p50_ms:.2f} ms in {self.blocks} blocks)"
        )
        return f"{told}  {why}" if why else told

    def to_dict(self) -> dict[str, Any]:
        data = {
            "schema": FORMAT,
            "finding": self.finding,
            "exit_code": self.exit_code,
            "reasons": [vars(reason) for reason in self.reasons],
            "ratio": self.ratio,
            "interval": list(self.interval),
            "confidence": self.confidence,
            "delta": self.delta,
            "blocks": self.blocks,
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "command": self.command,
            "line": self.line(),
        }
        told = discreet(data)
        assert isinstance(told, dict)
        return told


def compare(
    a: Path | str,
    b: Path | str,
    *,
    target: str | None = None,
    blocks: int = LEAST_BLOCKS,
    delta: float = 0.03,
    threads: int | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Whether B is slower than A by more than `delta`, a share.

    Each block launches both once, in random order, so that a machine that changes changes both.
    By the t interval of the logarithms of the blocks' ratios of medians: slower if all of it lies
    above 1 + delta, fine if all of it lies below. Raises InputError, TargetError, ResourceError.
    """
    if blocks < LEAST_BLOCKS:
        raise InputError(f"--blocks {blocks}", why=f"at least {LEAST_BLOCKS} are needed")
    if not 0 < delta < 1:
        raise InputError(f"--delta {delta:g}", why="a share between 0 and 1", remedy="as 0.03")
    first, second = Subject.find(Path(a)), Subject.find(Path(b))
    asked = {"target": target, "threads": threads, "batch": batch, "sequence": sequence}
    conditions = first.conditions.but(asked)
    on = Target.parse(conditions.target)
    for one in (first, second):
        check_onnx(one.onnx)
    settings = replace(conditions.settings, launches=blocks, iterations=ITERATIONS, least_s=0.0)
    progress.stage(f"comparing on {on.name}", cached=False)
    taken = profile({"a": first.onnx, "b": second.onnx}, on, settings, progress)
    command = ["edgeprune", "compare", str(a), str(b), "--target", on.name]
    command += ["--blocks", str(blocks), "--delta", f"{delta:g}"]
    return judge_ratio(taken["a"], taken["b"], delta, shlex.join(command))


def judge_ratio(a: Profile, b: Profile, delta: float, command: str = "") -> Comparison:
    """The finding on two profiles whose launches were taken in the same blocks."""
    confidence = 0.99
    logs = _logs(a.latency.launches_ms, b.latency.launches_ms)
    mean = float(logs.mean())
    error = float(logs.std(ddof=1)) / math.sqrt(logs.size)
    reach = t_quantile((1 + confidence) / 2, logs.size - 1) * error
    reasons = tuple(reason for reason in (*a.doubts, *b.doubts) if reason.code in SPOILT)
    bound = math.log1p(delta)
    finding: Finding = "inconclusive"
    if not reasons:
        finding = "slower" if mean - reach > bound else "fine" if mean + reach < bound else finding
    return Comparison(
        finding=finding,
        reasons=reasons,
        ratio=math.exp(mean),
        interval=(math.exp(mean - reach), math.exp(mean + reach)),
        confidence=confidence,
        delta=delta,
        blocks=logs.size,
        a=a,
        b=b,
        command=command,
    )


def _logs(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(
        [math.log(np.median(new) / np.median(old)) for old, new in zip(a, b, strict=True)]
    )
