"""The run folder: every stage published whole, found again by what it was made from.

RUN/stages/<name>-<key>/     a stage's files and its manifest.json
RUN/snapshots/<name>-<key>/  how far the trainings of a stage have come that is not finished
RUN/aside/                   what was found broken: never used, and kept to be looked at
RUN/.lock                    the process that works here, and the machine's start it belongs to

The key is the hash of everything the stage was made from, so a second call of the same recipe
redoes nothing, and another budget redoes only what depends on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from edgeprune.errors import InputError
from edgeprune.hashing import code_digest
from edgeprune.progress import Progress
from edgeprune.publish import Torn, discard, manifest, publishing, remove_parts, set_aside
from edgeprune.room import no_room

FORMAT = 1  # 1: {"format", "stage", "key", "made_from", "seconds", "files": {name: {size, sha256}}}
STAGES, SNAPSHOTS, ASIDE, LOCK = "stages", "snapshots", "aside", ".lock"
BUDGETS = "budgets"
KEY_LENGTH = 12  # of a stage's key, in the name of its folder
STAGE = re.compile(f".+-[0-9a-f]{{{KEY_LENGTH}}}")
MARKS = {LOCK, "status.json", "report.json"}  # one of them lies beside `stages` in a run folder
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
GLANCES, GLANCE_S = 5, 0.05  # a look at the lock, as `held` takes it, is soon over


def digest(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _key(said: Mapping[str, Any]) -> str:
    """The key of a stage whose manifest says this."""
    return digest({name: said.get(name) for name in ("stage", "format", "made_from")})


def stage_folder(run: Path, name: str, key: str) -> Path:
    """Where a stage of a run folder lies."""
    return run / STAGES / f"{name}-{key[:KEY_LENGTH]}"


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
    building: str = ""  # the folder's name of the stage that is being built

    @property
    def snapshots(self) -> Path:
        """Where trainings of the stage that is being built keep how far they are."""
        return self.folder / SNAPSHOTS / self.building

    @property
    def aside(self) -> Path:
        return self.folder / ASIDE

    def stage(
        self,
        name: str,
        made_from: Mapping[str, Any],
        build: Callable[[Path], None],
        check: Callable[[Path], None] | None = None,
    ) -> Stage:
        """The stage's folder: found if it was made from the same before, else built.

        `build` writes into a folder of its own, which gets its name when it is whole. A folder of
        which `check` raises Torn is not found.
        """
        made_from = {"code": code_digest(), **made_from}
        key = _key({"stage": name, "format": FORMAT, "made_from": made_from})
        folder = stage_folder(self.folder, name, key)
        said = self._found(folder, key, check)
        cached = said is not None
        self.progress.stage(name, cached=cached)
        if said is None:
            said = {"format": FORMAT, "stage": name, "key": key, "made_from": made_from}
            self._make(folder, said, build)
        stage = Stage(name, folder, key, float(said["seconds"]), cached)
        self.stages.append(stage)
        self.progress.done(name, stage.seconds)
        return stage

    def _found(
        self, folder: Path, key: str, check: Callable[[Path], None] | None
    ) -> dict[str, Any] | None:
        """What the manifest of a finished stage says; a broken stage is put aside."""
        if not folder.exists():
            return None
        try:
            said = manifest(folder, format=FORMAT, key=key)
            if _key(said) != key or not isinstance(said.get("seconds"), float):
                raise Torn("its manifest is not as it was written")
            if check is not None:
                check(folder)
            return said
        except Torn as why:
            there = set_aside(folder, self.aside)
            self.progress.note(f"{STAGES}/{folder.name}: {why}; made again, kept as {there}")
            return None

    def _make(self, folder: Path, facts: dict[str, Any], build: Callable[[Path], None]) -> None:
        self.building = folder.name
        started = time.monotonic()
        with publishing(folder, facts) as part:
            build(part)
            facts["seconds"] = round(time.monotonic() - started, 3)
        shutil.rmtree(self.snapshots, ignore_errors=True)  # what they led to is kept now


@contextlib.contextmanager
def open_run(folder: Path, progress: Progress, *, restart: bool = False) -> Iterator[Run]:
    """The run folder, made if it is not there and locked while it is used.

    Raises InputError for a folder of something else or one that another process uses,
    ResourceError where it cannot be written.
    """
    check_run_folder(folder)
    try:
        (folder / STAGES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_room(f"run folder {folder}", error, folder) from None
    with locked(folder) as stale:
        if stale:
            progress.note(f"run folder {folder}: {stale} went without a word; taken over")
        for place in (folder, folder / STAGES, *folder.glob(f"{BUDGETS}/*")):
            remove_parts(place)
        for old in [*folder.glob(f"{STAGES}/*"), *folder.glob(f"{SNAPSHOTS}/*")] * restart:
            discard(old)
        yield Run(folder, progress)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Keep a run folder for this process alone; tells whose lock was left behind, if any was.

    Raises InputError where another process has it. What the system will not write meanwhile is a
    ResourceError.
    """
    try:
        with (folder / LOCK).open("a+") as lock:
            _take(lock, folder)
            stale = _holder(lock)
            _sign(lock, f"{os.getpid()} {_boot()}")
            try:
                yield stale
            finally:
                # Only of a process that was killed does the name stay.
                with contextlib.suppress(OSError):
                    _sign(lock, "")
    except OSError as error:
        raise no_room(f"run folder {folder}", error, folder) from error


def _take(lock: TextIO, folder: Path) -> None:
    """Raises InputError where another process has it for longer than a glance."""
    for _ in range(GLANCES):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(GLANCE_S)
    raise InputError(
        f"run folder {folder}",
        why=f"in use by {_holder(lock) or 'another process'}",
        remedy="wait for it, or give another --out",
    )


def _holder(lock: TextIO) -> str:
    """The process that signed the lock; empty if none did, or if it took its name away."""
    lock.seek(0)
    pid, _, boot = lock.read().strip().partition(" ")
    # The numbers of processes are given anew when the machine is started.
    before = "" if boot == _boot() else " of before the machine was started"
    return f"process {pid}{before}" if pid else ""


def _sign(lock: TextIO, text: str) -> None:
    lock.truncate(0)
    lock.write(text)
    lock.flush()


def _boot() -> str:
    """Which start of the machine this is."""
    try:
        return BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


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
    """Raises InputError unless what is removed in the folder would be a run's own."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        why = "its name is no UTF-8, and cannot be told in a report"
        raise InputError(f"run folder {folder}", why=why, remedy="give another name") from None
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"run folder {folder}", why="is a file", remedy="give a folder")
    names = {path.name for path in folder.iterdir()}
    if names and not (STAGES in names and (names & MARKS or _holds_only_stages(folder, names))):
        raise InputError(
            f"run folder {folder}", why="not empty, and not a run folder", remedy="give a new one"
        )
    for name in (STAGES, SNAPSHOTS, ASIDE, BUDGETS):
        if (folder / name).is_symlink():
            raise InputError(
                f"run folder {folder}",
                why=f"its {name} are a link to elsewhere, where nothing is to be removed",
                remedy="put the folder itself there",
            )


def _holds_only_stages(folder: Path, names: set[str]) -> bool:
    """As where stages of another run were lent; of one killed as it began there are none."""
    inside = [path.name for path in (folder / STAGES).iterdir()]
    return all(STAGE.fullmatch(name) for name in inside) if inside else names == {STAGES}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
