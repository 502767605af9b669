"""Files by what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(path: Path) -> dict[str, Any]:
    """A file's size and sha256, as manifests hold them."""
    return {"size": path.stat().st_size, "sha256": file_digest(path)}
