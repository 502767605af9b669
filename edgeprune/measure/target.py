"""Where latency counts: a runtime on a device, both found by entry point.

A third party's package adds one by naming a class in its pyproject.toml:

    [project.entry-points."edgeprune.runtimes"]
    mine = "my_package:MyRuntime"
"""

from __future__ import annotations

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from edgeprune.errors import RecipeError, RefusedError, TargetError

if TYPE_CHECKING:
    from edgeprune.measure.environment import Environment

Kind = Literal["runtime", "device"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# What ssh or adb are handed as a host or serial; none of these can be taken for an option.
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


@dataclass(frozen=True)
class Check:
    """Whether a runtime or a device can be used here, and the line that repairs it if not."""

    usable: bool
    version: str = ""
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Program:
    """Self-contained sources that time a runtime on a device: nothing of edgeprune is imported.

    `start` takes the path of a JSON specification and prints the result; `session` is the
    runtime's part of it. The protocol of both stands at the top of `edgeprune_targets/bench.py`.
    `packages` are what the session imports beside numpy, by a name that pip knows too. `local` are
    the words that start it on this machine, where that is not the Python that runs edgeprune; a
    program that is not `portable` is no Python's, and runs on no other machine.
    """

    start: Path
    session: Path
    packages: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    portable: bool = True


@dataclass(frozen=True)
class Finished:
    """A command that ended on a device.

    `code` is negative for a signal, None past the limit, 127 when there is no such command.
    """

    code: int | None
    output: str
    errors: str


class Runtime(ABC):
    """An inference engine: turns an ONNX file into what it runs, and brings the code to run it.

    Subclasses are final, take no arguments, and hold no state.
    """

    proxy: ClassVar[bool] = False
    """Whether its milliseconds stand for no device; they are labelled so wherever they go."""
    note: ClassVar[str] = ""
    """What a reader of its figures must know."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    """Which of edgeprune's ONNX files it takes; int8 has MatMulInteger over dynamic ranges."""
    environment: ClassVar[Environment | None] = None
    """What `edgeprune targets install` makes for it, where it needs packages beside edgeprune's."""
    option: ClassVar[str] = ""
    """What may stand behind its name and a colon, in words, as in `openvino:bf16`; "" for nothing.

    The session gets it as `option` and raises NotImplementedError where it cannot be had.
    """
    coarse: ClassVar[tuple[str, ...]] = ()
    """Options by which it computes in fewer bits: their answers are held to what int8 is."""
    reference: ClassVar[bool] = False
    """Whether it is ONNX Runtime itself, which all others are compared with."""
    tolerance: ClassVar[float] = 1e-3
    """The most that its fp32 answers may differ from ONNX Runtime's, where the largest is 1."""

    @abstractmethod
    def check(self) -> Check:
        """Whether this host can convert for it, and its version."""

    @abstractmethod
    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        """What the runtime runs: a file, or a folder of them, in `folder` or the ONNX file itself.

        Runtimes without dynamic shapes convert at `batch` and `sequence`. What it is must answer
        as the ONNX file does, which is tried. Raises OnnxError, and TargetError for an operator
        that the runtime lacks.
        """

    @abstractmethod
    def program(self) -> Program: ...


class Device(ABC):
    """A machine that runs the program: given by the text after the colon, `ssh:pi4` -> "pi4".

    Subclasses are final; a connection lives as long as a call, or as a folder is open. All methods
    but `check` raise TargetError when the device cannot be reached or the link breaks, and
    RefusedError when another machine answers in its place.
    """

    environment: ClassVar[Environment | None] = None
    """What `edgeprune targets install` makes for it, where its client needs packages of its own."""

    @abstractmethod
    def __init__(self, address: str) -> None:
        """Raises RecipeError when the device takes no such address."""

    @abstractmethod
    def check(self) -> Check:
        """Whether it can be reached now and has a Python. Raises RefusedError."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What travels with its numbers: CPU model and flags, cores, memory, kernel.

        `machine`, `cpu` and `cores` are always there and always the same: stored tables of
        latencies are found again by them.
        """

    def alone(self, note: Callable[[str], None]) -> AbstractContextManager[None]:
        """Within, nothing else of edgeprune's keeps it busy, as far as that can be known here.

        `note` hears what is waited for.
        """
        return nullcontext()

    @abstractmethod
    def folder(self) -> AbstractContextManager[str]:
        """A new private folder there, removed at the end with all that was pushed into it."""

    @abstractmethod
    def push(self, path: Path, folder: str) -> str:
        """Makes a file, or a folder of files, readable there; returns its path there.

        What arrives is verified; a file keeps its suffix, a folder the names in it. Raises
        RefusedError for a name in a folder that a shell could misread.
        """

    @abstractmethod
    def python(self) -> Sequence[str]:
        """The words that start a Python with numpy and the runtime there."""

    def starts(self, program: Program) -> Sequence[str]:
        """The words that start a program there. Raises TargetError where it cannot run."""
        if not program.portable:
            raise TargetError(
                f"program {program.start.name}",
                why="runs on this machine only",
                remedy='measure with "@local", or another runtime on that device',
            )
        return self.python()

    @abstractmethod
    def install_line(self, packages: Sequence[str]) -> str:
        """What a user types here so that this Python has these packages."""

    @abstractmethod
    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Finished:
        """Runs a command in the folder, which is its TMPDIR too; words arrive as they are.

        Past the limit, on an error, when this process is interrupted or the link breaks, nothing
        of it lives on.
        """


@dataclass(frozen=True)
class Target:
    """A runtime on a device; `name` is how the user writes it."""

    name: str
    runtime: Runtime
    device: Device
    option: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads "ort" (on this machine), "ort:xnnpack", "ort@local" or "ncnn@ssh:pi4".

        Raises RecipeError for an unknown name, RefusedError for a host that a shell or a client
        could misread, TargetError for an adapter that cannot be loaded.
        """
        written, _, place = text.strip().partition("@")
        name, colon, option = written.partition(":")
        kind, _, address = (place or "local").partition(":")
        for word in (name, kind, *([option] if colon else [])):
            _refuse_unlike_a_name(word, text)
        if colon and name not in runtimes():
            raise _unlike_a_target(text)
        if address and not _ADDRESS.fullmatch(address):
            raise RefusedError(
                f"target {text!r}",
                why=f"{address!r} is not a plain host name or serial",
                remedy="give hosts with options a name in the ssh config, and use that name",
            )
        runtime = load_runtime(name)
        if option and not runtime.option:
            remedy = f'write it as "{name}"'
            raise RecipeError(f"target {text!r}", why=f"{name} takes no option", remedy=remedy)
        return cls(
            written if place in ("", "local") else f"{written}@{place}",
            runtime,
            _load("device", kind, Device)(address),  # type: ignore[type-abstract]
            option,
        )

    def require(self) -> None:
        """Raises TargetError, with the line that repairs it, unless both halves are usable."""
        for part, check in (("runtime", self.runtime.check()), ("device", self.device.check())):
            if not check.usable:
                raise TargetError(f"target {self.name}, {part}", why=check.why, remedy=check.remedy)

    def alone(self, note: Callable[[str], None]) -> AbstractContextManager[None]:
        """The device, as `Device.alone`; a runtime that times nothing has no need of it."""
        return nullcontext() if self.runtime.proxy else self.device.alone(note)


@dataclass(frozen=True)
class Listed:
    """One adapter as `edgeprune targets list` shows it."""

    name: str
    kind: Kind
    check: Check
    proxy: bool = False


def runtimes() -> list[str]:
    """The names of all installed runtimes."""
    return sorted(_adapters("runtime"))


def load_runtime(name: str) -> Runtime:
    """An installed runtime. Raises RecipeError for an unknown one, TargetError for a broken one."""
    return _load("runtime", name, Runtime)()  # type: ignore[type-abstract]


def environment_of(name: str) -> Environment | None:
    """Of a runtime, or of a device that no runtime shares its name with. Raises RecipeError."""
    if name in devices() and name not in runtimes():
        return _load("device", name, Device).environment  # type: ignore[type-abstract]
    return load_runtime(name).environment


def devices() -> list[str]:
    """The names of all installed devices."""
    return sorted(_adapters("device"))


def targets() -> list[Listed]:
    """Every installed runtime and device, those that cannot be loaded included."""
    listed = [_listed_device(name) for name in devices()]
    return [_listed_runtime(name) for name in runtimes()] + listed


def _listed_runtime(name: str) -> Listed:
    try:
        runtime = load_runtime(name)
    except TargetError as error:
        return Listed(name, "runtime", Check(False, why=error.why, remedy=error.remedy))
    return Listed(name, "runtime", runtime.check(), runtime.proxy)


def _listed_device(name: str) -> Listed:
    try:
        check = _load("device", name, Device)("").check()  # type: ignore[type-abstract]
    except RecipeError as error:  # one that cannot be had without an address
        check = Check(True, why=error.why, remedy=error.remedy)
    except TargetError as error:
        check = Check(False, why=error.why, remedy=error.remedy)
    return Listed(name, "device", check)


def _refuse_unlike_a_name(word: str, text: str) -> None:
    if _NAME.fullmatch(word):
        return
    if re.search(r"[/=$`;|&<>\\\n]|^-", word):
        raise RefusedError(
            f"target {text!r}",
            why=f"{word!r} is not the plain name of a runtime or a device",
            remedy='write it as "ort" or "ort@ssh:host"',
        )
    raise _unlike_a_target(text)


def _unlike_a_target(text: str) -> RecipeError:
    return RecipeError(
        f"target {text!r}",
        why="not a runtime, or a runtime at a device",
        remedy='write it as "ort" or "ort@ssh:host"; `edgeprune targets list` names all',
    )


def _adapters(kind: Kind) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"edgeprune.{kind}s")}


_Adapter = TypeVar("_Adapter", Runtime, Device)


def _load(kind: Kind, name: str, base: type[_Adapter]) -> type[_Adapter]:
    adapters = _adapters(kind)
    if name not in adapters:
        close = difflib.get_close_matches(name.lower(), adapters, n=1)
        known = ", ".join(sorted(adapters)) or "none: reinstall edgeprune"
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RecipeError(
            f"target {name!r}", why=f"unknown {kind}", remedy=f"{hint}Installed: {known}"
        )
    try:
        adapter = adapters[name].load()
    except (ImportError, AttributeError, SyntaxError) as error:
        package = adapters[name].dist
        raise TargetError(
            f"{kind} {name!r}",
            why=f"cannot be loaded: {error}",
            remedy=f"reinstall {package.name if package else adapters[name].module}",
        ) from error
    if not (isinstance(adapter, type) and issubclass(adapter, base)):
        raise TargetError(f"{kind} {name!r}", why=f"{adapters[name].value} is not a {kind} class")
    return adapter
