"""Optimal brain surgeon on the output matrix of a sub-layer (Hassibi & Stork 1993).

For transformers Frantar & Alistarh 2022: remove the structure whose loss the others can best make
up for, and refit them by least squares in closed form. Errors are weighed by the Fisher information
of the sub-layer's output (the K-FAC approximation, Martens & Grosse 2015), so that they come in
units of the loss and can be compared between layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from edgeprune.prune.curves import Option, Options
from edgeprune.prune.moments import Moments
from edgeprune.prune.structures import Matrices, columns_of

DAMPING = 0.01  # lambda, of the mean diagonal
FISHER_DAMPING = 0.1


def obs(matrices: Matrices, moments: Moments, grid: Sequence[int]) -> Options:
    """Greedy removal of structures, the refit of what stays kept at each width of `grid`.

    score(R) = tr(W_R ([H^-1]_RR)^-1 W_R^T), W weighed by the square root of the Fisher information
    W      <- W - W_R ([H^-1]_RR)^-1 [H^-1]_R,:
    H^-1   <- H^-1 - [H^-1]_:R ([H^-1]_RR)^-1 [H^-1]_R,:
    The bias is an input that is always 1 and never removed.
    """
    linear, group = matrices.output, matrices.group
    weight = torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach().cpu().double()
    inverse = _damped_inverse(moments.inputs.double())
    root = _square_root(moments.gradients.double())
    alive = torch.arange(matrices.width)
    options: dict[int, Option] = {}
    error = 0.0
    for width in sorted(grid, reverse=True):
        while len(alive) > width:
            weighed = root @ weight
            scores = _scores(weighed, inverse, len(alive), group)
            # One exact step takes several of the least important at once, the fewer the nearer
            # the end: scores age as their neighbours go.
            count = min(len(alive) - width, max(1, len(alive) // 48))
            gone = torch.topk(scores, count, largest=False).indices
            inputs = columns_of(gone, group)
            block = torch.linalg.inv(inverse[inputs][:, inputs])
            error += float(((weighed[:, inputs] @ block) * weighed[:, inputs]).sum())
            step = block @ inverse[inputs]
            weight = weight - weight[:, inputs] @ step
            inverse = inverse - inverse[:, inputs] @ step
            stay = torch.ones(len(inverse), dtype=torch.bool)
            stay[inputs] = False
            weight, inverse = weight[:, stay], inverse[stay][:, stay]
            survivors = torch.ones(len(alive), dtype=torch.bool)
            survivors[gone] = False
            alive = alive[survivors]
        options[width] = Option(
            error, alive.clone(), weight[:, :-1].float().clone(), weight[:, -1].float().clone()
        )
    return options


def _scores(weighed: Tensor, inverse: Tensor, groups: int, group: int) -> Tensor:
    """Loss [groups] of removing each group alone, the others refitted."""
    inputs = groups * group
    if group == 1:
        return weighed[:, :inputs].square().sum(0) / inverse.diagonal()[:inputs]
    index = torch.arange(inputs).view(groups, group)
    blocks = torch.linalg.inv(inverse[index[:, :, None], index[:, None, :]])
    columns = weighed[:, :inputs].T.view(groups, group, -1)  # [groups, group, hidden]
    return cast(Tensor, ((blocks @ columns) * columns).sum((1, 2)))


def _damped_inverse(moments: Tensor) -> Tensor:
    damping = DAMPING * float(moments.diagonal()[:-1].mean())
    ridge = torch.full((len(moments),), max(damping, 1e-9), dtype=moments.dtype)
    ridge[-1] = 0.0  # the constant input
    return cast(Tensor, torch.linalg.inv(moments + torch.diag(ridge)))


def _square_root(matrix: Tensor) -> Tensor:
    damping = FISHER_DAMPING * float(matrix.diagonal().mean())
    values, vectors = torch.linalg.eigh(matrix)
    scaled = vectors * (values.clamp(min=0) + max(damping, 1e-12)).sqrt()
    return cast(Tensor, scaled @ vectors.T)
