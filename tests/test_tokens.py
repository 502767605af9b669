"""Batches of token ids: padded alike, each row in its turn."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.tokens import EASIEST, Tokens, easy_first, endless, in_order, tokenize

NAMES = ["input_ids", "attention_mask", "token_type_ids"]
lengths = st.lists(st.integers(1, 30), min_size=1, max_size=80)


def tokens_of(sizes: list[int]) -> Tokens:
    """Row i holds the id i + 1 in every place, and type 1 in its second half."""
    ids = tuple(np.full(size, row + 1, dtype=np.int64) for row, size in enumerate(sizes))
    types = tuple((np.arange(size) >= size / 2).astype(np.int64) for size in sizes)
    return Tokens(ids, types, 0)


def test_a_batch_is_padded_to_its_longest_row() -> None:
    batch = tokens_of([2, 4, 1]).batch([1, 2], NAMES)
    assert batch["input_ids"].tolist() == [[2, 2, 2, 2], [3, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]


def test_a_batch_may_be_padded_further_and_holds_only_the_named_inputs() -> None:
    batch = tokens_of([2, 4, 1]).batch([0], NAMES[:2], 6)
    assert {name: ids.shape for name, ids in batch.items()} == {
        "input_ids": (1, 6),
        "attention_mask": (1, 6),
    }


@given(sizes=lengths, batch=st.integers(1, 20))
def test_in_order_takes_each_row_once_and_like_lengths_together(
    sizes: list[int], batch: int
) -> None:
    batches = list(in_order(tokens_of(sizes), batch))
    rows = np.concatenate(batches)
    assert sorted(rows) == list(range(len(sizes)))
    assert all(len(part) <= batch for part in batches)
    taken = [sizes[row] for row in rows]
    assert taken == sorted(taken)


@given(sizes=lengths, batch=st.integers(1, 20), seed=st.integers(0, 99))
def test_endless_batches_are_full_and_take_no_row_twice_in_an_epoch(
    sizes: list[int], batch: int, seed: int
) -> None:
    tokens = tokens_of(sizes)
    full = min(batch, len(sizes))
    epoch = list(itertools.islice(endless(tokens, batch, seed), len(sizes) // full))
    assert all(len(part) == full for part in epoch)
    rows = np.concatenate(epoch)
    assert len(set(rows.tolist())) == len(rows)


@given(sizes=lengths, seed=st.integers(0, 99))
def test_endless_comes_to_every_row_the_longest_too(sizes: list[int], seed: int) -> None:
    seen: set[int] = set()
    for rows in itertools.islice(endless(tokens_of(sizes), 16, seed), 200):
        seen |= set(rows.tolist())
    assert seen == set(range(len(sizes)))


def test_the_seed_decides_the_batches() -> None:
    tokens = tokens_of([3, 1, 4, 1, 5, 9, 2, 6] * 4)
    first, again, other = (
        np.concatenate(list(itertools.islice(endless(tokens, 4, seed), 12))).tolist()
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_rows_of_like_lengths_stand_together() -> None:
    random = np.random.default_rng(0)
    tokens = tokens_of(random.integers(1, 100, 512).tolist())
    batches = list(itertools.islice(endless(tokens, 8, 0), 64))
    padded = sum(8 * tokens.lengths[rows].max() for rows in batches)
    needed = sum(tokens.lengths[rows].sum() for rows in batches)
    assert padded < 1.2 * needed  # in random order it would be 1.8 times


@given(sizes=lengths, batch=st.integers(1, 20), seed=st.integers(0, 9), grown=st.integers(1, 40))
def test_easy_rows_are_drawn_first_and_harder_ones_join_them(
    sizes: list[int], batch: int, seed: int, grown: int
) -> None:
    tokens, rows = tokens_of(sizes), len(sizes)
    difficulty = np.random.default_rng(seed).permutation(rows).astype(np.float64)
    drawn = list(itertools.islice(easy_first(tokens, batch, seed, difficulty, grown), grown))
    full = min(batch, rows)
    for number, part in enumerate(drawn):
        assert len(set(part.tolist())) == full
        share = EASIEST + (1 - EASIEST) * number / grown
        assert difficulty[part].max() < max(full, round(share * rows))


def test_a_pool_of_easy_rows_grows_to_all_rows_in_a_line() -> None:
    tokens, difficulty = tokens_of([5] * 900), np.arange(900)[::-1].astype(np.float64)
    batches = itertools.islice(easy_first(tokens, 4, 0, difficulty, 400), 400)
    hardest = [difficulty[rows].max() for rows in batches]
    for start, pool in ((0, 300), (100, 450), (200, 600), (300, 750)):
        found = max(hardest[start : start + 80])
        assert pool * 0.9 < found <= pool + 120


@given(sizes=lengths, seed=st.integers(0, 99))
def test_from_easy_to_hard_every_row_is_come_to(sizes: list[int], seed: int) -> None:
    difficulty = np.arange(len(sizes), dtype=np.float64)
    seen: set[int] = set()
    for rows in itertools.islice(easy_first(tokens_of(sizes), 16, seed, difficulty, 20), 220):
        seen |= set(rows.tolist())
    assert seen == set(range(len(sizes)))


@pytest.mark.parametrize("pair", [False, True])
def test_texts_are_cut_and_pairs_have_two_types(tiny_model: Path, pair: bool) -> None:
    from edgeprune.encoder import load_pretrained

    _, tokenizer = load_pretrained(str(tiny_model))
    texts = ["p0 p1 p2 p3 p4 p5 p6 p7 p8", "q0"]
    tokens = tokenize(tokenizer, texts, ["r0 r1", "r2"] if pair else None, 8)
    assert tokens.lengths.tolist() == ([8, 5] if pair else [8, 3])
    assert {int(value) for row in tokens.types for value in row} == ({0, 1} if pair else {0})
    assert tokens.pad == tokenizer.pad_token_id
    assert all(row[0] == tokenizer.cls_token_id for row in tokens.ids)


def test_no_texts_are_no_tokens(tiny_model: Path) -> None:
    from edgeprune.encoder import load_pretrained

    _, tokenizer = load_pretrained(str(tiny_model))
    assert len(tokenize(tokenizer, [], None, 8)) == 0
