"""A child process in a group of its own, of which nothing lives on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def child_process(
    command: Sequence[str],
    *,
    folder: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output and errors are read as text; at the end of this its group is killed.

    Raises OSError where there is no such program.
    """
    with subprocess.Popen(
        list(command),
        cwd=folder,
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            yield child
        finally:
            kill_group(child)


def kill_group(child: subprocess.Popen[str]) -> None:
    """Kills a child and all of its group; nothing happens where none of it lives."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
