"""What can be removed of an encoder: the heads and FFN units of its sub-layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgeprune.encoder import FFN, Attention, Classifier, Layer
from edgeprune.shape import Shape, SubLayer


@dataclass(frozen=True)
class Matrices:
    """The weights of one sub-layer, and how they fall into structures: heads, or FFN units."""

    inputs: tuple[nn.Linear, ...]  # query, key and value, or the up projection
    output: nn.Linear  # the attention output, or the FFN down projection
    group: int  # rows of the inputs, and columns of the output, that belong to one structure

    @property
    def width(self) -> int:
        """How many structures there are."""
        return self.output.in_features // self.group


def sub_layers(model: Classifier) -> dict[SubLayer, Matrices]:
    """Of every layer the sub-layers that it has."""
    found: dict[SubLayer, Matrices] = {}
    for index, layer in enumerate(cast(Sequence[Layer], model.encoder.layers)):
        if isinstance(attention := layer.attention, Attention):
            inputs = (attention.query, attention.key, attention.value)
            found[index, "attention"] = Matrices(inputs, attention.output, attention.head_dim)
        if isinstance(ffn := layer.ffn, FFN):
            found[index, "ffn"] = Matrices((ffn.up,), ffn.down, 1)
    return found


def columns_of(structures: Tensor, group: int) -> Tensor:
    """The inputs of the output matrix that belong to the structures, in their order."""
    return (structures[:, None] * group + torch.arange(group)).flatten()


def widths_of(shape: Shape) -> dict[SubLayer, int]:
    """The width of every sub-layer of a shape, 0 for one that is not there."""
    widths: dict[SubLayer, int] = {}
    for index, layer in enumerate(shape.layers):
        widths[index, "attention"] = layer.heads
        widths[index, "ffn"] = layer.ffn
    return widths


def ffn_grid(width: int) -> list[int]:
    """Widths worth an option: every sixteenth, and halves of the smallest, 0 and all included."""
    return sorted({width * i // 32 for i in (0, 1, 2, 3, *range(4, 33, 2))})
