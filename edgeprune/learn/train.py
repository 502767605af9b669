"""The one training loop, and its two uses: teaching the dense model, recovering the pruned one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgeprune.encoder import Classifier, Encoder
from edgeprune.errors import Diverged
from edgeprune.learn.coupling import auxiliary_weight
from edgeprune.progress import Progress
from edgeprune.task import Rows, Task
from edgeprune.tokens import Tokens, endless, in_order

TEMPERATURE = 2.0
HARD_LABELS = 0.3  # share of the gold label in the target's recovery loss
ALIGNMENT = 0.5  # weight of the hidden states' distance to the teacher's
UNLABELLED = 0.5  # weight of imitating the teacher's target head on auxiliary text
WARM_UP = 0.05
WEIGHT_DECAY = 0.01
GRADIENT_NORM = 1.0
AVERAGED_BELOW = 1_000  # training rows; a moving average of weights steadies small tasks
DROPOUT = 0.1
LENGTH_STEP = 8  # tokens
REMEMBERED_BYTES = 500_000_000  # of the teacher's hidden states on the target rows


@dataclass(frozen=True)
class Sample:
    """Rows of one task, ready to be drawn: tokens, targets [rows], and the head they belong to."""

    head: str
    tokens: Tokens
    targets: Tensor
    regression: bool

    @classmethod
    def of(cls, head: str, task: Task, rows: Rows, tokens: Tokens) -> Sample:
        regression = task.kind == "regression"
        targets = torch.from_numpy(np.asarray(rows.targets))
        return cls(head, tokens, targets.float() if regression else targets.long(), regression)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: NDArray[np.int64]) -> Sample:
        return replace(self, tokens=self.tokens.take(rows), targets=self.targets[rows])


@dataclass(frozen=True)
class Schedule:
    steps: int
    batch: int
    learning_rate: float
    head_learning_rate: float
    seed: int
    checkpoints: int = 5  # at which validation is asked, in the second half

    def batch_of(self, sample: Sample) -> int:
        """Rows a step: half as many of the auxiliary task, whose rows cost as much."""
        return self.batch if sample.head == "target" else max(1, self.batch // 2)


@dataclass(frozen=True)
class Checkpoint:
    """What validation said after so many steps."""

    step: int
    score: float
    loss: float


@dataclass(frozen=True)
class History:
    """What a training told on its way."""

    steps: tuple[Mapping[str, float], ...] = ()  # each task's loss by its head, not yet weighed
    checkpoints: tuple[Checkpoint, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Taught:
    """A trained model with what validation said of it."""

    model: Classifier
    score: float
    loss: float
    history: History = History()

    def beats(self, other: Taught) -> bool:
        """By validation score; the loss decides between equals."""
        return (self.score, -self.loss) > (other.score, -other.loss)


Judge = Callable[[Classifier], tuple[float, float]]  # validation score and loss
Parts = Mapping[str, tuple[float, Tensor]]  # by head: the weight of a task in a step, and its loss


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
    device = accelerator().device
    # Few lengths: the processor's kernels are made, and kept, for every new shape.
    longest = int(tokens.lengths[rows].max())
    length = min(LENGTH_STEP * math.ceil(longest / LENGTH_STEP), tokens.longest)
    batch = tokens.batch(rows, encoder.input_names, length)
    return {name: torch.from_numpy(ids).to(device) for name, ids in batch.items()}


def gold_loss(logits: Tensor, targets: Tensor, regression: bool) -> Tensor:
    targets = targets.to(logits.device)
    return F.mse_loss(logits[:, 0], targets) if regression else F.cross_entropy(logits, targets)


def imitation_loss(logits: Tensor, teacher: Tensor, regression: bool) -> Tensor:
    """T^2 KL(teacher || student) at temperature T (Hinton et al. 2015); for scores, the MSE."""
    if regression:
        return F.mse_loss(logits, teacher)
    student = F.log_softmax(logits / TEMPERATURE, dim=-1)
    wanted = F.log_softmax(teacher / TEMPERATURE, dim=-1)
    return F.kl_div(student, wanted, log_target=True, reduction="batchmean") * TEMPERATURE**2


def predict(model: Classifier, sample: Sample, batch: int = 64) -> Tensor:
    """Logits [rows, outputs] of the sample's head, in row order, on the CPU."""
    model.eval()
    outputs = torch.empty(len(sample), cast(nn.Linear, model.heads[sample.head]).out_features)
    with torch.no_grad(), accelerator().autocast():
        for rows in in_order(sample.tokens, batch):
            logits, _ = model(inputs_of(sample.tokens, rows, model.encoder), sample.head)
            outputs[rows] = logits.cpu()
    return outputs


