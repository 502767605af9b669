"""What changed between a crash and `resume`: refused with what differs, or all of it made anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import (
    KILL,
    Ended,
    Forks,
    check_invariant,
    forking,
    options,
    tree,
    write_model,
    write_rows,
)

from edgeprune.report.report import Report


@pytest.fixture(scope="module")
def forks(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forking(tmp_path_factory.mktemp("forks"), shim, "no_torch") as found:
        yield found


Run = Callable[..., Ended]


@pytest.fixture
def run(forks: Forks, tmp_path: Path, make_report: Callable[..., Report]) -> Run:
    told = tmp_path / "told.json"
    told.write_text(make_report().to_json())
    return lambda *words, **asked: forks.run(
        *words, environment={"SMALL_REPORT": str(told)}, **asked
    )


@pytest.fixture
def killed(run: Run, tmp_path: Path) -> Path:
    """A run that was killed after its first stage; its model and its rows may be changed."""
    model = write_model(tmp_path / "model")
    task, out = write_rows(tmp_path / "letters"), tmp_path / "run"
    words = options({"model": model, "task": task, "target": "null", "out": out})
    assert run(*words, arm=[str(out), 50, KILL]).code == KILL
    assert [path.name[:8] for path in out.glob("stages/[!.]*")] == ["teacher-"]
    return out


def test_a_killed_run_is_gone_on_with(run: Run, killed: Path) -> None:
    assert run("resume", str(killed)).code == 0
    check_invariant(killed)
    state = json.loads((killed / "status.json").read_text())
    assert {row["name"]: row["cached"] for row in state["stages"]}["teacher"] is True
    assert state["state"] == "finished"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda room: _flip(room / "model" / "model.safetensors"), "model: other weights"),
        (lambda room: _add_space(room / "model" / "tokenizer.json"), "or tokenizer"),
        (lambda room: _add_row(room / "letters" / "train.jsonl"), "task letters: train 60 → 61"),
        (lambda room: _other_row(room / "letters" / "test.jsonl"), "other rows, as many as before"),
    ],
)
def test_what_changed_is_refused_with_what_differs(
    run: Run, killed: Path, tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    before = tree(killed)
    spoil(tmp_path)
    refused = run("resume", str(killed))
    assert refused.code == 2
    assert says in refused.error
    assert "--restart" in refused.error
    assert tree(killed) == before
    assert run("resume", str(killed), "--restart").code == 0
    check_invariant(killed)
    assert run("resume", str(killed)).code == 0  # it is the state of now that counts


def test_a_run_that_did_not_end_is_listed_and_not_cleaned(run: Run, killed: Path) -> None:
    assert "| stopped" in run("runs", "list", str(killed)).out
    refused = run("runs", "clean", str(killed))
    assert refused.code == 2
    assert f"`edgeprune resume {killed}` ends it" in refused.error


def test_what_was_put_aside_is_cleaned_with_the_rest(run: Run, killed: Path) -> None:
    (stage,) = killed.glob("stages/teacher-*")
    (stage / "weights.bin").write_bytes(b"torn")
    (killed / "snapshots" / "student-0" / "alone-16").mkdir(parents=True)
    assert run("resume", str(killed)).code == 0
    assert len([*(killed / "aside").iterdir()]) == 1
    kept = {name for name in tree(killed) if not name.startswith(("aside/", "snapshots/"))}
    assert run("runs", "clean", str(killed)).code == 0
    assert set(tree(killed)) == kept


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _add_space(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")


def _add_row(path: Path) -> None:
    with path.open("a") as file:
        file.write("\n" + json.dumps({"text": "p1 p2 q3", "label": "mostly p"}))


def _other_row(path: Path) -> None:
    first, _, rest = path.read_text().partition("\n")
    row = json.loads(first) | {"text": "q7 q8 p9 r1"}
    path.write_text(f"{json.dumps(row)}\n{rest}")
