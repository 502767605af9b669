"""What a runtime runs, for whoever builds it into an application: converted, compared, kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    out = _new(Path(out))
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
        (room / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        _publish(room, out)
    return Converted(out, out / model.name, json.loads(json.dumps(facts)))


def convert_buckets(
    path: Path | str,
    out: Path | str,
    *,
    target: str,
    sequences: Sequence[int],
    batch: int | None = None,
) -> list[Converted]:
    """As `convert`, for each of the lengths in a folder named by it: all of them, or none.

    For runtimes without dynamic shapes, whose application pads a text to the nearest length.
    """
    out, lengths = _new(Path(out)), sorted(set(sequences))
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        made = [
            convert(path, Path(scratch) / str(length), target=target, batch=batch, sequence=length)
            for length in lengths
        ]
        _publish(Path(scratch), out)
    folders = [out / str(length) for length in lengths]
    return [
        replace(one, folder=folder, model=folder / one.model.name)
        for one, folder in zip(made, folders, strict=True)
    ]


def _new(out: Path) -> Path:
    if out.exists():
        raise RecipeError(f"--out {out}", why="exists already", remedy="give a new folder")
    return out


def _publish(room: Path, out: Path) -> None:
    """The room's files under their own name at once."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".converted.") as temporary:
            new = Path(temporary) / out.name
            shutil.copytree(room, new)
            new.rename(out)
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(f"folder {out}", why=why, remedy="choose another folder") from error
