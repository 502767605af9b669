"""This machine: the timing program as a child process, with nothing of ours loaded beside it."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import RecipeError
from edgeprune.measure.target import Check, Device, Finished

# Instructions that decide how fast an encoder can be: vectors, int8 and bf16 products.
X86_FLAGS = (
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)
ARM_FLAGS = ("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2")
# What a Python and its libraries need to start; the rest of the environment stays outside.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")


class Local(Device):
    def __init__(self, address: str = "") -> None:
        if address:
            raise RecipeError(
                f"device local:{address}", why="it takes no address", remedy='write "local"'
            )

    def check(self) -> Check:
        return Check(True, f"Python {platform.python_version()}")

    def facts(self) -> dict[str, Any]:
        return {
            "device": "local",
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "memory_mb": memory_mb(_read("/proc/meminfo")),
            "kernel": platform.release(),
            "python": platform.python_version(),
        } | cpu_facts(_read("/proc/cpuinfo"))

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            yield folder

    def push(self, path: Path, folder: str) -> str:
        """The path itself: what is timed is the very file."""
        return str(path.resolve())

    def python(self) -> Sequence[str]:
        return (sys.executable,)

    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Finished:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        child = subprocess.Popen(
            list(command),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # a group of its own, so that all of it can be ended
        )
        with child:
            try:
                output, errors = child.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                _end(child)
                output, errors = child.communicate()
                return Finished(None, output, errors)
            finally:
                _end(child)  # also when we are interrupted
        return Finished(child.returncode, output, errors)


def _end(child: subprocess.Popen[str]) -> None:
    """Kills the child's whole group, grandchildren included."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def cpu_facts(cpuinfo: str) -> dict[str, Any]:
    """The CPU's model and those of its flags that count, from the text of /proc/cpuinfo."""
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    rows = {key.strip().lower(): value.strip() for key, _, value in reversed(lines)}
    model = rows.get("model name") or rows.get("hardware") or rows.get("cpu part")
    present = set((rows.get("flags") or rows.get("features") or "").split())
    return {
        "cpu": model or platform.processor() or "unknown",
        "flags": [flag for flag in X86_FLAGS + ARM_FLAGS if flag in present],
    }


def memory_mb(meminfo: str) -> int | None:
    """The machine's memory in MB of 10⁶ bytes, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 // 1_000_000
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
