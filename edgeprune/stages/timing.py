"""The stage that times the targets: latency tables, the dense model, what can be reached."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from edgeprune.effort import Effort
from edgeprune.encoder import Classifier, Encoder, family_of
from edgeprune.errors import Unreachable
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.export.resize import resized
from edgeprune.latency import Budget, Latency, LatencyTable
from edgeprune.measure.looks import check_decidable
from edgeprune.measure.profile import GLANCE, RUN_PLANS, Profile, Rounds, measure_table, profile
from edgeprune.progress import Progress
from edgeprune.prune.search import minimum_ms
from edgeprune.prune.structures import ffn_grid
from edgeprune.report.folder import slug
from edgeprune.run import Run, Stage, write_json
from edgeprune.shape import LayerShape, Shape
from edgeprune.size import SLACK_BYTES, ByteTable, Size
from edgeprune.stages.materials import Materials

STACK = 4  # equal layers in a probe of the latency table
# Sizes of the probes that others are made from; they occur as nothing else in the graph.
PATTERN_HEADS, PATTERN_FFN = 7, 1_031
PROBE_VOCABULARY = 2_048  # looking tokens up costs the same in a small table, writing it does not
ROUNDED_BYTES = 10_000  # to which the smallest size is told
AIM = 0.90  # of the budget; what is under it is room for the noise of the measurement


_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Timed:
    """A target's latency table, and the dense model's profile that was taken with it."""

    table: LatencyTable
    dense: Profile

    def aim_ms(self, budget: Budget) -> float:
        """What the table should predict for a model that meets the budget with room for noise.

        In the table's own, undisturbed milliseconds, by what the dense model was delayed.
        """
        limit_ms = cast(float, budget.resolve(self.dense.latency).ms)
        return self.dense.undisturbed_at(AIM * limit_ms, budget.percentile)

    def smallest_ms(self, budget: Budget, dense: Shape) -> float:
        """The smallest budget that can be reached at this one's percentile."""
        return self.dense.expected_ms(minimum_ms(self.table, dense), budget.percentile) / AIM


@dataclass(frozen=True)
class Timing:
    """What was timed on every target, and what the timed files take."""

    targets: tuple[Timed, ...]
    bytes: ByteTable
    stage: Stage

    def table(self, budget: Budget) -> LatencyTable:
        """By which to plan: what it predicts within `aim_ms` is within the aim on every target."""
        if len(self.targets) == 1:
            return self.targets[0].table
        return LatencyTable.worst(
            [(timed.table, self.aim_ms(budget) / timed.aim_ms(budget)) for timed in self.targets]
        )

    def aim_ms(self, budget: Budget) -> float:
        """The first target's, in whose milliseconds plans are told."""
        return self.targets[0].aim_ms(budget)


def time_targets(run: Run, materials: Materials) -> Timing:
    """Measure a latency table on each target, from stacks of equal sub-layers."""
    shape, effort = materials.encoder.shape, materials.effort
    config = materials.encoder.config
    activation = getattr(config, family_of(config).activation)

    def build(folder: Path) -> None:
        probes = folder / "probes"
        probes.mkdir()
        write = Probes(materials, probes)
        heads = _points(range(1, shape.layers[0].heads + 1), effort.table_heads)
        widths = _points(ffn_grid(shape.layers[0].ffn)[1:], effort.table_widths)
        total = effort.table_models + 5
        count = iter(range(1, total + 1))

        def exported(made: _Made) -> _Made:
            run.progress.step(next(count), total, "exporting probes")
            return made

        def probe(layers: Sequence[LayerShape]) -> Path:
            return exported(write(layers))

        attention = exported(write.attention_stacks(heads))
        ffn = exported(write.ffn_stacks(widths))
        empty = probe([LayerShape(0, 0)] * STACK)
        wholes = [(whole, probe(whole.layers)) for whole in _wholes(shape, effort)]
        sizes = byte_table(materials, attention, ffn, empty, *(path for _, path in wholes[:2]))
        write_json(folder / "bytes.json", sizes.to_dict())
        files = {f"whole {i}": path for i, (_, path) in enumerate(wholes)}
        deployed = "whole 0"
        if materials.probe_precision != "fp32":
            # The dense model is deployed in fp32, whatever the plans are made for.
            deployed = "dense"
            files[deployed] = write(shape.layers, "fp32")
        for target in materials.targets:
            taken = profile(files, target, materials.settings(GLANCE), run.progress)
            dense = taken[deployed]
            table = measure_table(
                attention,
                ffn,
                empty,
                [
                    (whole, taken[f"whole {i}"].undisturbed_ms)
                    for i, (whole, _) in enumerate(wholes)
                ],
                stack=STACK,
                target=target,
                settings=materials.settings(GLANCE),
                rounds=Rounds(processes=effort.table_launches),
                progress=run.progress,
            )
            write_json(folder / f"{slug(target.name)}.table.json", table.to_dict())
            write_json(folder / f"{slug(target.name)}.dense.json", dense.to_dict())
        for path in probes.iterdir():
            path.unlink()
        probes.rmdir()

    made_from = {
        "encoder": [config.model_type, activation, shape.to_dict()],
        "measured": materials.measured_how,
        "precision": materials.probe_precision,
        "points": [effort.table_heads, effort.table_widths, effort.table_models],
        "launches": effort.table_launches,
    }
    stage = run.stage("table", made_from, build)
    names = [slug(target.name) for target in materials.targets]
    timed = (
        Timed(
            LatencyTable.from_dict(stage.read(f"{name}.table.json")),
            Profile.from_dict(stage.read(f"{name}.dense.json")),
        )
        for name in names
    )
    sizes = ByteTable.from_dict(stage.read("bytes.json"))
    sizes = replace(sizes, rest=sizes.rest + materials.head_bytes)
    return Timing(tuple(timed), sizes, stage)


