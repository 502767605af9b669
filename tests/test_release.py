"""What runs where a bundle lies (prove.py, release.py), in this process: every way that it ends."""

from __future__ import annotations

import builtins
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import another, digits, other_answers, rewritten

from edgeprune.ship import prove, release
from edgeprune.ship.bundle import MANIFEST, MODEL, verify_bundle, write_bundle

Captured = pytest.CaptureFixture[str]
Spoil = Callable[[Path], object]


def told(capsys: Captured) -> dict[str, Any]:
    """The last line that was said."""
    line = capsys.readouterr().out.splitlines()[-1]
    found: dict[str, Any] = json.loads(line.removeprefix(prove.MARK))
    return found


@pytest.fixture
def ship(tmp_path: Path, capsys: Captured) -> Callable[..., dict[str, Any]]:
    """Asks release.py to ship a bundle to the place, or to roll back without one."""

    def asked(bundle: Path | None = None, **changes: str) -> dict[str, Any]:
        words = {"do": "rollback", "folder": str(tmp_path / "place"), "prove": str(prove.__file__)}
        if bundle is not None:
            manifest = json.loads((bundle / MANIFEST).read_text())
            words |= {"do": "ship", "bundle": str(bundle), "sha256": manifest["sha256"]}
        assert release.main([json.dumps(words | changes)]) == 0
        return told(capsys)

    return asked


Ship = Callable[..., dict[str, Any]]


def fault(said: dict[str, Any]) -> tuple[str, str]:
    return said["fault"]["kind"], said["fault"]["why"]


def test_a_bundle_is_shipped_once_and_once_more(
    small_bundle: Path, tmp_path: Path, ship: Ship
) -> None:
    place = tmp_path / "place"
    first = ship(small_bundle)
    assert (first["state"], first["previous"]) == ("released", None)
    assert first["golden"]["agrees"]
    assert ship(small_bundle)["state"] == "current already"
    second = another(small_bundle, "second")
    said = ship(second)
    assert (said["release"], said["previous"]) == (digits(second), digits(small_bundle))
    back = ship()
    assert (back["state"], back["release"]) == ("rolled back", digits(small_bundle))
    # One that is there as previous, and whole, becomes current without being copied.
    inode = (place / "previous" / MODEL).stat().st_ino
    assert ship(second)["state"] == "released"
    assert (place / "current" / MODEL).stat().st_ino == inode


def test_what_no_link_points_to_is_removed(small_bundle: Path, tmp_path: Path, ship: Ship) -> None:
    releases = tmp_path / "place" / "releases"
    (releases / ".new").mkdir(parents=True)
    (releases.parent / ".lock").touch()
    (releases / "0123456789ab").mkdir()
    (releases / "ba9876543210").symlink_to("0123456789ab")
    ship(small_bundle)
    assert [path.name for path in releases.iterdir()] == [digits(small_bundle)]


def test_a_spoiled_release_is_replaced(small_bundle: Path, tmp_path: Path, ship: Ship) -> None:
    ship(small_bundle)
    (tmp_path / "place" / "current" / MODEL).write_bytes(b"")
    assert ship(small_bundle)["state"] == "current already"
    verify_bundle(tmp_path / "place" / "current")


@pytest.mark.parametrize("rounds", [0, 1])
def test_there_may_be_nothing_to_roll_back_to(small_bundle: Path, ship: Ship, rounds: int) -> None:
    for _ in range(rounds):
        ship(small_bundle)
    assert fault(ship()) == ("input", "has no previous release")


def test_to_roll_back_to_what_is_current_is_nothing(
    small_bundle: Path, tmp_path: Path, ship: Ship
) -> None:
    ship(small_bundle)
    (tmp_path / "place" / "previous").symlink_to(f"releases/{digits(small_bundle)}")
    assert fault(ship()) == ("input", "has no previous release")


def test_another_bundle_than_was_said_is_refused(small_bundle: Path, ship: Ship) -> None:
    said = ship(small_bundle, sha256="0" * 64)
    assert fault(said) == ("refused", "another bundle than was sent")


def test_other_answers_are_told_as_such(small_bundle: Path, tmp_path: Path, ship: Ship) -> None:
    other_answers(small_bundle)
    kind, why = fault(ship(small_bundle))
    assert kind == "parity"
    assert why.startswith("answers unlike it did where it was made: max-abs ")
    assert not (tmp_path / "place" / "current").is_symlink()
    assert [*(tmp_path / "place" / "releases").iterdir()] == []


