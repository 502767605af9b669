"""How like two models answer, and how like they must: an export its model, a runtime it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MAX_ABS = 1e-3  # fp32 on the same machine differs by about 1e-5; wrong graphs by 0.1 and more
MIN_COSINE = 0.9999
# int8 differs between processors by design, and a near tie may then fall the other way.
INT8_COSINE, INT8_AGREEMENT = 0.99, 0.9


@dataclass(frozen=True)
class Parity:
    """How like two models answer at one input shape."""

    shape: tuple[int, ...]  # batch, tokens
    max_abs: float
    cosine: float
    agreement: float  # share of rows with the same label

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"max-abs {self.max_abs:.2g}, cosine {self.cosine:.6f}, "
            f"same label in {self.agreement:.0%}"
        )


def compare(shape: tuple[int, ...], ours: Floats, theirs: Floats, tie: float = 0.0) -> Parity:
    """Answers [rows, outputs]; the other label counts as the same where it is `tie` behind."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return Parity(shape, float("inf"), 0.0, 0.0)
    flat, other = ours.ravel().astype(float), theirs.ravel().astype(float)
    norms = float(np.linalg.norm(flat) * np.linalg.norm(other))
    behind = theirs.max(axis=1) - theirs[np.arange(len(theirs)), ours.argmax(axis=1)]
    return Parity(
        shape,
        float(np.abs(flat - other).max()),
        float(flat @ other) / norms if norms else 1.0,
        float(np.mean(behind <= tie)),
    )