def rest_bytes(materials: Materials, smallest: Path) -> float:
    """What a probe without any widths takes, its vocabulary left out."""
    token = materials.token_bytes(materials.probe_precision)
    return smallest.stat().st_size - token * PROBE_VOCABULARY


def byte_table(
    materials: Materials,
    attention: Mapping[int, Path],
    ffn: Mapping[int, Path],
    empty: Path,
    dense: Path,
    smallest: Path,
) -> ByteTable:
    """What probes take: stacks as `measure_table` has them, the whole model with all and no widths.

    The head is left out, as another task may find the table.
    """

    def sub_layer(stacks: Mapping[int, Path]) -> dict[int, float]:
        bare = empty.stat().st_size
        taken = {width: (path.stat().st_size - bare) / STACK for width, path in stacks.items()}
        return {0: 0.0} | taken

    head, shape = materials.head_bytes, materials.encoder.shape
    token = materials.token_bytes(materials.probe_precision)
    rest = rest_bytes(materials, smallest) - head
    table = ByteTable(sub_layer(attention), sub_layer(ffn), token, rest)
    return table.fitted_to(shape, PROBE_VOCABULARY, dense.stat().st_size - head)


@dataclass(frozen=True)
class Probes:
    """Writes encoders with random weights and a small vocabulary as ONNX files."""

    materials: Materials
    folder: Path

    def __call__(self, layers: Sequence[LayerShape], precision: str | None = None) -> Path:
        path = self._new_path()
        return deploy(self._model(layers), path, precision or self.materials.probe_precision)

    def attention_stacks(self, heads: Sequence[int]) -> dict[int, Path]:
        """Stacks of attention sub-layers, by their heads; one export for all of them."""
        head_dim = self.materials.encoder.shape.head_dim
        pattern = to_onnx(self._model([LayerShape(PATTERN_HEADS, 0)] * STACK), self._new_path())
        width = PATTERN_HEADS * head_dim
        return {h: self._resized(pattern, {PATTERN_HEADS: h, width: h * head_dim}) for h in heads}

    def ffn_stacks(self, widths: Sequence[int]) -> dict[int, Path]:
        """Stacks of FFN sub-layers, by their width; one export for all of them."""
        pattern = to_onnx(self._model([LayerShape(0, PATTERN_FFN)] * STACK), self._new_path())
        return {w: self._resized(pattern, {PATTERN_FFN: w}) for w in widths}

    def _resized(self, pattern: Path, sizes: Mapping[int, int]) -> Path:
        fp32 = resized(pattern, sizes, self._new_path())
        precision = self.materials.probe_precision
        return fp32 if precision == "fp32" else to_int8(fp32, self._new_path())

    def _new_path(self) -> Path:
        return self.folder / f"{uuid.uuid4().hex}.onnx"

    def _model(self, layers: Sequence[LayerShape]) -> Classifier:
        encoder = self.materials.encoder
        fields = encoder.config.to_dict() | {"vocab_size": PROBE_VOCABULARY}
        config = type(encoder.config).from_dict(fields)
        shape = Shape(tuple(layers), encoder.shape.hidden, encoder.shape.head_dim, PROBE_VOCABULARY)
        return Classifier(Encoder(config, shape), {"target": self.materials.task.outputs}).eval()


