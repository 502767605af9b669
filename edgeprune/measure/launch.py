"""One launch: the timing program on a device, for given models, and what it answered."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import EdgepruneError, OnnxError, ResourceError, TargetError
from edgeprune.hashing import file_digest
from edgeprune.measure.doctor import require_packages
from edgeprune.measure.target import Finished, Target
from edgeprune.onnx_file import is_int8, load_onnx

SCHEMA = 1  # of the specification and of the result; see edgeprune_targets/bench.py
MARK = "edgeprune-bench"

Feeds = Mapping[str, NDArray[Any]]
"""What one inference is fed: an array for each input."""


@dataclass(frozen=True)
class Load:
    """What models are fed and run with."""

    threads: int = 1
    batch: int = 1
    sequence: int = 128
    limit_s: float = 600.0
    """The longest that one launch may take, after which it counts as hung."""


@dataclass(frozen=True)
class Blocks:
    """How many inferences of a model, how many in a row, and what goes untimed before them."""

    iterations: int
    block: int
    settle: int
    warmup_s: float
    least_s: float = 0.0
    """Seconds of timed inferences at least, however many these are."""


@dataclass(frozen=True)
class Run:
    """What one launch answered."""

    result: Mapping[str, Any]

    def samples_ms(self, model: str) -> list[float]:
        return [float(x) for x in self.result["models"][model]["samples_ms"]]

    def cpu_samples_ms(self, model: str) -> list[float]:
        """Processor time of the same inferences, which other processes hardly touch."""
        return [float(x) for x in self.result["models"][model]["cpu_samples_ms"]]

    def cold_ms(self, model: str) -> float:
        """Opening the model and its first inference."""
        row = self.result["models"][model]
        return float(row["load_ms"] + row["first_ms"])

    @property
    def waited_s(self) -> float:
        """How long, while it timed, the process was ready to run and had no core."""
        return float(self.result["run_delay_s"])

    @property
    def peak_mb(self) -> float:
        return float(self.result["peak_mb"])

    def checked(self, models: Sequence[str]) -> Run:
        """The same, once it can tell all of this. Raises LookupError, TypeError, ValueError."""
        for model in models:
            _ = self.samples_ms(model), self.cpu_samples_ms(model), self.cold_ms(model)
            _ = self.waited_s, self.peak_mb, self.conditions(model)
        return self

    def conditions(self, model: str) -> dict[str, Any]:
        """All but the samples: load, clocks and temperatures before and after, contention."""
        shared = {k: v for k, v in self.result.items() if k not in ("schema", "models", "runtime")}
        row = {k: v for k, v in self.result["models"][model].items() if "samples" not in k}
        return shared | row


@dataclass(frozen=True)
class Bench:
    """Models and the timing program, converted and lying on the device in a folder of their own."""

    target: Target
    load: Load
    models: Mapping[str, Path]
    converted: Mapping[str, Path]
    _there: Mapping[str, str]
    _start: str
    _session: str
    _here: Path
    _folder: str

    def launch(self, names: Sequence[str], blocks: Blocks, *, seed: int) -> Run:
        """Times the named models in one fresh process; several are interleaved in blocks."""
        return self._run(names, blocks, seed=seed, inputs=None)

    def answer(self, name: str, inputs: Sequence[Feeds]) -> list[list[NDArray[Any]]]:
        """The named model's outputs for each of the inputs, from one fresh process."""
        once = Blocks(iterations=1, block=1, settle=0, warmup_s=0.0)
        rows = [{key: _told(array) for key, array in feeds.items()} for feeds in inputs]
        answers = self._run([name], once, seed=0, inputs=rows).result["models"][name]["answers"]
        return [[_array(told) for told in outputs] for outputs in answers]

    def _run(
        self,
        names: Sequence[str],
        blocks: Blocks,
        *,
        seed: int,
        inputs: Sequence[Mapping[str, Any]] | None,
    ) -> Run:
        spec = {
            "schema": SCHEMA,
            "session": self._session,
            "models": {name: self._there[name] for name in names},
            "option": self.target.option,
            "threads": self.load.threads,
            "batch": self.load.batch,
            "sequence": self.load.sequence,
            "seed": seed,
            "inputs": inputs,
            "iterations": blocks.iterations,
            "least_s": blocks.least_s,
            "block": blocks.block,
            "settle": blocks.settle,
            "warmup_s": blocks.warmup_s,
            "limit_s": self.load.limit_s,
        }
        path = self._here / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        device = self.target.device
        starts = device.starts(self.target.runtime.program())
        command = [*starts, self._start, device.push(path, self._folder)]
        # The process ends itself at its limit; a device that lost it is given up a little later.
        finished = device.run(command, self._folder, limit_s=self.load.limit_s + 10)
        return self.read(finished, names)

    def read(self, finished: Finished, names: Sequence[str]) -> Run:
        """What a timing program that ended said of these models. Raises EdgepruneError."""
        try:
            return self._read(finished, names)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TargetError(
                f"target {self.target.name}",
                why=f"its timing program answered in an unknown form: {error!r}"[:300],
                remedy="install matching versions of edgeprune and of the target's package",
            ) from error

    def own_ms(self, run: Run, name: str) -> list[float]:
        """Samples without the neighbours' share of the core, where that can be told apart."""
        if self.load.threads > 1:  # processor time adds up over threads and says no latency
            return run.samples_ms(name)
        return run.cpu_samples_ms(name)

    def _read(self, finished: Finished, names: Sequence[str]) -> Run:
        said = [line.split(" ", 2) for line in finished.output.splitlines() if _is_said(line)]
        stages = [json.loads(text) for _, kind, text in said if kind == "stage"]
        stage = stages[-1] if stages else {"stage": "start", "model": ""}
        if len(said) < 2 or said[-1][1] != "end" or said[-1][2] != _digest(said[-2][2]):
            raise self._died(finished, stage)
        _, kind, text = said[-2]
        answer = json.loads(text)
        if kind == "error":
            raise self._failed(answer)
        if answer["schema"] != SCHEMA:
            raise TargetError(
                f"target {self.target.name}",
                why=f"its timing program speaks version {answer['schema']}, not {SCHEMA}",
                remedy="install matching versions of edgeprune and of the target's package",
            )
        return Run(answer).checked(names)

    def _died(self, finished: Finished, stage: Mapping[str, str]) -> EdgepruneError:
        what = f"{self._model(stage)} on target {self.target.name}"
        where = f"in stage {stage['stage']!r}"
        signal_number = _signal(finished.code)
        if finished.code is None or signal_number == signal.SIGALRM:
            why = f"no answer {where} within {self.load.limit_s:g} s"
            return TargetError(what, why=why, remedy="the process was ended; allow it more time")
        if signal_number == signal.SIGKILL:
            return ResourceError(
                what,
                why=f"the timing process was killed {where}, as the system does without memory",
                remedy="free memory, or measure at a smaller batch or sequence",
            )
        if signal_number:
            why = f"the runtime crashed {where}: {signal.Signals(signal_number).name}"
            return TargetError(what, why=why, remedy="try another version of the runtime")
        last = finished.errors.strip().splitlines()[-1:] or ["no message"]
        why = f"the timing process ended {where} with code {finished.code}: {last[0]}"
        return TargetError(what, why=why, remedy=f"`{self._doctor}` tells what is usable")

    def _failed(self, error: Mapping[str, str]) -> EdgepruneError:
        what = f"{self._model(error)} on target {self.target.name}"
        why = f"{error['stage']}: {error['message'] or error['type']}"
        if error["stage"] == "import" or error["type"] in ("ImportError", "ModuleNotFoundError"):
            return TargetError(what, why=why, remedy=f"`{self._doctor}` tells the remedy")
        if error["type"] == "NotImplementedError":
            return TargetError(what, why=why, remedy="try another target or a newer runtime")
        if error["type"] == "MemoryError":
            return ResourceError(what, why=why, remedy="free memory, or measure at a smaller batch")
        if error["stage"] == "load" and self._is_converted(error["model"]):
            version = self.target.runtime.check().version
            remedy = f"install {version} there, as it was converted by, or try another target"
            return TargetError(what, why=why, remedy=remedy)
        return OnnxError(what, why=why)

    def _is_converted(self, name: str) -> bool:
        """Whether the runtime was handed what was made of a good file."""
        if self.converted[name] == self.models[name]:
            return False
        load_onnx(self.models[name])
        return True

    @property
    def _doctor(self) -> str:
        return f"edgeprune targets doctor {self.target.name}"

    def _model(self, stage: Mapping[str, str]) -> str:
        name = stage["model"]
        return f"model {name!r} ({self.models[name]})" if name in self.models else "the models"


