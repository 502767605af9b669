"""Seeded, stratified choices of rows: a smaller training set, and splits that a source lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.task.task import Rows

QUANTILES = 10


def sample(rows: Rows, size: int, rng: np.random.Generator) -> Rows:
    """`size` rows in their order, classes in their proportion and each at least once if it fits."""
    return rows.take(_drawn(rows, size, rng))


def hold_out(rows: Rows, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """(kept, held): about `share` of the distinct texts are held, each with all its rows.

    A class of one row is kept, as training has no other.
    """
    first: dict[tuple[str, ...], int] = {}  # of each distinct text, its first row
    firsts = np.array([first.setdefault(key, row) for row, key in enumerate(rows.normalised())])
    distinct = np.unique(firsts)
    size = len(distinct) - round(len(distinct) * share)
    kept = np.isin(firsts, distinct[_drawn(rows.take(distinct), size, rng)])
    return _parted(rows, kept)


def halve(rows: Rows, rng: np.random.Generator) -> tuple[Rows, Rows]:
    first = np.zeros(len(rows), dtype=bool)
    first[_drawn(rows, (len(rows) + 1) // 2, rng)] = True
    return _parted(rows, first)


def _parted(rows: Rows, chosen: NDArray[np.bool_]) -> tuple[Rows, Rows]:
    return rows.take(np.flatnonzero(chosen)), rows.take(np.flatnonzero(~chosen))


def _drawn(rows: Rows, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which rows, in their order: from each stratum its share."""
    if not size:
        return np.empty(0, dtype=np.int64)
    strata, counts = np.unique(_strata(rows.targets), return_inverse=True, return_counts=True)[1:]
    chosen = [
        rng.permutation(np.flatnonzero(strata == stratum))[:share]
        for stratum, share in enumerate(_shares(counts, size))
    ]
    return np.array(np.sort(np.concatenate(chosen)), dtype=np.int64)


def _strata(targets: NDArray[Any]) -> NDArray[np.int64]:
    """The class of each row, or the quantile of its score."""
    if np.issubdtype(targets.dtype, np.integer):
        return np.array(targets, dtype=np.int64)
    edges = np.quantile(targets, np.linspace(0, 1, QUANTILES + 1)[1:-1])
    return np.array(np.digitize(targets, edges), dtype=np.int64)


def _shares(counts: NDArray[Any], size: int) -> NDArray[Any]:
    """`size` rows dealt out in proportion, by largest remainder, none empty if that can be."""
    exact = counts * (size / counts.sum())
    least = 1 if size >= len(counts) else 0
    shares: NDArray[Any] = np.maximum(np.floor(exact), least).astype(np.int64)
    while shares.sum() > size:
        shares[np.argmax(np.where(shares > least, shares - exact, -np.inf))] -= 1
    while shares.sum() < size:
        shares[np.argmax(np.where(shares < counts, exact - shares, -np.inf))] += 1
    return shares
