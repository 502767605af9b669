"""What a run would do and how long it would take, found out in half a minute."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgeprune.encoder import Classifier, Encoder
from edgeprune.inputs import Inputs
from edgeprune.learn.train import Sample, teach
from edgeprune.measure.profile import profile
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe
from edgeprune.report.folder import slug
from edgeprune.shape import LayerShape
from edgeprune.stages.materials import Materials, prepare
from edgeprune.stages.timing import AIM, deploy


@dataclass(frozen=True)
class DryRun:
    """What a run would do: its stages in order with expected minutes, and what can be reached."""

    recipe: Recipe
    dense_ms: float
    minimum_ms: float
    budgets_ms: tuple[float, ...]
    stages: tuple[tuple[str, float], ...]  # name, minutes

    @property
    def feasible(self) -> bool:
        return all(AIM * ms >= self.minimum_ms for ms in self.budgets_ms)

    def lines(self) -> Iterator[str]:
        yield (
            f"target     {self.recipe.target}, {self.recipe.threads} thread(s), "
            f"batch {self.recipe.batch}, {self.recipe.sequence} tokens"
        )
        yield f"dense      {self.dense_ms:.2f} ms (median)"
        yield f"smallest   {self.minimum_ms:.2f} ms, with every head and FFN unit gone"
        for text, ms in zip(self.recipe.budget, self.budgets_ms, strict=True):
            answer = "feasible" if AIM * ms >= self.minimum_ms else "unreachable"
            yield f"budget     {text} is {ms:.2f} ms: {answer}"
        for name, minutes in self.stages:
            yield f"stage      {name:<20} {minutes:5.1f} min"
        yield f"total      {sum(minutes for _, minutes in self.stages):.1f} min expected"


def rehearse(inputs: Inputs, progress: Progress) -> DryRun:
    """Read everything, time the dense and the smallest model and a few steps; write nothing."""
    recipe = inputs.recipe
    materials = prepare(inputs)
    dense = materials.encoder.shape
    smallest = dense.with_layers([LayerShape(0, 0)] * len(dense.layers))
    with tempfile.TemporaryDirectory() as temporary:
        files = {}
        for name, shape in (("dense", dense), ("smallest", smallest)):
            encoder = (
                materials.encoder if shape is dense else Encoder(materials.encoder.config, shape)
            )
            model = Classifier(encoder, {"target": materials.task.outputs}).eval()
            precision = "fp32" if name == "dense" else materials.probe_precision
            files[name] = deploy(model, Path(temporary) / f"{name}.onnx", precision)
        profiles = profile(files, materials.target, materials.settings("rapid"), progress)
    latency = profiles["dense"].latency
    budgets_ms = tuple(
        cast(float, budget.resolve(latency).ms)
        * latency.p50_ms
        / latency.percentile(budget.percentile)
        for budget in recipe.budgets
    )
    return DryRun(
        recipe,
        latency.p50_ms,
        profiles["smallest"].latency.p50_ms,
        budgets_ms,
        tuple(_expected(materials)),
    )


def _expected(materials: Materials) -> Iterator[tuple[str, float]]:
    """Minutes of each stage, from a few timed steps of training."""
    effort, transfer, recipe = materials.effort, materials.transfer, materials.recipe
    alone = _seconds_a_step(materials, None)
    coupled = _seconds_a_step(materials, materials.auxiliary_train) if materials.auxiliary else 0.0
    probes = effort.table_heads + effort.table_widths + 5
    yield "table", (4.0 * probes + 30) / 60
    taught = alone + (coupled if transfer.taught else 0.0)
    yield "teacher", effort.teacher_steps * taught / 60
    yield "curves", (effort.statistics_tokens / 400 * alone / 16 + 20) / 60
    yield "dense", (10 + 0.02 * len(materials.task.test)) / 60
    for budget in recipe.budgets:
        name = slug(str(budget))
        yield f"plan-{name}", (effort.draws * effort.judged_rows / 16 * alone / 4 + 40) / 60
        arms = (coupled if transfer.recovered else alone) + (
            alone if transfer.recovered and effort.judge_students else 0.0
        )
        yield f"student-{name}", effort.recovery_steps * arms / 60
        yield f"export-{name}", (10 + 0.01 * len(materials.task.test)) / 60
        yield f"latency-{name}", 1.5


def _seconds_a_step(materials: Materials, auxiliary: Sample | None) -> float:
    outputs = {"target": materials.task.outputs}
    if auxiliary is not None and materials.auxiliary is not None:
        outputs["auxiliary"] = materials.auxiliary.outputs
    steps = 4
    started = time.monotonic()
    teach(
        materials.encoder,
        materials.train,
        auxiliary,
        outputs,
        "joint" if auxiliary else "none",
        materials.schedule(steps),
        lambda _: (0.0, 0.0),
        SILENT,
    )
    return (time.monotonic() - started) / steps
