"""Programs of ours that read what nobody vouches for, in a process that can do little else.

Such a program is one file that imports nothing of edgeprune. It starts with an empty environment
in the root folder, with limits on memory, processor time and open files; it can put no byte into a
file, nor start a process unless it is root's. It answers with a last line of MARK and JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.child import child_process

MARK = "edgeprune-said"  # as the programs have it
OPEN_FILES = 64
# Set before anything is imported. `-I` leaves out what the user's environment adds to Python's
# path, so where this very process finds its packages is handed over; but not the folder that it
# was called in, which may hold a numpy.py of a stranger.
LAUNCH = """
import json, resource, runpy, sys
limits, folders, program, words = json.loads(sys.argv[1])
for name, most in limits.items():
    kind = getattr(resource, name)
    ceiling = resource.getrlimit(kind)[1]
    most = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
    # A second more before the kernel kills without a word: SIGXCPU comes first.
    hard = most + 1 if name == "RLIMIT_CPU" and most != ceiling else most
    resource.setrlimit(kind, (most, hard))
sys.path[:] = folders
sys.argv[:] = [program, *words]
runpy.run_path(program, run_name="__main__")
"""
# A pool of threads has its own memory, and may not be started at all.
ENVIRONMENT = {f"{pool}_NUM_THREADS": "1" for pool in ("OMP", "OPENBLAS", "MKL", "BLIS")}
ENVIRONMENT["ORT_DISABLE_TELEMETRY"] = "1"


@dataclass(frozen=True)
class Ended:
    """How a confined program ended: with an answer, or else why without one."""

    answer: Mapping[str, Any] | None
    why: str = ""


@contextlib.contextmanager
def confined(
    program: Path, words: Sequence[str], *, memory_mb: float, cpu_s: int, wall_s: float
) -> Iterator[Callable[[], Ended]]:
    """A program of ours at work, and what waits for its end; at the end of this it is killed."""
    limits = {
        "RLIMIT_AS": int(memory_mb * 1e6),
        "RLIMIT_CPU": cpu_s,
        "RLIMIT_NOFILE": OPEN_FILES,
        "RLIMIT_NPROC": 0,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
    }
    folders = [str(Path(folder).absolute()) for folder in sys.path if folder]
    given = json.dumps([limits, folders, str(program), list(words)])
    # Some Pythons find their own library by it; nothing else of the environment goes over.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    command = [sys.executable, "-I", "-B", "-c", LAUNCH, given]
    with child_process(command, folder="/", environment=ENVIRONMENT | kept) as child:

        def wait() -> Ended:
            try:
                output, errors = child.communicate(timeout=wall_s)
            except subprocess.TimeoutExpired:
                return Ended(None, f"took over {wall_s:g} s")
            told = said(output)
            if told is None:
                return Ended(None, _why(child.returncode, errors, limits))
            return Ended(told)

        yield wait


def said(output: str) -> Mapping[str, Any] | None:
    """The JSON object of the last line that begins with MARK; None without one."""
    lines = [line for line in output.splitlines() if line.startswith(f"{MARK} ")]
    try:
        told = json.loads(lines[-1].removeprefix(MARK)) if lines else None
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _why(code: int, errors: str, limits: Mapping[str, int]) -> str:
    last = errors.strip().splitlines()[-1:] or ["no message"]
    if "MemoryError" in last[0] or "bad_alloc" in errors:
        return f"needed over {limits['RLIMIT_AS'] / 1e6:.0f} MB of memory"
    if code == -signal.SIGXCPU:
        return f"took over {limits['RLIMIT_CPU']} s of processor time"
    if code < 0:
        return f"crashed what reads it: {signal.Signals(-code).name}"
    return f"ended with code {code}: {last[0][:300]}"
