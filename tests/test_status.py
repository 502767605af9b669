"""What a run says of itself: to another terminal, while it works and after whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import DataError, InputError, Missed, ResourceError
from edgeprune.progress import SILENT, Silent
from edgeprune.recipe import Recipe
from edgeprune.report.folder import write_reports
from edgeprune.report.report import Report
from edgeprune.run import Run, open_run
from edgeprune.stages import stage_names
from edgeprune.status import FILE, Facts, Status, follow, read_status, recording, seconds_since
from edgeprune_cli.app import main

Captured = pytest.CaptureFixture[str]
RECIPE: dict[str, Any] = {"model": "demo", "task": "rows", "target": "null", "budget": ["50%"]}
DATA = {"task": Facts("rows", "single", "accuracy", 60, 40, 40, "0" * 64)}

# A run in the middle of its second stage, until it is told to end.
RUN = """
import sys
from pathlib import Path
from edgeprune import status
from edgeprune.progress import SILENT
from edgeprune.recipe import Recipe
from edgeprune.run import open_run

status.BETWEEN_WRITES_S, status.WRITING_SHARE = 0, float("inf")
recipe = Recipe.model_validate_json(sys.argv[1])

def build(folder):
    (folder / "weights.bin").write_bytes(bytes(1000))

def train(folder):
    run.progress.step(12, 60, "loss 0.312")
    print("training", flush=True)
    sys.stdin.read()

with open_run(recipe.out, SILENT) as opened, status.recording(opened, recipe, {}) as run:
    run.stage("table", {"seed": 0}, build)
    run.stage("teacher", {"seed": 0}, train)
"""


def started(folder: Path) -> subprocess.Popen[str]:
    """A process that runs in the folder until its stdin is closed."""
    recipe = Recipe(out=folder, **RECIPE).model_dump_json()
    child = subprocess.Popen(
        [sys.executable, "-c", RUN, recipe],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "training\n"
    return child


def build(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(1000))


def recorded(folder: Path, work: Callable[[Run], None], **changes: Any) -> Status:
    """The status after a run that does this work."""
    recipe = Recipe(out=folder, **(RECIPE | changes))
    with open_run(folder, SILENT) as opened, recording(opened, recipe, DATA) as run:
        work(run)
    return read_status(folder)


def states(status: Status) -> dict[str, str]:
    return {row.name: row.state for row in status.rows}


def text_of(folder: Path, capsys: Captured) -> str:
    assert main(["status", str(folder)]) == 0
    return capsys.readouterr().out


# --- the file -------------------------------------------------------------------------------


def test_a_run_is_told_while_it_works(tmp_path: Path) -> None:
    def work(run: Run) -> None:
        status = read_status(tmp_path)
        assert (status.state, status.pid) == ("running", os.getpid())
        assert set(states(status).values()) == {"to come"}
        run.stage("table", {}, lambda folder: looked_into(run, folder))
        (table,) = (row for row in read_status(tmp_path).rows if row.name == "table")
        assert (table.state, table.cached) == ("done", False)

    def looked_into(run: Run, folder: Path) -> None:
        row = read_status(tmp_path).current
        assert row is not None
        assert (row.name, row.state) == ("table", "running")

    status = recorded(tmp_path, work)
    assert status.state == "finished"
    assert [row.name for row in status.rows] == list(stage_names(status.recipe))
    assert [row.state for row in status.rows[:2]] == ["done", "to come"]
    assert status.used == tuple(path.name for path in (tmp_path / "stages").iterdir())


def test_the_progress_of_the_caller_hears_all_of_it(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Listening(Silent):
        def stage(self, name: str, *, cached: bool) -> None:
            told.append((name, cached))

        def step(self, done: int, total: int, note: str = "") -> None:
            told.append((done, total, note))

        def note(self, text: str) -> None:
            told.append((text,))

        def done(self, name: str, seconds: float) -> None:
            told.append((name,))

    def train(folder: Path) -> None:
        run.progress.step(1, 2, "loss 0.3")
        run.progress.note("half of it")

    recipe = Recipe(out=tmp_path, **RECIPE)
    with open_run(tmp_path, Listening()) as opened, recording(opened, recipe, DATA) as run:
        run.stage("teacher", {}, train)
        assert [stage.name for stage in opened.stages] == ["teacher"]
    expected = [("teacher", False), (1, 2, "loss 0.3"), ("half of it",), ("teacher",)]
    assert told == expected
    assert [note.text for note in read_status(tmp_path).notes] == ["half of it"]


def test_steps_are_written_once_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    seen: list[int | None] = []

    def train(folder: Path) -> None:
        nonlocal now_s
        for step in range(1, 9):
            now_s += 0.3
            run.progress.step(step, 10)
            row = read_status(tmp_path).current
            seen.append(row.done if row else None)

    recipe = Recipe(out=tmp_path, **RECIPE)
    with open_run(tmp_path, SILENT) as opened, recording(opened, recipe, DATA) as run:
        run.stage("teacher", {}, train)
    assert seen == [0, 0, 0, 4, 4, 4, 4, 8]


def test_a_slow_disk_is_written_to_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock takes half a second: so does a write, which may take 1 %."""
    now_s = 100.0

    def clock() -> float:
        nonlocal now_s
        now_s += 0.5
        return now_s

    monkeypatch.setattr("time.monotonic", clock)

    def train(folder: Path) -> None:
        for step in range(1, 20):
            run.progress.step(step, 20)
        row = read_status(tmp_path).current
        assert row is not None and row.done == 0

    recipe = Recipe(out=tmp_path, **RECIPE)
    with open_run(tmp_path, SILENT) as opened, recording(opened, recipe, DATA) as run:
        run.stage("teacher", {}, train)


