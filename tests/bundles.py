"""Bundles as tests need them: another one, a forged one, one that answers otherwise."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune.hashing import file_digest
from edgeprune.ship import prove
from edgeprune.ship.bundle import MANIFEST


def rewritten(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A manifest that agrees with itself, as only its maker or a forger writes one."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    del manifest["sha256"]
    change(manifest)
    manifest["sha256"] = prove.digest(manifest)
    (bundle / MANIFEST).write_bytes(prove.written(manifest))


def other_answers(bundle: Path) -> None:
    """Golden answers that the model does not give."""
    path = bundle / "golden.json"
    golden = json.loads(path.read_text())
    golden["outputs"]["logits"] = [row[::-1] for row in golden["outputs"]["logits"]]
    path.write_text(json.dumps(golden))
    said = {"size": path.stat().st_size, "sha256": file_digest(path)}
    rewritten(bundle, lambda manifest: manifest["files"].update({"golden.json": said}))


def another(bundle: Path, name: str) -> Path:
    """A second bundle, of another task."""
    copy = Path(shutil.copytree(bundle, bundle.parent / name))
    rewritten(copy, lambda manifest: manifest.update(task=name))
    return copy


def digits(bundle: Path) -> str:
    return str(json.loads((bundle / MANIFEST).read_text())["sha256"])[:12]


# Runs what puts a bundle to work on a device, which copies the first file and hangs.
HANG = """
import os, runpy, sys, time
def fsync(handle):
    open(f"{sys.argv.pop()}.{os.getpid()}", "w").close()
    time.sleep(600)
os.fsync = fsync
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def python_that_hangs_while_copying(mark: Path) -> list[str]:
    """Lines of a shell script that does for a device's Python; each that hangs leaves a mark."""
    program = mark.with_name("hang.py")
    program.write_text(HANG)
    return [
        f'case "$2" in *\'"do"\'*) exec {sys.executable} {program} "$@" {mark};; esac',
        f'exec {sys.executable} "$@"',
    ]


def hung(mark: Path) -> int:
    """How many of them hang."""
    return len([*mark.parent.glob(f"{mark.name}.*")])
