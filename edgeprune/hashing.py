"""Files by what is in them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

# What results are computed by; the rest reads, tells, keeps and ships them.
COMPUTES = (
    *("export", "learn", "measure", "prune", "stages", "task"),
    *("effort.py", "encoder.py", "inputs.py", "latency.py", "parity.py", "pipeline.py"),
    *("shape.py", "size.py", "tensors.py", "tokens.py", "vocabulary.py"),
)


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(path: Path) -> dict[str, Any]:
    """A file's size and sha256, as manifests hold them."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}


@cache
def code_digest(package: Path = Path(__file__).parent) -> str:
    """sha256 of the source by which results are computed, and so of every constant in it."""
    total = hashlib.sha256()
    for name in COMPUTES:
        path = package / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(f"{file.relative_to(package).as_posix()} {file_digest(file)}\n".encode())
    return total.hexdigest()
