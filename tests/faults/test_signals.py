"""SIGINT and SIGTERM wherever a run is: it ends soon, by its code, and leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Ended, Forks, check_invariant, forking, options, parts, write_rows
from processes import children, processes, until

from edgeprune.course import StageRow
from edgeprune.errors import InputError
from edgeprune.run import held
from edgeprune.status import read_status

LIMIT_S = 10.0


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Commands whose teacher takes hours."""
    with forking(tmp_path_factory.mktemp("forks"), None, "with_torch", "1000000") as found:
        yield found


@pytest.fixture
def words(tiny_model: Path, tmp_path: Path) -> list[str]:
    task = write_rows(tmp_path / "letters")
    recipe = {"model": tiny_model, "task": task, "budget": "50%", "target": "null"}
    return [*options(recipe | {"effort": "quick", "out": tmp_path / "run"}), "--quiet"]


def row_of(out: Path, pid: int) -> StageRow | None:
    """The stage in which a process is; None before its first, whatever ran here before."""
    with contextlib.suppress(InputError):
        status = read_status(out)
        return status.current if status.pid == pid else None
    return None


def in_training(out: Path, pid: int) -> bool:
    row = row_of(out, pid)
    return row is not None and row.name == "teacher" and row.done > 0


def in_export(out: Path, pid: int) -> bool:
    row = row_of(out, pid)
    return row is not None and row.note == "exporting probes"


def in_profiling(out: Path, pid: int) -> bool:
    rows = processes()
    words = [word for child in children(pid) if child in rows for word in rows[child].words]
    return any("bench.py" in word for word in words)


When = Callable[[Path, int], bool]


def ended(
    forks: Forks, words: list[str], when: When, *signals: int, apart_s: float = 0.0
) -> tuple[Ended, float]:
    """How a run ended that got signals at some moment, and how long it took from the first."""
    out = Path(words[words.index("--out") + 1])
    pid = forks.start(*words)
    until(lambda: when(out, pid), 300.0)
    left = children(pid)
    began_s = time.monotonic()
    for number in signals:
        os.kill(pid, number)
        time.sleep(apart_s)
    found = forks.wait()
    took_s = time.monotonic() - began_s
    assert not left & processes().keys()
    assert not held(out)
    assert read_status(out).state == "interrupted"
    assert parts(out) == []
    check_invariant(out)
    assert "Traceback" not in found.err
    return found, took_s


@pytest.mark.parametrize("when", [in_export, in_profiling, in_training])
def test_a_run_that_is_told_to_end_ends(forks: Forks, words: list[str], when: When) -> None:
    found, _ = ended(forks, words, when, signal.SIGTERM)
    assert found.code == 143


def test_a_training_that_is_told_to_end_keeps_how_far_it_is(
    forks: Forks, words: list[str], tmp_path: Path
) -> None:
    found, _ = ended(forks, words, in_training, signal.SIGINT)
    assert found.code == 130
    (step,) = (tmp_path / "run" / "snapshots").glob("teacher-*/alone-*/*")
    first = int(step.name)
    found, _ = ended(forks, words, in_training, signal.SIGTERM)
    assert found.code == 143
    steps = (tmp_path / "run" / "snapshots").glob("teacher-*/alone-*/*")
    assert max(int(step.name) for step in steps) > first  # it went on from there


def test_a_second_signal_ends_it_at_once(forks: Forks, words: list[str], tmp_path: Path) -> None:
    found, _ = ended(forks, words, in_training, signal.SIGINT, signal.SIGINT)
    assert found.code == 130


def test_a_killed_run_is_taken_over_with_a_notice(
    forks: Forks, words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pid = forks.start(*words)
    until(lambda: in_training(out, pid), 300.0)
    os.kill(pid, signal.SIGKILL)
    assert forks.wait().code == -signal.SIGKILL
    check_invariant(out)
    assert read_status(out).state == "stopped"
    words.remove("--quiet")
    found, _ = ended(forks, words, in_training, signal.SIGTERM)
    assert f"process {pid} went without a word; taken over" in found.err


def test_a_killed_run_takes_its_timing_process_along(
    forks: Forks, words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pid = forks.start(*words)
    until(lambda: in_profiling(out, pid), 300.0)
    left = children(pid)
    os.kill(pid, signal.SIGKILL)
    forks.wait()
    until(lambda: not left & processes().keys(), LIMIT_S)