def judge_on(task: Task, rows: Rows, sample: Sample) -> Judge:
    """Judges a model by its score and its loss on rows kept out of training."""

    def judge(model: Classifier) -> tuple[float, float]:
        logits = predict(model, sample)
        loss = float(gold_loss(logits, sample.targets, sample.regression))
        return task.score(logits.numpy(), rows), loss

    return judge


def teach(
    encoder: Encoder,
    target: Sample,
    auxiliary: Sample | None,
    outputs: Mapping[str, int],
    how: str,
    schedule: Schedule,
    judge: Judge,
    progress: Progress,
) -> Taught:
    """Fine-tune a copy of the encoder on the target task, coupled with the auxiliary task.

    `outputs` gives the width of each head. Raises Diverged.
    """
    torch.manual_seed(schedule.seed)
    model = Classifier(copy.deepcopy(encoder), outputs).to(accelerator().device)
    _start_at_the_mean(model, target)
    model.set_dropout(DROPOUT)
    draws = {s.head: _draw(s, schedule, model.encoder) for s in (target, auxiliary) if s}

    def loss(share: float) -> Parts:
        weight = auxiliary_weight(how, share) if auxiliary else 0.0
        parts = {}
        for sample, part in ((target, 1 - weight), (auxiliary, weight)):
            if sample is not None and part > 0:
                _, inputs, targets = next(draws[sample.head])
                logits, _ = model(inputs, sample.head)
                parts[sample.head] = part, gold_loss(logits, targets, sample.regression)
        return parts

    return _fit(model, loss, schedule, judge, progress, averaged=len(target) < AVERAGED_BELOW)


def recover(
    student: Classifier,
    teacher: Classifier,
    target: Sample,
    auxiliary: Sample | None,
    how: str,
    schedule: Schedule,
    judge: Judge,
    progress: Progress,
) -> Taught:
    """Train a pruned copy back towards its teacher, by distillation on both tasks. Raises Diverged.

    L = (1 - a) [0.3 CE + 0.7 KL + mu align] + a KL_auxiliary + w_u [KL + mu align] on the
    auxiliary text, where `align` is the mean over layers of MSE(h, h_teacher) / var(h_teacher).
    """
    torch.manual_seed(schedule.seed)
    device = accelerator().device
    model = copy.deepcopy(student).to(device)
    model.set_dropout(0.0)
    teacher = teacher.to(device).eval()
    alive = [bool(layer.heads or layer.ffn) for layer in model.encoder.shape.layers]
    draws = {s.head: _draw(s, schedule, model.encoder) for s in (target, auxiliary) if s}

    lessons = _Lessons(teacher, target)

    def imitate(sample: Sample, weight: float) -> Tensor:
        rows, inputs, targets = next(draws[sample.head])
        if sample is target:
            wanted, wanted_states = lessons.of(rows, inputs)
        else:
            with torch.no_grad():
                wanted, wanted_states = teacher(inputs)
        logits, states = model(inputs)
        likeness = imitation_loss(logits, wanted, target.regression)
        aligned = ALIGNMENT * _distance(states, wanted_states, inputs["attention_mask"], alive)
        if sample is target:
            gold = gold_loss(logits, targets, target.regression)
            return HARD_LABELS * gold + (1 - HARD_LABELS) * likeness + aligned
        loss = UNLABELLED * (likeness + aligned)
        if sample.head in teacher.heads and weight > 0:
            mask = inputs["attention_mask"]
            own = model.read(states[-1], mask, sample.head)
            theirs = teacher.read(wanted_states[-1], mask, sample.head)
            loss = loss + weight * imitation_loss(own, theirs, sample.regression)
        return loss

    def loss(share: float) -> Parts:
        weight = auxiliary_weight(how, share) if auxiliary else 0.0
        parts = {target.head: (1 - min(weight, 0.5), imitate(target, weight))}
        if auxiliary is not None and weight > 0:
            parts[auxiliary.head] = 1.0, imitate(auxiliary, weight)
        return parts

    return _fit(model, loss, schedule, judge, progress, averaged=len(target) < AVERAGED_BELOW)


def _draw(
    sample: Sample, schedule: Schedule, encoder: Encoder
) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor], Tensor]]:
    for rows in endless(sample.tokens, schedule.batch_of(sample), schedule.seed):
        yield rows, inputs_of(sample.tokens, rows, encoder), sample.targets[rows]


