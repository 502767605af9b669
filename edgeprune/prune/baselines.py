"""Methods that look at no data: what the others must beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeprune.prune.curves import Options, removed_in, unchanged
from edgeprune.prune.moments import Moments
from edgeprune.prune.structures import Matrices


def magnitude(matrices: Matrices, _: Moments, grid: Sequence[int]) -> Options:
    """The structures with the least sum of squared weights go first; that sum is the error."""
    rows = sum(
        (one.weight.detach().double().square().sum(1) for one in matrices.inputs),
        start=torch.zeros(matrices.output.in_features, dtype=torch.float64),
    )
    columns = matrices.output.weight.detach().double().square().sum(0)
    sizes = (rows + columns).unflatten(0, (-1, matrices.group)).sum(1)
    order = sizes.argsort(stable=True)
    errors = [0.0, *sizes[order].cumsum(0).tolist()]
    return removed_in(order, errors, matrices, grid)


def random(matrices: Matrices, _: Moments, grid: Sequence[int]) -> Options:
    """Any structures, by torch's own generator; as large a share of every sub-layer."""
    order = torch.randperm(matrices.width)
    errors = [(gone / matrices.width) ** 2 for gone in range(matrices.width + 1)]
    return removed_in(order, errors, matrices, grid)


def whole(matrices: Matrices, _: Moments, grid: Sequence[int]) -> Options:
    """All of a sub-layer or nothing of it."""
    every = torch.arange(matrices.width)
    return {
        0: unchanged(matrices, every[:0], 1.0),
        matrices.width: unchanged(matrices, every, 0.0),
    }
