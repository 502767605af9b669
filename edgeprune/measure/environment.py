"""Packages of a runtime's own, which would not go well with edgeprune's: made whole, or not at all.

They lie under the user's cache folder, in a folder whose name tells what was asked for. So one of
another version is never taken for it, and one that can be started is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.version import Version
from platformdirs import user_cache_path

from edgeprune.child import child_process
from edgeprune.errors import EdgepruneError, ResourceError, TargetError
from edgeprune.measure.target import Check
from edgeprune.progress import SILENT, Progress

LIMIT_S = 3_600.0  # gigabytes come over slow lines too
NODE = 18


@dataclass(frozen=True)
class Package:
    """A package by the name that its installer knows.

    `tested` is the version that is installed; where the user has brought one, `least` will do.
    """

    name: str
    tested: str
    least: str = "0"


@dataclass(frozen=True)
class Environment(ABC):
    """What `edgeprune targets install NAME` makes; the first package is the runtime itself."""

    name: str
    packages: tuple[Package, ...]

    @property
    def folder(self) -> Path:
        """Where it lies once it is installed."""
        asked = json.dumps([platform.machine(), *self._asked()])
        return _home() / f"{self.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"

    @property
    def size_mb(self) -> float:
        """What was installed, in MB of 10⁶ bytes."""
        files = (
            path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()
        )
        return sum(path.stat().st_size for path in files) / 1e6

    def check(self) -> Check:
        """Whether it can be used, the runtime's version, and the line that repairs it."""
        if self.is_installed:
            return Check(True, self.packages[0].tested)
        return Check(False, why="not installed", remedy=self.remedy)

    @property
    def is_installed(self) -> bool:
        return self._start.exists()

    @property
    def remedy(self) -> str:
        return f"edgeprune targets install {self.name}"

    @property
    def repair(self) -> str:
        """The line for one that was whole once: `install` takes what is there for whole."""
        if not self.is_installed:
            return self.remedy
        return f"rm -r {shlex.quote(str(self.folder))} && {self.remedy}"

    def install(self, progress: Progress = SILENT) -> None:
        """Makes it unless it is there, in place of older ones of its name.

        Raises TargetError when the installer fails, ResourceError without room. Interrupted, it
        leaves nothing.
        """
        with _alone(self.name):
            if self.is_installed:
                return
            making = self.folder.with_name(f".{self.folder.name}")
            try:
                shutil.rmtree(making, ignore_errors=True)  # of one that was killed
                making.mkdir()
                self._fill(making, progress)
                if self.folder.exists():  # no longer startable: its Python was removed
                    shutil.rmtree(self.folder)
                making.rename(self.folder)
            except OSError as error:
                raise _no_room(self.folder, error.strerror) from error
            finally:
                shutil.rmtree(making, ignore_errors=True)
            for other in _home().iterdir():
                if other != self.folder and re.fullmatch(
                    rf"\.?{self.name}-[0-9a-f]{{12}}", other.name
                ):
                    shutil.rmtree(other, ignore_errors=True)

    @property
    @abstractmethod
    def _start(self) -> Path:
        """What is started in it; there if and only if all is."""

    @abstractmethod
    def _asked(self) -> Sequence[str]:
        """All that decides what is installed."""

    @abstractmethod
    def _fill(self, folder: Path, progress: Progress) -> None: ...

    def _run(self, command: Sequence[str], folder: Path) -> None:
        """Runs an installer; nothing of it lives on."""
        with child_process(command, folder=folder) as child:
            try:
                said = "\n".join(child.communicate(timeout=LIMIT_S))
            except subprocess.TimeoutExpired:
                said = f"not done within {LIMIT_S:g} s"
        if child.returncode:
            raise self._failed(said)

    def _failed(self, said: str) -> EdgepruneError:
        if "No space left" in said or "Disk quota" in said or "ENOSPC" in said:
            return _no_room(self.folder, "no space left")
        lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no message"]
        told = [line for line in lines if re.match(r"(npm )?error\b", line, re.IGNORECASE)]
        return TargetError(
            f"environment of {self.name}",
            why=f"cannot be installed: {(told or lines)[-1][:300]}",
            remedy="look after the network and the package index, then run it again",
        )


