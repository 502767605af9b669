"""A run is killed before each of its writes, or refused them: nothing is lost, none lies."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import (
    HALF,
    KILL,
    Ended,
    Forks,
    check_invariant,
    forking,
    options,
    parts,
    tree,
    write_model,
    write_rows,
)

from edgeprune.report.report import Report

Words = Callable[[Path], list[str]]
REFUSALS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EACCES: "Permission denied",
    errno.EROFS: "Read-only file system",
    errno.EIO: "Input/output error",
}


@pytest.fixture(scope="module")
def forks(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forking(tmp_path_factory.mktemp("forks"), shim, "no_torch") as found:
        yield found


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Words:
    """The command for a run folder: two stages, a bundle and a report."""
    room = tmp_path_factory.mktemp("asked")
    model, task = write_model(room / "model"), write_rows(room / "letters")
    recipe = {"model": model, "task": task, "budget": "50%", "target": "null"}
    return lambda out: [*options({**recipe, "out": out}), "--quiet"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told") / "report.json"


@pytest.fixture
def run(
    forks: Forks, words: Words, told: Path, make_report: Callable[..., Report]
) -> Callable[..., Ended]:
    told.write_text(make_report().to_json())

    def run(out: Path, *more: str, **asked: Any) -> Ended:
        asked["environment"] = {"SMALL_REPORT": str(told)}
        return forks.run(*words(out), *more, **asked)

    return run


Run = Callable[..., Ended]


def test_a_kill_before_any_write_loses_nothing_that_was_published(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    unbroken = run(out, log=[str(out), os.devnull])
    assert unbroken.code == 0, unbroken.err
    whole = tree(out)
    assert unbroken.changes > 50
    for n in range(1, unbroken.changes + 1):
        shutil.rmtree(out)
        killed = run(out, arm=[str(out), n, KILL])
        assert killed.code == KILL, n
        if out.exists():
            check_invariant(out)
        assert run(out).code == 0, n
        assert tree(out) == whole, n
        assert parts(out) == [], n


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda number: errno.errorcode[number])
def test_a_refused_write_is_one_line_and_leaves_what_was_there(
    run: Run, tmp_path: Path, refusal: int
) -> None:
    """The folder holds a finished run; one with another seed is refused its n-th write.

    Every write is refused in one way here, and in all ways in benchmarks/torture.py.
    """
    out, before = tmp_path / "run", tmp_path / "before"
    assert run(before).code == 0
    kept = tree(before)
    shutil.copytree(before, out, symlinks=True)
    more = ("--seed", "1")
    changes = run(out, *more, log=[str(out), os.devnull]).changes
    whole = tree(out)
    stages = {name: value for name, value in kept.items() if name.startswith("stages/")}
    for n in range(1 + [*REFUSALS].index(refusal), changes + 1, len(REFUSALS)):
        shutil.rmtree(out)
        shutil.copytree(before, out, symlinks=True)
        ended = run(out, *more, arm=[str(out), n, refusal])
        check_invariant(out)
        assert stages.items() <= tree(out).items(), n
        if ended.code == 0:  # only the last word of the status, or the report, was lost
            assert "stages/student" in "".join(tree(out).keys() - kept.keys()), n
        else:
            assert ended.code == 5, ended.err
            assert REFUSALS[refusal] in ended.error, ended.err
        assert run(out, *more).code == 0, n
        assert tree(out) == whole, n


def test_a_disk_that_is_full_tells_what_is_left_and_where(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = run(out, arm=[str(out), 20, errno.ENOSPC])
    assert ended.code == 5
    assert f"MB left in {out}" in ended.error
    assert "`edgeprune resume` goes on" in ended.error


def test_half_a_write_is_written_on(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = run(out, log=[str(out), os.devnull]).changes
    whole = tree(out)
    for n in range(1, changes + 1, 3):
        shutil.rmtree(out)
        assert run(out, arm=[str(out), n, HALF]).code == 0
        assert tree(out) == whole, n


def test_a_report_that_cannot_be_written_leaves_the_verdict_as_it_is(
    run: Run, words: Words, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(out).code == 0
    (out / "report.md").unlink()
    (out / "report.md").mkdir()
    ended = run(out, "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["verdict"]["outcome"] == "met"
    assert "report.md" in json.loads(ended.out)["notes"][-1]
