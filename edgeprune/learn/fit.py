"""The one training loop, whatever is trained and by whatever loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.encoder import Classifier, Encoder
from edgeprune.errors import Diverged
from edgeprune.interruption import at_a_good_moment
from edgeprune.learn.answers import Judge, Sample, accelerator, inputs_of
from edgeprune.learn.snapshots import Snapshot, Snapshots
from edgeprune.progress import Progress
from edgeprune.tokens import easy_first, endless

WARM_UP = 0.05
WEIGHT_DECAY = 0.01
GRADIENT_NORM = 1.0
GROWTH = 0.5  # the share of steps in which easy rows are joined by all others

Parts = Mapping[str, tuple[float, Tensor]]  # by head: the weight of a task in a step, and its loss


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


class Draws:
    """A sample's batches without end, and how many were drawn: enough to come to the same place."""

    def __init__(self, sample: Sample, schedule: Schedule, encoder: Encoder) -> None:
        self._sample, self._encoder, self._seed = sample, encoder, schedule.seed
        size, seed, grown = schedule.batch_of(sample), schedule.seed, round(GROWTH * schedule.steps)
        self._rows = (
            endless(sample.tokens, size, seed)
            if sample.difficulty is None
            else easy_first(sample.tokens, size, seed, sample.difficulty, grown)
        )
        self.drawn = 0
        self.passed: Callable[[NDArray[np.int64], Mapping[str, Tensor]], object] | None = None

    def __next__(self) -> tuple[NDArray[np.int64], dict[str, Tensor], Tensor]:
        rows = next(self._rows)
        self.drawn += 1
        inputs = self._inputs(rows)
        if self._sample.blanks is None:
            return rows, inputs, self._sample.targets[rows]
        random = np.random.default_rng([self._seed, self.drawn])
        ids = inputs["input_ids"]
        hidden, targets = self._sample.blanks.hide(ids.cpu().numpy(), random)
        inputs["input_ids"] = torch.from_numpy(hidden).to(ids.device)
        return rows, inputs, torch.from_numpy(targets)

    def go_to(self, drawn: int) -> None:
        """Past so many batches in all, of which `passed` hears."""
        while self.drawn < drawn:
            rows = next(self._rows)
            self.drawn += 1
            if self.passed is not None:
                self.passed(rows, self._inputs(rows))

    def _inputs(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        return inputs_of(self._sample.tokens, rows, self._encoder)


class Training:
    """A model in training: all that the next step depends on, and what it told so far."""

    def __init__(
        self,
        model: Classifier,
        draws: Mapping[str, Draws],
        schedule: Schedule,
        others: Sequence[Mapping[str, Any]] = (),
        frozen_layers: int = 0,
    ) -> None:
        """`others`: parameter groups with options of their own, as torch's optimizers take them.

        The embeddings and the lowest `frozen_layers` layers stay as they are.
        """
        _freeze(model.encoder, frozen_layers)
        apart = {id(p) for group in others for p in group["params"]}
        body = [p for p in model.encoder.parameters() if p.requires_grad and id(p) not in apart]
        groups: list[dict[str, Any]] = [
            {"params": body},
            {"params": list(model.heads.parameters()), "lr": schedule.head_learning_rate},
            *(dict(group) for group in others),
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
        self.best: Taught | None = None
        self.told: list[Mapping[str, float]] = []
        self.checks: list[Checkpoint] = []
        self.step = 0
        self.place = self._place()

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
        self.step += 1
        return found

    def check(self, judge: Judge) -> None:
        """What validation says now."""
        score, loss = judge(self.model)
        self.checks.append(Checkpoint(self.step, score, loss))
        judged = Taught(self.model, score, loss)
        if self.best is None or judged.beats(self.best):
            self.best = replace(judged, model=copy.deepcopy(self.model))

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
        if state["best"] is not None:
            model = copy.deepcopy(self.model)
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


def _freeze(encoder: Encoder, layers: int) -> None:
    """Half the weights are embeddings, and few rows are there to move them by.

    Below the lowest layer that learns nothing does, so that the way back ends there.
    """
    encoder.embeddings.requires_grad_(False)
    if layers and encoder.embeddings_project is not None:
        encoder.embeddings_project.requires_grad_(False)
    encoder.layers[:layers].requires_grad_(False)


def _learned(model: Classifier) -> Iterator[tuple[str, Tensor]]:
    """What training changes; the rest is as it was at the beginning."""
    return ((name, one) for name, one in model.named_parameters() if not _is_frozen(name, one))


def _is_frozen(name: str, parameter: Tensor) -> bool:
    # Beside the encoder a parameter can be moved by other means than a gradient.
    return name.startswith("encoder.") and not parameter.requires_grad


def _take_over(model: Classifier, tensors: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _learned(model):
            parameter.copy_(tensors[name])


def fit(
    training: Training,
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
    best.model.requires_grad_(True)  # what was frozen was so for this training
    history = History(tuple(training.told), tuple(training.checks))
    return replace(best, model=best.model.to("cpu").eval(), history=history)


def _with_the_last_finite(
    error: Diverged, training: Training, snapshots: Snapshots | None
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
