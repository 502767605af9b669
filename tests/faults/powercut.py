"""What a power cut may leave of a folder, from the shim's log of all that was changed in it.

Names (files made, renamed, removed) come to the disk in order, as a journalling file system writes
them: a cut leaves those up to the last one whose folder was synced, and any number of the later
ones. Bytes come in any order: of what was written to a file since it was last synced there is
nothing, a part, all, or as many zeros.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = "folder"


@dataclass
class File:
    """One file under whatever names: its bytes now, and those that are sure to be on the disk."""

    now: bytes = b""
    synced: bytes = b""


@dataclass(frozen=True)
class Change:
    op: str
    path: str
    argument: str
    offset: int
    bytes_: bytes


Node = File | str  # a file, FOLDER, or where a link leads
Names = dict[str, Node]


def read_log(file: Path) -> list[Change]:
    raw, found, at = file.read_bytes(), [], 0
    while at < len(raw):
        end = raw.index(b"\n", at)
        op, path, argument, offset, size = raw[at:end].decode().split("\t")
        at = end + 1 + (int(size) if op == "write" else 0)
        found.append(Change(op, path, argument, int(offset), raw[end + 1 : at]))
    return found


@dataclass
class Disk:
    """A disk from the changes up to a cut; `sure` is how many changes of names have lasted."""

    start: Names
    now: Names = field(init=False)
    renamed: list[tuple[Change, Node | None]] = field(default_factory=list)
    sure: int = 0

    def __post_init__(self) -> None:
        self.now = dict(self.start)

    def take(self, change: Change) -> None:
        node = self.now.get(change.path)
        if change.op == "write":
            assert isinstance(node, File)
            head = node.now[: change.offset].ljust(change.offset, b"\0")
            node.now = head + change.bytes_ + node.now[change.offset + len(change.bytes_) :]
        elif change.op == "truncate":
            assert isinstance(node, File)
            node.now = node.now[: int(change.argument)].ljust(int(change.argument), b"\0")
        elif change.op == "fsync" and isinstance(node, File):
            node.synced = node.now
        elif change.op == "fsync":
            here = [i for i, (one, _) in enumerate(self.renamed) if change.path in _folders(one)]
            self.sure = max([self.sure, *(i + 1 for i in here)])
        elif change.op == "create" and isinstance(node, File):
            node.now = b""
        else:
            made = File() if change.op == "create" else None
            self.renamed.append((change, made))
            _name(self.now, change, made)

    def left(self, draw: random.Random, folder: Path) -> None:
        """Write one of the states that a cut now may leave."""
        names = dict(self.start)
        for change, made in self.renamed[: draw.randint(self.sure, len(self.renamed))]:
            _name(names, change, made)
        for path, node in sorted(names.items()):
            there = folder / path
            if node == FOLDER:
                there.mkdir(parents=True, exist_ok=True)
            elif isinstance(node, File):
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(_bytes(node, draw))
            else:
                there.symlink_to(node)


def _folders(change: Change) -> set[str]:
    paths = [change.path, change.argument if change.op in ("rename", "exchange") else ""]
    return {path.rpartition("/")[0] for path in paths if path}


def _bytes(file: File, draw: random.Random) -> bytes:
    if file.now == file.synced:
        return file.now
    part = file.now[: draw.randint(0, len(file.now))]
    return draw.choice([file.synced, file.now, part, b"\0" * len(file.now)])


def _name(names: Names, change: Change, made: Node | None) -> None:
    if change.op == "mkdir":
        names[change.path] = FOLDER
    elif change.op == "symlink":
        names[change.path] = change.argument
    elif change.op == "create":
        assert made is not None
        names[change.path] = made
    elif change.op == "remove":
        names.pop(change.path, None)
    else:
        there = dict(_pop(names, change.argument))
        names |= {change.argument + rest: node for rest, node in _pop(names, change.path)}
        if change.op == "exchange":
            names |= {change.path + rest: node for rest, node in there.items()}


def _pop(names: Names, path: str) -> list[tuple[str, Node]]:
    found = [name for name in names if name == path or name.startswith(f"{path}/")]
    return [(name[len(path) :], names.pop(name)) for name in found]


def cuts(log: list[Change], folder: Path) -> Iterator[tuple[int, Disk]]:
    """The disk after each change, the folder's own path left out of all names."""
    prefix = f"{folder}/"
    disk = Disk({"": FOLDER})
    for number, change in enumerate(log):
        inside = change.path == str(folder) or change.path.startswith(prefix)
        if inside and not (change.op == "mkdir" and change.path == str(folder)):
            own = change.argument
            if change.op in ("rename", "exchange"):
                own = own.removeprefix(prefix)
            path = "" if change.path == str(folder) else change.path.removeprefix(prefix)
            disk.take(Change(change.op, path, own, change.offset, change.bytes_))
        yield number, disk
