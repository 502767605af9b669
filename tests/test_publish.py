"""What is published is whole or absent, and what is damaged is found."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune import hashing
from edgeprune import publish as publishing_module
from edgeprune.hashing import COMPUTES, code_digest
from edgeprune.publish import (
    MANIFEST,
    Torn,
    discard,
    manifest,
    publish,
    publish_link,
    publishing,
    remove_parts,
    set_aside,
)


def fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text(text)


def published(goal: Path, text: str) -> Path:
    with publishing(goal, {"of": text}) as part:
        fill(part, text)
    return goal


@pytest.fixture(params=[True, False], ids=["exchanged", "renamed"])
def exchanges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without a file system that exchanges names."""
    if not request.param:
        monkeypatch.setattr(publishing_module, "_exchange", lambda one, other: False)


@pytest.mark.usefixtures("exchanges")
def test_a_folder_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    published(tmp_path / "goal", "old")
    published(tmp_path / "goal", "new")
    assert (tmp_path / "goal" / "inner" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["goal"]


def test_names_are_exchanged_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    fill(other, "x")
    assert publishing_module._exchange(one, other)
    assert (one / "inner" / "file").read_text() == "x"
    assert [*other.iterdir()] == []
    with pytest.raises(FileNotFoundError):
        publishing_module._exchange(one, tmp_path / "nowhere")


def test_a_system_that_cannot_exchange_names_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **_: object())  # an old C library
    assert not publishing_module._exchange(tmp_path, tmp_path)


def test_a_file_system_that_cannot_exchange_names_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINVAL)
    assert not publishing_module._exchange(tmp_path / "no", tmp_path / "where")


def test_a_disk_that_fails_at_the_exchange_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(one: Path, other: Path) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    published(tmp_path / "goal", "old")
    monkeypatch.setattr(publishing_module, "_exchange", fails)
    _is_left(tmp_path / "goal")


def test_a_disk_that_fails_between_two_renames_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if target.name == "goal" and (self / "inner" / "file").read_text() == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return really(self, target)

    published(tmp_path / "goal", "old")
    monkeypatch.setattr(publishing_module, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fails)
    _is_left(tmp_path / "goal")


def _is_left(goal: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        published(goal, "new")
    assert (goal / "inner" / "file").read_text() == "old"
    assert manifest(goal)
    assert [path.name for path in goal.parent.iterdir()] == ["goal"]


def test_what_goes_wrong_leaves_the_one_before(tmp_path: Path) -> None:
    published(tmp_path / "goal", "old")
    with pytest.raises(KeyError), publishing(tmp_path / "goal") as part:
        fill(part, "half")
        raise KeyError
    assert manifest(tmp_path / "goal", of="old")["of"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["goal"]


def test_a_folder_without_facts_gets_no_manifest(tmp_path: Path) -> None:
    with publishing(tmp_path / "goal") as part:
        fill(part, "x")
    assert [path.name for path in (tmp_path / "goal").iterdir()] == ["inner"]


def test_facts_are_those_of_the_end(tmp_path: Path) -> None:
    facts = {"seconds": 0}
    with publishing(tmp_path / "goal", facts):
        facts["seconds"] = 7
    assert manifest(tmp_path / "goal")["seconds"] == 7


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "inner" / "file").unlink(), "inner/file is missing"),
        (lambda folder: (folder / "inner" / "file").write_text("ab"), "has 2 bytes, and had 1"),
        (lambda folder: (folder / "inner" / "file").write_text("y"), "not as it was written"),
        (lambda folder: (folder / MANIFEST).unlink(), f"{MANIFEST} is missing"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "cannot be understood"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "cannot be understood"),
        (lambda folder: (folder / MANIFEST).write_text('{"of": "x"}'), "cannot be understood"),
        (lambda folder: (folder / MANIFEST).write_text('{"of": "y"}'), "is of another of"),
        (lambda folder: shutil.rmtree(folder), "is missing"),
        (
            lambda folder: [(folder / MANIFEST).unlink(), (folder / MANIFEST).mkdir()],
            "cannot be read: Is a directory",
        ),
    ],
)
def test_what_is_torn_is_told(tmp_path: Path, spoil: Callable[[Path], object], says: str) -> None:
    folder = published(tmp_path / "goal", "x")
    spoil(folder)
    with pytest.raises(Torn, match=says):
        manifest(folder, of="x")


def test_what_a_disk_does_not_give_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    published(tmp_path / "goal", "x")
    monkeypatch.setattr(publishing_module, "file_digest", fails)
    with pytest.raises(Torn, match="cannot be read: Input/output error"):
        manifest(tmp_path / "goal")


def test_a_file_is_replaced_and_leaves_no_part(tmp_path: Path) -> None:
    for text in ("old", "ünïcode"):
        publish(tmp_path / "deep" / "file", text)
    assert (tmp_path / "deep" / "file").read_text(encoding="utf-8") == "ünïcode"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_file_that_cannot_be_replaced_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        publish(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_is_relative_and_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "stages" / name).mkdir(parents=True)
        publish_link(tmp_path / "stages" / name, tmp_path / "link")
    assert (tmp_path / "link").readlink() == Path("stages/two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "stages"]


def test_what_is_put_aside_twice_is_there_twice(tmp_path: Path) -> None:
    for text in ("x", "y"):
        there = set_aside(published(tmp_path / "goal", text), tmp_path / "aside")
        assert (there / "inner" / "file").read_text() == text
    assert len([*(tmp_path / "aside").iterdir()]) == 2
    assert not (tmp_path / "goal").exists()


def test_parts_go_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / ".a.01.part").mkdir()
    fill(tmp_path / ".a.01.part", "x")
    (tmp_path / ".b.02.part").write_text("x")
    (tmp_path / ".c.03.part").symlink_to("kept.part")
    (tmp_path / "kept.part").mkdir()
    (tmp_path / ".lock").touch()
    remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "kept.part"]


def test_a_folder_is_discarded_as_a_whole(tmp_path: Path) -> None:
    discard(published(tmp_path / "goal", "x"))
    assert [*tmp_path.iterdir()] == []


# --- the code that results are made by ----------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    package = Path(hashing.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(package, tmp_path / "edgeprune", ignore=ignored))


def test_the_code_is_the_same_wherever_it_lies(copy: Path) -> None:
    assert code_digest(copy) == code_digest()
    (copy / "learn" / "notes.txt").write_text("no code")
    (copy / "report" / "markdown.py").write_text("# tells, and computes nothing\n")
    code_digest.cache_clear()
    assert code_digest(copy) == code_digest()


@pytest.mark.parametrize(
    ("file", "constant"),
    [
        ("stages/timing.py", "AIM"),
        ("stages/timing.py", "STACK"),
        ("learn/answers.py", "TEMPERATURE"),
        ("learn/coupling.py", "TARGET_ONLY_FROM"),
        ("prune/obs.py", "DAMPING"),
        ("stages/materials.py", "RECOVERY_RATE"),
        ("effort.py", "EFFORTS"),
    ],
)
def test_every_constant_counts(copy: Path, file: str, constant: str) -> None:
    text = (copy / file).read_text()
    assert f"\n{constant}" in text
    (copy / file).write_text(f"{text}\n{constant} = None\n")
    code_digest.cache_clear()
    assert code_digest(copy) != code_digest()


def test_what_computes_is_there() -> None:
    package = Path(hashing.__file__).parent
    assert [name for name in COMPUTES if not (package / name).exists()] == []
