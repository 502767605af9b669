"""The loss by which the dense model is taught, and the ways to couple two tasks in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.encoder import Classifier
from edgeprune.learn.answers import Sample, gold_loss
from edgeprune.learn.coupling import TARGET_ONLY_FROM, auxiliary_weight
from edgeprune.learn.fit import Draws, Parts, Schedule
from edgeprune.learn.masking import filling_loss

HELD = 0.1  # of the target's rows, by which `meta` judges both tasks
EVERY = 10  # steps between two judgements
META_RATE = 0.3  # eta, of the weights' logarithms
CHUNKS = 4  # of a target batch, whose gradients span what matters to the target
NEUTRAL = 0.5  # of what the auxiliary gradient has outside that span

Gradients = list[Tensor]


class Teaching:
    """The parts of a step's loss, by the share of steps that are done: `none` … `sequential`."""

    def __init__(
        self,
        model: Classifier,
        target: Sample,
        auxiliary: Sample | None,
        how: str,
        schedule: Schedule,
    ) -> None:
        self.model, self.target, self.auxiliary, self.how = model, target, auxiliary, how
        self.draws = {target.head: Draws(target, self._own(schedule), model.encoder)}
        if auxiliary is not None:
            self.draws[auxiliary.head] = Draws(auxiliary, schedule, model.encoder)

    def _own(self, schedule: Schedule) -> Schedule:
        """With the steps alone in which the target has a part."""
        shares = (step / schedule.steps for step in range(schedule.steps))
        steps = sum(auxiliary_weight(self.how, share) < 1 for share in shares)
        return replace(schedule, steps=steps) if self.auxiliary else schedule

    def __call__(self, share: float) -> Parts:
        weight = self.weight(share) if self.auxiliary else 0.0
        pairs = ((self.target, 1 - weight), (self.auxiliary, weight))
        return {
            sample.head: (part, self.loss(sample, *self.draw(sample.head)))
            for sample, part in pairs
            if sample is not None and part > 0
        }

    def weight(self, share: float) -> float:
        return auxiliary_weight(self.how, share)

    def draw(self, head: str) -> tuple[Mapping[str, Tensor], Tensor]:
        _, inputs, targets = next(self.draws[head])
        return inputs, targets

    def loss(self, sample: Sample, inputs: Mapping[str, Tensor], targets: Tensor) -> Tensor:
        if sample.blanks is not None:
            return filling_loss(self.model, inputs, targets, sample.head)
        logits, _ = self.model(inputs, sample.head)
        return gold_loss(logits, targets, sample.regression)

    def done(self, model: Classifier) -> None:
        """Takes from a taught model what only the teaching needed."""


class Meta(Teaching):
    """The weights follow how far each task's gradient agrees with one on held target rows.

    w = softmax(v), v_k <- v_k + eta cos(g_held, g_k) every ten steps (after META-TARTAN, Dery,
    Michel, Talwalkar, Neubig 2022, arXiv 2109.07437).
    """

    def __init__(
        self,
        model: Classifier,
        target: Sample,
        auxiliary: Sample | None,
        how: str,
        schedule: Schedule,
    ) -> None:
        order = np.random.default_rng(schedule.seed).permutation(len(target))
        held = max(1, round(HELD * len(target)))
        super().__init__(model, target.take(np.sort(order[held:])), auxiliary, how, schedule)
        self.held = replace(target.take(np.sort(order[:held])), difficulty=None)
        self.draws["held"] = Draws(self.held, schedule, model.encoder)
        # A parameter, so that it is in the snapshots.
        even = torch.zeros(2, device=next(model.parameters()).device)
        model.register_parameter("coupling", nn.Parameter(even, requires_grad=False))

    def __call__(self, share: float) -> Parts:
        judged = self.draws[self.target.head].drawn % EVERY == 0
        parts = super().__call__(share)
        if judged and len(parts) == 2:
            losses = [loss for _, loss in parts.values()]
            gradients = [_gradients(loss, shared(self.model)) for loss in losses]
            wanted = _gradients(self.loss(self.held, *self.draw("held")), shared(self.model))
            agreement = torch.stack([_cosine(one, wanted) for one in gradients])
            with torch.no_grad():
                self.model.get_parameter("coupling").add_(META_RATE * agreement)
        return parts

    def weight(self, share: float) -> float:
        """Of now; the last steps belong to the target, as under `joint`."""
        if share >= TARGET_ONLY_FROM:
            return 0.0
        return float(torch.softmax(self.model.get_parameter("coupling"), 0)[1])

    def done(self, model: Classifier) -> None:
        del model.coupling


