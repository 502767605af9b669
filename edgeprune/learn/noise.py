"""Rows that nobody wrote, for a model to imitate its teacher on where few rows are there.

Some tokens of a row are replaced by others as they come in the task's rows (unigram noise, Xie et
al. 2017, arXiv 1703.02573). The teacher answers to what became of it, so no label is needed: text
made up for distillation, as of Tang et al. 2019 (arXiv 1903.12136).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeprune.tokens import Tokens

REPLACED = 0.3  # of the tokens

Ints = NDArray[np.int64]


class Noise:
    """Replaces tokens of a task's rows; its special ones it never does."""

    def __init__(self, tokens: Tokens) -> None:
        self._special = tokens.special
        ids = np.concatenate(tokens.ids)
        self._words = ids[~np.isin(ids, self._special)]  # each as often as it comes

    def __call__(self, ids: Ints, random: np.random.Generator) -> Ints:
        """`ids` [rows, tokens] with some replaced."""
        if not len(self._words):
            return ids
        replaced = ~np.isin(ids, self._special) & (random.random(ids.shape) < REPLACED)
        return np.where(replaced, random.choice(self._words, ids.shape), ids)
