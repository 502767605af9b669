"""The stages that teach the dense model and price what each of its structures is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeprune.encoder import Classifier, Encoder, load, save
from edgeprune.learn.answers import Judge, Sample, accelerator, row_losses
from edgeprune.learn.fit import Schedule, Taught
from edgeprune.learn.memory import within_memory
from edgeprune.learn.snapshots import Snapshots
from edgeprune.learn.train import teach
from edgeprune.run import Run, Stage, write_json
from edgeprune.stages.materials import Materials, learnt_how

HISTORY = "history.json"  # each training of the stage, by whether the auxiliary task took part
ALONE, COUPLED = "alone", "coupled"
TRIAL = 0.25  # of the steps, for each depth that is tried
EARLIER = 0.5  # of the steps, for all auxiliary tasks together that come before the last


class Lesson(NamedTuple):
    """From what and by what the teacher learns, and who judges it."""

    encoder: Encoder
    rows: Sample
    outputs: int
    judge: Judge


@dataclass(frozen=True)
class Teacher:
    """The fine-tuned dense model; `gain` is what the auxiliary task brought on validation."""

    model: Classifier
    score: float
    gain: float | None
    taught: bool  # with the auxiliary task
    notes: tuple[str, ...]
    stage: Stage


def teach_teacher(run: Run, materials: Materials) -> Teacher:
    """Fine-tune alone and, where asked, coupled with the auxiliary task; keep the better one."""
    effort, transfer = materials.effort, materials.transfer
    task, auxiliary = materials.task, materials.auxiliary
    coupled = transfer.taught and auxiliary is not None

    def build(folder: Path) -> None:
        notes: list[str] = []

        def taught(
            name: str, lesson: Lesson, schedule: Schedule, frozen: int, how: str = "none"
        ) -> Taught:
            outputs, other = {"target": lesson.outputs}, None
            if how != "none":
                outputs, other = materials.outputs, materials.auxiliary_train

            def train(schedule: Schedule) -> Taught:
                return teach(
                    lesson.encoder,
                    lesson.rows,
                    other,
                    outputs,
                    how,
                    schedule,
                    lesson.judge,
                    run.progress,
                    snapshots_of(run, name, schedule),
                    frozen_layers=frozen,
                )

            found, halved = within_memory(train, schedule, run.progress)
            notes.extend(f"teacher, {name}: {note}" for note in halved)
            return found

        lesson = Lesson(materials.encoder, materials.train, task.outputs, materials.judge)
        frozen = materials.recipe.frozen_layers
        schedule = materials.schedule(effort.teacher_steps)
        if frozen == "auto":
            short = shortened(schedule, TRIAL)
            frozen, note = pick_depth(
                len(materials.encoder.shape.layers),
                lambda layers: taught(f"frozen-{layers}", lesson, short, layers).score,
            )
            run.progress.note(note)
            notes.append(note)
        best, gain = taught(ALONE, lesson, schedule, frozen), None
        histories = {ALONE: best.history.to_dict()}
        if coupled:
            if materials.recipe.order == "easy-first":
                difficulty = difficulty_for(best.model, lesson.rows)
                lesson = lesson._replace(rows=replace(lesson.rows, difficulty=difficulty))
            for number, one in enumerate(materials.earlier, 1):
                rows = Sample.of("target", one, one.train, materials.training_tokens(one))
                short = replace(
                    shortened(schedule, EARLIER / len(materials.earlier)), checkpoints=1
                )
                before = Lesson(lesson.encoder, rows, one.outputs, unjudged)
                encoder = taught(f"earlier-{number}", before, short, frozen).model.encoder
                lesson = lesson._replace(encoder=encoder)
            together = taught(COUPLED, lesson, schedule, frozen, transfer.how)
            histories[COUPLED] = together.history.to_dict()
            gain = together.score - best.score
            # Not by the loss, as between checkpoints: help must show in the score.
            best = together if together.score > best.score else best
        save(best.model, folder, labels=task.labels)
        scores = {"score": best.score, "gain": gain, "taught": "auxiliary" in best.model.heads}
        scores["frozen_layers"] = frozen
        write_json(folder / "scores.json", scores | {"notes": notes})
        write_json(folder / HISTORY, histories)

    made_from = {
        "encoder": materials.encoder_digest,
        "task": task.digest,
        "auxiliary": auxiliary.digest if coupled and auxiliary else None,
        "how": transfer.how if coupled else "none",
        "frozen_layers": materials.recipe.frozen_layers,
        "order": materials.recipe.order if coupled else "random",
        "earlier": [one.digest for one in materials.earlier] if coupled else [],
        "schedule": asdict(materials.schedule(effort.teacher_steps)),
        "sequence": materials.recipe.sequence,
        "learnt": learnt_how(),
    }
    stage = run.stage("teacher", made_from, build)
    scores = stage.read("scores.json")
    return Teacher(
        load(stage.folder),
        scores["score"],
        scores["gain"],
        scores["taught"],
        tuple(scores["notes"]),
        stage,
    )


def shortened(schedule: Schedule, share: float) -> Schedule:
    return replace(schedule, steps=max(1, round(share * schedule.steps)))


def unjudged(model: Classifier) -> tuple[float, float]:
    """Of a training whose last step is what counts."""
    return 0.0, 0.0


def difficulty_for(model: Classifier, sample: Sample) -> NDArray[np.float64]:
    """[rows]: how hard each is for a model that was taught by all of them."""
    losses = row_losses(model.to(accelerator().device), sample)
    model.to("cpu")
    return losses


def trial_depths(layers: int) -> list[int]:
    """How many of the lowest layers may stay frozen: none, a third, two thirds."""
    return sorted({0, layers // 3, 2 * layers // 3})


def pick_depth(layers: int, trial: Callable[[int], float]) -> tuple[int, str]:
    """The depth to freeze that scores best in a trial, and what to say of it.

    Between equals the deepest, which is taught in the least time. A grid in place of the defrosting
    layer by layer of Gerace et al. 2023 (arXiv 2303.01429).
    """
    scores = {depth: trial(depth) for depth in trial_depths(layers)}
    best = max(scores, key=lambda depth: (scores[depth], depth))
    told = ", ".join(f"{depth} {score:.4f}" for depth, score in scores.items())
    return best, f"teacher: {best} of {layers} layers frozen; on validation, by trials: {told}"


def snapshots_of(run: Run, training: str, schedule: Schedule) -> Snapshots:
    """Where a training of the stage that is being built keeps how far it is."""
    folder = run.snapshots / f"{training}-{schedule.batch}"
    return Snapshots(folder, run.aside, run.progress)
