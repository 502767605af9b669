"""Puts a bundle to work in a folder, or takes it back: `python release.py SPECIFICATION`.

It runs where the folder is: here, or pushed to a device with prove.py. So it imports the standard
library and nothing of ours, and does with Python 3.9. SPECIFICATION is one JSON object:
    do       "ship" or "rollback"
    folder   where the releases are; `~` is the home there
    prove    path of prove.py there
    bundle   path of the bundle there, to ship
    sha256   what its manifest must say of itself, to ship

    FOLDER/releases/<sha12>/   bundles, each named by the first 12 digits of its manifest's sha256
    FOLDER/current             a link to one of them, and never to half a one
    FOLDER/previous            a link to the one before
    FOLDER/.lock               one process at a time

A bundle is copied beside the others under a name of its own, its hashes are compared and its golden
answers asked for there, and only then is the link exchanged, by one rename. Releases that neither
link points to are removed; whatever else lies there stays.

The last line on stdout is MARK and {"fault": …} as in prove.py, or {"state", "release", "previous",
"golden"}; `state` is "released", "current already" or "rolled back".
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RELEASES, CURRENT, PREVIOUS, LOCK = "releases", "current", "previous", ".lock"
NEW = ".new"
UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
DIGITS = 12
NAME = re.compile(f"[0-9a-f]{{{DIGITS}}}")  # of a release


class Folder:
    """A folder of releases, locked; `prove` is the module of that name."""

    def __init__(self, path: Path, prove: Any) -> None:
        self.path, self.prove = path, prove
        self.releases = path / RELEASES

    def ship(self, bundle: Path, sha256: str) -> dict[str, Any]:
        new, goal = self.releases / NEW, self.releases / sha256[:DIGITS]
        _remove(new)  # what a killed push left
        golden = None
        if not self._is_whole(goal, sha256):
            try:
                _copy(bundle, new)
                golden = self._proved(new, sha256)
                _remove(goal)
                new.rename(goal)
            finally:
                _remove(new)
            _sync(self.releases)
        else:
            golden = self._proved(goal, sha256)
        before = self.link(CURRENT)
        if before == goal.name:
            return self._told("current already", golden)
        if before is not None:
            self._point(PREVIOUS, before)
        self._point(CURRENT, goal.name)
        self._tidy()
        return self._told("released", golden)

    def rollback(self) -> dict[str, Any]:
        before, current = self.link(PREVIOUS), self.link(CURRENT)
        if before is None or current is None or before == current:
            raise self.prove.ProofError("has no previous release", "input")
        golden = self._proved(self.releases / before, None)
        self._point(CURRENT, before)
        self._point(PREVIOUS, current)
        return self._told("rolled back", golden)

    def link(self, name: str) -> str | None:
        """The release that a link points to. Raises ProofError for what is no such link."""
        link = self.path / name
        if not os.path.lexists(link):
            return None
        target = link.readlink() if link.is_symlink() else Path()
        if target.parent != Path(RELEASES) or target.name in ("", ".", ".."):
            remedy = "give a new folder, or move it away"
            raise self.prove.ProofError("not a link to a release", "input", name, remedy)
        return target.name

    def _proved(self, release: Path, sha256: str | None) -> dict[str, Any] | None:
        """The golden answers of a release that is whole. Raises ProofError unless they agree."""
        told = self.prove.prove(str(release))
        if sha256 is not None and told["sha256"] != sha256:
            raise self.prove.ProofError("another bundle than was sent", what=release.name)
        golden: dict[str, Any] | None = told["golden"]
        if golden is not None and not golden["agrees"]:
            raise self.prove.ProofError(
                f"answers unlike it did where it was made: max-abs {golden['max_abs']}, cosine "
                f"{golden['cosine']:.4f}, same label in {golden['agreement']:.0%}",
                "parity",
                remedy="another runtime or processor than it was made for: measure it there",
            )
        return golden

    def _is_whole(self, release: Path, sha256: str) -> bool:
        try:
            return bool(self.prove.prove(str(release), answers=False)["sha256"] == sha256)
        except self.prove.ProofError:
            return False

    def _point(self, name: str, release: str) -> None:
        new = self.path / f".{name}{NEW}"
        new.unlink(missing_ok=True)
        new.symlink_to(f"{RELEASES}/{release}", target_is_directory=True)
        new.replace(self.path / name)
        _sync(self.path)

    def _tidy(self) -> None:
        kept = {self.link(CURRENT), self.link(PREVIOUS)}
        for release in self.releases.iterdir():
            if NAME.fullmatch(release.name) and release.name not in kept:
                _remove(release)

    def _told(self, state: str, golden: dict[str, Any] | None) -> dict[str, Any]:
        links = {"release": self.link(CURRENT), "previous": self.link(PREVIOUS)}
        return {"state": state, **links, "golden": golden}


@contextlib.contextmanager
def opened(path: Path, prove: Any) -> Iterator[Folder]:
    """The folder, made if it is not there and locked while it is used. Raises ProofError."""
    remedy = "give a new folder, or one of earlier releases"
    if path.exists() and not path.is_dir():
        raise prove.ProofError("a file, not a folder", "input", remedy=remedy)
    if path.is_dir() and not _is_ours(path):
        raise prove.ProofError("not empty, and not a folder of releases", "input", remedy=remedy)
    (path / RELEASES).mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Folder(path, prove)
        for name in (CURRENT, PREVIOUS):
            folder.link(name)
        yield folder


def _is_ours(path: Path) -> bool:
    """A folder that a ship has locked before, or was killed just before it did; or an empty one."""
    names = {one.name for one in path.iterdir()}
    releases = path / RELEASES
    if RELEASES not in names or not releases.is_dir():
        return not names
    return LOCK in names or (names == {RELEASES} and not any(releases.iterdir()))


def _copy(bundle: Path, new: Path) -> None:
    """The bundle's files, on disk when it returns; a link among them stays one, and is refused."""
    new.mkdir()
    for path in bundle.iterdir():
        copied = shutil.copyfile(path, new / path.name, follow_symlinks=False)
        if not copied.is_symlink():
            _sync(copied)
    _sync(new)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_module(path: str) -> Any:
    specification = importlib.util.spec_from_file_location("prove", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def main(words: list[str]) -> int:
    asked = json.loads(words[0])
    sys.dont_write_bytecode = True
    prove = load_module(asked["prove"])
    try:
        with opened(Path(asked["folder"]).expanduser(), prove) as folder:
            if asked["do"] == "rollback":
                prove.say(folder.rollback())
            else:
                prove.say(folder.ship(Path(asked["bundle"]), asked["sha256"]))
    except prove.ProofError as fault:
        prove.say(prove.as_told(fault))
    except OSError as error:
        why, what = error.strerror or str(error), str(error.filename or "")
        remedy = "make room or give permission, or choose another folder"
        kind = "input" if error.errno in UNUSABLE_NAME else "resource"
        prove.say(prove.as_told(prove.ProofError(why, kind, what[:80], remedy)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
