"""The run folder: work is done once, published whole, and never by two at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune import run as run_module
from edgeprune.errors import DataError, InputError, ResourceError
from edgeprune.hashing import code_digest
from edgeprune.progress import SILENT, Silent
from edgeprune.publish import MANIFEST, Torn
from edgeprune.run import BOOT_ID, FORMAT, Stage, digest, held, open_run, write_json

Build = Callable[[Path], None]
FROM: dict[str, Any] = {"seed": 0, "parts": [1, 2], "nested": {"a": 1.5}}


class Work:
    """A stage's work that counts how often it is done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, folder: Path) -> None:
        self.done += 1
        (folder / "inner").mkdir()
        (folder / "inner" / "weights.bin").write_bytes(b"\x00\x01\x02\x03" * 100)
        (folder / "answer.json").write_text(json.dumps({"done": self.done}))


@pytest.fixture
def work() -> Work:
    return Work()


def run_once(folder: Path, work: Build, name: str = "teach", **made_from: Any) -> Stage:
    with open_run(folder, SILENT) as run:
        return run.stage(name, made_from or FROM, work)


def test_a_stage_is_made_in_its_own_folder(tmp_path: Path, work: Work) -> None:
    stage = run_once(tmp_path / "run", work)
    assert stage.folder.parent == tmp_path / "run" / "stages"
    assert stage.folder.name.startswith("teach-")
    assert not stage.cached
    assert stage.read("answer.json") == {"done": 1}
    assert stage.folder.name == f"teach-{stage.key[:12]}"
    manifest = json.loads((stage.folder / MANIFEST).read_text())
    assert set(manifest.pop("files")) == {"answer.json", "inner/weights.bin"}
    assert manifest == {
        "format": FORMAT,
        "stage": "teach",
        "key": stage.key,
        "made_from": {"code": code_digest(), **FROM},
        "seconds": stage.seconds,
    }


def test_the_key_is_the_hash_of_all_that_a_stage_is_made_from(tmp_path: Path, work: Work) -> None:
    made_from = {"code": code_digest(), **FROM}
    stage = run_once(tmp_path, work)
    assert stage.key == digest({"stage": "teach", "format": FORMAT, "made_from": made_from})


def test_the_hash_of_a_value_is_that_of_its_canonical_json() -> None:
    text = '{"a":[1.5,null,"\\u00fc"],"b":"folder/file"}'
    value = {"b": Path("folder/file"), "a": [1.5, None, "ü"]}
    assert digest(value) == hashlib.sha256(text.encode()).hexdigest()


def test_a_stage_keeps_how_long_its_work_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])

    def work(folder: Path) -> None:
        now_s[0] += 2.34567

    assert run_once(tmp_path, work).seconds == 2.346
    assert run_once(tmp_path, work).seconds == 2.346  # found again


def test_a_second_call_redoes_nothing(tmp_path: Path, work: Work) -> None:
    first = run_once(tmp_path, work)
    second = run_once(tmp_path, work)
    assert work.done == 1
    assert second.cached
    assert (second.key, second.seconds, second.folder) == (first.key, first.seconds, first.folder)


def test_the_order_of_what_it_is_made_from_does_not_matter(tmp_path: Path, work: Work) -> None:
    run_once(tmp_path, work, **FROM)
    run_once(tmp_path, work, **dict(reversed(FROM.items())))
    assert work.done == 1


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"parts": [2, 1]}, {"nested": {"a": 1.25}}, {"more": None}],
    ids=str,
)
def test_what_is_made_from_something_else_is_made_anew(
    tmp_path: Path, work: Work, changed: dict[str, Any]
) -> None:
    before = run_once(tmp_path, work)
    after = run_once(tmp_path, work, **(FROM | changed))
    assert work.done == 2
    assert before.key != after.key
    run_once(tmp_path, work)
    assert work.done == 2  # the first is still there


def test_two_stages_of_the_same_things_are_two(tmp_path: Path, work: Work) -> None:
    assert run_once(tmp_path, work).key != run_once(tmp_path, work, name="dense").key
    assert work.done == 2


