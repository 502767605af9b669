"""What a run says of itself, kept as RUN/status.json for other terminals and for the next call.

It is replaced as a whole: when a stage that has to be made begins and ends, at most once a second
between, and when the run ends. A run writes only when it tells something, which is never while a
launch is timed. `edgeprune-status/1`:

state                  as the run last said: running, finished, failed or interrupted
error                  one line, of a run that failed
pid, started, updated  its process, its first and its last word
recipe                 what is asked, complete, with absolute paths
model                  sha256 of its weights, config and tokenizer
data                   by "task" and "auxiliary": names, numbers of rows, and a digest of them
stages                 the rows of `course.StageRow`, in order
used                   the folders below stages/ that this call made or found so far
notes                  what stages told beside their steps
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from edgeprune.course import Course, Note, StageRow
from edgeprune.errors import DataError, InputError
from edgeprune.interruption import behind
from edgeprune.publish import publish
from edgeprune.recipe import Recipe
from edgeprune.run import Run, held
from edgeprune.stages import stage_names

if TYPE_CHECKING:
    from edgeprune.inputs import Inputs
    from edgeprune.task import Task

FORMAT: Literal["edgeprune-status/1"] = "edgeprune-status/1"  # 1 (0.1.0): the first
FILE = "status.json"
BETWEEN_WRITES_S = 1.0
WRITING_SHARE = 0.01  # of a run's time at most, whatever its disk

State = Literal["running", "finished", "failed", "interrupted", "stopped"]


@dataclass(frozen=True)
class Facts:
    """A task's data as a run found it."""

    name: str
    kind: str
    metric: str
    train: int
    validation: int
    test: int
    digest: str

    @classmethod
    def of(cls, task: Task) -> Facts:
        rows = (len(task.train), len(task.validation), len(task.test))
        return cls(task.name, task.kind, task.metric, *rows, task.digest)

    def changes(self, now: Facts) -> Iterator[str]:
        """What differs, in words."""
        told = {key: value for key, value in asdict(now).items() if key != "digest"}
        differing = [key for key, value in told.items() if value != getattr(self, key)]
        for key in differing:
            yield f"{key} {getattr(self, key)} → {told[key]}"
        if self.digest != now.digest and not differing:
            yield "other rows, as many as before"


def facts_of(inputs: Inputs) -> dict[str, Facts]:
    """The facts of a run's tasks: "task", and "auxiliary", numbered where there are several."""
    numbered = len(inputs.candidates) > 1
    others = {
        f"auxiliary {i + 1}" if numbered else "auxiliary": task
        for i, task in enumerate(inputs.candidates)
    }
    if inputs.vocabulary is not None:
        others["vocabulary text"] = inputs.vocabulary
    return {key: Facts.of(task) for key, task in {"task": inputs.task, **others}.items()}


class Status(BaseModel):
    """How far a run has come. `state` is "stopped" where its process went without a last word."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    # pydantic's own `schema` attribute would be hidden by a field of that name.
    format: Literal["edgeprune-status/1"] = Field(alias="schema")
    state: State
    error: str = ""
    pid: int
    started: AwareDatetime
    updated: AwareDatetime
    recipe: Recipe
    model: str = ""  # digest of its folder
    data: dict[str, Facts]
    stages: tuple[StageRow, ...]
    used: tuple[str, ...]
    notes: tuple[Note, ...]

    @property
    def folder(self) -> Path:
        return self.recipe.out

    @property
    def rows(self) -> tuple[StageRow, ...]:
        """The stages, the running one as of now, or stopped if the run is."""
        since_s = seconds_since(self.updated)
        return tuple(
            row.later(since_s)
            if self.state == "running"
            else replace(row, state="stopped", left_s=None)
            if row.state == "running"
            else row
            for row in self.stages
        )

    @property
    def current(self) -> StageRow | None:
        """The stage that runs, or in which the run ended."""
        return next((row for row in self.rows if row.state in ("running", "stopped")), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, as of now."""
        now = self.model_copy(update={"stages": self.rows})
        return now.model_dump(mode="json", by_alias=True)

    def refuse_changed(self, data: Mapping[str, Facts], model: str) -> None:
        """Raises DataError, with what differs, unless all is as it was when the run began."""
        changes = [
            f"{key} {self.data[key].name}: {', '.join(self.data[key].changes(data[key]))}"
            for key in self.data.keys() & data.keys()
            if self.data[key] != data[key]
        ]
        if self.model and self.model != model:
            changes.append(f"model {self.recipe.model}: other weights, config or tokenizer")
        if changes:
            raise DataError(
                f"run {self.folder}",
                why=f"its data changed since it began ({'; '.join(sorted(changes))})",
                remedy="--restart redoes all of it with what is there now",
            )


