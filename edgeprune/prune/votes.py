"""What the plans of earlier runs say of each sub-layer, before this task's own curves do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.errors import RecipeError
from edgeprune.shape import LayerShape, Shape, SubLayer

# Of a sensitivity's logarithm, between a sub-layer that all plans removed and one that all kept
# whole: two standard deviations of what the search of sensitivities draws.
TRUST = 1.0


@dataclass(frozen=True)
class Vote:
    """The plan of an earlier run: what each layer had, and what was kept of it."""

    run: str
    dense: tuple[LayerShape, ...]
    kept: tuple[LayerShape, ...]


def prior_sensitivity(votes: Sequence[Vote], dense: Shape) -> dict[SubLayer, float] | None:
    """exp(TRUST * v_j), v_j the share of a sub-layer's width that plans kept, a mean over them.

    So what others pruned hard is cheap to prune here too (after Meta-Vote Pruning, Zhao et al.
    2023, arXiv 2301.11560). A factor that all sub-layers share changes no plan. None without
    votes. Raises RecipeError where a run's encoder had another shape.
    """
    if not votes:
        return None
    for vote in votes:
        if vote.dense != dense.layers:
            raise RecipeError(
                f"--votes {vote.run}",
                why=f"its encoder has {_told(vote.dense)}, this one {_told(dense.layers)}",
                remedy="give runs of this encoder, or of one of its shape",
            )
    found: dict[SubLayer, float] = {}
    for layer, old in enumerate(dense.layers):
        heads = statistics.fmean(vote.kept[layer].heads / old.heads for vote in votes)
        ffn = statistics.fmean(vote.kept[layer].ffn / old.ffn for vote in votes)
        found[layer, "attention"] = math.exp(TRUST * heads)
        found[layer, "ffn"] = math.exp(TRUST * ffn)
    return found


def _told(layers: Sequence[LayerShape]) -> str:
    """As in "6 layers of 12 heads and 1536 FFN units"."""
    kinds = dict.fromkeys(f"{one.heads} heads and {one.ffn} FFN units" for one in layers)
    return f"{len(layers)} layers of {' or '.join(kinds)}"
