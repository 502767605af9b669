"""The run folder: every stage published whole, found again by what it was made from.

RUN/stages/<name>-<key>/ holds a stage's files and its manifest.json. The key is the hash of
everything the stage was made from, so a second call of the same recipe redoes nothing, and
another budget redoes only what depends on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError, ResourceError
from edgeprune.hashing import described, file_digest
from edgeprune.progress import Progress

FORMAT = 1  # 1: {"format", "stage", "key", "made_from", "seconds", "files": {name: {size, sha256}}}
MANIFEST = "manifest.json"
LOCK = ".lock"


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, and the key by which later stages name it."""

    name: str
    folder: Path
    key: str
    seconds: float
    cached: bool

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@dataclass
class Run:
    """A run folder, held by one process at a time."""

    folder: Path
    progress: Progress
    stages: list[Stage] = field(default_factory=list)

    def stage(
        self, name: str, made_from: Mapping[str, Any], build: Callable[[Path], None]
    ) -> Stage:
        """The stage's folder: found if it was made from the same before, else built.

        `build` writes into a folder of its own, which is renamed when it is whole.
        """
        key = digest({"stage": name, "format": FORMAT, "made_from": made_from})
        folder = self.folder / "stages" / f"{name}-{key[:12]}"
        manifest = _intact(folder, key)
        self.progress.stage(name, cached=manifest is not None)
        if manifest is None:
            started = time.monotonic()
            with _publishing(folder) as temporary:
                build(temporary)
                seconds = round(time.monotonic() - started, 3)
                _write_manifest(temporary, name, key, made_from, seconds)
        else:
            seconds = float(manifest["seconds"])
        stage = Stage(name, folder, key, seconds, manifest is not None)
        self.stages.append(stage)
        self.progress.done(name, seconds)
        return stage


@contextlib.contextmanager
def open_run(folder: Path, progress: Progress, *, restart: bool = False) -> Iterator[Run]:
    """The run folder, made if it is not there and locked while it is used.

    Raises InputError for a folder of something else or one that another process uses,
    ResourceError where it cannot be written.
    """
    check_run_folder(folder)
    try:
        (folder / "stages").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None
    with locked(folder):
        try:
            # All stages on restart, and else what a killed process left half-built.
            for old in (folder / "stages").glob("*" if restart else ".*"):
                shutil.rmtree(old)
            yield Run(folder, progress)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise ResourceError(
                f"run folder {folder}{where}", why=error.strerror or str(error)
            ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a run folder for this process alone. Raises InputError, ResourceError as `open_run`."""
    try:
        lock = (folder / LOCK).open("a+")
    except OSError as error:
        raise _unwritable(folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise InputError(
                f"run folder {folder}",
                why=f"in use by process {holder}",
                remedy="wait for it, or give another --out",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _unwritable(folder: Path, error: OSError) -> ResourceError:
    return ResourceError(f"run folder {folder}", why=error.strerror or "cannot write")


def held(folder: Path) -> bool:
    """Whether a process works in the run folder now."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def check_run_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}", why="is a file", remedy="give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "stages").is_dir():
        raise InputError(
            f"--out {folder}",
            why="not empty, and not a run folder",
            remedy="give a new folder",
        )


@contextlib.contextmanager
def _publishing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside the goal, synced and renamed to it if nothing goes wrong."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            _sync(path)
        if folder.exists():  # a broken one, never used
            shutil.rmtree(folder)
        temporary.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_manifest(
    folder: Path, name: str, key: str, made_from: Mapping[str, Any], seconds: float
) -> None:
    files = {
        str(path.relative_to(folder)): described(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {
        "format": FORMAT,
        "stage": name,
        "key": key,
        "made_from": made_from,
        "seconds": seconds,
        "files": files,
    }
    # Written last: its existence means that the stage was completed.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, default=str), encoding="utf-8")


def _intact(folder: Path, key: str) -> dict[str, Any] | None:
    """The manifest of a stage whose files are all there, to the byte; else None."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = manifest["format"] == FORMAT and manifest["key"] == key
        for name, said in manifest["files"].items():
            path = folder / name
            whole = whole and path.stat().st_size == said["size"]
            whole = whole and file_digest(path) == said["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
