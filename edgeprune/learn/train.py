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
from edgeprune.interruption import at_a_good_moment
from edgeprune.learn.coupling import auxiliary_weight
from edgeprune.learn.snapshots import Snapshot, Snapshots
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
    snapshots: Snapshots | None = None,
) -> Taught:
    """Fine-tune a copy of the encoder on the target task, coupled with the auxiliary task.

    `outputs` gives the width of each head. Goes on from the last of the `snapshots`. Raises
    Diverged.
    """
    torch.manual_seed(schedule.seed)
    model = Classifier(copy.deepcopy(encoder), outputs).to(accelerator().device)
    _start_at_the_mean(model, target)
    model.set_dropout(DROPOUT)
    draws = {s.head: _Draws(s, schedule, model.encoder) for s in (target, auxiliary) if s}

    def loss(share: float) -> Parts:
        weight = auxiliary_weight(how, share) if auxiliary else 0.0
        parts = {}
        for sample, part in ((target, 1 - weight), (auxiliary, weight)):
            if sample is not None and part > 0:
                _, inputs, targets = next(draws[sample.head])
                logits, _ = model(inputs, sample.head)
                parts[sample.head] = part, gold_loss(logits, targets, sample.regression)
        return parts

    averaged = len(target) < AVERAGED_BELOW
    return _fit(_Training(model, draws, schedule, averaged), loss, judge, progress, snapshots)


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

    L = (1 - a) [0.3 CE + 0.7 KL + mu align] + a KL_auxiliary + w_u [KL + mu align] on the
    auxiliary text, where `align` is the mean over layers of MSE(h, h_teacher) / var(h_teacher).
    """
    torch.manual_seed(schedule.seed)
    device = accelerator().device
    model = copy.deepcopy(student).to(device)
    model.set_dropout(0.0)
    teacher = teacher.to(device).eval()
    alive = [bool(layer.heads or layer.ffn) for layer in model.encoder.shape.layers]
    lessons = _Lessons(teacher, target)
    draws = {s.head: _Draws(s, schedule, model.encoder) for s in (target, auxiliary) if s}
    draws[target.head].passed = lessons.pass_by

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

    averaged = len(target) < AVERAGED_BELOW
    return _fit(_Training(model, draws, schedule, averaged), loss, judge, progress, snapshots)


class _Draws:
    """A sample's batches without end, and how many were drawn: enough to come to the same place."""

    def __init__(self, sample: Sample, schedule: Schedule, encoder: Encoder) -> None:
        self._sample, self._encoder = sample, encoder
        self._rows = endless(sample.tokens, schedule.batch_of(sample), schedule.seed)
        self.drawn = 0
        self.passed: Callable[[NDArray[np.int64], Mapping[str, Tensor]], object] | None = None

    def __next__(self) -> tuple[NDArray[np.int64], dict[str, Tensor], Tensor]:
        rows = next(self._rows)
        self.drawn += 1
        return rows, self._inputs(rows), self._sample.targets[rows]

    def go_to(self, drawn: int) -> None:
        """Past so many batches in all, of which `passed` hears."""
        while self.drawn < drawn:
            rows = next(self._rows)
            self.drawn += 1
            if self.passed is not None:
                self.passed(rows, self._inputs(rows))

    def _inputs(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        return inputs_of(self._sample.tokens, rows, self._encoder)


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

    def pass_by(self, rows: NDArray[np.int64], inputs: Mapping[str, Tensor]) -> None:
        """Remember what it would have said: its last digits depend on who shares the batch."""
        if self._remember:
            self.of(rows, inputs)


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


class _Training:
    """A model in training: all that the next step depends on, and what it told so far."""

    def __init__(
        self,
        model: Classifier,
        draws: Mapping[str, _Draws],
        schedule: Schedule,
        averaged: bool,
    ) -> None:
        for parameter in model.encoder.embeddings.parameters():
            parameter.requires_grad_(False)  # half the weights, and few rows to move them by
        groups: list[dict[str, Any]] = [
            {"params": [p for p in model.encoder.parameters() if p.requires_grad]},
            {"params": list(model.heads.parameters()), "lr": schedule.head_learning_rate},
        ]
        self.model, self.draws, self.schedule = model, draws, schedule
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=schedule.learning_rate,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        self.pace = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _pace(step / schedule.steps)
        )
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99)) if averaged else None
        )
        self.best: Taught | None = None
        self.told: list[Mapping[str, float]] = []
        self.checks: list[Checkpoint] = []
        self.step = 0
        self.place = self._place()

    @property
    def candidate(self) -> Classifier:
        """What would be kept if it ended here."""
        return self.model if self.average is None else cast(Classifier, self.average.module)

    def learn(self, loss: Callable[[float], Parts]) -> float:
        """One step; what the loss was. Raises Diverged, and is then where it was before."""
        self.model.train()
        with accelerator().autocast():
            parts = loss(self.step / self.schedule.steps)
            nothing = torch.zeros((), device=accelerator().device)
            value = sum((weight * part for weight, part in parts.values()), start=nothing)
        found = float(value.detach())
        if not math.isfinite(found):
            raise Diverged(
                f"training at step {self.step}",
                why=f"the loss is {found}",
                remedy="check the labels, or try another seed",
            )
        self.told.append({head: _short(float(part.detach())) for head, (_, part) in parts.items()})
        accelerator().backward(value)
        accelerator().clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
        self.optimizer.step()
        self.pace.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.step += 1
        return found

    def check(self, judge: Judge) -> None:
        """What validation says now."""
        score, loss = judge(self.candidate)
        self.checks.append(Checkpoint(self.step, score, loss))
        judged = Taught(self.candidate, score, loss)
        if self.best is None or judged.beats(self.best):
            self.best = replace(judged, model=copy.deepcopy(self.candidate))

    def settle(self) -> None:
        """The step is over; a snapshot is of this place."""
        self.place = self._place()

    def _place(self) -> dict[str, Any]:
        place: dict[str, Any] = {"draws": {head: one.drawn for head, one in self.draws.items()}}
        place["random"] = {"cpu": torch.get_rng_state()}
        if accelerator().device.type == "cuda":
            place["random"]["cuda"] = torch.cuda.get_rng_state()
        return place

    def snapshot(self) -> Snapshot:
        tensors = {f"model/{name}": tensor for name, tensor in _learned(self.model)}
        if self.average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in _learned(self.candidate)}
            tensors["averaged"] = self.average.n_averaged
        if self.best is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in _learned(self.best.model)}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": one for name, one in moments.items()}
        tensors |= {f"random/{name}": one for name, one in self.place["random"].items()}
        best = self.best
        state = {
            "draws": self.place["draws"],
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "pace": {k: v for k, v in self.pace.state_dict().items() if k != "lr_lambdas"},
            "best": None if best is None else {"score": best.score, "loss": best.loss},
            "told": self.told,
            "checks": [asdict(check) for check in self.checks],
        }
        kept = {name: one.detach().cpu().contiguous() for name, one in tensors.items()}
        return Snapshot(self.step, kept, state)

    def go_to(self, snapshot: Snapshot) -> None:
        """To where a snapshot was taken of the same training, to the last bit."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in snapshot.tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        state = snapshot.state
        _take_over(self.model, parts["model"])
        if self.average is not None:
            _take_over(self.candidate, parts["average"])
            self.average.n_averaged.copy_(parts["averaged"][""])
        if state["best"] is not None:
            model = copy.deepcopy(self.candidate)
            _take_over(model, parts["best"])
            self.best = Taught(model, **state["best"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts.get("optimizer", {}).items():
            number, _, key = name.partition("/")
            moments.setdefault(int(number), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        rates = [{**group, "lr": rate} for group, rate in zip(groups, state["rates"], strict=True)]
        self.optimizer.load_state_dict({"state": moments, "param_groups": rates})
        self.pace.load_state_dict(self.pace.state_dict() | state["pace"])
        self.told = list(state["told"])
        self.checks = [Checkpoint(**check) for check in state["checks"]]
        self.step = snapshot.step
        with accelerator().autocast():
            for head, drawn in state["draws"].items():
                self.draws[head].go_to(drawn)
        torch.set_rng_state(parts["random"]["cpu"])
        if "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"])
        self.settle()


def _learned(model: Classifier) -> Iterator[tuple[str, Tensor]]:
    """What training changes; the rest is as it was at the beginning."""
    return ((name, one) for name, one in model.named_parameters() if not _is_frozen(name))


def _is_frozen(name: str) -> bool:
    return name.startswith("encoder.embeddings.")


def _take_over(model: Classifier, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _learned(model):
            parameter.copy_(tensors[name])


def _fit(
    training: _Training,
    loss: Callable[[float], Parts],
    judge: Judge,
    progress: Progress,
    snapshots: Snapshots | None,
) -> Taught:
    """Minimise the parts of `loss(share of steps done)`; the best checkpoint by validation.

    A signal to end waits for the end of a step, and for a snapshot of it.
    """
    steps = training.schedule.steps
    if snapshots is not None and (snapshot := snapshots.latest()) is not None:
        training.go_to(snapshot)
        progress.note(f"goes on after step {training.step} of {steps}")
    checkpoints = _checkpoints(training.schedule)
    while training.step < steps:
        with at_a_good_moment() as asked_to_end:
            while training.step < steps and not asked_to_end():
                try:
                    found = training.learn(loss)
                except Diverged as error:
                    raise _with_the_last_finite(error, training, snapshots) from None
                if training.step in checkpoints:
                    training.check(judge)
                training.settle()
                progress.step(training.step, steps, f"loss {found:.3f}")
                if snapshots is not None and (snapshots.due or asked_to_end()):
                    snapshots.keep(training.snapshot())
    best = training.best
    assert best is not None  # the last step is a checkpoint
    best.model.set_dropout(0.0)
    history = History(tuple(training.told), tuple(training.checks))
    return replace(best, model=best.model.to("cpu").eval(), history=history)


def _with_the_last_finite(
    error: Diverged, training: _Training, snapshots: Snapshots | None
) -> Diverged:
    """The same, with where the last finite weights lie."""
    if snapshots is None:
        return error
    snapshots.keep(training.snapshot())
    kept = snapshots.folder
    return Diverged(error.what, why=error.why, remedy=f"{error.remedy}; last finite one in {kept}")


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
