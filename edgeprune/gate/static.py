"""What cannot flake: counts, hashes and answers, judged apart from any clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError
from edgeprune.gate.demands import Demands
from edgeprune.gate.result import ModelPart
from edgeprune.gate.subject import Conditions, Subject
from edgeprune.hashing import described
from edgeprune.measure.profile import Profile
from edgeprune.onnx_file import load_onnx
from edgeprune.ship.golden import told
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
        from edgeprune.export.inspect import contents_of, fusions_found, multiply_adds

        model = load_onnx(subject.onnx)
        contents = contents_of(model)
        file = described(subject.onnx)
        return cls(
            sha256=file["sha256"],
            size_bytes=file["size"],
            parameters=contents.parameters,
            multiply_adds=multiply_adds(model, conditions.batch, conditions.sequence),
            operators=contents.operators,
            fusions=fusions_found(subject.onnx),
            score=subject.manifest.get("score"),
        )

    @classmethod
    def of_baseline(cls, path: Path) -> Anatomy:
        """Of the model of an earlier check, from its JSON. Raises InputError."""
        remedy = "write one with `edgeprune check MODEL --json > FILE`"
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BASELINE_BYTES + 1)
            if len(raw) > MAX_BASELINE_BYTES:
                raise InputError(f"baseline {path}", why=f"over {MAX_BASELINE_BYTES} bytes")
            stored = json.loads(raw)["model"]
            return cls(**ModelPart.model_validate(stored, strict=True).model_dump())
        except OSError as error:
            why = error.strerror or "cannot be read"
        except (ValueError, KeyError, TypeError, RecursionError):
            why = "not the JSON of an edgeprune check"
        raise InputError(f"baseline {path}", why=why, remedy=remedy)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """One demand that was held against the file."""

    name: str
    passed: bool
    text: str


def static_gates(
    subject: Subject,
    anatomy: Anatomy,
    golden: Mapping[str, Any] | None,
    demands: Demands,
    baseline: Anatomy | None,
) -> list[Gate]:
    """Every demand on the file itself, in the order in which it is told."""
    growth = [] if baseline is None else _growth(anatomy, baseline)
    return [*_shipped(subject, golden), *_limits(subject, anatomy, demands), *growth]


def target_gates(anatomy: Anatomy, profile: Profile) -> Iterator[Gate]:
    """What only the target can tell, and tells alike each time: which file ran, and on what."""
    launches, runtime = profile.facts["launches"], profile.facts["runtime"]
    sent = {launch["sha256"] for launch in launches} == {profile.sha256}
    shipped = profile.facts["onnx_sha256"] == anatomy.sha256
    text = "what ran is the file that is shipped" if sent and shipped else "another file ran"
    yield Gate(f"file on {profile.target}", sent and shipped, text)
    if asked := runtime.get("requested_providers"):
        got = runtime.get("providers") or ["nothing"]
        nodes = runtime.get("placement") or {}  # how many each has, where the runtime tells
        had = ", ".join(f"{n} nodes on {name}" for name, n in nodes.items()) or ", ".join(got)
        passed = got == asked and set(nodes) <= set(asked)
        yield Gate(f"placement on {profile.target}", passed, f"{had}; asked for {', '.join(asked)}")


def _shipped(subject: Subject, golden: Mapping[str, Any] | None) -> Iterator[Gate]:
    if subject.manifest:  # whose every hash was verified when the subject was found
        yield Gate("hash", True, "every file is the one that the bundle's manifest names")
    if golden is not None:
        yield Gate("golden answers", golden["agrees"], told(golden))


def _limits(subject: Subject, anatomy: Anatomy, demands: Demands) -> Iterator[Gate]:
    if (limit := demands.size_budget or subject.size_budget) is not None:
        size = anatomy.size_bytes
        yield Gate("size", size <= limit.bytes, f"{megabytes(size / 1e6)}, {limit} may be")
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
