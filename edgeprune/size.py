"""Bytes as values: a size budget, and a table that predicts an ONNX file by its shape."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeprune.errors import BudgetError
from edgeprune.latency import interpolated
from edgeprune.shape import Shape

_SIZE = re.compile(
    r"\s*(?P<number>[-+]?[0-9.]+(?:e[-+]?\d+)?|[-+]?nan|[-+]?inf)\s*(?P<unit>[a-z]*)\s*",
    re.IGNORECASE,
)
_UNITS: Mapping[str, int] = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_BINARY: Mapping[str, int] = {"kib": 2**10, "mib": 2**20, "gib": 2**30}
_EXAMPLES = 'write it as "8MB", "800kB" or "0.5GB" (a kB is 1,000 bytes)'
SLACK_BYTES = 4_096  # of names and lengths in a file, by which a table may be wrong


@dataclass(frozen=True)
class Size:
    """A model's file takes at most so many bytes."""

    bytes: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read "8MB", "800 kB" or "0.5GB", in decimal units; raises BudgetError with the remedy."""
        what = f"size {text!r}"
        match = _SIZE.fullmatch(text)
        if match is None:
            why = "decimals take a point, not a comma" if "," in text else "not a number and a unit"
            raise BudgetError(what, why=why, remedy=_EXAMPLES)
        try:
            number = float(match["number"])
        except ValueError:
            raise BudgetError(what, why="not a number", remedy=_EXAMPLES) from None
        if not (math.isfinite(number) and number > 0):
            raise BudgetError(what, why="must be above zero", remedy=_EXAMPLES)
        unit = match["unit"]
        factors = {name.casefold(): factor for name, factor in _UNITS.items()}
        if unit.casefold() not in factors:
            raise BudgetError(what, why=_of_unit(unit), remedy=_meant(match["number"], unit))
        found = round(number * factors[unit.casefold()])
        if found < 1:
            raise BudgetError(what, why="less than a byte", remedy=_EXAMPLES)
        return cls(found)

    def __str__(self) -> str:
        name, factor = max(
            (one for one in _UNITS.items() if one[1] <= self.bytes), key=lambda one: one[1]
        )
        return f"{self.bytes / factor:.12g}{name}"


def _of_unit(unit: str) -> str:
    return f"unknown unit {unit!r}" if unit else "no unit"


def _meant(number: str, unit: str) -> str:
    if (factor := _BINARY.get(unit.casefold())) is not None:
        return f'did you mean "{Size(math.ceil(float(number) * factor))}"?'
    close = difflib.get_close_matches(unit.upper(), ["KB", "MB", "GB"], n=1)
    return f'did you mean "{number}{close[0].replace("K", "k")}"?' if close else _EXAMPLES


@dataclass(frozen=True)
class ByteTable:
    """Bytes of an attention or FFN sub-layer in an ONNX file by its width; they add up.

    Taken from files as they are deployed; linear between the widths. `token` is a row of the
    embedding, `rest` all that neither a width nor the vocabulary changes.
    """

    attention: Mapping[int, float]
    ffn: Mapping[int, float]
    token: int
    rest: float

    def predict(self, shape: Shape, tokens: int) -> int:
        """What a model of this shape takes with so many tokens, but for some `SLACK_BYTES`."""
        layers = sum(
            interpolated(self.attention, layer.heads) + interpolated(self.ffn, layer.ffn)
            for layer in shape.layers
        )
        return math.ceil(self.rest + layers) + self.token * tokens

    def fitted_to(self, shape: Shape, tokens: int, taken: int) -> ByteTable:
        """The same table, its sub-layers dearer each by what `shape` took beyond what it foresees.

        In a whole model each layer says more of itself than in a stack of few.
        """
        missing = (taken - self.predict(shape, tokens)) / (2 * len(shape.layers))

        def dearer(points: Mapping[int, float]) -> dict[int, float]:
            return {width: value + missing if width else 0.0 for width, value in points.items()}

        return replace(self, attention=dearer(self.attention), ffn=dearer(self.ffn))

    def to_dict(self) -> dict[str, Any]:
        return {
            "attention": {str(width): value for width, value in self.attention.items()},
            "ffn": {str(width): value for width, value in self.ffn.items()},
            "token": self.token,
            "rest": self.rest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ByteTable:
        return cls(
            {int(width): float(value) for width, value in data["attention"].items()},
            {int(width): float(value) for width, value in data["ffn"].items()},
            int(data["token"]),
            float(data["rest"]),
        )
