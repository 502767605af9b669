"""What a runtime runs, for whoever builds it into an application: converted, compared, kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import RecipeError, ResourceError
from edgeprune.gate.subject import Subject
from edgeprune.hashing import file_digest
from edgeprune.measure.launch import files, prepare, sha256
from edgeprune.measure.parity import check_converted
from edgeprune.measure.target import Target
from edgeprune.onnx_file import check_onnx

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-converted/1"
FACTS = "converted.json"


@dataclass(frozen=True)
class Converted:
    """A new folder: the model as the runtime runs it, what its converter adds, and `facts`."""

    folder: Path
    model: Path
    facts: dict[str, Any]


def convert(
    path: Path | str,
    out: Path | str,
    *,
    target: str,
    batch: int | None = None,
    sequence: int | None = None,
) -> Converted:
    """Write what a target's runtime makes of an ONNX file, a bundle or a run into a new folder.

    The target's runtime answers there first, and as ONNX Runtime does. The facts are hashes, the
    input shape, how like the answers are, and the runtime's version. Raises InputError,
    ParityError, TargetError, ResourceError, RefusedError.
    """
    out = Path(out)
    if out.exists():
        raise RecipeError(f"--out {out}", why="exists already", remedy="give a new folder")
    subject, on = Subject.find(Path(path)), Target.parse(target)
    conditions = subject.conditions.but({"batch": batch, "sequence": sequence})
    check_onnx(subject.onnx)
    with prepare({"model": subject.onnx}, on, conditions.settings.load) as bench:
        model = bench.converted["model"]
        if model == subject.onnx:
            why = "takes the ONNX file as it is"
            raise RecipeError(f"--target {target}", why=why, remedy=f"use {subject.onnx}")
        room = model.parent
        facts = {
            "format": FORMAT,
            "target": on.name,
            "version": on.runtime.check().version,
            "model": model.name,
            "sha256": sha256(model),
            "onnx_sha256": file_digest(subject.onnx),
            "batch": conditions.batch,
            "sequence": conditions.sequence,
            "parity": check_converted(bench, "model", subject.rows),
            "files": {f.relative_to(room).as_posix(): file_digest(f) for f in files(room)},
        }
        _publish(room, facts, out)
    return Converted(out, out / model.name, json.loads(json.dumps(facts)))


def _publish(room: Path, facts: dict[str, Any], out: Path) -> None:
    """The room's files and the facts under their own name at once."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".converted.") as temporary:
            new = Path(temporary) / out.name
            shutil.copytree(room, new)
            (new / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            new.rename(out)
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(f"folder {out}", why=why, remedy="choose another folder") from error
