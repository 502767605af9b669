"""Bundles that are not what they say: spoiled in ways that only their maker or a forger can."""

from __future__ import annotations

import json
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