@dataclass(frozen=True)
class PythonEnvironment(Environment):
    """Python packages: edgeprune's own where they are good enough, else a virtual environment."""

    def check(self) -> Check:
        here = _version(self.packages[0])
        if all(_is_here(package) for package in self.packages):
            return Check(True, here or "")
        check = super().check()
        if check.usable or here is None:
            return check
        lacking = next(package for package in self.packages if not _is_here(package))
        why = f"{lacking.name} {_version(lacking) or 'missing'}, needs {lacking.least} or newer"
        return Check(False, why=why, remedy=self.remedy)

    def python(self) -> tuple[str, ...]:
        """The words that start the Python with the packages, once `check` finds it usable."""
        if all(_is_here(package) for package in self.packages):
            return (sys.executable, "-P")  # a program's neighbours are not what it imports
        # -I: what the user's environment adds to Python's path belongs to another Python.
        return (str(self._start), "-I")

    @property
    def _start(self) -> Path:
        return self.folder / "bin" / "python"

    def _asked(self) -> Sequence[str]:
        return (platform.python_version(), *self._requirements)

    @property
    def _requirements(self) -> list[str]:
        return [f"{package.name}=={package.tested}" for package in self.packages]

    def _fill(self, folder: Path, progress: Progress) -> None:
        progress.note(f"installing {', '.join(self._requirements)}")
        self._run([sys.executable, "-m", "venv", str(folder)], folder)
        pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input"]
        pip += ["--disable-pip-version-check", "--quiet"]
        self._run([*pip, *self._requirements], folder)


@dataclass(frozen=True)
class NodeEnvironment(Environment):
    """Packages of npm; no script of theirs is run."""

    def check(self) -> Check:
        remedy = f"install Node.js {NODE} or newer (Debian: apt install nodejs npm)"
        for program in ("node", "npm"):
            if shutil.which(program) is None and not (program == "npm" and self.is_installed):
                return Check(False, why=f"there is no `{program}`", remedy=remedy)
        said = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
        found = re.match(r"v(\d+)\.", said)
        if found is None or int(found[1]) < NODE:
            why = f"node {said or 'does not start'}, needs {NODE} or newer"
            return Check(False, why=why, remedy=remedy)
        return super().check()

    @property
    def modules(self) -> Path:
        return self.folder / "node_modules"

    @property
    def _start(self) -> Path:
        return self.modules / self.packages[0].name / "package.json"

    def _asked(self) -> Sequence[str]:
        return [f"{package.name}@{package.tested}" for package in self.packages]

    def _fill(self, folder: Path, progress: Progress) -> None:
        progress.note(f"installing {', '.join(self._asked())}")
        npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        self._run([*npm, "--prefix", str(folder), *self._asked()], folder)


def _home() -> Path:
    return user_cache_path("edgeprune") / "targets"


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Waits for another process that installs the same."""
    try:
        _home().mkdir(parents=True, exist_ok=True)
        lock = (_home() / f".lock-{name}").open("w")
    except OSError as error:
        raise _no_room(_home(), error.strerror) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _no_room(folder: Path, why: str | None) -> ResourceError:
    remedy = "make room there, or set XDG_CACHE_HOME to a folder that has some"
    return ResourceError(f"folder {folder}", why=why or "cannot be written", remedy=remedy)


def _version(package: Package) -> str | None:
    """Of a package that edgeprune's own Python has."""
    try:
        return metadata.version(package.name)
    except metadata.PackageNotFoundError:
        return None


def _is_here(package: Package) -> bool:
    found = _version(package)
    return found is not None and Version(found) >= Version(package.least)
