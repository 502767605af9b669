"""Measure a model and judge it against a budget: on every target, after all that cannot flake."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.gate.demands import Demands
from edgeprune.gate.static import Anatomy, Gate, static_gates, target_gates
from edgeprune.gate.subject import Subject
from edgeprune.measure.looks import look
from edgeprune.measure.profile import Profile
from edgeprune.measure.profile import profile as measure
from edgeprune.measure.samples import Question, Sampled
from edgeprune.measure.target import Target
from edgeprune.measure.verdict import EXIT_CODES, MOST_LOOKS, Outcome, together
from edgeprune.onnx_file import check_onnx
from edgeprune.progress import SILENT, Progress
from edgeprune.report.discretion import discreet
from edgeprune.report.environment import environment

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-check/1"


@dataclass(frozen=True)
class Checked:
    """What a gate found: every demand on the file, and the verdict on every target.

    `outcome` is met if all is, missed if anything is, and else inconclusive. Nothing is measured
    where a gate on the file itself has failed.
    """

    outcome: Outcome
    exit_code: int
    demands: Demands
    model: Anatomy
    gates: tuple[Gate, ...]
    targets: tuple[Sampled, ...]
    attempt: int
    command: str
    measuring_s: float
    total_s: float

    def lines(self) -> list[str]:
        """One for each failed gate and each target."""
        failed = [f"missed  {gate.name}: {gate.text}" for gate in self.gates if not gate.passed]
        return [*failed, *(str(one.verdict["line"]) for one in self.targets)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as `docs/check.schema.json` says: all samples are in it."""
        data = {
            "schema": FORMAT,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "demands": self.demands.model_dump(mode="json"),
            "attempt": self.attempt,
            "model": self.model.to_dict(),
            "gates": [vars(gate) for gate in self.gates],
            "targets": [_told(one) for one in self.targets],
            "seconds": {"measuring": self.measuring_s, "total": self.total_s},
            "command": self.command,
        }
        told = discreet(data)
        assert isinstance(told, dict)
        return told


def _told(one: Sampled) -> dict[str, Any]:
    profile = one.profile
    return {
        "target": profile.target,
        "verdict": one.verdict,
        "profile": profile.to_dict(),
        "environment": environment(profile.target, profile.facts),
    }


def profile(
    path: Path | str,
    *,
    target: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    runs: str | None = None,
    progress: Progress = SILENT,
) -> Profile:
    """Measure one model on one target.

    Raises InputError, ParityError, TargetError, ResourceError.
    """
    asked = {"target": target, "threads": threads, "batch": batch}
    asked |= {"sequence": sequence, "runs": runs}
    subject = Subject.find(Path(path))
    conditions = subject.conditions.but(asked)
    on = Target.parse(conditions.target)
    check_onnx(subject.onnx)
    with _stage(f"measuring on {on.name}", progress):
        models = {"model": subject.onnx}
        rows = {"model": subject.rows}
        return measure(models, on, conditions.settings, progress, rows=rows)["model"]