class Decompose(Teaching):
    """The auxiliary gradient without what harms the target, and with half of what is neutral.

    Its part in the span of the target's own gradients, those of chunks of a batch, is kept along
    the directions in which it agrees with their mean and dropped along the others (ATTITTUD, Dery,
    Dauphin, Grangier 2021, arXiv 2108.11346).
    """

    def __call__(self, share: float) -> Parts:
        weight = self.weight(share) if self.auxiliary else 0.0
        if self.auxiliary is None or weight == 0:
            return super().__call__(share)
        inputs, targets = self.draw(self.target.head)
        weights = shared(self.model)
        chunks, losses = [], []
        for rows in torch.arange(len(targets)).chunk(CHUNKS):
            some = {name: ids[rows] for name, ids in inputs.items()}
            losses.append(self.loss(self.target, some, targets[rows]))
            chunks.append(_gradients(losses[-1], weights))
        theirs = self.loss(self.auxiliary, *self.draw(self.auxiliary.head))
        gradient = _gradients(theirs, weights)
        steered = steer(gradient, chunks)
        # What is added is nothing, but its gradient is the steered one less the plain one.
        change = [s - g for s, g in zip(steered, gradient, strict=True)]
        turned = _dot(change, cast(Gradients, weights))
        ours = torch.stack(losses).mean()
        return {
            self.target.head: (1 - weight, ours),
            self.auxiliary.head: (weight, theirs + turned - turned.detach()),
        }


HOWS: Mapping[str, type[Teaching]] = {"meta": Meta, "decompose": Decompose}


def shared(model: Classifier) -> list[nn.Parameter]:
    """The weights that both tasks move."""
    return [p for p in model.encoder.parameters() if p.requires_grad]


def steer(gradient: Gradients, chunks: Sequence[Gradients]) -> Gradients:
    """The helpful part of a gradient within the span of the chunks', and half of what is outside.

    With K = J^T J = V L V^T, the directions are J v_i / sqrt(l_i).
    """
    inner = torch.stack([torch.stack([_dot(a, b) for b in chunks]) for a in chunks]).double()
    values, vectors = torch.linalg.eigh(inner)
    real = values > 1e-10 * values.max().clamp(min=1e-30)
    scaled = vectors[:, real] / values[real].sqrt()  # [chunks, directions]
    along = scaled.T @ torch.stack([_dot(gradient, one) for one in chunks]).double()
    mean = torch.full((len(chunks),), 1 / len(chunks), dtype=inner.dtype, device=inner.device)
    wanted = scaled.T @ (inner @ mean)
    helpful = scaled @ torch.where(along * wanted > 0, along, 0.0)
    inside = scaled @ along
    mixed = (helpful - NEUTRAL * inside).tolist()
    found = [NEUTRAL * own for own in gradient]
    for part, chunk in zip(mixed, chunks, strict=True):
        found = [own + part * one for own, one in zip(found, chunk, strict=True)]
    return found


def _gradients(loss: Tensor, weights: Sequence[nn.Parameter]) -> Gradients:
    found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for g, w in zip(found, weights, strict=True)]


def _dot(one: Gradients, other: Gradients) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()


def _cosine(one: Gradients, other: Gradients) -> Tensor:
    length = (_dot(one, one) * _dot(other, other)).sqrt().clamp(min=1e-30)
    return _dot(one, other) / length
