"""Too little disk, memory or permission, and training that leaves the finite numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Ended, Forks, check_invariant, forking, options, tree, write_model, write_rows

from edgeprune import preflight, room
from edgeprune.errors import ResourceError
from edgeprune.inputs import read_inputs
from edgeprune.preflight import Needs, check_room
from edgeprune.recipe import Recipe
from edgeprune.report.report import Report
from edgeprune_cli.app import main

Captured = pytest.CaptureFixture[str]
MakeReport = Callable[..., Report]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forking(tmp_path_factory.mktemp("forks"), None, "no_torch") as found:
        yield found


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    room = tmp_path_factory.mktemp("asked")
    model, task = write_model(room / "model"), write_rows(room / "letters")
    return {"model": str(model), "task": str(task), "budget": "50%", "target": "null"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts a file system of its own")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def run(forks: Forks, asked: dict[str, object], out: Path, report: Report, **more: object) -> Ended:
    told = forks.room / "report.json"
    told.write_text(report.to_json())
    words = [*options(asked | {"out": out}), "--quiet"]
    return forks.run(*words, environment={"SMALL_REPORT": str(told)}, **more)


def fill(folder: Path, left_bytes: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(free - left_bytes))
    return ballast


def test_a_disk_that_runs_full_is_told_and_gone_on_from(
    forks: Forks, asked: dict[str, object], small_disk: Path, make_report: MakeReport
) -> None:
    out, report = small_disk / "run", make_report()
    assert run(forks, asked, out, report).code == 0
    before = tree(out)
    # Snapshots of another recipe fill the disk; what lies in the run folder passes the preflight.
    ballast = fill(out / "snapshots" / "teacher-0" / "alone-16", 8192)
    ended = run(forks, asked | {"seed": 1}, out, report)
    assert ended.code == 5
    assert ended.error.startswith("error[EP500]")
    assert f"No space left on device: 0 MB left in {out}" in ended.error
    assert before.items() <= tree(out).items()
    check_invariant(out)
    ballast.unlink()
    assert run(forks, asked | {"seed": 1}, out, report).code == 0


def test_a_disk_that_became_read_only_is_told(
    forks: Forks, asked: dict[str, object], small_disk: Path, make_report: MakeReport
) -> None:
    out, report = small_disk / "run", make_report()
    assert run(forks, asked, out, report).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = run(forks, asked, out, report)
    assert ended.code == 5
    assert f"folder {out} — cannot be written" in ended.error


# --- before the first minute is spent -----------------------------------------------------------


def test_a_disk_too_small_for_the_whole_run_is_told_before_it_begins(
    asked: dict[str, object], small_disk: Path, capsys: Captured
) -> None:
    fill(small_disk, 200_000)
    out = small_disk / "run"
    assert main([*options(asked | {"out": out}), "--quiet"]) == 5
    needed = Needs.of(read_inputs(Recipe(**asked, out=out))).disk_mb  # type: ignore[arg-type]
    error = capsys.readouterr().err
    assert f"disk for {out} — needs {needed:.0f} MB, has 0 MB in {small_disk}" in error
    assert not out.exists()


def test_what_is_there_already_is_not_asked_for_again(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = read_inputs(Recipe(**asked, out=tmp_path / "run"))  # type: ignore[arg-type]
    needs = Needs.of(inputs)
    monkeypatch.setattr(preflight, "disk_left_mb", lambda folder: needs.disk_mb / 2)
    with pytest.raises(ResourceError, match="needs"):
        check_room(inputs)
    stages = tmp_path / "run" / "stages"
    stages.mkdir(parents=True)
    (stages / "there").write_bytes(bytes(int(0.6e6 * needs.disk_mb)))
    check_room(inputs)


def test_more_budgets_and_precisions_need_more_room(asked: dict[str, object]) -> None:
    def needed(**changes: object) -> float:
        return Needs.of(read_inputs(Recipe(**(asked | changes)))).disk_mb  # type: ignore[arg-type]

    assert needed() < needed(precision="auto") < needed(precision="auto", budget=["50%", "25%"])


def test_too_little_memory_is_told_before_it_begins(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for name, text in (("max", "500000000"), ("current", "300000000"), ("stat", "anon 1\n")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert main([*options(asked | {"out": tmp_path / "run"}), "--quiet"]) == 5
    error = capsys.readouterr().err
    assert "memory — needs 60" in error
    assert "has 200 MB" in error
    # Files that were read are given up where room is needed.
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 100000000\n")
    assert room.memory_left_mb() == pytest.approx(300)
    (tmp_path / "memory.max").write_text("max\n")
    told = room.memory_left_mb()
    assert told is not None
    assert told > 600  # the machine's own


def test_a_folder_that_may_not_be_written_is_told_before_it_begins(
    asked: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = read_inputs(Recipe(**asked, out=tmp_path / "deep" / "run"))  # type: ignore[arg-type]
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write it
    with pytest.raises(ResourceError, match=f"folder {tmp_path} — cannot be written"):
        check_room(inputs)


# --- in training --------------------------------------------------------------------------------

LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from transformers import BertConfig
from edgeprune.encoder import Encoder
from edgeprune.errors import EdgepruneError
from edgeprune.learn.answers import Sample, accelerator
from edgeprune.learn.fit import Schedule
from edgeprune.learn.memory import within_memory
from edgeprune.learn.train import teach
from edgeprune.progress import SILENT
from edgeprune.shape import Shape
from edgeprune.tokens import Tokens

WIDE = 16_384
config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                    intermediate_size=WIDE, max_position_embeddings=128)
encoder = Encoder(config, Shape.uniform(1, 2, WIDE, hidden=16, head_dim=8, vocab=40))
ids = tuple(np.full(64, 5 + row % 30) for row in range(64))
tokens = Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0)
sample = Sample("target", tokens, torch.arange(64) % 2, regression=False)

def train(schedule):
    return teach(encoder, sample, None, {"target": 2}, "none", schedule, lambda _: (0.5, 0.5),
                 SILENT)

schedule = Schedule(steps=2, batch=4, learning_rate=1e-3, head_learning_rate=1e-3, seed=0)
train(schedule)  # what libraries take once is taken before the limit
pages = int(Path("/proc/self/statm").read_text().split()[0])
# Where steps are taken in bf16, their activations take half.
share = 0.5 if accelerator().mixed_precision == "bf16" else 1.0
limit = pages * resource.getpagesize() + int(share * float(sys.argv[1]) * 1e6)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    _, notes = within_memory(train, Schedule(2, 64, 1e-3, 1e-3, 0), SILENT)
except EdgepruneError as error:
    print(f"error[{error.code}]: {error}")
    sys.exit(error.exit_code)
print(len(notes), *notes, sep="\\n")
"""


