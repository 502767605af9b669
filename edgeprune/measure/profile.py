"""Convert, push, run, read every sample back: a Profile of each model, or a LatencyTable."""

from __future__ import annotations

import gzip
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.measure.latency import Latency
from edgeprune.measure.launch import Bench, Blocks, Load, Run, files, prepare, sha256
from edgeprune.measure.target import Target
from edgeprune.measure.verdict import Reason
from edgeprune.progress import SILENT, Progress

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-profile/1"


@dataclass(frozen=True)
class Settings:
    """How a latency is taken; a launch is one fresh process for one model."""

    threads: int = 1
    batch: int = 1
    sequence: int = 128
    launches: int = 10
    iterations: int = 100
    warmup_s: float = 0.5
    seed: int = 0
    limit_s: float = 600.0
    """The longest that one launch may take, after which it counts as hung."""

    @classmethod
    def plan(cls, runs: str, *, threads: int = 1, batch: int = 1, sequence: int = 128) -> Settings:
        """The settings of one of RUN_PLANS, for so many threads, rows and tokens."""
        return replace(RUN_PLANS[runs], threads=threads, batch=batch, sequence=sequence)

    @property
    def load(self) -> Load:
        return Load(self.threads, self.batch, self.sequence, self.limit_s)


# Launches matter more than iterations: what differs between processes is most of the noise.
RUN_PLANS: Mapping[str, Settings] = {
    "rapid": Settings(launches=3, iterations=22),
    "quick": Settings(launches=5, iterations=26),
    "standard": Settings(launches=10, iterations=100),
    "thorough": Settings(launches=20, iterations=50),
}


@dataclass(frozen=True)
class Profile:
    """One model on one target: every sample, and what must be known to read them.

    `cold_ms` is the median over launches of opening the model and its first inference; `peak_mb`
    the most memory any launch held; `size_mb` and `sha256` are of what the runtime ran, which for
    some runtimes is not the ONNX file itself. MB are 10⁶ bytes. `facts` holds `settings`,
    `device`, `runtime`, `onnx_sha256`, and `launches`: the conditions of each launch.
    """

    target: str
    latency: Latency
    size_mb: float
    peak_mb: float
    cold_ms: float
    sha256: str
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    proxy: bool = False
    """The figures stand for no device: synthetic, emulated, or of another kind of machine."""

    @property
    def doubts(self) -> tuple[Reason, ...]:
        """What a verdict must know beside the samples."""
        if all(launch["outputs_finite"] for launch in self.facts["launches"]):
            return ()
        return (Reason("outputs_not_finite", "the model's outputs are not finite numbers"),)

    def to_dict(self) -> dict[str, Any]:
        data = {"format": FORMAT} | asdict(self)
        data["latency"] = [list(launch) for launch in self.latency.launches_ms]
        data["notes"] = list(self.notes)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        fields = {key: value for key, value in data.items() if key != "format"}
        fields["latency"] = Latency.of(fields["latency"])
        fields["notes"] = tuple(fields["notes"])
        return cls(**fields)

    def write_samples(self, path: Path) -> None:
        """One line of JSON for each launch, gzipped: its samples in order and its conditions."""
        # No file name and no time in the header: the same samples make the same bytes.
        with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
            launches = zip(self.latency.launches_ms, self.facts["launches"], strict=True)
            for number, (samples_ms, conditions) in enumerate(launches):
                row = {"format": FORMAT, "target": self.target, "launch": number}
                row |= {"samples_ms": list(samples_ms)} | conditions
                zipped.write(json.dumps(row).encode() + b"\n")


def profile(
    models: Mapping[str, Path],
    target: Target,
    settings: Settings,
    progress: Progress = SILENT,
) -> dict[str, Profile]:
    """Times ONNX files on a target, each launch of each in a fresh process.

    The models' launches are interleaved, in random order within each round, so that the ratio of
    two of them holds whatever else the machine does. Raises TargetError, OnnxError, ResourceError.
    """
    order = random.Random(settings.seed)
    blocks = Blocks(settings.iterations, settings.iterations, 0, settings.warmup_s)
    turns = [
        name for _ in range(settings.launches) for name in order.sample([*models], len(models))
    ]
    runs: dict[str, list[Run]] = {name: [] for name in models}
    with prepare(models, target, settings.load) as bench:
        facts = {"settings": asdict(settings), "device": target.device.facts()}
        for done, name in enumerate(turns):
            progress.step(done, len(turns), name)
            runs[name].append(bench.launch([name], blocks, seed=settings.seed + done))
        progress.step(len(turns), len(turns))
        return {name: _profile(name, bench, facts, runs[name]) for name in models}


def _profile(name: str, bench: Bench, facts: Mapping[str, Any], runs: Sequence[Run]) -> Profile:
    runtime, converted = bench.target.runtime, bench.converted[name]
    more = {
        "runtime": runs[0].result["runtime"],
        "onnx_sha256": sha256(bench.models[name]),
        "launches": [run.conditions(name) for run in runs],
    }
    return Profile(
        target=bench.target.name,
        latency=Latency.of([run.samples_ms(name) for run in runs]),
        size_mb=sum(file.stat().st_size for file in files(converted)) / 1e6,
        peak_mb=max(run.peak_mb for run in runs),
        cold_ms=statistics.median(run.cold_ms(name) for run in runs),
        sha256=sha256(converted),
        facts={**facts, **more},
        notes=(runtime.note,) if runtime.note else (),
        proxy=runtime.proxy,
    )
