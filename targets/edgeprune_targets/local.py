"""This machine: the timing program as a child process, with nothing of ours loaded beside it."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeprune.child import child_process, kill_group
from edgeprune.errors import RecipeError
from edgeprune.measure.target import Check, Device, Finished, Program
from edgeprune.quiet import measuring
from edgeprune_targets.facts import machine_facts
from edgeprune_targets.shell import quoted

# Where this machine tells of itself, as one path or a pattern below a folder.
FILES = {
    "cpuinfo": ("/proc/cpuinfo",),
    "meminfo": ("/proc/meminfo",),
    "affinity": ("/proc/self/status",),
    "board": ("/proc/device-tree/model",),
    "governor": ("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_governor"),
    "celsius": ("/sys/class/thermal", "thermal_zone*/temp"),
}
# What a Python and its libraries need to start; the rest of the environment stays outside.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH")


class Local(Device):
    def __init__(self, address: str = "") -> None:
        if address:
            raise RecipeError(
                f"device local:{address}", why="it takes no address", remedy='write "local"'
            )

    def check(self) -> Check:
        return Check(True, f"Python {platform.python_version()}")

    def facts(self) -> dict[str, Any]:
        told = {name: _read(*pattern) for name, pattern in FILES.items()}
        told |= {"machine": platform.machine(), "kernel": platform.release()}
        facts = {"device": "local"} | machine_facts(told)
        facts["cores"] = os.cpu_count()
        facts["python"] = platform.python_version()
        return facts

    def alone(self, note: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
        return measuring(note)

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            yield folder

    def push(self, path: Path, folder: str) -> str:
        """The path itself: what is timed is the very file."""
        return str(path.resolve())

    def python(self) -> Sequence[str]:
        # -P: a program's neighbours, which have the names of runtimes, are not what it imports.
        return (sys.executable, "-P")

    def starts(self, program: Program) -> Sequence[str]:
        return program.local or self.python()

    def install_line(self, packages: Sequence[str]) -> str:
        return f"{quoted([sys.executable])} -m pip install {' '.join(packages)}"

    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Finished:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        environment["TMPDIR"] = folder
        with contextlib.ExitStack() as stack:
            try:
                started = child_process(command, folder=folder, environment=environment)
                child = stack.enter_context(started)
            except OSError as error:
                return Finished(127, "", str(error))
            threading.Thread(target=_end_what_outlives, args=(child,), daemon=True).start()
            try:
                output, errors = child.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                kill_group(child)
                output, errors = child.communicate()
                return Finished(None, output, errors)
        return Finished(child.returncode, output, errors)


def _end_what_outlives(child: subprocess.Popen[str]) -> None:
    """Kills grandchildren as soon as the child has ended: they may hold its output open."""
    with contextlib.suppress(ChildProcessError):  # collected already
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        kill_group(child)


def _read(path: str, pattern: str = "") -> str:
    """The text of a file, or of all files of a pattern below a folder; of none it is empty."""
    texts = []
    for file in sorted(Path(path).glob(pattern)) if pattern else [Path(path)]:
        with contextlib.suppress(OSError):
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)
