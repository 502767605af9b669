"""Torch-Pruning, the package itself, in place of a method: its importance, its pruner, our road.

What it removes of a teacher at many ratios is looked up by width; everything that follows (closed
loop, surgery, recovery, export, measurement) is that of the other methods.

    pip install torch-pruning==1.6.1
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import cast
from unittest.mock import patch

import torch
import torch_pruning
from torch import Tensor, nn

from edgeprune.encoder import FFN, Attention, Classifier, Layer
from edgeprune.latency import LatencyTable
from edgeprune.learn.answers import gold_loss, inputs_of
from edgeprune.progress import Progress
from edgeprune.prune.curves import Curves, Option, Options, Price, unchanged
from edgeprune.prune.methods import METHODS, Method
from edgeprune.prune.moments import Moments
from edgeprune.prune.search import Errors, Plan, shape_of
from edgeprune.prune.structures import Matrices, sub_layers
from edgeprune.shape import Shape, SubLayer
from edgeprune.stages.materials import Materials
from edgeprune.tokens import endless

RATIOS = [i / 100 for i in range(2, 100, 2)]
BATCHES = 16  # of 32 rows, for the gradients of its importance


@contextmanager
def in_place_of(method: str) -> Iterator[None]:
    """While it lasts, runs with this method prune by Torch-Pruning."""
    with (
        patch("edgeprune.stages.pricing.price_model", _price_model),
        patch.dict(cast(dict[str, Method], METHODS), {method: Method(_torch_pruning, allocate)}),
    ):
        yield


def _torch_pruning(matrices: Matrices, moments: Moments, grid: Sequence[int]) -> Options:
    """Its name tells stages apart; it ranks over all layers, and so prices none alone."""
    raise NotImplementedError


def _price_model(
    materials: Materials, price: Price, model: Classifier, progress: Progress
) -> Curves:
    model.to("cpu")
    gradients = _gradients(model, materials)
    pruned = []
    for number, ratio in enumerate(RATIOS, 1):
        progress.step(number, len(RATIOS))
        pruned.append(_pruned(model, gradients, materials, ratio))
    return Curves(_options(model, pruned))


def allocate(
    errors: Errors,
    table: LatencyTable,
    dense: Shape,
    budget_ms: float,
    sensitivity: Mapping[SubLayer, float] | None = None,
) -> Plan:
    """The lowest of the ratios whose plan fits; an option's error is the ratio that led to it."""
    for ratio in [0.0, *RATIOS, 1.0]:
        widths = {
            key: min((w for w, error in curve.items() if error <= ratio), default=max(curve))
            for key, curve in errors.items()
        }
        shape = shape_of(dense, widths)
        if table.predict(shape) <= budget_ms:
            break
    return Plan(shape, table.predict(shape), ratio)


def _gradients(model: Classifier, materials: Materials) -> list[Tensor | None]:
    """Of the target's loss, summed over some batches; in the order of the parameters."""
    sample = materials.train
    model.zero_grad(set_to_none=True)
    for rows in islice(endless(sample.tokens, 32, materials.recipe.seed), BATCHES):
        logits, _ = model(inputs_of(sample.tokens, rows, model.encoder))
        gold_loss(logits, sample.targets[rows], sample.regression).backward()
    found = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return found


def _pruned(
    model: Classifier, gradients: Sequence[Tensor | None], materials: Materials, ratio: float
) -> Classifier:
    """A copy that its pruner has pruned: heads and FFN units, ranked over all layers."""
    model = copy.deepcopy(model)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.requires_grad_(True)
        parameter.grad = gradient
    layers = cast(Sequence[Layer], model.encoder.layers)
    attention = [a for layer in layers if isinstance(a := layer.attention, Attention)]
    ffn = [f for layer in layers if isinstance(f := layer.ffn, FFN)]
    heads = {linear: one.heads for one in attention for linear in (one.query, one.key, one.value)}
    stays: list[nn.Module] = [model.encoder.embeddings, *model.heads.values()]
    stays += [one.output for one in attention]
    stays += [one.down for one in ffn]
    rows = next(endless(materials.train.tokens, 2, 0))
    example = inputs_of(materials.train.tokens, rows, model.encoder)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example_inputs={"inputs": example},
        importance=torch_pruning.importance.GroupTaylorImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        head_pruning_ratio=ratio,
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        ignored_layers=stays,
        root_module_types=[nn.Linear],
        output_transform=lambda out: out[0],
    )
    pruner.step()
    return model


def _options(dense: Classifier, pruned: Sequence[Classifier]) -> dict[SubLayer, dict[int, Option]]:
    """By width, what was kept, found again by its rows; the error is the least ratio to it."""
    found: dict[SubLayer, dict[int, Option]] = {}
    for key, matrices in sub_layers(dense).items():
        everything = torch.arange(matrices.width)
        options = {matrices.width: unchanged(matrices, everything, 0.0)}
        options[0] = unchanged(matrices, everything[:0], 1.0)
        rows = _structures(matrices.inputs[0], matrices.width)
        for ratio, model in zip(RATIOS, pruned, strict=True):
            if key not in (there := sub_layers(model)):
                continue
            left = there[key].inputs[0]
            width = left.out_features // matrices.group
            kept = _structures(left, width)
            same = (kept[:, None, :] == rows[None, :, :]).all(2)
            options.setdefault(width, unchanged(matrices, same.int().argmax(1), ratio))
        found[key] = options
    return found


def _structures(linear: nn.Linear, width: int) -> Tensor:
    """[width, numbers]: the weights of each."""
    return linear.weight.detach().reshape(width, -1)
