"""Measure or judge what is there already: an ONNX file, a bundle, or the bundle of a run folder.

What a run was measured with (target, threads, rows, tokens, run plan) is the default for its
bundle; other files are measured on `ort`, one row of 128 tokens at a time on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeprune.errors import BudgetError, OnnxError, RecipeError, RefusedError
from edgeprune.latency import Budget
from edgeprune.measure.profile import RUN_PLANS, Profile, Settings
from edgeprune.measure.profile import profile as measure
from edgeprune.measure.target import Target
from edgeprune.measure.verdict import Verdict, judge
from edgeprune.onnx_file import check_onnx
from edgeprune.progress import SILENT, Progress
from edgeprune.report.report import Report
from edgeprune.ship.bundle import MANIFEST, MODEL, verify_bundle

DENSE = Path("dense") / MODEL  # the unpruned model, in a run folder


@dataclass(frozen=True)
class Conditions:
    """How a latency is taken. Raises RecipeError for an unknown run plan or a count below one."""

    target: str = "ort"
    threads: int = 1
    batch: int = 1
    sequence: int = 128
    runs: str = "standard"

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "sequence"):
            if getattr(self, name) < 1:
                raise RecipeError(f"--{name} {getattr(self, name)}", why="must be at least 1")
        if self.runs not in RUN_PLANS:
            remedy = f"one of {', '.join(RUN_PLANS)}"
            raise RecipeError(f"--runs {self.runs!r}", why="unknown", remedy=remedy)

    def but(self, asked: Mapping[str, Any]) -> Conditions:
        """These, with what is asked for and not None in place of its like."""
        said: dict[str, Any] = {key: asked.get(key) for key in vars(self)}
        said = {key: value for key, value in said.items() if value is not None}
        return replace(self, **said)

    @property
    def settings(self) -> Settings:
        return Settings.plan(
            self.runs, threads=self.threads, batch=self.batch, sequence=self.sequence
        )


@dataclass(frozen=True)
class Subject:
    """The file that is measured, and what lies with it: its bundle's manifest, its run."""

    onnx: Path
    manifest: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None
    dense: Path | None = None

    @classmethod
    def find(cls, path: Path) -> Subject:
        """Of an ONNX file, a bundle or a run folder.

        Raises OnnxError, InputError, RefusedError for a bundle that is not as it was written.
        """
        if not path.is_dir():
            return cls(path)
        bundle = path / "bundle" if (path / "report.json").is_file() else path
        if not (bundle / MODEL).is_file():
            raise OnnxError(
                f"folder {path}",
                why=f"holds neither a finished run nor {MODEL}",
                remedy="give an ONNX file, a bundle or the --out folder of a run",
            )
        if (bundle / MODEL).is_symlink():
            why = "a link, which may lead anywhere"
            raise RefusedError(f"{bundle / MODEL}", why=why, remedy="give the file itself")
        manifest = verify_bundle(bundle) if (bundle / MANIFEST).is_file() else {}
        home = bundle.resolve().parent
        if not (home / "report.json").is_file():
            return cls(bundle / MODEL, manifest)
        dense = home.parent.parent / DENSE  # home is RUN/budgets/<budget>
        return cls(
            bundle / MODEL,
            manifest,
            Report.read(home / "report.json"),
            dense if dense.is_file() else None,
        )

    @property
    def conditions(self) -> Conditions:
        return Conditions().but(self.manifest)

    def dense_for(self, budget: Budget) -> Path:
        """The unpruned model that a budget is a share of. Raises BudgetError."""
        if self.dense is None:
            raise BudgetError(
                f"budget {budget}",
                why="a share of the unpruned model, which is not stored with this one",
                remedy='give milliseconds ("12ms"), or check a run folder',
            )
        return self.dense

    def budget(self, text: str | None) -> Budget:
        """The budget of this text, or else of the run, in milliseconds as the run resolved it."""
        if text is not None:
            return Budget.parse(text)
        if self.report is None:
            raise BudgetError("budget", why="missing", remedy='give one: --budget "12ms"')
        return Budget(ms=self.report.budget.ms, percentile=self.report.budget.percentile)


@dataclass(frozen=True)
class Checked:
    """A verdict and the measurement it rests on."""

    verdict: Verdict
    profile: Profile

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; every sample is in the profile, so that the verdict can be recomputed."""
        parts = {"verdict": self.verdict.to_dict(), "profile": self.profile.to_dict()}
        return {"schema": "edgeprune-check/1", **parts}


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
    """Measure one model on one target. Raises InputError, TargetError, ResourceError."""
    asked = {"target": target, "threads": threads, "batch": batch}
    asked |= {"sequence": sequence, "runs": runs}
    return measured(path, asked, progress)


def check(
    path: Path | str,
    budget: str | None = None,
    *,
    target: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    sequence: int | None = None,
    runs: str | None = None,
    progress: Progress = SILENT,
) -> Verdict:
    """Measure one model on one target and judge it against a budget, by default its run's.

    A share ("50%") is taken of the run's unpruned model, measured in the same minutes. Raises
    InputError, TargetError, ResourceError.
    """
    asked = {"target": target, "threads": threads, "batch": batch}
    asked |= {"sequence": sequence, "runs": runs}
    return checked(path, budget, asked, progress).verdict


def measured(path: Path | str, asked: Mapping[str, Any], progress: Progress = SILENT) -> Profile:
    """As `profile`, the keywords as a mapping."""
    subject = Subject.find(Path(path))
    return _measured({"model": subject.onnx}, subject.conditions.but(asked), progress)["model"]


def checked(
    path: Path | str, budget: str | None, asked: Mapping[str, Any], progress: Progress = SILENT
) -> Checked:
    """As `check`, the keywords as a mapping, and with the measurement behind the verdict."""
    subject = Subject.find(Path(path))
    limit = subject.budget(budget)
    models = {"model": subject.onnx}
    if limit.share is not None:
        models["dense"] = subject.dense_for(limit)
    profiles = _measured(models, subject.conditions.but(asked), progress)
    if limit.share is not None:
        limit = limit.resolve(profiles["dense"].latency)
    profile = profiles["model"]
    target = f"{profile.target} (proxy)" if profile.proxy else profile.target
    return Checked(judge(profile.latency, limit, target=target, doubts=profile.doubts), profile)


def _measured(
    models: Mapping[str, Path], conditions: Conditions, progress: Progress
) -> dict[str, Profile]:
    target = Target.parse(conditions.target)
    for path in models.values():
        check_onnx(path)
    name = f"measuring on {target.name}"
    progress.stage(name, cached=False)
    started_s = time.monotonic()
    profiles = measure(models, target, conditions.settings, progress)
    progress.done(name, time.monotonic() - started_s)
    return profiles
