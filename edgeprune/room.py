"""What a disk and the memory have left, and what a user is told when that was not enough."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edgeprune.errors import ResourceError

SPACE = {errno.ENOSPC, errno.EDQUOT}
CGROUP = Path("/sys/fs/cgroup")


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def disk_left_mb(folder: Path) -> float:
    """What may still be written below a folder, which need not be there yet. Raises OSError."""
    disk = os.statvfs(existing(folder))
    return disk.f_bavail * disk.f_frsize / 1e6


def memory_left_mb() -> float | None:
    """What the machine or the control group has left, whichever is less; None if neither tells."""
    left = [mb for mb in (_machine_mb(), _group_mb()) if mb is not None]
    return min(left, default=None)


def _machine_mb() -> float | None:
    for line in _text(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024 / 1e6
    return None


def _group_mb() -> float | None:
    most, used = _text(CGROUP / "memory.max").strip(), _text(CGROUP / "memory.current").strip()
    # Files that were read count as used; the system gives them up where room is needed.
    cached = [
        line for line in _text(CGROUP / "memory.stat").splitlines() if "inactive_file" in line
    ]
    if not most.isdigit() or not used.isdigit():
        return None
    return (int(most) - int(used) + sum(int(line.split()[1]) for line in cached)) / 1e6


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def no_room(what: str, error: OSError, folder: Path) -> ResourceError:
    """What the system said when it would not write below a folder."""
    why = error.strerror or str(error) or "cannot be written"
    if error.filename and str(error.filename) != str(folder):
        what = f"{what} ({error.filename})"
    if error.errno in SPACE:
        return ResourceError(
            what,
            why=f"{why}: {disk_left_mb(folder):.0f} MB left in {existing(folder)}",
            remedy="make room, then `edgeprune resume` goes on where it stopped",
        )
    return ResourceError(what, why=why, remedy="give permission, or choose another --out")
