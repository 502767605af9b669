"""How a model imitates its teacher, on the target task and on the auxiliary one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.encoder import Classifier
from edgeprune.learn.answers import Sample, accelerator, gold_loss, imitation_loss
from edgeprune.learn.coupling import auxiliary_weight
from edgeprune.learn.fit import Draws, Parts, Schedule
from edgeprune.learn.noise import Noise

HARD_LABELS = 0.3  # share of the gold label in the target's loss
ALIGNMENT = 2.0  # weight of the hidden states' distance to the teacher's
UNLABELLED = 0.5  # weight of imitating the teacher's target head on noised rows, auxiliary text
NOISED = "noised"  # what its draws are called, beside those of the heads
REMEMBERED_BYTES = 500_000_000  # of the teacher's hidden states on the target rows


class Distillation:
    """The parts of a step's loss, by the share of steps that are done.

    L = (1 - a) [0.3 CE + 0.7 KL + mu align + w_u (KL + mu align) on noised rows]
        + a KL_auxiliary + w_u [KL + mu align] on the auxiliary text,
    where `align` is the mean over layers of MSE(h, h_teacher) / var(h_teacher).
    """

    def __init__(
        self,
        model: Classifier,
        teacher: Classifier,
        target: Sample,
        auxiliary: Sample | None,
        how: str,
        schedule: Schedule,
    ) -> None:
        self._model, self._teacher = model, teacher.to(accelerator().device).eval()
        # How the teacher answers to text is more than what it would fill in.
        fills = auxiliary is not None and auxiliary.blanks is not None
        auxiliary = replace(auxiliary, blanks=None) if auxiliary is not None else None
        self._asked = auxiliary is not None and not fills and auxiliary.head in teacher.heads
        self._target, self._auxiliary, self._how = target, auxiliary, how
        self._alive = [bool(layer.heads or layer.ffn) for layer in model.encoder.shape.layers]
        self._lessons = _Lessons(self._teacher, target)
        self.draws = {s.head: Draws(s, schedule, model.encoder) for s in (target, auxiliary) if s}
        self.draws[target.head].passed = self._lessons.pass_by
        self._noise, self._seed = Noise(target.tokens), schedule.seed + 1
        self.draws[NOISED] = Draws(target, replace(schedule, seed=self._seed), model.encoder)

    def __call__(self, share: float) -> Parts:
        weight = auxiliary_weight(self._how, share) if self._auxiliary else 0.0
        parts = {self._target.head: (1 - min(weight, 0.5), self._on_target())}
        if self._auxiliary is not None and weight > 0:
            parts[self._auxiliary.head] = 1.0, self._on_auxiliary(self._auxiliary, weight)
        return parts

    def _on_target(self) -> Tensor:
        rows, inputs, targets = next(self.draws[self._target.head])
        likeness, aligned, logits, _ = self._imitate(inputs, *self._lessons.of(rows, inputs))
        gold = gold_loss(logits, targets, self._target.regression)
        labelled = HARD_LABELS * gold + (1 - HARD_LABELS) * likeness + aligned
        return labelled + UNLABELLED * self._on_noised()

    def _on_noised(self) -> Tensor:
        draws = self.draws[NOISED]
        _, inputs, _ = next(draws)
        ids, random = inputs["input_ids"], np.random.default_rng([self._seed, draws.drawn])
        noised = self._noise(ids.cpu().numpy(), random)
        inputs["input_ids"] = torch.from_numpy(noised).to(ids.device)
        with torch.no_grad():
            wanted, wanted_states = self._teacher(inputs)
        likeness, aligned, _, _ = self._imitate(inputs, wanted, wanted_states)
        return likeness + aligned

    def _on_auxiliary(self, auxiliary: Sample, weight: float) -> Tensor:
        _, inputs, _ = next(self.draws[auxiliary.head])
        with torch.no_grad():
            wanted, wanted_states = self._teacher(inputs)
        likeness, aligned, _, states = self._imitate(inputs, wanted, wanted_states)
        loss = UNLABELLED * (likeness + aligned)
        if self._asked:
            mask = inputs["attention_mask"]
            own = self._model.read(states[-1], mask, auxiliary.head)
            theirs = self._teacher.read(wanted_states[-1], mask, auxiliary.head)
            loss = loss + weight * imitation_loss(own, theirs, auxiliary.regression)
        return loss

    def _imitate(
        self, inputs: Mapping[str, Tensor], wanted: Tensor, wanted_states: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """How far the target head's answers are off, and the states; both answers themselves."""
        logits, states = self._model(inputs)
        likeness = imitation_loss(logits, wanted, self._target.regression)
        distance = _distance(states, wanted_states, inputs["attention_mask"], self._alive)
        return likeness, ALIGNMENT * distance, logits, states


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