@contextmanager
def prepare(models: Mapping[str, Path], target: Target, load: Load) -> Iterator[Bench]:
    """Converts the models and pushes them; removes all of it at the end."""
    for path in models.values():
        if not path.is_file():
            raise OnnxError(f"ONNX file {path}", why="not a file")
    target.require()
    with TemporaryDirectory(prefix="edgeprune-") as scratch, target.device.folder() as folder:
        require_packages(target, folder)
        here = Path(scratch)
        converted = {}
        for number, (name, path) in enumerate(models.items()):
            _require_precision(target, name, path)
            room = here / str(number)
            room.mkdir()
            converted[name] = target.runtime.convert(
                path, room, batch=load.batch, sequence=load.sequence
            )
        program = target.runtime.program()
        yield Bench(
            target,
            load,
            models,
            converted,
            {name: target.device.push(path, folder) for name, path in converted.items()},
            target.device.push(program.start, folder),
            target.device.push(program.session, folder),
            here,
            folder,
        )


def _require_precision(target: Target, name: str, path: Path) -> None:
    if "int8" not in target.runtime.precisions and is_int8(load_onnx(path)):
        raise TargetError(
            f"model {name!r} ({path}) on target {target.name}",
            why="int8 as ONNX Runtime has it is not taken",
            remedy="give the fp32 file, or another target",
        )


def sha256(path: Path) -> str:
    """Of a file's bytes, or of the names and digests of all files in a folder."""
    if path.is_dir():
        rows = [f"{file.relative_to(path).as_posix()} {sha256(file)}" for file in files(path)]
        return _digest("\n".join(rows))
    return file_digest(path)


def files(path: Path) -> list[Path]:
    """The file itself, or all files of a folder, sorted."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _told(array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON holds it, in both directions."""
    return {"dtype": array.dtype.name, "shape": array.shape, "values": array.ravel().tolist()}


def _array(told: Mapping[str, Any]) -> NDArray[Any]:
    return np.array(told["values"], told["dtype"]).reshape(told["shape"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_said(line: str) -> bool:
    return line.startswith(f"{MARK} ") and line.count(" ") >= 2


def _signal(code: int | None) -> int | None:
    """The signal that ended a command, given as subprocess does or as a shell does (128 + n)."""
    if code is None:
        return None
    number = -code if code < 0 else code - 128
    return number if number in {s.value for s in signal.Signals} else None
