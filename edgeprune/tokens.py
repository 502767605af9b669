"""Rows of text as token ids, and batches of them; numpy, so that both halves can use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

WINDOW = 8  # batches, within which rows are sorted by length
EASIEST = 1 / 3  # of the rows, with which a training from easy to hard begins


@dataclass(frozen=True)
class Tokens:
    """Token ids and token types of every row, unpadded; the type of padding is 0."""

    ids: tuple[Ints, ...]
    types: tuple[Ints, ...]
    pad: int
    special: tuple[int, ...] = ()  # ids that stand for no text, that of padding among them

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> Ints:
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    @property
    def longest(self) -> int:
        return int(self.lengths.max())

    def take(self, rows: Sequence[int] | Ints) -> Tokens:
        ids, types = tuple(self.ids[i] for i in rows), tuple(self.types[i] for i in rows)
        return replace(self, ids=ids, types=types)

    def batch(
        self, rows: Sequence[int] | Ints, names: Sequence[str], length: int | None = None
    ) -> dict[str, Ints]:
        """The named inputs [len(rows), length], padded to the longest row or to `length`."""
        length = length or max(len(self.ids[i]) for i in rows)
        inputs = {
            "input_ids": np.full((len(rows), length), self.pad, dtype=np.int64),
            "attention_mask": np.zeros((len(rows), length), dtype=np.int64),
            "token_type_ids": np.zeros((len(rows), length), dtype=np.int64),
        }
        for position, row in enumerate(rows):
            tokens = len(self.ids[row])
            inputs["input_ids"][position, :tokens] = self.ids[row]
            inputs["attention_mask"][position, :tokens] = 1
            inputs["token_type_ids"][position, :tokens] = self.types[row]
        return {name: inputs[name] for name in names}


def tokenize(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, length: int
) -> Tokens:
    """Rows cut at `length` tokens by a Hugging Face tokenizer."""
    columns = (list(texts),) if pairs is None else (list(texts), list(pairs))
    special = tuple(sorted(map(int, tokenizer.all_special_ids)))
    if not texts:
        return Tokens((), (), int(tokenizer.pad_token_id), special)
    rows = tokenizer(
        *columns, truncation=True, max_length=length, return_token_type_ids=True, verbose=False
    )
    return Tokens(
        tuple(np.asarray(row, dtype=np.int64) for row in rows["input_ids"]),
        tuple(np.asarray(row, dtype=np.int64) for row in rows["token_type_ids"]),
        int(tokenizer.pad_token_id),
        special,
    )


def in_order(tokens: Tokens, size: int) -> Iterator[Ints]:
    """Row numbers in batches of like lengths, each row once: for evaluation."""
    order = np.argsort(tokens.lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def endless(tokens: Tokens, size: int, seed: int) -> Iterator[Ints]:
    """Row numbers in random batches, epoch after epoch; rows of like lengths stand together.

    A window of eight batches is sorted by length, which halves the padding and leaves the batches
    random enough.
    """
    random = np.random.default_rng(seed)
    size = min(size, len(tokens))
    while True:
        order = _full(random.permutation(len(tokens)), size)
        for start in range(0, len(order), WINDOW * size):
            yield from _batches(tokens, order[start : start + WINDOW * size], size, random)


def easy_first(
    tokens: Tokens, size: int, seed: int, difficulty: NDArray[np.float64], grown_after: int
) -> Iterator[Ints]:
    """As `endless`, but of a pool that holds the easiest third of the rows and grows to all.

    It grows in a line over `grown_after` batches, by windows: c(t) = c0 + (1 - c0) t / T
    (competence-based curriculum, Platanios et al. 2019, arXiv 1903.09848).
    """
    random = np.random.default_rng(seed)
    size = min(size, len(tokens))
    by_difficulty = np.argsort(difficulty, kind="stable")
    drawn = 0
    while drawn < grown_after:
        share = EASIEST + (1 - EASIEST) * drawn / grown_after
        pool = by_difficulty[: max(size, round(share * len(tokens)))]
        window = _full(random.permutation(pool), size)[: WINDOW * size]
        yield from _batches(tokens, window, size, random)
        drawn += len(window) // size
    yield from endless(tokens, size, seed)


def _full(rows: Ints, size: int) -> Ints:
    """Without what fills no batch: left out later, of sorted rows, it would be the longest."""
    return rows[: len(rows) // size * size]


def _batches(
    tokens: Tokens, window: Ints, size: int, random: np.random.Generator
) -> Iterator[Ints]:
    """Rows of like lengths together, the batches in random order."""
    window = window[np.argsort(tokens.lengths[window], kind="stable")]
    batches = [window[i : i + size] for i in range(0, len(window), size)]
    for batch in random.permutation(len(batches)):
        yield batches[batch]
