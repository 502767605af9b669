"""Raw samples as a file from which a verdict can be recomputed to the letter.

Gzipped JSON Lines: for each measurement a line with its profile and what it was asked, then a
line for each launch with its samples in order and its conditions.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.errors import InputError, ResourceError
from edgeprune.latency import Budget
from edgeprune.measure.profile import Profile
from edgeprune.measure.verdict import Verdict, judge

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-samples/1"
MAX_BYTES = 1_000_000_000  # unzipped


@dataclass(frozen=True)
class Question:
    """What samples were asked: a budget, and how sure one wants to be."""

    budget_ms: float
    percentile: float = 90.0
    confidence: float = 0.99
    look: int = 1
    looks: int = 1
    targets: int = 1

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
    except (
        *(ValueError, KeyError, TypeError, AttributeError),
        *(OverflowError, RecursionError, StopIteration),
    ) as error:
        raise _unreadable(path, f"not in the format {FORMAT}: {error!r}") from None
    if not found:
        raise _unreadable(path, "holds no measurement")
    return found


def _measurement(head: Mapping[str, Any], lines: Iterator[dict[str, Any]]) -> Sampled:
    if head["format"] != FORMAT:
        raise ValueError(head["format"])
    launches = [next(lines) for _ in range(head["launches"])]
    latency = [launch.pop("samples_ms") for launch in launches]
    facts = head["facts"] | {"launches": launches}
    profile = Profile.from_dict(head["profile"] | {"latency": latency, "facts": facts})
    asked = head["asked"]
    return Sampled(profile, Question(**asked) if asked else None, head["verdict"])


def _unreadable(path: Path, why: str) -> InputError:
    remedy = "give the .jsonl.gz file that `check --samples` or `profile --samples` wrote"
    return InputError(f"samples {path}", why=why, remedy=remedy)
