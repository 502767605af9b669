"""What cannot flake: counts and hashes of the file itself, judged before anything is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgeprune.errors import InputError
from edgeprune.gate.demands import Demands
from edgeprune.gate.subject import Conditions, Subject
from edgeprune.hashing import described
from edgeprune.units import count, megabytes

MAX_BASELINE_BYTES = 256_000_000


@dataclass(frozen=True)
class Anatomy:
    """The countable facts of a model file; `multiply_adds` is None where shapes stay unknown."""

    sha256: str
    size_bytes: int
    parameters: int
    multiply_adds: int | None
    operators: Mapping[str, int]
    fusions: Mapping[str, int]
    score: float | None

    @classmethod
    def of(cls, subject: Subject, conditions: Conditions) -> Anatomy:
        """Of the subject's file, for one inference under these conditions. Raises OnnxError."""
        from edgeprune.export.inspect import fusions_found, multiply_adds, read_contents

        contents = read_contents(subject.onnx)
        file = described(subject.onnx)
        return cls(
            sha256=file["sha256"],
            size_bytes=file["size"],
            parameters=contents.parameters,
            multiply_adds=multiply_adds(subject.onnx, conditions.batch, conditions.sequence),
            operators=contents.operators,
            fusions=fusions_found(subject.onnx),
            score=subject.manifest.get("score"),
        )

    @classmethod
    def of_baseline(cls, path: Path) -> Anatomy:
        """Of the model of an earlier check, from its JSON. Raises InputError."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BASELINE_BYTES + 1)
            if len(raw) > MAX_BASELINE_BYTES:
                raise InputError(f"baseline {path}", why=f"over {MAX_BASELINE_BYTES} bytes")
            stored = json.loads(raw)["model"]
            return TypeAdapter(cls).validate_python(stored)
        except OSError as error:
            why = error.strerror or "cannot be read"
        except (ValueError, KeyError, TypeError, RecursionError):
            why = "not the JSON of an edgeprune check"
        remedy = "write one with `edgeprune check MODEL --json > FILE`"
        raise InputError(f"baseline {path}", why=why, remedy=remedy)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """One demand that was held against the file."""

    name: str
    passed: bool
    text: str


def static_gates(subject: Subject, anatomy: Anatomy, demands: Demands) -> list[Gate]:
    """Every demand on the file itself, in the order in which it is told. Raises InputError."""
    gates = [*_shipped(subject), *_limits(anatomy, demands)]
    if demands.baseline is not None:
        gates += _growth(anatomy, Anatomy.of_baseline(demands.baseline))
    return gates


def _shipped(subject: Subject) -> Iterator[Gate]:
    if subject.manifest:  # whose every hash was verified when the subject was found
        yield Gate("hash", True, "every file is the one that the bundle's manifest names")


def _limits(anatomy: Anatomy, demands: Demands) -> Iterator[Gate]:
    if (most := demands.size_bytes) is not None:
        size = anatomy.size_bytes
        yield Gate("size", size <= most, f"{megabytes(size / 1e6)}, {demands.size} may be")
    if (most := demands.parameters) is not None:
        text = f"{count(anatomy.parameters)}, {count(most)} may be"
        yield Gate("parameters", anatomy.parameters <= most, text)
    if (most := demands.multiply_adds) is not None:
        found = anatomy.multiply_adds
        told = "unknown" if found is None else count(found)
        yield Gate(
            "multiply-adds", found is not None and found <= most, f"{told}, {count(most)} may be"
        )
    if (least := demands.score_floor) is not None:
        score = anatomy.score
        told = "no score is stored with the model" if score is None else f"{score:.4f}"
        yield Gate("score", score is not None and score >= least, f"{told}, the floor is {least:g}")


def _growth(now: Anatomy, before: Anatomy) -> Iterator[Gate]:
    pairs = {
        "size": (now.size_bytes, before.size_bytes),
        "parameters": (now.parameters, before.parameters),
        "multiply-adds": (now.multiply_adds or 0, before.multiply_adds or 0),
    }
    for name, (new, old) in pairs.items():
        yield Gate(f"{name} against the baseline", new <= old, f"{count(new)}, was {count(old)}")
    fresh = sorted(set(now.operators) - set(before.operators))
    text = f"new: {', '.join(fresh)}" if fresh else "none new"
    yield Gate("operators against the baseline", not fresh, text)
    lost = [name for name, found in before.fusions.items() if found and not now.fusions.get(name)]
    text = f"lost: {', '.join(lost)}" if lost else "none lost"
    yield Gate("fusions against the baseline", not lost, text)