class _Lessons:
    """What the teacher says of a sample's rows: asked once, then remembered where there is room.

    Few rows come by dozens of times in a recovery, and the teacher is its dearest part.
    """

    def __init__(self, teacher: Classifier, sample: Sample) -> None:
        self._teacher = teacher
        self._lengths = sample.tokens.lengths
        shape = teacher.encoder.shape
        numbers = int(self._lengths.sum()) * shape.hidden * (len(shape.layers) + 1)
        self._remember = 2 * numbers <= REMEMBERED_BYTES
        self._known: dict[int, tuple[Tensor, Tensor]] = {}  # logits, states in half precision

    def of(
        self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits [rows, outputs] and the encoder's hidden states, as the teacher gives them."""
        if not self._remember or any(int(row) not in self._known for row in rows):
            with torch.no_grad():
                logits, states = self._teacher(inputs)
            if not self._remember:
                return logits, states
            stacked = torch.stack(states, 1).half()  # [rows, layers + 1, tokens, hidden]
            for at, row in enumerate(rows):
                kept = stacked[at, :, : self._lengths[row]].clone()
                self._known[int(row)] = (logits[at], kept)
        known = [self._known[int(row)] for row in rows]
        tokens = inputs["input_ids"].shape[1]
        padded = [F.pad(states.float(), (0, 0, 0, tokens - states.shape[1])) for _, states in known]
        return torch.stack([logits for logits, _ in known]), list(torch.stack(padded).unbind(1))


def _start_at_the_mean(model: Classifier, target: Sample) -> None:
    """A regression head that starts at the mean score spares the first hundred steps."""
    if target.regression:
        head = cast(nn.Linear, model.heads[target.head])
        with torch.no_grad():
            head.bias.fill_(float(target.targets.mean()))


def _distance(
    states: list[Tensor], wanted: list[Tensor], mask: Tensor, alive: list[bool]
) -> Tensor:
    """Mean over the layers that still live; layer positions stay, so each has its own teacher."""
    tokens = mask.bool()
    pairs = [
        (own[tokens].float(), theirs[tokens].float())
        for own, theirs, lives in zip(states[1:], wanted[1:], alive, strict=True)
        if lives
    ]
    if not pairs:
        return torch.zeros((), device=mask.device)
    return torch.stack([F.mse_loss(own, theirs) / theirs.var() for own, theirs in pairs]).mean()


def _fit(
    model: Classifier,
    loss: Callable[[float], Parts],
    schedule: Schedule,
    judge: Judge,
    progress: Progress,
    *,
    averaged: bool,
) -> Taught:
    """Minimise the parts of `loss(share of steps done)`; the best checkpoint by validation."""
    for parameter in model.encoder.embeddings.parameters():
        parameter.requires_grad_(False)  # half the weights, and few rows to move them by
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.encoder.parameters() if p.requires_grad]},
        {"params": list(model.heads.parameters()), "lr": schedule.head_learning_rate},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=schedule.learning_rate,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step / schedule.steps))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99)) if averaged else None
    checkpoints = _checkpoints(schedule)
    best: Taught | None = None
    told: list[Mapping[str, float]] = []
    checks: list[Checkpoint] = []
    for step in range(schedule.steps):
        model.train()
        with accelerator().autocast():
            parts = loss(step / schedule.steps)
            nothing = torch.zeros((), device=accelerator().device)
            value = sum((weight * part for weight, part in parts.values()), start=nothing)
        found = float(value.detach())
        if not math.isfinite(found):
            raise Diverged(
                f"training at step {step}",
                why=f"the loss is {found}",
                remedy="check the labels, or try another seed",
            )
        told.append({head: _short(float(part.detach())) for head, (_, part) in parts.items()})
        accelerator().backward(value)
        accelerator().clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        pace.step()
        optimizer.zero_grad()
        if average is not None:
            average.update_parameters(model)
        if step + 1 in checkpoints:
            candidate = cast(Classifier, average.module) if average is not None else model
            score, validation_loss = judge(candidate)
            checks.append(Checkpoint(step + 1, score, validation_loss))
            judged = Taught(candidate, score, validation_loss)
            if best is None or judged.beats(best):
                best = replace(judged, model=copy.deepcopy(candidate))
        progress.step(step + 1, schedule.steps, f"loss {found:.3f}")
    assert best is not None  # the last step is a checkpoint
    best.model.set_dropout(0.0)
    history = History(tuple(told), tuple(checks))
    return replace(best, model=best.model.to("cpu").eval(), history=history)


def _short(loss: float) -> float:
    """As many digits as a curve can show."""
    return float(f"{loss:.5g}")


def _pace(share: float) -> float:
    """Linear warm-up, then linear decay to zero."""
    return share / WARM_UP if share < WARM_UP else (1 - share) / (1 - WARM_UP)


def _checkpoints(schedule: Schedule) -> set[int]:
    """In the second half, the end included."""
    first, count = schedule.steps // 2, schedule.checkpoints
    return {first + (schedule.steps - first) * i // count for i in range(1, count + 1)}
