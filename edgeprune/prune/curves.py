"""What each sub-layer can be pruned to and what that costs, whatever the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from edgeprune.encoder import Classifier
from edgeprune.prune.moments import Moments
from edgeprune.prune.structures import Matrices, columns_of, ffn_grid, sub_layers
from edgeprune.quiet import wait_while_measuring
from edgeprune.shape import Kind, SubLayer
from edgeprune.tensors import save_tensors


@dataclass(frozen=True)
class Option:
    """A width that a sub-layer can be pruned to, with its output matrix at that width."""

    error: float
    kept: Tensor  # [width] int64: heads, or FFN units, in their old order
    weight: Tensor  # [hidden, inputs that stay]
    bias: Tensor  # [hidden]


Options = Mapping[int, Option]  # by width
Price = Callable[[Matrices, Moments, Sequence[int]], Options]
"""What makes a method: the options of one sub-layer at the widths of a grid."""


@dataclass(frozen=True)
class Curves:
    """Every sub-layer's options."""

    options: Mapping[SubLayer, Options]

    def errors(self) -> dict[SubLayer, dict[int, float]]:
        return {
            sub_layer: {width: option.error for width, option in options.items()}
            for sub_layer, options in self.options.items()
        }

    def save(self, path: Path) -> None:
        tensors = {}
        for (layer, kind), options in self.options.items():
            for width, option in options.items():
                name = f"{layer}.{kind}.{width}"
                tensors[f"{name}.error"] = torch.tensor(option.error, dtype=torch.float64)
                tensors[f"{name}.kept"] = option.kept
                tensors[f"{name}.weight"] = option.weight.contiguous()
                tensors[f"{name}.bias"] = option.bias.contiguous()
        save_tensors(tensors, path)

    @classmethod
    def read(cls, path: Path) -> Curves:
        tensors = load_file(path)
        options: dict[SubLayer, dict[int, Option]] = {}
        for name in sorted({name.rpartition(".")[0] for name in tensors}):
            layer, kind, width = name.split(".")
            options.setdefault((int(layer), cast(Kind, kind)), {})[int(width)] = Option(
                float(tensors[f"{name}.error"]),
                tensors[f"{name}.kept"],
                tensors[f"{name}.weight"],
                tensors[f"{name}.bias"],
            )
        return cls({key: dict(sorted(value.items())) for key, value in sorted(options.items())})


def error_curves(
    model: Classifier,
    moments: Mapping[SubLayer, Moments],
    price: Price,
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Curves:
    """The options of every sub-layer of a model, by a method's price."""
    options = {}
    found = sub_layers(model)
    for index, (key, matrices) in enumerate(found.items()):
        wait_while_measuring()
        options[key] = price(matrices, moments[key], grid_of(key[1], matrices.width))
        done(index + 1, len(found))
    return Curves(options)


def grid_of(kind: Kind, width: int) -> list[int]:
    """The widths that are worth an option."""
    return list(range(width + 1)) if kind == "attention" else ffn_grid(width)


def unchanged(matrices: Matrices, kept: Tensor, error: float) -> Option:
    """These structures (in any order) with the weights that they had, the bias too."""
    kept = kept.sort().values
    weight = matrices.output.weight.detach()
    columns = columns_of(kept, matrices.group)
    bias = matrices.output.bias.detach()
    return Option(error, kept, weight[:, columns].clone(), bias.clone())


def removed_in(
    order: Tensor, errors: Sequence[float], matrices: Matrices, grid: Sequence[int]
) -> dict[int, Option]:
    """Unchanged options, structures going in an order; `errors` by how many are gone."""
    gone = {width: matrices.width - width for width in grid}
    return {w: unchanged(matrices, order[gone[w] :], errors[gone[w]]) for w in grid}