def _points(widths: Sequence[int], count: int) -> list[int]:
    """The smallest of the widths that a plan can have, and `count` more, evenly up to the last.

    Of those widths only: others fill a processor's vectors worse, and cost some percent more.
    """
    wanted = [widths[-1] * i / count for i in range(1, count + 1)]
    return sorted({widths[0], *(min(widths, key=lambda w: abs(w - at)) for at in wanted)})


def _wholes(dense: Shape, effort: Effort) -> Iterator[Shape]:
    """The whole models that the table is fitted on: dense, empty, and some that are neither."""
    yield dense
    yield dense.emptied()
    random = np.random.default_rng(0)
    for _ in range(effort.table_models):
        layers = [
            LayerShape(
                int(random.integers(0, old.heads + 1)), int(random.choice(ffn_grid(old.ffn)))
            )
            for old in dense.layers
        ]
        yield dense.with_layers(layers)


def deploy(model: Classifier, path: Path, precision: str) -> Path:
    """The model as the ONNX file that a target gets."""
    if precision == "fp32":
        return to_onnx(model, path)
    fp32 = to_onnx(model, path.with_suffix(".fp32.onnx"))
    try:
        return to_int8(fp32, path)
    finally:
        fp32.unlink()


def check_feasible(materials: Materials, timing: Timing, progress: Progress) -> None:
    """Before any training. Raises Unreachable for the first budget below the smallest plan.

    BudgetError for one that could not be decided.
    """
    recipe, dense = materials.recipe, materials.encoder.shape
    for budget, timed in itertools.product(recipe.budgets, timing.targets):
        check_decidable(budget.resolve(timed.dense.latency), RUN_PLANS[recipe.run_plan])
        if (said := needless(budget, timed.dense.latency)) is not None:
            progress.note(said)
        if timed.aim_ms(budget) < minimum_ms(timed.table, dense):
            asked_ms = cast(float, budget.resolve(timed.dense.latency).ms)
            smallest_ms = timed.smallest_ms(budget, dense)
            on = f" on {timed.dense.target}" if len(timing.targets) > 1 else ""
            raise unreachable(asked_ms, smallest_ms, f"p{budget.percentile:g}{on}")


def needless(budget: Budget, dense: Latency) -> str | None:
    """What to say of a budget that asks for no pruning: of 5s, where 5ms was meant."""
    dense_ms = dense.percentile(budget.percentile)
    if cast(float, budget.resolve(dense).ms) < dense_ms:
        return None
    return f"the unpruned model meets {budget} as it is, with {dense_ms:.2f} ms"


def unreachable(asked_ms: float, smallest_ms: float, at: str) -> Unreachable:
    return Unreachable(
        f"budget {asked_ms:.2f} ms at {at}",
        why="unreachable: too little even with every head and FFN unit gone",
        remedy=f"the smallest budget that can be reached is {smallest_ms:.2f} ms at {at}",
    )


def check_size(materials: Materials, timing: Timing) -> None:
    """Before any training. Raises Unreachable where what must be kept takes more than it may."""
    size, vocabulary = materials.recipe.size_budget, materials.vocabulary
    if size is None or vocabulary is None:
        return
    smallest = smallest_size(materials, timing.bytes.rest)
    if smallest.bytes > size.bytes:
        tokens = f"{vocabulary.needed:,} tokens ({vocabulary.total:,} of them to read any text)"
        int8 = "" if materials.probe_precision == "int8" else ", and less with --precision int8"
        raise Unreachable(
            f"size {size}",
            why=f"unreachable: too little even with every head and FFN unit gone, and {tokens}",
            remedy=f"the smallest size that can be reached is {smallest}{int8}",
        )


def smallest_size(materials: Materials, rest: float) -> Size:
    """With every sub-layer gone and no token that could go. Not without a size budget."""
    assert materials.vocabulary is not None
    token = materials.token_bytes(materials.probe_precision)
    taken = math.ceil(rest) + token * materials.vocabulary.needed + SLACK_BYTES
    return Size(ROUNDED_BYTES * math.ceil(taken / ROUNDED_BYTES))
