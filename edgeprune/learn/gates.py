"""Gates on heads, FFN units and sub-layers, learnt under a budget of predicted milliseconds.

Hard-concrete gates (Louizos, Welling, Kingma 2018, arXiv 1712.01312) with distillation, in the
family of CoFi (Xia, Zhong, Chen 2022, arXiv 2204.00408); but what the Lagrangian holds down is the
latency that a table predicts, and no count of weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeprune.encoder import FFN, Attention, Classifier, Layer
from edgeprune.latency import LatencyTable
from edgeprune.learn.answers import Sample, accelerator
from edgeprune.learn.distillation import Distillation
from edgeprune.learn.fit import Parts, Schedule, Training, fit
from edgeprune.learn.snapshots import Snapshots
from edgeprune.progress import Progress
from edgeprune.shape import SubLayer

STRETCHED = (-0.1, 1.1)  # gamma and zeta: the interval that is cut to [0, 1]
BETA = 2 / 3  # temperature
OPEN = 2.0  # the logarithm of alpha at the start: 98 % open
TRAVEL = 8.0  # how far a logarithm can come in all steps, whatever their number
MULTIPLIER_RATE = 1.0  # learning rate
TIGHTENED_BY = 0.5  # the share of steps in which the limit falls from the dense latency to its end


@dataclass(frozen=True)
class Openness:
    """What was learnt of one sub-layer."""

    open: Tensor  # [width]: the probability that a structure is open
    factors: Tensor  # [width]: what its part of the output is multiplied by
    whole: float  # that factor of the sub-layer's bias


def learn_gates(
    teacher: Classifier,
    target: Sample,
    auxiliary: Sample | None,
    how: str,
    table: LatencyTable,
    limit_ms: float,
    schedule: Schedule,
    progress: Progress,
    snapshots: Snapshots | None = None,
) -> tuple[Classifier, dict[SubLayer, Openness]]:
    """The teacher's copy as it became while its gates were shut, and how open they are.

    L = distillation + l1 r + l2 r^2,  r = predicted ms / limit - 1

    The multipliers l1, l2 climb while the weights descend. Goes on from the last of the
    `snapshots`. Raises Diverged.
    """
    torch.manual_seed(schedule.seed)
    model = copy.deepcopy(teacher)
    model.set_dropout(0.0)
    gates = _gated(model)
    model.register_parameter("multipliers", nn.Parameter(torch.zeros(2)))
    model.to(accelerator().device)
    multipliers = model.get_parameter("multipliers")
    distillation = Distillation(model, teacher, target, auxiliary, how, schedule)
    dense_ms = table.predict(teacher.encoder.shape)

    def loss(share: float) -> Parts:
        now_ms = dense_ms + (limit_ms - dense_ms) * min(1.0, share / TIGHTENED_BY)
        over = predicted_ms(gates, table) / now_ms - 1
        held = multipliers[0] * over + multipliers[1] * over**2
        return {**distillation(share), "latency": (1.0, held)}

    logits = [p for gate in gates.values() for p in (gate.units, gate.whole)]
    rate = 2 * TRAVEL / schedule.steps  # which falls to 0 in a line
    shared: dict[str, Any] = {"weight_decay": 0.0}
    climbing = {"params": [multipliers], "lr": MULTIPLIER_RATE, "maximize": True}
    others = [shared | {"params": logits, "lr": rate}, shared | climbing]
    # The end is what is wanted, whatever validation says on the way to fewer milliseconds.
    training = Training(model, distillation.draws, replace(schedule, checkpoints=1), others=others)
    learnt = fit(training, loss, lambda _: (0.0, 0.0), progress, snapshots).model
    found = {key: gate.openness() for key, gate in _gates(learnt).items()}
    return _bare(learnt), found


class Gated(nn.Module):
    """An output matrix with a gate on each structure that it reads, and one on all that it says."""

    def __init__(self, matrix: nn.Linear, width: int) -> None:
        super().__init__()
        self.matrix = matrix
        self.units = nn.Parameter(torch.full((width,), OPEN))
        self.whole = nn.Parameter(torch.full((1,), OPEN))

    def forward(self, x: Tensor) -> Tensor:
        group = x.shape[-1] // len(self.units)
        units = self._factors(self.units).to(x.dtype).repeat_interleave(group)
        said: Tensor = self.matrix(x * units)
        return said * self._factors(self.whole).to(said.dtype)

    def _factors(self, logits: Tensor) -> Tensor:
        """In [0, 1], exactly 0 or 1 with some probability; in training they are drawn."""
        if self.training:
            noise = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
            logits = (torch.logit(noise) + logits) / BETA
        low, high = STRETCHED
        return (torch.sigmoid(logits) * (high - low) + low).clamp(0.0, 1.0)

    def openness(self) -> Openness:
        self.eval()
        with torch.no_grad():
            whole = float(self._factors(self.whole))
            return Openness(
                (_probability(self.units) * _probability(self.whole)).cpu(),
                (self._factors(self.units) * whole).cpu(),
                whole,
            )


def _probability(logits: Tensor) -> Tensor:
    """That a gate is not 0."""
    low, high = STRETCHED
    return torch.sigmoid(logits - BETA * math.log(-low / high))


def predicted_ms(gates: Mapping[SubLayer, Gated], table: LatencyTable) -> Tensor:
    """What the table expects of a model with gates, by the probabilities that they are open."""
    total = torch.zeros(())
    for (_, kind), gate in gates.items():
        known = table.attention_ms if kind == "attention" else table.ffn_ms
        cost_ms = _interpolated(_probability(gate.units).sum(), known)
        total = total.to(cost_ms.device) + _probability(gate.whole)[0] * cost_ms
    return table.rest_ms + table.slope * total


def _interpolated(width: Tensor, known_ms: Mapping[int, float]) -> Tensor:
    """Linear between the widths of the table, by the width of a moment."""
    widths = sorted(known_ms)
    at = float(width.detach())
    right = next((i for i, one in enumerate(widths) if one >= at and i > 0), len(widths) - 1)
    low, high = widths[right - 1], widths[right]
    slope = (known_ms[high] - known_ms[low]) / (high - low)
    return known_ms[low] + slope * (width - low)


def _gated(model: Classifier) -> dict[SubLayer, Gated]:
    """Puts gates on every output matrix of a model."""
    for layer in cast(Sequence[Layer], model.encoder.layers):
        if isinstance(attention := layer.attention, Attention):
            attention.output = cast(nn.Linear, Gated(attention.output, attention.heads))
        if isinstance(ffn := layer.ffn, FFN):
            ffn.down = cast(nn.Linear, Gated(ffn.down, ffn.width))
    return _gates(model)


def _gates(model: Classifier) -> dict[SubLayer, Gated]:
    found: dict[SubLayer, Gated] = {}
    for index, layer in enumerate(cast(Sequence[Layer], model.encoder.layers)):
        if isinstance(attention := layer.attention, Attention):
            found[index, "attention"] = cast(Gated, attention.output)
        if isinstance(ffn := layer.ffn, FFN):
            found[index, "ffn"] = cast(Gated, ffn.down)
    return found


def _bare(model: Classifier) -> Classifier:
    """Takes the gates off again; the weights stay as they became with them."""
    for layer in cast(Sequence[Layer], model.encoder.layers):
        if isinstance(attention := layer.attention, Attention):
            attention.output = cast(Gated, attention.output).matrix
        if isinstance(ffn := layer.ffn, FFN):
            ffn.down = cast(Gated, ffn.down).matrix
    del model.multipliers
    return model
