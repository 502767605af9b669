"""Runs of one user on one machine: while one of them measures, the others stand still.

Whoever measures holds a lock, which one process can have at a time. Whoever computes looks at it
before each step; a step that had begun is over before a launch has warmed up.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator

from platformdirs import user_cache_path

LOCK = "measuring.lock"


@contextlib.contextmanager
def measuring(note: Callable[[str], None]) -> Iterator[None]:
    """Measure alone; `note` hears when another measurement goes first.

    Where no lock can be had, as on a disk that nobody may write to, nothing is waited for.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            folder = user_cache_path("edgeprune", ensure_exists=True)
            lock = held.enter_context((folder / LOCK).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note("another measurement on this machine goes first")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wait_while_measuring() -> None:
    """Returns once nothing of edgeprune measures on this machine."""
    with contextlib.suppress(OSError), (user_cache_path("edgeprune") / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
