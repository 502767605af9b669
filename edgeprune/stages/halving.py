"""The stage that comes near a small budget by halves, recovering the model after each cut.

What a model's structures cost to lose is known near that model alone: the further a cut goes, the
less its curves say, and the less of what the teacher does is left to recover from.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import cast

from edgeprune.encoder import load, save
from edgeprune.latency import Budget
from edgeprune.prune.curves import Curves, Price
from edgeprune.prune.surgery import operate
from edgeprune.report.folder import slug
from edgeprune.run import Run, write_json
from edgeprune.stages.materials import Materials, learnt_how
from edgeprune.stages.pricing import CURVES, Priced, price_model
from edgeprune.stages.pruning import distil, helps, searched_by, weigh
from edgeprune.stages.teaching import Teacher
from edgeprune.stages.timing import Timing

HALF = 0.5
NEAR = 0.75  # of a half: an aim that is not below is cut to at once


def halves(dense_ms: float, aim_ms: float) -> list[float]:
    """The milliseconds to stop at on the way from a model to an aim; none if it is near."""
    found, ms = [], HALF * dense_ms
    while aim_ms < NEAR * ms:
        found.append(ms)
        ms *= HALF
    return found


def come_near(
    run: Run,
    materials: Materials,
    timing: Timing,
    teacher: Teacher,
    priced: Priced,
    budget: Budget,
) -> Priced:
    """The model from which one cut leads to the budget, with its curves; the dense one if near.

    At each half a plan is cut to by the table's word, recovered and priced as the dense model was.
    A method that learns gates or does not recover cuts at once.
    """
    method, table, dense = priced.method, timing.table(budget), materials.encoder.shape
    stops = halves(table.predict(dense), timing.aim_ms(budget))
    if not method.halves or not stops:
        return priced
    price = cast(Price, method.price)
    auxiliary = materials.auxiliary_train if helps(materials, teacher) else None

    def build(folder: Path) -> None:
        near, notes = priced, []
        for number, ms in enumerate(stops, 1):
            weights = weigh(run, materials, teacher, near, table, ms)
            plan = method.allocate(near.curves.errors(), table, dense, ms, weights)
            start = operate(near.model, plan.shape, near.curves)
            found, told = distil(run, materials, teacher, start, auxiliary, f"half-{number}")
            model = found.model.to("cpu")
            curves = price_model(materials, price, model, run.progress)
            near = Priced(model, curves, method, priced.stage)
            said = f"on the way, at {plan.predicted_ms:.2f} ms: {found.score:.4f} on validation"
            notes += [*told, said]
            run.progress.note(said)
        save(near.model, folder / "model", labels=materials.task.labels)
        near.curves.save(folder / CURVES)
        write_json(folder / "notes.json", notes)

    made_from = {
        "curves": priced.stage.key,
        "table": timing.stage.key,
        "budget": str(budget),
        "method": materials.recipe.method,
        "stops": stops,
        "auxiliary": auxiliary and materials.auxiliary and materials.auxiliary.digest,
        "how": materials.transfer.how,
        "schedule": asdict(materials.schedule(materials.effort.recovery_steps, recovery=True)),
        "learnt": learnt_how(),
        **searched_by(materials),
    }
    stage = run.stage(f"halves-{slug(str(budget))}", made_from, build)
    model, curves = load(stage.folder / "model"), Curves.read(stage.folder / CURVES)
    return Priced(model, curves, method, stage, tuple(stage.read("notes.json")))