def test_the_recipe_is_kept_whole_and_holds_in_any_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    asked = Recipe(out=Path("run"), **(RECIPE | {"seed": 3, "budget": ["50%", "30%"]}))
    with open_run(asked.out, SILENT) as opened, recording(opened, asked, DATA):
        pass
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "run").rename(tmp_path / "moved")
    recipe = read_status(tmp_path / "moved").recipe
    assert recipe.task == str(tmp_path / "rows")
    assert recipe.model == "demo"  # names no folder
    assert recipe.out == tmp_path / "moved"
    assert asked.model_copy(update={"task": recipe.task, "out": recipe.out}) == recipe


def test_a_status_that_cannot_be_kept_does_not_end_the_run(tmp_path: Path) -> None:
    status = tmp_path / "status.json"

    def work(run: Run) -> None:
        status.unlink()
        status.mkdir()
        assert run.stage("table", {}, build).folder.is_dir()

    with pytest.raises(InputError, match=r"status\.json"):  # its last word is not there either
        recorded(tmp_path, work)
    assert status.is_dir()


def test_a_run_whose_status_cannot_be_written_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "status.json").mkdir()
    with pytest.raises(ResourceError, match=r"status\.json"):
        recorded(tmp_path, lambda run: pytest.fail("began"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "json"),
        ("[]", "object"),
        ("{}", "schema: field required"),
        ('{"schema": "edgeprune-status/9"}', "'edgeprune-status/1'"),
    ],
)
def test_a_file_that_is_no_status_is_one_line(
    tmp_path: Path, capsys: Captured, text: str, says: str
) -> None:
    (tmp_path / "status.json").write_text(text)
    assert main(["status", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert "the run's own command writes it anew" in line


def test_a_folder_that_is_no_run_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no status"):
        read_status(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_status(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Not a directory"):
        read_status(tmp_path / "file")


# --- ends -----------------------------------------------------------------------------------


def made_of(signalled: SystemExit) -> ImportError:
    """As a C library does whose import is cut off."""
    error = ImportError("initialization failed")
    error.__cause__ = signalled
    return error


@pytest.mark.parametrize(
    ("error", "state", "told"),
    [
        (Missed("budget 5 ms", why="unreachable"), "failed", "budget 5 ms — unreachable"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
        (KeyboardInterrupt(), "interrupted", ""),
        (SystemExit(143), "interrupted", ""),
        (made_of(SystemExit(143)), "interrupted", ""),
    ],
)
def test_what_ended_a_run_is_kept(
    tmp_path: Path, error: BaseException, state: str, told: str
) -> None:
    def fail(folder: Path) -> None:
        raise error

    def work(run: Run) -> None:
        run.stage("table", {}, build)
        run.stage("teacher", {}, fail)

    with pytest.raises(type(error)):
        recorded(tmp_path, work)
    status = read_status(tmp_path)
    assert (status.state, status.error) == (state, told)
    assert list(states(status).values())[:3] == ["done", "stopped", "to come"]


def test_a_running_process_is_seen_from_another_one(tmp_path: Path, capsys: Captured) -> None:
    with started(tmp_path) as child:
        told = text_of(tmp_path, capsys)
        assert main(["status", str(tmp_path), "--json"]) == 0
        assert child.stdin
        child.stdin.close()
    lines = told.splitlines()
    assert f"process {child.pid}" in lines[0]
    assert "budget 50%" in lines[1]
    assert lines[2].startswith("✓ table")
    assert lines[3].startswith("▸ teacher")
    assert "12/60" in lines[3]
    assert lines[3].endswith("loss 0.312")
    assert [line.strip() for line in lines[4:]] == list(stage_names(Recipe(**RECIPE)))[2:]
    as_json = json.loads(capsys.readouterr().out)
    assert (as_json["state"], as_json["pid"]) == ("running", child.pid)
    assert as_json["stages"][1]["done"] == 12


def test_a_killed_run_says_where_it_stopped_and_how_to_go_on(
    tmp_path: Path, capsys: Captured
) -> None:
    with started(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
    first, _, table, teacher, *_ = text_of(tmp_path, capsys).splitlines()
    assert "stopped in stage teacher at step 12 of 60" in first
    assert f"process {child.pid} is gone" in first
    assert f"run the same command to go on, or `edgeprune resume {tmp_path}`" in first
    assert table.startswith("✓")
    assert teacher.startswith("✗")
    assert "left" not in teacher
    assert main(["status", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["stages"][1]["state"]) == ("stopped", "stopped")


def test_an_interrupted_run_says_so(tmp_path: Path, capsys: Captured) -> None:
    with started(tmp_path) as child:
        child.send_signal(signal.SIGINT)
    assert "interrupted" in text_of(tmp_path, capsys).splitlines()[0]


def test_a_run_that_stopped_between_stages_names_the_next(tmp_path: Path, capsys: Captured) -> None:
    def work(run: Run) -> None:
        run.stage("table", {}, build)

    status = recorded(tmp_path, work)
    left = json.loads((tmp_path / "status.json").read_text()) | {"state": "running"}
    (tmp_path / "status.json").write_text(json.dumps(left))
    assert read_status(tmp_path) == status.model_copy(update={"state": "stopped"})
    assert ": stopped before stage teacher (process" in text_of(tmp_path, capsys)


def test_a_finished_run_tells_its_verdicts(
    tmp_path: Path, make_report: Callable[..., Report], capsys: Captured
) -> None:
    recorded(tmp_path, lambda run: write_reports(tmp_path, [make_report()]))
    lines = text_of(tmp_path, capsys).splitlines()
    assert ": finished " in lines[0]
    assert lines[-1].startswith("met  ort  p90 16.1 ms")


def test_a_later_call_begins_a_new_status(tmp_path: Path) -> None:
    def work(run: Run) -> None:
        run.stage("table", {}, build)

    first = recorded(tmp_path, work)
    second = recorded(tmp_path, work, budget=["30%"])
    assert second.started > first.started
    assert "plan-30pct" in states(second)
    assert second.rows[0].cached
    assert second.rows[0].seconds == first.rows[0].seconds


# --- watching -------------------------------------------------------------------------------


def test_a_run_is_followed_to_its_end(tmp_path: Path) -> None:
    with started(tmp_path) as child:
        seen = []
        for status in follow(tmp_path, every_s=0.01):
            seen.append(status.state)
            if len(seen) == 2:
                child.kill()
    assert seen[0] == "running"
    assert seen[-1] == "stopped"


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_shows_the_stages_and_then_the_end(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with started(tmp_path) as child:
        monkeypatch.setattr("time.sleep", lambda _: child.kill())
        assert main(["status", str(tmp_path), "--watch"]) == 0
    captured = capsys.readouterr()
    assert "teacher  " in captured.err
    assert "12/60" in captured.err
    assert ("✓ table" in captured.err) is terminal
    assert "stopped in stage teacher" in captured.out


def test_watching_for_a_program_ends_with_json(tmp_path: Path, capsys: Captured) -> None:
    recorded(tmp_path, write_nothing)
    assert main(["status", str(tmp_path), "--watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


def write_nothing(run: Run) -> None:
    assert run.stages == []


# --- data that changed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": 61, "digest": "1" * 64}, "task rows: train 60 → 61"),
        ({"metric": "f1", "digest": "1" * 64}, "task rows: metric accuracy → f1"),
        ({"digest": "1" * 64}, "other rows, as many as before"),
    ],
)
def test_data_that_changed_are_refused_with_what_differs(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    status = recorded(tmp_path, write_nothing)
    status.refuse_changed(DATA, "")
    facts = Facts(**(vars(DATA["task"]) | changes))
    with pytest.raises(DataError, match=says) as caught:
        status.refuse_changed({"task": facts}, "")
    assert "--restart" in caught.value.remedy


def test_a_clock_that_was_set_back_makes_no_age_negative() -> None:
    assert seconds_since(datetime.now(UTC) + timedelta(hours=3)) == 0


def test_a_status_that_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(InputError, match="not a file"):
        read_status(tmp_path)