def seconds_since(then: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - then).total_seconds())


def read_status(folder: Path) -> Status:
    """The status of a run folder, whether its run goes on or not; its recipe names this folder.

    Raises InputError.
    """
    status = _read(folder)
    while status.state == "running" and not held(folder):
        # Its last word comes before it lets go of the folder, so that a second look finds it.
        again = _read(folder)
        if again == status:
            return status.model_copy(update={"state": "stopped"})
        status = again
    return status


def follow(folder: Path, *, every_s: float = 1.0) -> Iterator[Status]:
    """The status now and every `every_s` seconds, to the end of the run. Raises InputError."""
    while True:
        status = read_status(folder)
        yield status
        if status.state != "running":
            return
        time.sleep(every_s)


def _read(folder: Path) -> Status:
    path = folder / FILE
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"status {path}", why="not a file")  # a pipe would be waited for
        status = Status.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"run {folder}",
            why=f"holds no {FILE}" if folder.is_dir() else "no such folder",
            remedy="give the --out folder of an `edgeprune compress`",
        ) from None
    except OSError as error:
        raise InputError(f"status {path}", why=error.strerror or "cannot be read") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"status {path}",
            why=f"{where}: {first['msg'].lower()}" if where else first["msg"].lower(),
            remedy="damaged, or of another edgeprune: the run's own command writes it anew",
        ) from None
    return status.model_copy(update={"recipe": status.recipe.model_copy(update={"out": folder})})


@contextlib.contextmanager
def recording(
    run: Run, recipe: Recipe, data: Mapping[str, Facts], model: str = ""
) -> Iterator[Run]:
    """The same run, whose progress is also kept in its folder, and its end with the reason."""
    recorder = _Recorder(run, recipe, data, model)
    recorder.write("running")  # a folder that cannot be written is found out here
    try:
        yield replace(run, progress=recorder)
    except BaseException as error:
        if behind(error):
            recorder.end("interrupted")
        else:
            recorder.end("failed", " ".join(str(error).split()) or type(error).__name__)
        raise
    recorder.end("finished")


class _Recorder:
    """Passes on what a run tells, and keeps it."""

    def __init__(self, run: Run, recipe: Recipe, data: Mapping[str, Facts], model: str) -> None:
        self._told = run.progress
        self._run = run
        self._recipe, self._data, self._model = recipe.from_anywhere(), dict(data), model
        self._started = datetime.now(UTC)
        self._next_s = 0.0
        self._course = Course()
        self._course.outline(stage_names(recipe))

    def outline(self, stages: Sequence[str]) -> None:
        self._told.outline(stages)

    def stage(self, name: str, *, cached: bool) -> None:
        self._told.stage(name, cached=cached)
        self._course.stage(name, cached=cached)
        if not cached:
            self._try()

    def step(self, done: int, total: int, note: str = "") -> None:
        self._told.step(done, total, note)
        self._course.step(done, total, note)
        if time.monotonic() >= self._next_s:
            self._try()

    def note(self, text: str) -> None:
        self._told.note(text)
        self._course.note(text)

    def done(self, name: str, seconds: float) -> None:
        self._told.done(name, seconds)
        cached = (row := self._course.running) is not None and row.cached
        self._course.done(name, seconds)
        if not cached:
            self._try()

    def end(self, state: State, error: str = "") -> None:
        # A full disk has ended the run already, or will; this must not hide why.
        with contextlib.suppress(OSError):
            self.write(state, error)

    def _try(self) -> None:
        # A status that cannot be kept is no reason to lose the work that it is about.
        with contextlib.suppress(OSError):
            self.write("running")

    def write(self, state: State, error: str = "") -> None:
        """Raises OSError."""
        began_s = time.monotonic()
        status = Status(
            schema=FORMAT,
            state=state,
            error=error,
            pid=os.getpid(),
            started=self._started,
            updated=datetime.now(UTC),
            recipe=self._recipe,
            model=self._model,
            data=self._data,
            stages=self._course.rows,
            used=tuple(stage.folder.name for stage in self._run.stages),
            notes=tuple(self._course.notes),
        )
        publish(self._run.folder / FILE, status.model_dump_json(by_alias=True, indent=1))
        now_s = time.monotonic()
        self._next_s = now_s + max(BETWEEN_WRITES_S, (now_s - began_s) / WRITING_SHARE)