def test_a_bundle_without_golden_answers_is_shipped(small_bundle: Path, ship: Ship) -> None:
    rewritten(small_bundle, lambda manifest: manifest.pop("golden"))
    assert ship(small_bundle)["golden"] is None


def test_a_link_in_what_was_sent_is_refused(small_bundle: Path, ship: Ship) -> None:
    (small_bundle / "README.md").unlink()
    (small_bundle / "README.md").symlink_to("/etc/hostname")
    assert fault(ship(small_bundle)) == ("refused", "missing, or not a plain file")


def a_file(place: Path) -> None:
    place.write_text("")


def of_something_else(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("")


def releases_of_something_else(place: Path) -> None:
    (place / "releases" / "v1").mkdir(parents=True)
    (place / "main.py").write_text("")


def a_folder_for(name: str) -> Spoil:
    def spoil(place: Path) -> None:
        (place / name).mkdir(parents=True)
        (place / ".lock").touch()

    return spoil


def a_link_to(target: str) -> Spoil:
    def spoil(place: Path) -> None:
        (place / "releases").mkdir(parents=True)
        (place / ".lock").touch()
        (place / "current").symlink_to(target)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (a_file, "a file, not a folder"),
        (of_something_else, "not empty, and not a folder of releases"),
        (releases_of_something_else, "not empty, and not a folder of releases"),
        (a_folder_for("releases/x/../../current"), "not a link to a release"),
        (a_link_to("elsewhere/x"), "not a link to a release"),
        (a_link_to("releases/.."), "not a link to a release"),
        (a_link_to("releases"), "not a link to a release"),
        (a_link_to("/releases/x"), "not a link to a release"),
    ],
)
def test_a_place_of_something_else_is_left_alone(
    small_bundle: Path, tmp_path: Path, ship: Ship, spoil: Spoil, why: str
) -> None:
    spoil(tmp_path / "place")
    before = sorted(tmp_path.rglob("*"))
    assert fault(ship(small_bundle)) == ("input", why)
    assert {*before} <= {*tmp_path.rglob("*")}


def test_what_a_killed_push_began_is_gone_on_with(
    small_bundle: Path, tmp_path: Path, ship: Ship
) -> None:
    (tmp_path / "place" / "releases").mkdir(parents=True)
    assert ship(small_bundle)["state"] == "released"


def test_what_is_no_release_stays(small_bundle: Path, tmp_path: Path, ship: Ship) -> None:
    ship(small_bundle)
    foreign = tmp_path / "place" / "releases" / "notes.txt"
    foreign.write_text("precious")
    (small_bundle / "README.md").write_text("another")
    rewrite_described(small_bundle, "README.md")
    assert ship(small_bundle)["state"] == "released"
    assert foreign.read_text() == "precious"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, "resource"), (errno.ENAMETOOLONG, "input")]
)
def test_what_the_system_will_not_do_is_told(
    small_bundle: Path, ship: Ship, monkeypatch: pytest.MonkeyPatch, number: int, kind: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number), "there")

    monkeypatch.setattr(os, "fsync", full)
    said = ship(small_bundle)
    assert fault(said) == (kind, os.strerror(number))
    assert said["fault"]["what"] == "there"


