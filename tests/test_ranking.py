"""The proxy that picks an auxiliary task: what it says of answers that help, and of others."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeprune.stages.ranking import answers_of, least_interference, neighbours_score
from edgeprune.task import Rows, Task

Kind = Literal["classification", "regression"]


def task(targets: NDArray[Any], kind: Kind = "classification") -> Task:
    rows = Rows(tuple(f"text {i}" for i in range(len(targets))), None, targets)
    labels = ("a", "b") if kind == "classification" else ()
    metric = "accuracy" if labels else "spearman"
    return Task("some", kind, rows, rows, rows, labels, metric, (), "digest")


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_answers_that_tell_the_target_apart_promise_more_than_noise(kind: Kind) -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=200)
    targets = (scores > 0).astype(int) if kind == "classification" else scores
    target = task(targets, kind)
    telling = scores[:, None] + 0.1 * random.normal(size=(200, 1))
    noise = random.normal(size=(200, 1))
    good = neighbours_score(target, telling, target.train)
    bad = neighbours_score(target, noise, target.train)
    assert good > 0.9
    assert bad < 0.65


def test_a_row_is_not_its_own_neighbour() -> None:
    targets = np.array([0, 1] * 20)
    alone = np.arange(40.0)[:, None]  # next to each lie two of the other class
    assert neighbours_score(task(targets), alone, task(targets).train) < 0.5


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_what_a_candidate_teaches_is_asked_of_the_target_s_features(kind: Kind) -> None:
    random = np.random.default_rng(1)
    known, asked = random.normal(size=(300, 8)), random.normal(size=(50, 8))
    told = known[:, 0] - known[:, 1]
    targets = (told > 0).astype(int) if kind == "classification" else told
    candidate = task(targets, kind)
    (answers,) = answers_of(candidate, known, candidate.train, [asked])
    assert answers.shape == (50, 1)
    assert np.corrcoef(answers[:, 0], asked[:, 0] - asked[:, 1])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("promises", "order"),
    [
        ([[1.0, 0.5, 0.9], [0.5, 1.0, 0.6]], (1, 0)),  # as much of each other; the target decides
        ([[1.0, 0.9, 0.6], [0.1, 1.0, 0.5]], (0, 1)),  # what is lost at the target is gained before
        ([[1, 0.1, 0.7, 0], [0.8, 1, 0.1, 0], [0.1, 0.1, 1, 0.9]], (1, 0, 2)),
    ],
)
def test_each_task_promises_most_for_the_next(
    promises: list[list[float]], order: tuple[int, ...]
) -> None:
    assert least_interference(np.array(promises)) == order