def test_the_key_is_the_same_in_another_process(tmp_path: Path, work: Work) -> None:
    program = f"from edgeprune.run import digest; print(digest({FROM!r}))"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert other.stdout.strip() == digest(FROM)


def corrupt(path: Path) -> None:
    path.write_bytes(b"\x00\x01\x02\x04" + path.read_bytes()[4:])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("inner/weights.bin", corrupt),
        ("inner/weights.bin", truncate),
        ("inner/weights.bin", Path.unlink),
        ("answer.json", write("{}")),
        (MANIFEST, Path.unlink),
        (MANIFEST, write("{")),
        (MANIFEST, write("[]")),
        (MANIFEST, write("null")),
        (MANIFEST, write('{"format": 1}')),
        (MANIFEST, truncate),
    ],
)
def test_a_spoiled_stage_is_noticed_and_made_again(
    tmp_path: Path, work: Work, name: str, spoil: Callable[[Path], object]
) -> None:
    stage = run_once(tmp_path, work)
    spoil(stage.folder / name)
    again = run_once(tmp_path, work)
    assert work.done == 2
    assert not again.cached
    assert again.read("answer.json") == {"done": 2}
    assert run_once(tmp_path, work).cached


@pytest.mark.parametrize(
    "other",
    [
        {"key": "0" * 64},
        {"format": 0},
        {"stage": "teech"},
        {"made_from": {"seed": 1}},
        {"seconds": None},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_say_what_the_stage_is_is_not_believed(
    tmp_path: Path, work: Work, other: dict[str, Any]
) -> None:
    stage = run_once(tmp_path, work)
    manifest = json.loads((stage.folder / MANIFEST).read_text())
    (stage.folder / MANIFEST).write_text(json.dumps(manifest | other))
    assert not run_once(tmp_path, work).cached


def test_a_build_that_fails_publishes_nothing(tmp_path: Path, work: Work) -> None:
    def fail(folder: Path) -> None:
        work(folder)
        raise DataError("row 3", why="is odd")

    with pytest.raises(DataError, match="row 3"):
        run_once(tmp_path, fail)
    assert list((tmp_path / "stages").iterdir()) == []
    assert run_once(tmp_path, work).read("answer.json") == {"done": 2}


def test_a_build_that_fails_leaves_what_was_published_before(tmp_path: Path, work: Work) -> None:
    first = run_once(tmp_path, work)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once(tmp_path, fail, seed=1)
    assert list((tmp_path / "stages").iterdir()) == [first.folder]
    assert run_once(tmp_path, work).cached


def test_restart_forgets_all_stages(tmp_path: Path, work: Work) -> None:
    run_once(tmp_path, work)
    run_once(tmp_path, work, seed=1)
    with open_run(tmp_path, SILENT, restart=True) as run:
        assert not run.stage("teach", FROM, work).cached
    assert len(list((tmp_path / "stages").iterdir())) == 1


def test_stages_are_told_as_they_begin_and_end(tmp_path: Path, work: Work) -> None:
    told: list[tuple[Any, ...]] = []

    class Listening(Silent):
        def stage(self, name: str, *, cached: bool) -> None:
            told.append((name, cached))

        def done(self, name: str, seconds: float) -> None:
            told.append((name, seconds >= 0))

    with open_run(tmp_path, Listening()) as run:
        run.stage("teach", FROM, work)
        run.stage("teach", FROM, work)
        assert [stage.cached for stage in run.stages] == [False, True]
    assert told == [("teach", False), ("teach", True), ("teach", True), ("teach", True)]


# --- other processes and other folders ---------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from edgeprune.progress import SILENT
from edgeprune.run import open_run

def hold(folder):
    (folder / "half").write_text("half")
    print("holding", flush=True)
    sys.stdin.read()

with open_run(Path(sys.argv[1]), SILENT) as run:
    run.stage("teach", {"seed": 0}, hold)
"""


def holding(folder: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of a stage, until its stdin is closed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "holding\n"
    return child


def test_a_folder_in_use_is_refused_with_the_process(tmp_path: Path, work: Work) -> None:
    with holding(tmp_path) as child:
        with pytest.raises(InputError, match=f"in use by process {child.pid}") as caught:
            run_once(tmp_path, work)
        assert child.stdin
        child.stdin.close()
    assert caught.value.exit_code == 2
    assert work.done == 0
    assert run_once(tmp_path, work).read("answer.json") == {"done": 1}  # free again


def test_a_process_that_was_killed_leaves_the_folder_usable_and_clean(
    tmp_path: Path, work: Work
) -> None:
    with holding(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
    stage = run_once(tmp_path, work, seed=0)
    assert not stage.cached
    assert list((tmp_path / "stages").iterdir()) == [stage.folder]


def test_a_folder_of_something_else_is_refused(tmp_path: Path, work: Work) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError) as caught:
        run_once(tmp_path, work)
    assert str(caught.value) == (
        f"run folder {tmp_path} — not empty, and not a run folder — give a new one"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_stages_of_something_else_are_not_a_runs(tmp_path: Path, work: Work) -> None:
    (tmp_path / "stages" / "act 1").mkdir(parents=True)
    (tmp_path / "play.tex").write_text("precious")
    with pytest.raises(InputError, match="not a run folder"):
        run_once(tmp_path, work)
    assert (tmp_path / "stages" / "act 1").is_dir()


def test_stages_behind_a_link_are_not_a_runs(tmp_path: Path, work: Work) -> None:
    run_once(tmp_path / "run", work)
    (tmp_path / "run" / "stages").rename(tmp_path / "elsewhere")
    (tmp_path / "run" / "stages").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="its stages are a link to elsewhere"):
        run_once(tmp_path / "run", work)


def test_stages_that_were_lent_are_found(tmp_path: Path, work: Work) -> None:
    stage = run_once(tmp_path / "run", work)
    (tmp_path / "other" / "stages").mkdir(parents=True)
    stage.folder.rename(tmp_path / "other" / "stages" / stage.folder.name)
    assert run_once(tmp_path / "other", work).cached


def test_a_run_that_was_killed_as_it_began_is_gone_on_with(tmp_path: Path, work: Work) -> None:
    (tmp_path / "run" / "stages").mkdir(parents=True)
    assert run_once(tmp_path / "run", work).folder.is_dir()


def test_a_name_that_no_report_could_tell_is_refused(tmp_path: Path, work: Work) -> None:
    with pytest.raises(InputError, match="no UTF-8"):
        run_once(tmp_path / os.fsdecode(b"run\xff"), work)
    assert [*tmp_path.iterdir()] == []


def test_a_file_is_no_folder(tmp_path: Path, work: Work) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError) as caught:
        run_once(tmp_path / "run", work)
    assert str(caught.value) == f"run folder {tmp_path / 'run'} — is a file — give a folder"


def test_an_empty_folder_is_taken(tmp_path: Path, work: Work) -> None:
    (tmp_path / "run").mkdir()
    assert run_once(tmp_path / "run", work).folder.is_dir()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, work: Work) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError) as caught:
        run_once(tmp_path / "file" / "run", work)
    assert caught.value.exit_code == 5
    out = tmp_path / "file" / "run"
    assert str(caught.value).startswith(f"run folder {out} ({out / 'stages'}) — Not a directory")


def test_a_disk_that_says_no_is_told_with_the_file(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder / "model.onnx"))

    with pytest.raises(ResourceError, match=r"model\.onnx.*No space left on device"):
        run_once(tmp_path, full)
    assert list((tmp_path / "stages").iterdir()) == []


# --- what another process left ------------------------------------------------------------------


class Notes(Silent):
    """Keeps every note."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


def test_a_broken_stage_is_put_aside_with_a_line_that_says_why(tmp_path: Path, work: Work) -> None:
    stage, notes = run_once(tmp_path, work), Notes()
    corrupt(stage.folder / "inner" / "weights.bin")
    with open_run(tmp_path, notes) as run:
        assert not run.stage("teach", FROM, work).cached
    (aside,) = (tmp_path / "aside").iterdir()
    assert (aside / "inner" / "weights.bin").read_bytes()[:4] == b"\x00\x01\x02\x04"
    assert (aside / "answer.json").read_text() == '{"done": 1}'
    assert notes.told == [
        f"stages/{stage.folder.name}: inner/weights.bin is not as it was written; made again, "
        f"kept as {aside}"
    ]


def test_a_stage_is_made_again_where_it_holds_no_longer(tmp_path: Path, work: Work) -> None:
    def check(folder: Path) -> None:
        assert (folder / "answer.json").exists()
        raise Torn("a cloud passed by")

    stage, notes = run_once(tmp_path, work), Notes()
    with open_run(tmp_path, notes) as run:
        assert not run.stage("teach", FROM, work, check).cached
    (note,) = notes.told
    assert note.startswith(f"stages/{stage.folder.name}: a cloud passed by; made again, kept as ")


def test_a_stage_that_is_whole_says_nothing(tmp_path: Path, work: Work) -> None:
    run_once(tmp_path, work)
    notes = Notes()
    with open_run(tmp_path, notes) as run:
        run.stage("teach", FROM, work)
    assert notes.told == []
    assert not (tmp_path / "aside").exists()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_notice(tmp_path: Path) -> None:
    with holding(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
    notes = Notes()
    with open_run(tmp_path, notes):
        pass
    with open_run(tmp_path, notes):  # it was left in order this time
        pass
    assert notes.told == [
        f"run folder {tmp_path}: process {child.pid} went without a word; taken over"
    ]


def test_a_lock_of_before_the_machine_was_started_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / ".lock").write_text("4711 another-start")
    notes = Notes()
    with open_run(tmp_path, notes):
        held_by = (tmp_path / ".lock").read_text()
    assert "process 4711 of before the machine was started went without a word" in notes.told[0]
    assert held_by == f"{os.getpid()} {BOOT_ID.read_text().strip()}"
    assert (tmp_path / ".lock").read_text() == ""


def test_a_machine_that_does_not_tell_its_start_has_locks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "BOOT_ID", tmp_path / "nowhere")
    with open_run(tmp_path / "run", SILENT):
        assert (tmp_path / "run" / ".lock").read_text() == f"{os.getpid()} unknown"
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} — wait"):
            run_once(tmp_path / "run", Work())


