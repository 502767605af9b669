"""What lies in a run folder beside its reports, and whether it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.latency import Latency
from edgeprune.report.folder import slug
from edgeprune.report.report import Report
from edgeprune.run import BUDGETS, KEY_LENGTH, STAGES

BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what reading it may raise
Errors = Mapping[str, Mapping[int, Mapping[int, float]]]  # "attention" or "ffn" -> layer -> width


class LeftOut(Exception):  # noqa: N818 - an answer, not a fault
    """Why a figure cannot be made. It stays inside the report: the page says it."""


@dataclass(frozen=True)
class Timed:
    """One exported model as it was measured."""

    latency: Latency
    undisturbed_ms: float


@dataclass(frozen=True)
class Training:
    """One training: each task's loss step by step, and validation at its checkpoints."""

    losses: Mapping[str, Mapping[int, float]]  # by task: step -> loss
    scores: Mapping[int, float]  # step -> validation score


@dataclass(frozen=True)
class Compared:
    """A validation score without and with the auxiliary task, and whether it was kept."""

    alone: float
    coupled: float
    kept: bool


@dataclass(frozen=True)
class Evidence:
    """The stages of one report's run. Every method raises LeftOut for what is not there."""

    report: Report
    run: Path | None

    @classmethod
    def beside(cls, path: Path, report: Report) -> Evidence:
        """Of a run folder, of a budget's folder inside it, or of a report.json in either."""
        folder = (path.parent if path.is_file() else path).absolute()
        if folder.parent.name == BUDGETS:
            folder = folder.parent.parent
        return cls(report, folder if (folder / STAGES).is_dir() else None)

    @property
    def kept(self) -> str:
        """The stage that exported the model that was shipped."""
        return f"{self.report.after.precision}-{slug(self.report.budget.text)}"

    def timed(self, exported: str) -> Timed:
        """How the model of an export stage was measured at the end of the run."""
        target = slug(str(self.report.environment.get("target", "")))
        told = self._json("latency", f"{target}.{exported}.json")
        with _reading("the latency profiles"):
            launches = [[float(x) for x in launch] for launch in told["latency"] if launch]
            if not launches:
                raise ValueError("no samples")
            return Timed(Latency.of(launches), float(told["undisturbed_ms"]))

    def errors(self) -> Errors:
        """Expected loss of every width of every sub-layer. The refitted weights stay unread."""
        path = self._folder("curves") / "curves.safetensors"
        try:
            from safetensors import SafetensorError, safe_open
        except ModuleNotFoundError:
            raise LeftOut("reading them needs safetensors: pip install 'edgeprune[html]'") from None
        found: dict[str, dict[int, dict[int, float]]] = {"attention": {}, "ffn": {}}
        with _reading("the error curves", SafetensorError), safe_open(path, "numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                layer, kind, width, what = name.split(".")
                if what == "error":
                    error = float(tensors.get_tensor(name))
                    found[kind].setdefault(int(layer), {})[int(width)] = error
        return {
            kind: {layer: dict(sorted(curve.items())) for layer, curve in sorted(curves.items())}
            for kind, curves in found.items()
        }

    def trainings(self, stage: str) -> dict[str, Training]:
        """Those of a stage, by whether the auxiliary task took part: "alone", "coupled"."""
        told = self._json(stage, "history.json")
        with _reading("the training history"):
            return {str(name): _training(one) for name, one in told.items()}

    def compared(self, stage: str) -> Compared | None:
        """Training with and without the auxiliary task; None where only one was tried."""
        told = self._json(stage, "scores.json")
        with _reading("the validation scores"):
            if told["gain"] is None:
                return None
            score, gain = float(told["score"]), float(told["gain"])
            kept = bool(told["taught"] if "taught" in told else told["recovered"])
            alone = score - gain if kept else score
            return Compared(alone, alone + gain, kept)

    def _json(self, stage: str, name: str) -> Any:
        path = self._folder(stage) / Path(name).name  # a name may come from a report
        with _reading(f"{name} of the stage {stage}"):
            return json.loads(path.read_text(encoding="utf-8"))

    def _folder(self, stage: str) -> Path:
        """The stage's folder: by the key in the report, or the only one of its name."""
        if self.run is None:
            raise LeftOut("only the report is here, without its run folder")
        folders = sorted((self.run / STAGES).glob(f"{stage}-{'[0-9a-f]' * KEY_LENGTH}"))
        key = self.report.stages.get(stage)
        if key is not None:
            folders = [one for one in folders if one.name == f"{stage}-{key[:KEY_LENGTH]}"]
        if not folders:
            raise LeftOut(f"the run folder does not hold the stage {stage}")
        if len(folders) > 1:
            raise LeftOut(f"the run folder holds several stages {stage}, and none is named")
        return folders[0]


def _training(told: Mapping[str, Any]) -> Training:
    losses: dict[str, dict[int, float]] = {}
    for step, row in enumerate(told["steps"], start=1):
        for head, loss in row.items():
            losses.setdefault(str(head), {})[step] = float(loss)
    scores = {int(row["step"]): float(row["score"]) for row in told["checkpoints"]}
    return Training(losses, scores)


@contextmanager
def _reading(what: str, *also: type[Exception]) -> Iterator[None]:
    """What a file may hold instead of what it should becomes LeftOut."""
    broken: tuple[type[Exception], ...] = (*BROKEN, *also)
    try:
        yield
    except FileNotFoundError:
        raise LeftOut(f"the run folder does not hold {what}") from None
    except broken as error:
        raise LeftOut(f"the run folder holds {what} in another form") from error
