"""What a model says of rows of text, and how far that is from what it should say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.encoder import Classifier, Encoder, mean_of_tokens
from edgeprune.learn.masking import Blanks
from edgeprune.quiet import wait_while_measuring
from edgeprune.task import Rows, Task
from edgeprune.tokens import Tokens, in_order

TEMPERATURE = 2.0
LENGTH_STEP = 8  # tokens

Judge = Callable[[Classifier], tuple[float, float]]  # validation score and loss


@dataclass(frozen=True)
class Sample:
    """Rows of one task, ready to be drawn: tokens, targets [rows], and the head they belong to.

    Where their difficulty [rows] is known, the easy ones are drawn first. Text has no targets but
    `blanks`, as it is drawn to be taught by.
    """

    head: str
    tokens: Tokens
    targets: Tensor
    regression: bool
    difficulty: NDArray[np.float64] | None = None
    blanks: Blanks | None = None

    @classmethod
    def of(cls, head: str, task: Task, rows: Rows, tokens: Tokens) -> Sample:
        regression = task.kind == "regression"
        targets = torch.from_numpy(np.asarray(rows.targets))
        targets = targets.float() if regression else targets.long()
        return cls(head, tokens, targets, regression)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[np.int64]) -> Sample:
        difficulty = None if self.difficulty is None else self.difficulty[rows]
        return replace(
            self,
            tokens=self.tokens.take(rows),
            targets=self.targets[rows],
            difficulty=difficulty,
        )


@cache
def accelerator() -> Accelerator:
    """One for the process: a GPU when there is one; bf16 where the processor multiplies it."""
    on_gpu = torch.cuda.is_available()
    bf16 = torch.cuda.is_bf16_supported() if on_gpu else _cpu_multiplies_bf16()
    return Accelerator(cpu=not on_gpu, mixed_precision="bf16" if bf16 else "no")


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def inputs_of(tokens: Tokens, rows: NDArray[np.int64], encoder: Encoder) -> dict[str, Tensor]:
    """Some rows as an encoder takes them; not before what is being measured here is done."""
    wait_while_measuring()
    device = accelerator().device
    # Few lengths: the processor's kernels are made, and kept, for every new shape.
    longest = int(tokens.lengths[rows].max())
    length = min(LENGTH_STEP * math.ceil(longest / LENGTH_STEP), tokens.longest)
    batch = tokens.batch(rows, encoder.input_names, length)
    return {name: torch.from_numpy(ids).to(device) for name, ids in batch.items()}


def gold_loss(logits: Tensor, targets: Tensor, regression: bool, reduction: str = "mean") -> Tensor:
    targets = targets.to(logits.device)
    if regression:
        return F.mse_loss(logits[:, 0], targets, reduction=reduction)
    return F.cross_entropy(logits, targets, reduction=reduction)


def imitation_loss(logits: Tensor, teacher: Tensor, regression: bool) -> Tensor:
    """T^2 KL(teacher || student) at temperature T (Hinton et al. 2015); for scores, the MSE."""
    if regression:
        return F.mse_loss(logits, teacher)
    student = F.log_softmax(logits / TEMPERATURE, dim=-1)
    wanted = F.log_softmax(teacher / TEMPERATURE, dim=-1)
    return F.kl_div(student, wanted, log_target=True, reduction="batchmean") * TEMPERATURE**2


def features(model: Classifier, sample: Sample, batch: int = 64) -> Tensor:
    """[rows, hidden]: what the sample's head reads of each row, in row order, on the CPU."""
    model.eval()
    found = torch.empty(len(sample), model.encoder.shape.hidden)
    with torch.no_grad(), accelerator().autocast():
        for rows in in_order(sample.tokens, batch):
            inputs = inputs_of(sample.tokens, rows, model.encoder)
            states = model.encoder(**inputs)
            found[rows] = mean_of_tokens(states[-1], inputs["attention_mask"]).float().cpu()
    return found


def predict(model: Classifier, sample: Sample, batch: int = 64) -> Tensor:
    """Logits [rows, outputs] of the sample's head, in row order, on the CPU."""
    read = features(model, sample, batch)
    head = model.heads[sample.head]
    with torch.no_grad():
        return cast(Tensor, head(read.to(accelerator().device))).cpu()


def row_losses(model: Classifier, sample: Sample) -> NDArray[np.float64]:
    """[rows]: how far what a model says of each row is from what it should say."""
    losses = gold_loss(predict(model, sample), sample.targets, sample.regression, "none")
    found: NDArray[np.float64] = losses.double().numpy()
    return found


def judge_on(task: Task, rows: Rows, sample: Sample) -> Judge:
    """Judges a model by its score and its loss on rows kept out of training."""

    def judge(model: Classifier) -> tuple[float, float]:
        logits = predict(model, sample)
        loss = float(gold_loss(logits, sample.targets, sample.regression))
        return task.score(logits.numpy(), rows), loss

    return judge
