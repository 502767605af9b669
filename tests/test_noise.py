"""Rows made up for a student to imitate its teacher on."""

from __future__ import annotations

import numpy as np

from edgeprune.learn.noise import REPLACED, Noise
from edgeprune.tokens import Tokens

PAD, START, END = 0, 2, 3


def tokens(*rows: list[int], special: tuple[int, ...] = (PAD, START, END)) -> Tokens:
    ids = tuple(np.array(row) for row in rows)
    return Tokens(ids, tuple(np.zeros_like(row) for row in ids), PAD, special)


def test_some_tokens_are_replaced_as_often_as_words_come_in_the_task() -> None:
    noise = Noise(tokens([START, 7, 7, 7, 8, END]))
    ids = np.full((100, 100), 9)
    noised = noise(ids, np.random.default_rng(0))
    assert set(np.unique(noised)) == {7, 8, 9}
    assert abs((noised != 9).mean() - REPLACED) < 0.02
    assert abs((noised == 7).sum() / (noised == 8).sum() - 3) < 0.4
    assert (ids == 9).all()  # in a copy


def test_special_tokens_stay_where_they_are() -> None:
    ids = np.array([[START, 7, 8, END, PAD, PAD]] * 200)
    noised = Noise(tokens([START, 5, END]))(ids, np.random.default_rng(0))
    assert (noised[:, [0, 3, 4, 5]] == ids[:, [0, 3, 4, 5]]).all()
    assert set(np.unique(noised[:, 1:3])) == {5, 7, 8}


def test_the_same_seed_makes_the_same_noise() -> None:
    noise, ids = Noise(tokens([START, 5, 6, END])), np.full((4, 9), 8)
    one, same, other = (noise(ids, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_rows_without_a_word_stay_as_they_are() -> None:
    ids = np.array([[START, END, PAD]])
    assert (Noise(tokens([START, END]))(ids, np.random.default_rng(0)) == ids).all()
