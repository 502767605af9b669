"""Fisher masks and their tuning, without training (Kwon et al. 2022, arXiv 2204.09656)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from edgeprune.prune.curves import Options, removed_in
from edgeprune.prune.moments import Moments
from edgeprune.prune.structures import Matrices

DAMPING = 0.01  # of the mean diagonal, towards factors of one


def fisher(matrices: Matrices, moments: Moments, grid: Sequence[int]) -> Options:
    """Structures in the order in which the loss misses them least, those left scaled to make up.

    With I the Fisher information of factors on all structures, the set R that is gone costs
    the sum of I over R x R. R grows greedily by the least of I_gg + 2 sum over r in R of I_gr, so
    that structures that stand in for one another do not both go: the mask's search and its
    rearrangement in one.
    """
    order, errors = _removal(moments.masks.double())
    outer = _outer(matrices, moments)
    options = {}
    for width, option in removed_in(order, errors, matrices, grid).items():
        factors = _factors(outer, option.kept).float().repeat_interleave(matrices.group)
        options[width] = replace(option, weight=option.weight * factors)
    return options


def _removal(information: Tensor) -> tuple[Tensor, list[float]]:
    """Structures in the order in which they go, and the error once so many are gone."""
    step = information.diagonal().clone()  # what each would cost now
    order, errors = [], [0.0]
    for _ in range(len(information)):
        gone = int(step.argmin())
        order.append(gone)
        errors.append(errors[-1] + max(float(step[gone]), 0.0))
        step += 2 * information[gone]
        step[order] = torch.inf
    return torch.tensor(order, dtype=torch.int64), errors


def _outer(matrices: Matrices, moments: Moments) -> Tensor:
    """[width, width] second moments of what each structure adds to the output."""
    weight = matrices.output.weight.detach().double()
    by_input = (weight.T @ weight) * moments.inputs[:-1, :-1].double()
    blocks = by_input.unflatten(1, (-1, matrices.group)).sum(2)
    return cast(Tensor, blocks.unflatten(0, (-1, matrices.group)).sum(1))


def _factors(outer: Tensor, kept: Tensor) -> Tensor:
    """min over f of E |sum of all - sum over kept of f_g times its part|^2, damped towards 1."""
    among = outer[kept][:, kept]
    missed = outer[kept].sum(1) - among.sum(1)
    damping = DAMPING * float(among.diagonal().mean()) if len(kept) else 0.0
    ridge = max(damping, 1e-12) * torch.eye(len(kept), dtype=outer.dtype)
    return 1 + cast(Tensor, torch.linalg.solve(among + ridge, missed))
