"""Raw samples as a file from which a verdict can be recomputed to the letter.

Gzipped JSON Lines: for each measurement a line with its profile and what it was asked, then a
line for each launch with its samples in order and its conditions.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgeprune.errors import BudgetError, InputError, ResourceError
from edgeprune.latency import Budget, Latency, check_percentile
from edgeprune.measure.profile import Profile
from edgeprune.measure.verdict import Verdict, judge

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-samples/1"
MAX_BYTES = 1_000_000_000  # unzipped


class _Moment(BaseModel):
    """What is judged of a machine before or after a launch; a device tells what it can."""

    model_config = ConfigDict(extra="allow", strict=True)

    kernel_ms: float | None = Field(default=None, ge=0)
    load: list[float] = []


class _Launch(BaseModel):
    """What is judged of a launch; all else that is told of it stays beside it."""

    model_config = ConfigDict(extra="allow", strict=True)

    samples_ms: list[float]
    sha256: str
    outputs_finite: bool
    resolution_ns: float = Field(ge=0)
    before: _Moment
    after: _Moment


class _Runtime(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    synthetic: bool = False
    requested_providers: list[str] = []
    providers: list[str] = []


class _Device(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    cores: int | None = None
    emulated: bool = False


class _Facts(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    runtime: _Runtime
    device: _Device


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["edgeprune-samples/1"]
    profile: dict[str, Any]
    facts: dict[str, Any]
    launches: int = Field(ge=0)
    asked: dict[str, Any] | None
    verdict: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What samples were asked: a budget, and how sure one wants to be. Raises BudgetError."""

    budget_ms: float
    percentile: float = 90.0
    confidence: float = 0.99
    look: int = 1
    looks: int = 1
    targets: int = 1

    def __post_init__(self) -> None:
        check_percentile(self.percentile)
        if not 0 < self.budget_ms < math.inf:
            raise BudgetError(f"budget {self.budget_ms:g} ms", why="must be above zero")
        if not 0.5 < self.confidence < 1:
            why = "lies above 50 and under 100 percent"
            raise BudgetError(f"confidence {100 * self.confidence:g}", why=why, remedy="as 99")
        if not 1 <= self.look <= self.looks or self.targets < 1:
            why = f"is no look {self.look} of {self.looks} at {self.targets} targets"
            raise BudgetError("what was asked", why=why)

    @classmethod
    def of(
        cls, budget: Budget, confidence: float, *, look: int, looks: int, targets: int
    ) -> Question:
        """Of a budget in ms."""
        assert budget.ms is not None  # resolved by whoever measured the dense model
        return cls(budget.ms, budget.percentile, confidence, look, looks, targets)

    def answer(self, profile: Profile) -> Verdict:
        """The verdict on a profile."""
        return judge(
            profile.latency,
            Budget(ms=self.budget_ms, percentile=self.percentile),
            confidence=self.confidence,
            target=f"{profile.target} (proxy)" if profile.proxy else profile.target,
            doubts=profile.doubts,
            look=self.look,
            looks=self.looks,
            targets=self.targets,
        )


@dataclass(frozen=True)
class Sampled:
    """A measurement, and the question that it answered if there was one."""

    profile: Profile
    question: Question | None = None
    verdict: Mapping[str, Any] = field(default_factory=dict)
    """As it was given then, by `Verdict.to_dict`."""


_PROFILE, _QUESTION = TypeAdapter(Profile), TypeAdapter(Question)


def write_samples(path: Path, measurements: Sequence[Sampled]) -> None:
    """Write measurements to a file. Raises ResourceError."""
    try:
        # No file name and no time in the header: the same samples make the same bytes.
        with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
            for row in (row for one in measurements for row in _rows(one)):
                zipped.write(json.dumps(row).encode() + b"\n")
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(f"samples {path}", why=why, remedy="choose another file") from None


def _rows(one: Sampled) -> Iterator[dict[str, Any]]:
    profile = one.profile.to_dict()
    launches_ms = profile.pop("latency")
    facts = dict(profile.pop("facts"))
    launches = facts.pop("launches")
    asked = asdict(one.question) if one.question else None
    head = {"format": FORMAT, "profile": profile, "facts": facts, "launches": len(launches)}
    yield head | {"asked": asked, "verdict": dict(one.verdict)}
    for samples_ms, conditions in zip(launches_ms, launches, strict=True):
        yield {"samples_ms": samples_ms} | conditions


def read_samples(path: Path) -> list[Sampled]:
    """The measurements of a file. Raises InputError."""
    try:
        with gzip.open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise _unreadable(path, f"over {MAX_BYTES} bytes")
        lines = iter([json.loads(line) for line in raw.splitlines()])
        found = [_measurement(head, lines) for head in lines]
    except OSError as error:
        why = error.strerror or "no gzipped file"
        raise _unreadable(path, why) from None
    except (EOFError, zlib.error):
        raise _unreadable(path, "cut short or damaged") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        why = f"not in the format {FORMAT}: {where}: {first['msg']}"
        raise _unreadable(path, why) from None
    except (ValueError, RecursionError, StopIteration):
        raise _unreadable(path, f"not in the format {FORMAT}") from None
    if not found:
        raise _unreadable(path, "holds no measurement")
    return found


def _measurement(head: object, lines: Iterator[Any]) -> Sampled:
    """Raises ValueError for what is not in the format, StopIteration where lines are missing."""
    told = _Head.model_validate(head)
    _Facts.model_validate(told.facts)
    launches = [next(lines) for _ in range(told.launches)]
    for launch in launches:
        _Launch.model_validate(launch)
    latency = Latency.of([launch.pop("samples_ms") for launch in launches])
    facts = told.facts | {"launches": launches}
    kept = {key: value for key, value in told.profile.items() if key != "format"}
    # pydantic leaves out what a dataclass has no field for.
    for stored, known in ((kept, Profile), (told.asked or {}, Question)):
        if unknown := stored.keys() - {one.name for one in fields(known)}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    profile = _PROFILE.validate_python(kept | {"latency": latency, "facts": facts})
    asked = None if told.asked is None else _QUESTION.validate_python(told.asked)
    return Sampled(profile, asked, told.verdict)


def _unreadable(path: Path, why: str) -> InputError:
    remedy = "give the .jsonl.gz file that `check --samples` or `profile --samples` wrote"
    return InputError(f"samples {path}", why=why, remedy=remedy)
