"""The stages that plan for one budget, and recover the model that the plan leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from edgeprune.encoder import Classifier, load, save
from edgeprune.latency import Budget, LatencyTable
from edgeprune.learn.answers import Sample, accelerator, imitation_loss, predict
from edgeprune.learn.fit import Schedule, Taught
from edgeprune.learn.memory import within_memory
from edgeprune.learn.train import recover
from edgeprune.measure.profile import GLANCE, Profile, profile
from edgeprune.prune.search import (
    Allocate,
    Plan,
    fitting,
    minimum_ms,
    search,
    search_sensitivity,
)
from edgeprune.prune.surgery import operate, with_tokens
from edgeprune.report.folder import slug
from edgeprune.run import Run, Stage, write_json
from edgeprune.shape import Shape, SubLayer
from edgeprune.stages.materials import Materials, learnt_how
from edgeprune.stages.pricing import Priced
from edgeprune.stages.spelling import Spelled
from edgeprune.stages.teaching import ALONE, COUPLED, HISTORY, Teacher, snapshots_of
from edgeprune.stages.timing import AIM, Timing, deploy

TIGHT, LOOSE = 0.93, 0.87  # the measured share of the budget with which the plan is left alone
ROUNDS = 4  # of plan, export and measure


@dataclass(frozen=True)
class Round:
    """One turn of plan, export and measure, before any training; undisturbed ms."""

    aim_ms: float
    predicted_ms: float
    measured_ms: float
    share: float  # of the budget, at its percentile
    file_bytes: int  # of the candidate, whose vocabulary is whole


@dataclass(frozen=True)
class Planned:
    """The plan that was measured to meet the budget, and the rounds that led to it."""

    plan: Plan
    rounds: tuple[Round, ...]
    stage: Stage

    @property
    def file_bytes(self) -> int:
        """Of its exported file, whose vocabulary is whole."""
        return self.rounds[-1].file_bytes


def plan_budget(
    run: Run,
    materials: Materials,
    timing: Timing,
    teacher: Teacher,
    priced: Priced,
    dense: Path,
    budget: Budget,
) -> Planned:
    """Search, export, measure; correct the aim by the table's error and search again.

    The dense model's file is measured in the same rounds, so that a share of its latency, and the
    machine's mood, are known when the candidate is judged. Under a size budget every plan leaves
    room for the tokens that are needed.
    """
    shape, effort, method = materials.encoder.shape, materials.effort, priced.method
    errors = priced.curves.errors()
    room, tokens = materials.room_bytes, shape.vocab * timing.bytes.token

    def build(folder: Path) -> None:
        table, aim_ms = timing.table(budget), timing.aim_ms(budget)
        unforeseen = 0  # bytes, which the first candidate tells

        def fits(shape: Shape) -> bool:
            return room is None or timing.bytes.predict(shape, 0) + unforeseen <= room

        allocate = fitting(method.allocate, fits)
        searched = fitting(search, fits)
        weights = _weigh(run, materials, teacher, priced, table, aim_ms, searched)
        plan = allocate(errors, table, shape, aim_ms, weights)
        rounds: list[tuple[Plan, Round]] = []
        for _ in range(ROUNDS):
            model = operate(priced.model, plan.shape, priced.curves)
            path = deploy(model, folder / "candidate.onnx", materials.probe_precision)
            models, settings = {"dense": dense, "candidate": path}, materials.settings(GLANCE)
            shares = []
            for target, timed in zip(materials.targets, timing.targets, strict=True):
                taken = profile(models, target, settings)
                share = _share(taken["candidate"], taken["dense"], budget)
                # In the first target's milliseconds, as the table's are.
                scale = timing.aim_ms(budget) / timed.aim_ms(budget)
                shares.append((share, taken["candidate"].undisturbed_ms * scale))
            share, measured_ms = max(shares)
            size = path.stat().st_size
            rounds.append((plan, Round(aim_ms, plan.predicted_ms, measured_ms, share, size)))
            text = f"{plan.predicted_ms:.2f} ms predicted, {measured_ms:.2f} ms measured"
            run.progress.note(f"{text}, {share:.0%} of the budget")
            unforeseen = max(unforeseen, size - tokens - timing.bytes.predict(plan.shape, 0))
            too_large = not fits(plan.shape)
            if LOOSE <= share <= TIGHT and not too_large:
                break
            if not too_large:
                aim_ms = max(aim_ms * AIM / share, minimum_ms(table, shape))
            plan = allocate(errors, table, shape, aim_ms, weights)
            if plan.shape in (earlier.shape for earlier, _ in rounds):
                break
        best = min(
            range(len(rounds)),
            key=lambda i: (
                room is not None and rounds[i][1].file_bytes - tokens > room,
                _preference(rounds[i][1].share),
            ),
        )
        told = {
            "plan": rounds[best][0].to_dict(),
            "rounds": [asdict(round_) for _, round_ in rounds],
            "chosen": best,
        }
        write_json(folder / "plan.json", told)
        (folder / "candidate.onnx").unlink()

    made_from = {
        "table": timing.stage.key,
        "method": materials.recipe.method,
        "curves": priced.stage.key,
        "budget": str(budget),
        "draws": [effort.draws, effort.judged_rows, materials.recipe.seed],
        "prior": materials.prior and [[*key, value] for key, value in materials.prior.items()],
        "room": materials.room_bytes,
    }
    stage = run.stage(f"plan-{slug(str(budget))}", made_from, build)
    told = stage.read("plan.json")
    rounds = tuple(Round(**round_) for round_ in told["rounds"])
    # The chosen round last: it is the one that the report tells.
    order = [*(i for i in range(len(rounds)) if i != told["chosen"]), told["chosen"]]
    return Planned(Plan.from_dict(told["plan"]), tuple(rounds[i] for i in order), stage)


def _share(candidate: Profile, dense: Profile, budget: Budget) -> float:
    """What the candidate is expected to take of the budget, from the launches of both.

    Its percentile as a share of the dense model's, by what is typical of a launch.
    """
    at = budget.percentile
    ratio = candidate.latency.typical_percentile(at) / dense.latency.typical_percentile(at)
    return ratio * dense.latency.percentile(at) / cast(float, budget.resolve(dense.latency).ms)


def _preference(share: float) -> tuple[bool, float]:
    """Within the budget first, and then as near to the aim as can be."""
    return share > TIGHT, abs(share - AIM)


def _weigh(
    run: Run,
    materials: Materials,
    teacher: Teacher,
    priced: Priced,
    table: LatencyTable,
    aim_ms: float,
    allocate: Allocate,
) -> Mapping[SubLayer, float] | None:
    """How much the errors of each sub-layer count; None where all do alike."""
    if not priced.method.judged:
        return materials.prior
    _, weights = search_sensitivity(
        priced.curves.errors(),
        table,
        materials.encoder.shape,
        aim_ms,
        _one_shot_judge(run, materials, teacher, priced),
        draws=materials.effort.draws,
        seed=materials.recipe.seed,
        prior=materials.prior,
        allocate=allocate,
    )
    return weights


def _one_shot_judge(
    run: Run, materials: Materials, teacher: Teacher, priced: Priced
) -> Callable[[Plan], float]:
    """How far a plan, untrained, strays from the teacher on some training rows."""
    some = np.random.default_rng(materials.recipe.seed).permutation(len(materials.train))
    sample = materials.train.take(some[: materials.effort.judged_rows])
    wanted = predict(teacher.model.to(accelerator().device), sample)
    teacher.model.to("cpu")
    tried = iter(range(1, materials.effort.draws + 1))

    def judge(plan: Plan) -> float:
        student = operate(priced.model, plan.shape, priced.curves).to(accelerator().device)
        run.progress.step(next(tried), materials.effort.draws, "plans tried")
        value = float(imitation_loss(predict(student, sample), wanted, sample.regression))
        return value if math.isfinite(value) else math.inf

    return judge


@dataclass(frozen=True)
class Student:
    """The recovered model; `gain` is what the auxiliary task brought in recovery, if compared."""

    model: Classifier
    score: float
    gain: float | None
    recovered: bool  # with the auxiliary task
    notes: tuple[str, ...]
    stage: Stage


def recover_student(
    run: Run,
    spelled: Spelled,
    teacher: Teacher,
    priced: Priced,
    planned: Planned,
    budget: Budget,
) -> Student:
    """Distil the pruned model back; the guard compares recovery with and without the auxiliary.

    Both models read the rows as the shipped tokenizer has them.
    """
    materials = spelled.learning
    transfer, effort = materials.transfer, materials.effort
    # Its text shows the student more of how the teacher answers, also where its labels did not
    # help the teacher; then only if the student is judged with and without it.
    helped = teacher.taught or not transfer.taught
    recovers = priced.method.recovers
    offered = recovers and transfer.recovered and (helped or effort.judge_students)
    dense, pruned = materials.encoder.shape, planned.plan.shape
    schedule = materials.recovery(pruned.encoder_parameters / dense.encoder_parameters)

    def build(folder: Path) -> None:
        start = operate(priced.model, planned.plan.shape, priced.curves)
        notes: list[str] = []

        def recovered(auxiliary: Sample | None) -> Taught:
            if not recovers:
                return Taught(start, *materials.judge(start.to(accelerator().device)))
            name = COUPLED if auxiliary else ALONE
            found, told = _distil(run, materials, teacher, start, auxiliary, schedule, name)
            notes.extend(told)
            return found

        best = recovered(materials.auxiliary_train if offered else None)
        histories = {COUPLED if offered else ALONE: best.history.to_dict()}
        gain, with_auxiliary = None, offered
        if offered and effort.judge_students:
            alone = recovered(None)
            histories[ALONE] = alone.history.to_dict()
            gain = best.score - alone.score
            if alone.score >= best.score:
                best, with_auxiliary = alone, False
        _drop_auxiliary_head(best.model)
        student = best.model.to("cpu")
        if spelled.kept is not None:
            student = with_tokens(student, spelled.kept)
        save(student, folder, labels=materials.task.labels)
        told = {"score": best.score, "gain": gain, "recovered": with_auxiliary}
        write_json(folder / "scores.json", told | {"notes": notes})
        write_json(folder / HISTORY, histories)

    made_from = {
        "plan": planned.stage.key,
        "shape": planned.plan.shape.to_dict(),
        "offered": offered and materials.auxiliary is not None and materials.auxiliary.digest,
        "how": transfer.how,
        "judged": effort.judge_students,
        "vocabulary": spelled.stage and spelled.stage.key,
        "schedule": asdict(schedule),
        "learnt": learnt_how(),
    }
    stage = run.stage(f"student-{slug(str(budget))}", made_from, build)
    told = stage.read("scores.json")
    return Student(
        load(stage.folder),
        told["score"],
        told["gain"],
        told["recovered"],
        tuple(told["notes"]),
        stage,
    )


def _distil(
    run: Run,
    materials: Materials,
    teacher: Teacher,
    start: Classifier,
    auxiliary: Sample | None,
    schedule: Schedule,
    name: str,
) -> tuple[Taught, tuple[str, ...]]:
    """A pruned model trained back towards its teacher, with notes on what memory allowed."""

    def train(schedule: Schedule) -> Taught:
        return recover(
            start,
            teacher.model,
            materials.train,
            auxiliary,
            materials.transfer.how if auxiliary else "none",
            schedule,
            materials.judge,
            run.progress,
            snapshots_of(run, name, schedule),
        )

    found, halved = within_memory(train, schedule, run.progress)
    return found, tuple(f"recovery, {name}: {note}" for note in halved)


def _drop_auxiliary_head(model: Classifier) -> None:
    """It does not ship."""
    if "auxiliary" in model.heads:
        del model.heads["auxiliary"]
