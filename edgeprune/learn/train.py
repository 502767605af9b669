"""What is trained: the dense model is taught, the pruned one recovered."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from edgeprune.encoder import Classifier, Encoder
from edgeprune.learn.answers import Judge, Sample, accelerator
from edgeprune.learn.distillation import Distillation
from edgeprune.learn.fit import Schedule, Taught, Training, fit
from edgeprune.learn.probe import start_head
from edgeprune.learn.snapshots import Snapshots
from edgeprune.learn.teaching import HOWS, Teaching
from edgeprune.progress import Progress

DROPOUT = 0.1


def teach(
    encoder: Encoder,
    target: Sample,
    auxiliary: Sample | None,
    outputs: Mapping[str, int],
    how: str,
    schedule: Schedule,
    judge: Judge,
    progress: Progress,
    snapshots: Snapshots | None = None,
    *,
    frozen_layers: int = 0,
) -> Taught:
    """Fine-tune a copy of the encoder on the target task, coupled with the auxiliary task.

    `outputs` gives the width of each head; the lowest `frozen_layers` layers stay as they are.
    Goes on from the last of the `snapshots`. Raises Diverged.
    """
    torch.manual_seed(schedule.seed)
    model = Classifier(copy.deepcopy(encoder), outputs).to(accelerator().device)
    start_head(model, target, schedule.seed)
    if auxiliary is not None and how != "none":
        start_head(model, auxiliary, schedule.seed)
    model.set_dropout(DROPOUT)
    teaching = HOWS.get(how, Teaching)(model, target, auxiliary, how, schedule)
    training = Training(model, teaching.draws, schedule, frozen_layers=frozen_layers)
    taught = fit(training, teaching, judge, progress, snapshots)
    teaching.done(taught.model)
    return taught


def recover(
    student: Classifier,
    teacher: Classifier,
    target: Sample,
    auxiliary: Sample | None,
    how: str,
    schedule: Schedule,
    judge: Judge,
    progress: Progress,
    snapshots: Snapshots | None = None,
) -> Taught:
    """Train a pruned copy back towards its teacher, by distillation on both tasks.

    Goes on from the last of the `snapshots`. Raises Diverged.
    """
    torch.manual_seed(schedule.seed)
    model = copy.deepcopy(student).to(accelerator().device)
    model.set_dropout(0.0)
    distillation = Distillation(model, teacher, target, auxiliary, how, schedule)
    training = Training(model, distillation.draws, schedule)
    return fit(training, distillation, judge, progress, snapshots)
