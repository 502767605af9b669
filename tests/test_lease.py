"""What lives on a device by somebody's holding its stdin, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import processes, until

from edgeprune_targets.remote import LEASE

# Tells its number and its child's; heeds no polite signal, and the child holds the output open.
HANG = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open("starting", "w").write(f"{os.getpid()} {child.pid}")
os.rename("starting", "started")
time.sleep(600)
"""


@contextlib.contextmanager
def leased(
    folder: Path, program: str = HANG, limit_s: float = 600, silence_s: float = 600
) -> Iterator[subprocess.Popen[str]]:
    folder.mkdir()
    words = [sys.executable, str(LEASE), str(folder), str(limit_s), str(silence_s)]
    command = [*words, sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()  # with which it ends, if it has not


def started(folder: Path) -> list[int]:
    until((folder / "started").exists)
    return [int(pid) for pid in (folder / "started").read_text().split()]


def gone(pids: list[int]) -> bool:
    return not processes().keys() & set(pids)


def last_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read().splitlines()[-1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "folder"


@pytest.mark.parametrize("code", [0, 3])
def test_it_tells_the_command_s_exit_code_last(folder: Path, code: int) -> None:
    with leased(folder, f"print('said', end=''); exit({code})") as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"said\nedgeprune-lease {code}\n"
    assert folder.exists()


def test_it_ends_all_of_the_command_when_its_stdin_is_closed(folder: Path) -> None:
    with leased(folder) as process:
        pids = started(folder)
        assert process.stdin is not None
        process.stdin.close()
        assert last_line(process) == "edgeprune-lease gone"
    until(lambda: gone(pids))  # a killed process closes its output before it counts as ended
    assert not folder.exists()


def test_it_ends_all_of_the_command_when_nothing_is_heard(folder: Path) -> None:
    with leased(folder, silence_s=5) as process:
        pids = started(folder)
        assert last_line(process) == "edgeprune-lease silence"
    until(lambda: gone(pids))
    assert not folder.exists()


def test_it_ends_all_of_the_command_at_the_limit_and_keeps_the_folder(folder: Path) -> None:
    with leased(folder, limit_s=5) as process:
        pids = started(folder)
        assert last_line(process) == "edgeprune-lease limit"
    until(lambda: gone(pids))
    assert folder.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_takes_the_command_with_it_when_it_is_ended_itself(
    folder: Path, number: signal.Signals
) -> None:
    with leased(folder) as process:
        pids = started(folder)
        os.kill(process.pid, number)
        assert last_line(process) == "edgeprune-lease gone"
    until(lambda: gone(pids))


def test_a_sign_of_life_now_and_then_keeps_it_going(folder: Path) -> None:
    with leased(folder, silence_s=5) as process:
        pids = started(folder)
        assert process.stdin is not None
        for _ in range(12):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.stdin.write("\n")
            process.stdin.flush()
        assert not gone(pids)
