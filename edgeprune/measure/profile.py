"""Convert, push, run, read every sample back: a Profile of each model, or a LatencyTable."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.latency import Latency, LatencyTable
from edgeprune.measure.launch import Bench, Blocks, Feeds, Load, Run, files, prepare, sha256
from edgeprune.measure.parity import check_converted
from edgeprune.measure.table import SPREAD_LIMIT, assemble, spreads, undisturbed_ms
from edgeprune.measure.target import Target
from edgeprune.measure.validity import find_doubts
from edgeprune.measure.verdict import LEAST_SECONDS, Reason
from edgeprune.progress import SILENT, Progress
from edgeprune.shape import Shape

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-profile/1"
BUSY_SHARE = 0.05


@dataclass(frozen=True)
class Settings:
    """How a latency is taken; a launch is one fresh process for one model."""

    threads: int = 1
    batch: int = 1
    sequence: int = 128
    launches: int = 20
    iterations: int = 50
    least_s: float = 0.0
    """Seconds of timed inferences in all launches together, at least."""
    warmup_s: float = 0.5
    seed: int = 0
    limit_s: float = 600.0
    """The longest that one launch may take, after which it counts as hung."""

    @property
    def load(self) -> Load:
        return Load(self.threads, self.batch, self.sequence, self.limit_s)


# Launches matter more than iterations: what differs between processes is most of the noise. On a
# quiet machine launches differed by 1.3 % and the inferences within one by 0.6 %, so that 10
# launches of 65 came to 35 independent samples, too few for any verdict, and 40 of 52 to 146.
RUN_PLANS: Mapping[str, Settings] = {
    "rapid": Settings(launches=7, iterations=10, least_s=LEAST_SECONDS, warmup_s=0.2),
    "quick": Settings(launches=32, iterations=5, least_s=LEAST_SECONDS, warmup_s=0.2),
    "standard": Settings(launches=32, iterations=32, least_s=LEAST_SECONDS),
    "mlperf": Settings(launches=32, iterations=32, least_s=60.0),
}
# For figures that steer a search and are no verdict; again rather launches than iterations.
GLANCE = Settings(launches=6, iterations=11, warmup_s=0.2)


@dataclass(frozen=True)
class Profile:
    """One model on one target: every sample, and what must be known to read them.

    `undisturbed_ms` is what an inference takes when little else happens, comparable with what a
    LatencyTable predicts; `cold_ms` the median over launches of opening the model and its first
    inference; `peak_mb` the most memory any launch held; `size_mb` and `sha256` are of what the
    runtime ran, which for some runtimes is not the ONNX file itself. MB are 10⁶ bytes. `facts`
    holds `settings`, `device`, `runtime`, `onnx_sha256`, `parity` (how like ONNX Runtime
    another runtime answers, else null), and `launches`: each launch's conditions.
    """

    target: str
    latency: Latency
    undisturbed_ms: float
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
        """Why the samples allow no verdict but inconclusive."""
        return find_doubts(self.latency, self.facts, self.sha256)

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

    def expected_ms(self, undisturbed_ms: float, percentile: float) -> float:
        """The percentile of another model beside this one, of which the undisturbed ms are known.

        Each is delayed by the same share of its time.
        """
        return undisturbed_ms * self._slowdown(percentile)

    def undisturbed_at(self, ms: float, percentile: float) -> float:
        """The undisturbed ms of a model whose percentile is expected to be `ms`."""
        return ms / self._slowdown(percentile)

    def _slowdown(self, percentile: float) -> float:
        return max(1.0, self.latency.percentile(percentile) / self.undisturbed_ms)

    def joined(self, later: Profile) -> Profile:
        """Both measurements of the same file in the same way as one."""
        mine, theirs = len(self.latency.launches_ms), len(later.latency.launches_ms)
        own_ms = (mine * self.undisturbed_ms + theirs * later.undisturbed_ms) / (mine + theirs)
        cold_ms = (mine * self.cold_ms + theirs * later.cold_ms) / (mine + theirs)
        launches = [*self.facts["launches"], *later.facts["launches"]]
        return replace(
            self,
            latency=Latency(self.latency.launches_ms + later.latency.launches_ms),
            undisturbed_ms=own_ms,
            peak_mb=max(self.peak_mb, later.peak_mb),
            cold_ms=cold_ms,
            facts={**self.facts, "launches": launches},
            notes=tuple(dict.fromkeys([*self.notes, *later.notes])),
        )


def profile(
    models: Mapping[str, Path],
    target: Target,
    settings: Settings,
    progress: Progress = SILENT,
    *,
    rows: Mapping[str, Feeds | None] | None = None,
) -> dict[str, Profile]:
    """Times ONNX files on a target, each launch of each in a fresh process.

    The models' launches are interleaved, in random order within each round, so that the ratio of
    two of them holds whatever else the machine does. First, what was converted must answer as
    ONNX Runtime does on each model's `rows` [rows, tokens] of real text, or on seeded ones. Raises
    ParityError, TargetError, OnnxError, ResourceError.
    """
    order = random.Random(settings.seed)
    # A little over its part, as the sum of the samples is what counts.
    least_s = 1.02 * settings.least_s / settings.launches
    blocks = Blocks(settings.iterations, settings.iterations, 0, settings.warmup_s, least_s)
    turns = [
        name for _ in range(settings.launches) for name in order.sample([*models], len(models))
    ]
    runs: dict[str, list[Run]] = {name: [] for name in models}
    with prepare(models, target, settings.load) as bench:
        facts = {"settings": asdict(settings), "device": target.device.facts()}
        parity = {name: check_converted(bench, name, (rows or {}).get(name)) for name in models}
        with bench.target.alone(progress.note):
            for done, name in enumerate(turns):
                progress.step(done, len(turns), name)
                runs[name].append(bench.launch([name], blocks, seed=settings.seed + done))
        progress.step(len(turns), len(turns))
        return {
            name: _profile(name, bench, {**facts, "parity": parity[name]}, runs[name])
            for name in models
        }


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
        undisturbed_ms=undisturbed_ms([bench.own_ms(run, name) for run in runs]),
        size_mb=sum(file.stat().st_size for file in files(converted)) / 1e6,
        peak_mb=max(run.peak_mb for run in runs),
        cold_ms=statistics.median(run.cold_ms(name) for run in runs),
        sha256=sha256(converted),
        facts={**facts, **more},
        notes=tuple(filter(None, [runtime.note, "" if runtime.proxy else _busy(runs)])),
        proxy=runtime.proxy or bool(facts["device"].get("emulated")),
    )


def _busy(runs: Sequence[Run]) -> str:
    waited = sum(run.waited_s for run in runs) / sum(run.result["wall_s"] for run in runs)
    if waited < BUSY_SHARE:
        return ""
    return f"the machine was busy: {waited:.0%} of the time went by waiting for a core"


@dataclass(frozen=True)
class Rounds:
    """How a table is taken: processes that each time all models in interleaved blocks."""

    processes: int = 3
    rounds: int = 7
    block: int = 5

    @property
    def blocks(self) -> Blocks:
        # One inference to refill the caches after another model; the sessions are warm soon.
        return Blocks(self.rounds * self.block, self.block, settle=1, warmup_s=0.03)


ROUNDS = Rounds()


def measure_table(
    attention: Mapping[int, Path],
    ffn: Mapping[int, Path],
    empty: Path,
    whole: Sequence[tuple[Shape, float]],
    *,
    stack: int,
    target: Target,
    settings: Settings,
    rounds: Rounds = ROUNDS,
    progress: Progress = SILENT,
) -> LatencyTable:
    """What one sub-layer costs on a target by its width, from ONNX files of stacks of them.

    `attention[h]` has `stack` layers of h heads and no FFN, `ffn[w]` the same with an FFN only,
    `empty` neither. `whole` are full models to fit on, with the undisturbed ms of their profiles:
    the dense one at least, and best an empty architecture of its depth too. The stacks are timed
    in one process, where sub-layers can be compared; a model in a process of its own, as it is
    deployed, takes some percent more, which the fit makes good. Of `settings` only threads, batch,
    sequence, seed and limit are used. A model on which no two launches agree within 10 % is timed
    once more, for longer; what differs even then is in the table's notes.
    """
    stacks = {f"attention {heads}": path for heads, path in attention.items() if heads}
    stacks |= {f"ffn {width}": path for width, path in ffn.items() if width}
    taken = _time_together(stacks | {"empty": empty}, target, settings, rounds, progress)
    ms = {name: undisturbed_ms(launches) for name, launches in taken.items()}
    table = assemble(
        {heads: ms[f"attention {heads}"] for heads in attention if heads},
        {width: ms[f"ffn {width}"] for width in ffn if width},
        ms["empty"],
        whole,
        stack=stack,
    )
    apart = spreads(taken)
    notes = [
        f"repeats of {name} differ by {share:.0%}: the machine was busy, take the table with care"
        for name, share in apart.items()
        if share > SPREAD_LIMIT
    ]
    runtime_note = [target.runtime.note] if target.runtime.note else []
    return replace(table, spread=max(apart.values()), notes=(*runtime_note, *notes))


def _time_together(
    models: Mapping[str, Path],
    target: Target,
    settings: Settings,
    rounds: Rounds,
    progress: Progress,
) -> dict[str, list[list[float]]]:
    """Launches of each model's milliseconds, and more and longer ones where those differ."""
    with prepare(models, target, settings.load) as bench:
        taken = _launches(bench, [*models], rounds, settings, progress)
        noisy = [name for name, share in spreads(taken).items() if share > SPREAD_LIMIT]
        if noisy:
            progress.note(f"{len(noisy)} of {len(models)} timings differ by over 10 %: once more")
            longer = replace(rounds, rounds=2 * rounds.rounds)
            again = _launches(bench, noisy, longer, settings, progress)
            taken |= {name: taken[name] + again[name] for name in noisy}
    return taken


def _launches(
    bench: Bench, names: Sequence[str], rounds: Rounds, settings: Settings, progress: Progress
) -> dict[str, list[list[float]]]:
    runs = []
    with bench.target.alone(progress.note):
        for number in range(rounds.processes):
            progress.step(number, rounds.processes)
            runs.append(bench.launch(names, rounds.blocks, seed=settings.seed + number))
    progress.step(rounds.processes, rounds.processes)
    return {name: [bench.own_ms(run, name) for run in runs] for name in names}