def check(
    path: Path | str,
    budget: str | None = None,
    *,
    config: Path | None = None,
    attempt: int = 1,
    progress: Progress = SILENT,
    **options: Any,
) -> Checked:
    """Hold a model against a budget and further demands.

    `options` are the keys of `Demands`; what is not given stands in `config`, by default
    ./edgeprune.toml, or else in the bundle. A share ("50%") is taken of the run's unpruned model,
    measured in the same minutes. `attempt` counts the times that a CI job was started for the same
    commit: each is a further look. Raises InputError, ParityError, TargetError, ResourceError,
    RefusedError.
    """
    started_s = time.monotonic()
    if attempt < 1:
        raise InputError(f"--attempt {attempt}", why="counts from 1")
    demands = Demands.read(config, options | {"budget": budget})
    looks = demands.looks or MOST_LOOKS
    if attempt > looks:
        why = f"only {looks} looks at one model keep the confidence that was asked for"
        raise InputError(f"--attempt {attempt}", why=why, remedy="change the model or its budget")
    subject = Subject.find(Path(path))
    limit = subject.budget(demands.budget, demands.percentile)
    conditions = subject.conditions.but(demands.model_dump(exclude={"target"}))
    targets = [Target.parse(name) for name in demands.target or [conditions.target]]
    baseline = None if demands.baseline is None else Anatomy.of_baseline(demands.baseline)
    models = {"model": subject.onnx}
    if limit.share is not None:
        models["dense"] = subject.dense_for(limit)
    # To the unpruned model they are other words where the bundle's tokenizer has fewer.
    rows = dict.fromkeys(models, subject.rows)

    def answer(target: Target) -> Sampled:
        with _stage(f"measuring on {target.name}", progress):
            return look(
                models,
                target,
                conditions.settings,
                {"model": limit},
                dense="dense" if "dense" in models else None,
                confidence=demands.confidence / 100,
                first=attempt,
                last=attempt if conditions.runs == "rapid" else looks,
                looks=looks,
                targets=len(targets),
                rows=rows,
                progress=progress,
            )["model"]

    # In a confined process, and so while this one looks at the file.
    with subject.asking() as golden:
        for path in models.values():
            check_onnx(path)
        anatomy = Anatomy.of(subject, conditions)
        gates = static_gates(subject, anatomy, golden(), demands, baseline)
    measuring_s = time.monotonic()
    answers = [answer(target) for target in targets] if all(g.passed for g in gates) else []
    measuring_s = time.monotonic() - measuring_s
    gates += [gate for one in answers for gate in target_gates(anatomy, one.profile)]
    outcome = _outcome(gates, answers)
    return Checked(
        outcome=outcome,
        exit_code=_exit_code(outcome, demands),
        demands=demands,
        model=anatomy,
        gates=tuple(gates),
        targets=tuple(answers),
        attempt=attempt,
        command=str(discreet(_command(path, demands, attempt))),
        measuring_s=round(measuring_s, 3),
        total_s=round(time.monotonic() - started_s, 3),
    )


def _outcome(gates: Sequence[Gate], answers: Sequence[Sampled]) -> Outcome:
    if not all(gate.passed for gate in gates):
        return "missed"
    return together(one.verdict["outcome"] for one in answers)


def _exit_code(outcome: Outcome, demands: Demands) -> int:
    if outcome == "inconclusive" and demands.inconclusive != "fail":
        return 0
    return EXIT_CODES[outcome]


def _command(path: Path | str, demands: Demands, attempt: int) -> str:
    """Does it again, wherever the demands came from."""
    words = ["edgeprune", "check", str(path)]
    for key, value in demands.model_dump(mode="json", exclude_defaults=True).items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{key.replace('_', '-')}", str(one)]
    return shlex.join([*words, *(["--attempt", str(attempt)] if attempt > 1 else [])])


@contextlib.contextmanager
def _stage(name: str, progress: Progress) -> Iterator[None]:
    progress.stage(name, cached=False)
    started_s = time.monotonic()
    yield
    progress.done(name, time.monotonic() - started_s)


@dataclass(frozen=True)
class Proof:
    """Whether the gate can say both: met if it can, missed if it gave a wrong answer."""

    outcome: Outcome
    text: str

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]


def prove(path: Path | str, *, target: str | None = None, progress: Progress = SILENT) -> Proof:
    """Ask one measurement for an impossible budget, which it must miss, and for a huge one.

    Raises InputError, TargetError, ResourceError.
    """
    # Not a rapid one, whose few launches are worth too few samples for any model to be met.
    taken = profile(path, target=target, runs="standard", progress=progress)
    asked_ms = {"missed": taken.latency.p50_ms / 1000, "met": taken.latency.p50_ms * 1000}
    answers = {wanted: Question(ms).answer(taken) for wanted, ms in asked_ms.items()}
    text = "\n".join(f"wanted {wanted}: {got.line()}" for wanted, got in answers.items())
    if any(got.outcome == "inconclusive" for got in answers.values()):
        return Proof("inconclusive", text)
    right = all(wanted == got.outcome for wanted, got in answers.items())
    return Proof("met" if right else "missed", text)
