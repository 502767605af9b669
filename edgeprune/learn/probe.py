"""Heads that start where a linear probe of the encoder, as it is, ends.

While a head of random weights learns where to begin, it turns the encoder in directions that nobody
asked for, and few steps leave little time to turn it back (LP-FT, Kumar et al. 2022,
arXiv 2202.10054). A probe that fits its rows too well leaves nothing to learn: hence the penalty.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn

from edgeprune.encoder import Classifier
from edgeprune.learn.answers import Sample, features, gold_loss

ROWS = 1_000  # at most, of a sample
PENALTY = 300.0
ITERATIONS = 100


def start_head(model: Classifier, sample: Sample, seed: int) -> None:
    """Give the sample's head the weights that suit the features of the encoder at hand.

    For k classes those of min CE + c |W|^2 / 2nk on n rows. Scores of pairs are no linear function
    of pooled features, and their head starts at the mean score. Blanks are filled by no class.
    """
    if sample.blanks is not None:
        return
    head = cast(nn.Linear, model.heads[sample.head])
    if sample.regression:
        with torch.no_grad():
            head.weight.zero_()
            head.bias.fill_(float(sample.targets.mean()))
        return
    rows = np.random.default_rng(seed).permutation(len(sample))[:ROWS]
    sample = sample.take(np.sort(rows))
    known = features(model, sample)
    probe = nn.Linear(head.in_features, head.out_features)
    for parameter in probe.parameters():
        nn.init.zeros_(parameter)
    solver = torch.optim.LBFGS(
        probe.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        penalty = PENALTY * probe.weight.square().sum(1).mean() / (2 * len(sample))
        found = gold_loss(probe(known), sample.targets, regression=False) + penalty
        found.backward()
        return found

    solver.step(loss)
    head.load_state_dict(probe.state_dict())
