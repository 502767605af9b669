"""An encoder's architecture as a value: the heads and the FFN width of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal["attention", "ffn"]
SubLayer = tuple[int, Kind]  # the layer's number, and which of its two


@dataclass(frozen=True)
class LayerShape:
    """One layer: 0 heads means no attention sub-layer, FFN width 0 means no FFN sub-layer."""

    heads: int
    ffn: int


@dataclass(frozen=True)
class Shape:
    """All layers of an encoder, and the widths that pruning leaves alone."""

    layers: tuple[LayerShape, ...]
    hidden: int
    head_dim: int
    vocab: int

    @classmethod
    def uniform(
        cls, layers: int, heads: int, ffn: int, *, hidden: int, head_dim: int, vocab: int
    ) -> Shape:
        return cls((LayerShape(heads, ffn),) * layers, hidden, head_dim, vocab)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Shape:
        layers = tuple(LayerShape(int(row["heads"]), int(row["ffn"])) for row in data["layers"])
        return cls(layers, int(data["hidden"]), int(data["head_dim"]), int(data["vocab"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def with_layers(self, layers: Sequence[LayerShape]) -> Shape:
        return replace(self, layers=tuple(layers))

    def emptied(self) -> Shape:
        """With every sub-layer removed."""
        return self.with_layers([LayerShape(0, 0)] * len(self.layers))

    @property
    def encoder_parameters(self) -> int:
        """Weights and biases of the layers, LayerNorms included, embeddings and head not."""
        total = 0
        for layer in self.layers:
            width = layer.heads * self.head_dim
            total += 3 * (self.hidden + 1) * width + width * self.hidden
            total += (2 * self.hidden + 1) * layer.ffn
            total += 2 * 3 * self.hidden  # two output biases and two LayerNorms
        return total

    def multiply_adds(self, sequence: int) -> int:
        """Of the layers, for one row of `sequence` tokens."""
        total = 0
        for layer in self.layers:
            width = layer.heads * self.head_dim
            total += sequence * (4 * self.hidden * width + 2 * sequence * width)
            total += sequence * 2 * self.hidden * layer.ffn
        return total

    def __str__(self) -> str:
        return " ".join(f"{layer.heads}h/{layer.ffn}" for layer in self.layers)
