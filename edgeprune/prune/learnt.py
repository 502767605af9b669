"""Options from gates that were learnt: what is most open stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from edgeprune.prune.curves import Options, removed_in
from edgeprune.prune.structures import Matrices


def by_gates(
    matrices: Matrices, opened: Tensor, factors: Tensor, whole: float, grid: Sequence[int]
) -> Options:
    """The error is the sum of the probabilities that what is gone would be open.

    `opened`, `factors`: [width], those probabilities and what each structure's part of the output
    is multiplied by; `whole`: what the bias is multiplied by.
    """
    order = opened.argsort(stable=True)
    errors = [0.0, *opened[order].double().cumsum(0).tolist()]
    options = {}
    for width, option in removed_in(order, errors, matrices, grid).items():
        columns = factors[option.kept].repeat_interleave(matrices.group)
        options[width] = replace(option, weight=option.weight * columns, bias=option.bias * whole)
    return options