def little_memory(left_mb: float) -> subprocess.CompletedProcess[str]:
    """A step of 64 rows, in a process that may have so much more. An activation takes 268 MB."""
    command = [sys.executable, "-c", LITTLE_MEMORY, str(left_mb)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    ended = little_memory(600)
    assert ended.returncode == 0, ended.stderr
    halvings, *notes = ended.stdout.splitlines()
    assert int(halvings) in (1, 2)
    assert notes[0] == "memory was too little for 64 rows a step: trained with 32"


def test_a_training_that_fits_in_no_batch_ends_with_one_line() -> None:
    ended = little_memory(40)
    assert ended.returncode == 5, ended.stderr
    assert ended.stdout.startswith("error[EP500]: memory, for 8 rows a step — ")
    assert "can't allocate memory" in ended.stdout


def test_a_training_that_diverges_says_so_and_keeps_what_was_finite(
    asked: dict[str, object], tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = asked | {"model": tiny_model}
    with forking(tmp_path, None, "with_torch") as forks:
        words = options(asked | {"out": out, "effort": "quick"})
        ended = forks.run(*words, set={"edgeprune.stages.materials.RATE": 1e30})
    assert ended.code == 1
    assert ended.error.startswith("error[EP230]: training at step ")
    assert "the loss is nan" in ended.error
    (kept,) = out.glob("snapshots/teacher-*/alone-*/*")
    assert str(kept.parent) in ended.error
    check_invariant(out)
    assert json.loads((out / "status.json").read_text())["state"] == "failed"


# --- stdout -------------------------------------------------------------------------------------


def test_a_reader_who_leaves_changes_nothing_about_the_exit_code(
    asked: dict[str, object], tmp_path: Path, make_report: MakeReport
) -> None:
    (tmp_path / "report.json").write_text(make_report().to_json())
    program = (
        "import sys; import no_torch; no_torch.prepare()\n"
        "from edgeprune_cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [*options(asked | {"out": tmp_path / "run"}), "--json"]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent),
        "SMALL_REPORT": str(tmp_path / "report.json"),
    }
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run(
        [sys.executable, "-c", program, *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    os.close(writing)
    assert child.returncode == 0, child.stderr
    assert "Error" not in child.stderr
    assert (tmp_path / "run" / "report.json").is_file()
