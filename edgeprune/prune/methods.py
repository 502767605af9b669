"""The methods of pruning: each differs from the others in what a row of this table says.

Tables, surgery, closed loop, recovery, export and measurement are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.prune.baselines import magnitude, random, whole
from edgeprune.prune.curves import Price
from edgeprune.prune.fisher import fisher
from edgeprune.prune.obs import obs
from edgeprune.prune.search import Allocate, drop_layers, search


@dataclass(frozen=True)
class Method:
    price: Price | None
    """What a sub-layer's structures cost to lose; None where gates are learnt instead."""
    allocate: Allocate = search
    judged: bool = False
    """Whether plans are tried on rows, to find how much each sub-layer's errors count."""
    recovers: bool = True
    """Whether the pruned model is trained."""


METHODS: Mapping[str, Method] = {
    "obs": Method(obs, judged=True),
    "fisher": Method(fisher),
    "l0": Method(None),
    "magnitude": Method(magnitude),
    "layerdrop": Method(whole, drop_layers),
    "random": Method(random),
    "oneshot": Method(obs, judged=True, recovers=False),
}