def test_a_lock_that_nobody_signed_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert held(tmp_path)
        with pytest.raises(InputError, match="in use by another process"):
            run_once(tmp_path, Work())
    assert not held(tmp_path)


def test_a_lock_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ResourceError, match=r"\.lock.*Is a directory"):
        run_once(tmp_path, Work())


def test_a_folder_that_nobody_ran_in_is_not_held(tmp_path: Path) -> None:
    assert not held(tmp_path)


def test_what_was_left_half_written_goes_and_snapshots_stay(tmp_path: Path) -> None:
    for place in ("", "stages", "budgets/50pct"):
        (tmp_path / place / ".x.0123.part").mkdir(parents=True)
    (tmp_path / "snapshots" / "teach-0" / "alone-16").mkdir(parents=True)
    (tmp_path / ".lock").touch()
    with open_run(tmp_path, SILENT) as run:
        assert run.aside == tmp_path / "aside"
    assert list(tmp_path.rglob("*.part")) == []
    assert (tmp_path / "snapshots" / "teach-0" / "alone-16").is_dir()
    with open_run(tmp_path, SILENT, restart=True):
        assert [*(tmp_path / "snapshots").iterdir()] == []


def test_snapshots_are_those_of_the_stage_that_is_built_and_go_when_it_is_there(
    tmp_path: Path, work: Work
) -> None:
    with open_run(tmp_path, SILENT) as run:

        def build(folder: Path) -> None:
            work(folder)
            run.snapshots.mkdir(parents=True)
            assert run.snapshots.parent == tmp_path / "snapshots"
            seen.append(run.snapshots.name)

        seen: list[str] = []
        stage = run.stage("teach", FROM, build)
        assert seen == [stage.folder.name]
        assert not run.snapshots.exists()


def test_a_stage_s_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = {"score": 0.5, "of": ["ü"]}
    stage = run_once(tmp_path, lambda folder: write_json(folder / "scores.json", told))
    assert stage.read("scores.json") == told
    assert (stage.folder / "scores.json").read_text() == json.dumps(told, indent=1)
