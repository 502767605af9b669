"""Processes of this machine as tests see them: what runs, below what, and whether it ended."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    name: str
    words: tuple[str, ...]


def processes() -> dict[int, Process]:
    """All that live; one that its parent has not collected yet has ended."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            head, _, tail = (folder / "stat").read_text().rpartition(")")
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        state, parent = tail.split()[:2]
        if state != "Z":
            pid = int(folder.name)
            found[pid] = Process(pid, int(parent), head.partition("(")[2], tuple(words))
    return found


def below(ancestor: int, name: str) -> set[int]:
    """The processes of a name that descend from another."""
    rows = processes()

    def descends(pid: int) -> bool:
        while pid in rows:
            pid = rows[pid].parent
            if pid == ancestor:
                return True
        return False

    return {pid for pid, row in rows.items() if row.name == name and descends(pid)}


def children(ancestor: int) -> set[int]:
    """The processes that descend from another."""
    rows = processes()
    found = {ancestor}
    while more := {row.pid for row in rows.values() if row.parent in found} - found:
        found |= more
    return found - {ancestor}


def running(text: str) -> list[Process]:
    """Those with a text in their command line."""
    return [row for row in processes().values() if any(text in word for word in row.words)]


def until(done: Callable[[], object], limit_s: float = 60.0) -> None:
    """Waits until something holds; fails when it does not come to hold."""
    deadline_s = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < deadline_s, "it did not come to hold"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
