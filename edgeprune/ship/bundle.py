"""A bundle: what is shipped to a device, with the hash of every file."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import OnnxError, RefusedError
from edgeprune.hashing import described

FORMAT = 1  # 1: {"format", "files": {name: {size, sha256}}, ...facts, "sha256": of all the rest}
MODEL = "model.onnx"
MANIFEST = "edgeprune.json"


def write_bundle(
    folder: Path,
    model: Path,
    tokenizer_files: Path,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """model.onnx, the tokenizer's files, config.json, and a manifest of them with `facts`.

    The layout is one that Optimum's ORTModelForSequenceClassification loads.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written beside the goal and moved there whole: never new files under an old manifest.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle.") as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        shutil.copyfile(model, new / MODEL)
        for path in sorted(tokenizer_files.iterdir()):
            shutil.copyfile(path, new / path.name)
        (new / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
        files = {path.name: described(path) for path in sorted(new.iterdir())}
        manifest = {"format": FORMAT, "files": files, **facts}
        manifest["sha256"] = _digest(manifest)
        (new / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True))
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        new.rename(folder)


def verify_bundle(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose every file is as it was written, the manifest included.

    Raises OnnxError for a folder that is no bundle, RefusedError for a file that was changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, own = dict(manifest["files"]), manifest.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OnnxError(f"bundle {folder}", why=f"its {MANIFEST} cannot be read") from error
    if own != _digest(manifest):
        raise _changed(folder, MANIFEST)
    for name, said in files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise RefusedError(f"bundle {folder}: {name}", why="missing, or not a plain file")
        if described(path) != said:
            raise _changed(folder, name)
    return manifest


def _changed(folder: Path, name: str) -> RefusedError:
    return RefusedError(
        f"bundle {folder}: {name}",
        why="not the file that was measured: its hash differs",
        remedy="copy the bundle again, or run `edgeprune compress`",
    )


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
