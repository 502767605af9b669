"""Files and folders that are whole or absent at any moment, whatever ends the process or the power.

All is written under a name of its own beside the goal, put on the disk, and only then renamed; the
rename lasts once the folder that holds the name is on the disk too. A folder's manifest is written
last, so that its existence means that the rest is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeprune.hashing import described, file_digest

MANIFEST = "manifest.json"
PART = ".part"  # how the name of what is not whole yet ends
AT_CWD, RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>
CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Torn(Exception):  # noqa: N818 - a finding, and never a user's error
    """A folder's files are not what its manifest says; the message tells which and how."""


def publish(path: Path, text: str) -> None:
    """Write a file, and the folders above it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        part.write_text(text, encoding="utf-8")
        _sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


def publish_link(goal: Path, link: Path) -> None:
    """Point a relative link at a folder, in one step. Raises OSError."""
    part = _part(link)
    try:
        part.symlink_to(os.path.relpath(goal, link.parent), target_is_directory=True)
        part.replace(link)
    finally:
        part.unlink(missing_ok=True)
    _sync(link.parent)


@contextlib.contextmanager
def publishing(goal: Path, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A new folder to write into, which becomes `goal` if nothing goes wrong. Raises OSError.

    With `facts`, as they are at the end, it gets a manifest that `manifest` reads. What was at the
    goal before stays there until then, and is removed after.
    """
    goal.parent.mkdir(parents=True, exist_ok=True)
    part = _part(goal)
    part.mkdir()
    try:
        yield part
        for path in part.rglob("*"):
            _sync(path)
        if facts is not None:
            _write_manifest(part, facts)
        _sync(part)
        _put(part, goal)
        _sync(goal.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def manifest(folder: Path, **facts: Any) -> dict[str, Any]:
    """What the manifest of a folder says, whose files are all there and to the byte.

    Raises Torn, also where it does not say these `facts`.
    """
    name = MANIFEST
    try:
        said = json.loads((folder / MANIFEST).read_bytes())
        wrong = [key for key, value in facts.items() if said[key] != value]
        if wrong:
            raise Torn(f"{MANIFEST} is of another {wrong[0]}")
        for name, file in said["files"].items():
            found = (folder / name).stat().st_size
            if found != file["size"]:
                raise Torn(f"{name} has {found} bytes, and had {file['size']}")
            if file_digest(folder / name) != file["sha256"]:
                raise Torn(f"{name} is not as it was written")
    except FileNotFoundError:
        raise Torn(f"{name} is missing") from None
    except OSError as error:
        raise Torn(f"{name} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Torn(f"{MANIFEST} cannot be understood") from None
    return dict(said)


def set_aside(path: Path, where: Path) -> Path:
    """Move a folder that is not to be used any more, to be looked at. Raises OSError."""
    where.mkdir(parents=True, exist_ok=True)
    there = where / f"{path.name}.{secrets.token_hex(4)}"
    path.rename(there)
    _sync(where)
    _sync(path.parent)
    return there


def discard(path: Path) -> None:
    """Remove a folder, which is gone as a whole before its files go. Raises OSError."""
    part = _part(path)
    path.rename(part)
    shutil.rmtree(part)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half-written or half-removed. Raises OSError."""
    for part in folder.glob(f".*{PART}"):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()


def _part(goal: Path) -> Path:
    return goal.with_name(f".{goal.name}.{secrets.token_hex(4)}{PART}")


def _write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    files = {
        path.relative_to(folder).as_posix(): described(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    path = folder / MANIFEST
    path.write_text(json.dumps({**facts, "files": files}, indent=1, default=str), encoding="utf-8")
    _sync(path)


def _put(part: Path, goal: Path) -> None:
    """Give a folder its name; one that has the name is exchanged for it, and removed after."""
    if not goal.exists():
        part.rename(goal)
    elif not _exchange(part, goal):
        # For a moment nothing has the name; what had it comes back if the new one cannot.
        old = _part(goal)
        goal.rename(old)
        try:
            part.rename(goal)
        except OSError:
            old.rename(goal)
            raise
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the file system cannot. Raises OSError."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(AT_CWD, bytes(one), AT_CWD, bytes(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