def test_a_home_there_is_the_home(
    small_bundle: Path, tmp_path: Path, ship: Ship, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ship(small_bundle, folder="~/models")
    assert verify_bundle(tmp_path / "models" / "current")["task"] == "letters"


# --- prove.py -----------------------------------------------------------------------------------


def proved(capsys: Captured, *words: str) -> dict[str, Any]:
    assert prove.main([*words]) == 0
    return told(capsys)


def test_a_whole_bundle_is_proved(small_bundle: Path, capsys: Captured) -> None:
    said = proved(capsys, str(small_bundle))
    assert said["files"] == len([*small_bundle.iterdir()]) - 1
    assert said["golden"]["runtime"].startswith("onnxruntime ")
    assert proved(capsys, str(small_bundle), "hashes")["golden"] is None


def test_a_file_that_changes_between_the_looks_is_refused(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is opened from the bytes that were compared, not from its name."""
    looked = prove.Bundle.check

    def check(bundle: prove.Bundle, manifest: dict[str, Any]) -> None:
        looked(bundle, manifest)
        data = bytearray((small_bundle / MODEL).read_bytes())
        data[-1] ^= 1
        (small_bundle / MODEL).write_bytes(data)

    monkeypatch.setattr(prove.Bundle, "check", check)
    with pytest.raises(prove.ProofError, match="its hash differs"):
        prove.prove(str(small_bundle))


def test_golden_answers_that_the_manifest_does_not_describe_are_refused(small_bundle: Path) -> None:
    (small_bundle / "golden.json").unlink()
    rewritten(small_bundle, lambda manifest: manifest["files"].pop("golden.json"))
    with pytest.raises(prove.ProofError, match="missing, or not a plain file"):
        prove.prove(str(small_bundle))


def test_where_nothing_can_ask_it_is_told(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def none(name: str, *more: Any, **rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *more, **rest)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(prove.ProofError, match="cannot be asked here") as caught:
        prove.prove(str(small_bundle))
    assert (caught.value.kind, caught.value.remedy) == ("target", "pip install numpy onnxruntime")


@pytest.mark.parametrize(
    "text", ["{}", '{"inputs": {"input_ids": []}, "outputs": {"logits": [1]}}']
)
def test_golden_answers_of_no_form_are_told(small_bundle: Path, text: str) -> None:
    (small_bundle / "golden.json").write_text(text)
    rewrite_described(small_bundle, "golden.json")
    with pytest.raises(prove.ProofError) as caught:
        prove.prove(str(small_bundle))
    assert (caught.value.kind, caught.value.what) == ("input", "golden.json")


def test_a_model_that_does_not_run_is_told(small_bundle: Path) -> None:
    (small_bundle / MODEL).write_bytes(b"not a model")
    rewrite_described(small_bundle, MODEL)
    with pytest.raises(prove.ProofError, match="does not run here") as caught:
        prove.prove(str(small_bundle))
    assert caught.value.kind == "target"


def rewrite_described(bundle: Path, name: str) -> None:
    """The manifest of what lies there now."""
    with prove.Bundle(str(bundle)) as opened:
        said = opened._describe(name)

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = said
        manifest.pop("measured", None)

    rewritten(bundle, change)


def test_nothing_to_compare_is_like_itself() -> None:
    """Answers of zero have no direction."""
    tolerance = {"max_abs": 1e-3, "cosine": 0.99, "agreement": 1.0}
    assert prove.compare([[0.0, 0.0]], [[0.0, 0.0]], tolerance)["agrees"]
    assert not prove.compare([[0.0, 0.0]], [[float("inf"), 0.0]], tolerance)["agrees"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_name_that_is_none_is_refused(small_bundle: Path, name: str) -> None:
    with (
        prove.Bundle(str(small_bundle)) as bundle,
        pytest.raises(prove.ProofError, match="not the plain name"),
    ):
        bundle.open(name)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: Captured) -> None:
    assert fault(proved(capsys, str(tmp_path / "nowhere"))) == ("input", os.strerror(errno.ENOENT))


def test_a_disk_that_fails_is_told(
    small_bundle: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "listdir", broken)
    assert fault(proved(capsys, str(small_bundle))) == ("resource", os.strerror(errno.EIO))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def spaced(path: Path) -> None:
    """The same JSON, written otherwise."""
    path.write_text(path.read_text() + " ")


def forged(**changes: Any) -> Spoil:
    return lambda bundle: rewritten(bundle, lambda manifest: manifest.update(changes))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (forged(files={}), "does not describe its files"),
        (forged(files={MODEL: 1}), "does not describe its files"),
        (forged(measured={"sha256": "0" * 64}), "not the file that was measured"),
        (forged(measured=[1]), "not the file that was measured"),
        (lambda bundle: (bundle / MANIFEST).write_text("{"), "cannot be read"),
        (lambda bundle: (bundle / MANIFEST).write_text("[]"), "cannot be read"),
        (lambda bundle: spaced(bundle / MANIFEST), "its hash differs"),
        (lambda bundle: (bundle / "more").write_text(""), "does not belong to it"),
        (lambda bundle: a_pipe(bundle / MODEL), "missing, or not a plain file"),
        (lambda bundle: shutil.copyfile(bundle / MODEL, bundle / "config.json"), "hash differs"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(
    small_bundle: Path, spoil: Spoil, why: str
) -> None:
    spoil(small_bundle)
    with pytest.raises(prove.ProofError, match=why) as caught:
        prove.prove(str(small_bundle), answers=False)
    assert caught.value.kind == "refused"


def test_a_bundle_takes_the_place_of_an_older_one(small_bundle: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "files"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    write_bundle(small_bundle, small_bundle / MODEL, tokenizer, {}, {"task": "new"})
    assert verify_bundle(small_bundle)["task"] == "new"
    assert sorted(path.name for path in small_bundle.iterdir()) == [
        "config.json",
        MANIFEST,
        MODEL,
        "tokenizer.json",
    ]
    assert [path.name for path in small_bundle.parent.iterdir()] == ["bundle"]
