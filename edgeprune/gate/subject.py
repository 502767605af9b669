"""What a gate looks at: an ONNX file, a bundle, or the bundle of a run folder.

What a run was measured with (target, threads, rows, tokens, run plan) is the default for its
bundle; other files are measured on `ort`, one row of 128 tokens at a time on one thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import BudgetError, OnnxError, RecipeError, RefusedError
from edgeprune.latency import Budget, check_percentile
from edgeprune.measure.profile import RUN_PLANS, Settings
from edgeprune.report.report import Report
from edgeprune.ship.bundle import GOLDEN, MANIFEST, MODEL, verify_bundle
from edgeprune.ship.golden import proving
from edgeprune.size import Size

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
        plan = RUN_PLANS[self.runs]
        return replace(plan, threads=self.threads, batch=self.batch, sequence=self.sequence)


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

    @contextmanager
    def asking(self) -> Iterator[Callable[[], Mapping[str, Any] | None]]:
        """Its model being asked for its golden answers, and what waits for how they came out.

        None for what has none. Waiting raises TargetError, OnnxError, RefusedError.
        """
        if "golden" not in self.manifest:
            yield lambda: None
        else:
            with proving(self.onnx.parent) as answer:
                yield lambda: answer()["golden"]

    @property
    def rows(self) -> dict[str, NDArray[np.int64]] | None:
        """Inputs of real text, [rows, tokens] each, where a bundle has golden answers to them.

        Raises OnnxError.
        """
        if GOLDEN not in self.manifest.get("files", {}):
            return None
        golden = self.onnx.parent / GOLDEN
        try:
            inputs = dict(json.loads(golden.read_bytes())["inputs"])
            return {name: np.asarray(rows, dtype=np.int64) for name, rows in inputs.items()}
        except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise OnnxError(f"golden answers {golden}", why="cannot be read") from error

    @property
    def conditions(self) -> Conditions:
        return Conditions().but(self.manifest)

    @property
    def size_budget(self) -> Size | None:
        """That of the bundle's run, if it had one."""
        told = self.manifest.get("size")
        return None if told is None else Size(told["bytes"])

    def dense_for(self, budget: Budget) -> Path:
        """The unpruned model that a budget is a share of. Raises BudgetError."""
        if self.dense is None:
            raise BudgetError(
                f"budget {budget}",
                why="a share of the unpruned model, which is not stored with this one",
                remedy='give milliseconds ("12ms"), or check a run folder',
            )
        return self.dense

    def budget(self, text: str | None, percentile: float | None = None) -> Budget:
        """The budget of this text, or else of the bundle, in ms as its run resolved it."""
        if text is not None:
            budget = Budget.parse(text) if percentile is None else _at(text, percentile)
        elif "budget" in self.manifest:
            budget = Budget(**self.manifest["budget"])
            budget = budget if percentile is None else replace(budget, percentile=percentile)
        else:
            raise BudgetError("budget", why="missing", remedy='give one: --budget "12ms"')
        check_percentile(budget.percentile)
        return budget


def _at(text: str, percentile: float) -> Budget:
    """The budget of this text at a percentile that was given apart. Raises BudgetError."""
    check_percentile(percentile)
    budget = Budget.parse(text, percentile=percentile)
    if budget.percentile != percentile:
        why = f"at p{budget.percentile:g}, and --percentile says {percentile:g}"
        raise BudgetError(f"budget {text!r}", why=why, remedy="give one of the two")
    return budget
