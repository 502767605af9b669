"""Who waits while something is measured on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

import pytest

from edgeprune.quiet import measuring, wait_while_measuring
from edgeprune_targets.local import Local

TRAIN = """
from edgeprune.quiet import wait_while_measuring
print("begins", flush=True)
wait_while_measuring()
print("steps", flush=True)
"""
MEASURE = """
from edgeprune.quiet import measuring
with measuring(lambda note: print(note, flush=True)):
    print("measures", flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of these tests alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@contextmanager
def running(program: str) -> Iterator[tuple[Popen[str], Iterator[str]]]:
    """A process, and the lines that it says."""
    with Popen([sys.executable, "-c", program], stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, (line.strip() for line in process.stdout)


def unheard(note: str) -> None:
    pytest.fail(note)


def test_a_training_steps_on_once_the_measurement_is_over() -> None:
    with ExitStack() as measured:
        measured.enter_context(Local().alone(unheard))
        with running(TRAIN) as (process, said):
            assert next(said) == "begins"
            with pytest.raises(TimeoutExpired):
                process.wait(0.5)
            measured.close()
            assert next(said) == "steps"


def test_a_second_measurement_says_that_it_waits() -> None:
    with ExitStack() as measured:
        measured.enter_context(measuring(unheard))
        with running(MEASURE) as (_, said):
            assert next(said) == "another measurement on this machine goes first"
            measured.close()
            assert next(said) == "measures"


def test_nobody_waits_where_nothing_is_measured(cache: Path) -> None:
    wait_while_measuring()
    with measuring(unheard):
        pass
    wait_while_measuring()
    assert (cache / "edgeprune").is_dir()


def test_without_a_place_for_the_lock_nothing_is_waited_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    wait_while_measuring()
    with measuring(unheard), measuring(unheard):
        pass


def test_a_measurement_that_is_killed_holds_nobody_up() -> None:
    with running(f"{MEASURE}    import time; time.sleep(600)") as (process, said):
        assert next(said) == "measures"
        process.kill()
    with measuring(unheard):
        pass
