"""Couplings that are steered by gradients: what is kept of one, and whom the weights believe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train import SHORT, classes, encoder
from torch import Tensor
from torch.testing import assert_close

from edgeprune.encoder import Classifier
from edgeprune.learn.teaching import HOWS, NEUTRAL, Decompose, Meta, Teaching, steer


def parts(*numbers: float) -> list[Tensor]:
    """A gradient of two weights, of shapes [2] and [1]."""
    return [torch.tensor(numbers[:2]), torch.tensor(numbers[2:])]


def test_what_the_target_wants_too_is_kept_whole() -> None:
    assert_close(steer(parts(2.0, 0.0, 0.0), [parts(1.0, 0.0, 0.0)]), parts(2.0, 0.0, 0.0))


def test_what_the_target_does_not_want_is_dropped() -> None:
    assert_close(steer(parts(-2.0, 0.0, 0.0), [parts(1.0, 0.0, 0.0)]), parts(0.0, 0.0, 0.0))


def test_half_is_kept_of_what_is_nothing_to_the_target() -> None:
    assert_close(steer(parts(0.0, 3.0, 1.0), [parts(1.0, 0.0, 0.0)]), parts(0.0, 1.5, 0.5))


def test_directions_of_the_span_are_taken_one_by_one() -> None:
    """Along the first the tasks agree, along the second they do not, the third is neither's."""
    chunks = [parts(3.0, 1.0, 0.0), parts(3.0, -1.0, 0.0), parts(3.0, 1.5, 0.0)]
    mean = torch.tensor([3.0, 0.5])
    steered = steer(parts(1.0, -4.0, 2.0), chunks)
    second = torch.stack([chunk[0] for chunk in chunks])
    values, vectors = torch.linalg.eigh(second.T @ second)
    expected = torch.zeros(2)
    for vector in vectors.T:
        along = vector @ torch.tensor([1.0, -4.0])
        expected += along * vector if along * (vector @ mean) > 0 else 0 * vector
    assert values.min() > 0
    assert_close(steered[0], expected, atol=1e-5, rtol=1e-5)
    assert_close(steered[1], torch.tensor([2.0 * NEUTRAL]))


def test_chunks_without_a_gradient_leave_half_of_everything() -> None:
    assert_close(steer(parts(1.0, 2.0, 3.0), [parts(0.0, 0.0, 0.0)]), parts(0.5, 1.0, 1.5))


def model() -> Classifier:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Classifier(encoder(), {"target": 2, "auxiliary": 2})


def test_the_loss_that_is_told_is_the_plain_one_and_its_gradient_the_turned_one() -> None:
    auxiliary, plain = classes(60, "auxiliary"), model().eval()
    teaching = Decompose(plain, classes(60), auxiliary, "decompose", SHORT)
    found = teaching(0.0)
    again = Decompose(plain, classes(60), auxiliary, "joint", SHORT)
    for head, (_, loss) in super(Decompose, again).__call__(0.0).items():
        assert_close(found[head][1], loss)
    weights = list(plain.encoder.layers.parameters())
    turned = torch.autograd.grad(found["auxiliary"][1], weights, retain_graph=True)
    loss = super(Decompose, again).__call__(0.0)["auxiliary"][1]
    assert any(
        not torch.equal(a, b)
        for a, b in zip(turned, torch.autograd.grad(loss, weights), strict=True)
    )


def test_held_rows_are_not_trained_on() -> None:
    target = classes(60)
    meta = Meta(model(), target, classes(60, "auxiliary"), "meta", SHORT)
    assert (len(meta.target), len(meta.held)) == (54, 6)
    rows = [tuple(ids) for one in (meta.target, meta.held) for ids in one.tokens.ids]
    assert sorted(rows) == sorted(tuple(ids) for ids in target.tokens.ids)


@pytest.mark.parametrize("how", ["joint", "sequential", "meta", "decompose"])
def test_the_target_s_easy_rows_are_drawn_first_until_half_of_its_own_steps(how: str) -> None:
    """One after the other, the target has only half of the steps, and half of those to grow in."""
    target = replace(classes(900), difficulty=np.arange(900, dtype=np.float64)[::-1])
    schedule = replace(SHORT, steps=400, batch=8)
    kind = HOWS.get(how, Teaching)
    teaching = kind(model(), target, classes(900, "auxiliary"), how, schedule)
    difficulty = teaching.target.difficulty
    assert difficulty is not None
    own = 200 if how == "sequential" else 400
    hardest = []
    for _ in range(own):
        rows, _, _ = next(teaching.draws["target"])
        hardest.append(difficulty[rows].max())
    assert max(hardest[:8]) < 0.4 * 900
    assert 0.6 * 900 < max(hardest[own // 4 : own // 4 + 16]) < 0.8 * 900
    assert max(hardest[own // 2 :]) > 0.97 * 900
    others = [teaching.draws[name]._sample for name in teaching.draws if name != "target"]
    assert all(sample.difficulty is None for sample in others)


@pytest.mark.parametrize("turned", [False, True])
def test_a_task_that_says_the_opposite_loses_weight(turned: bool) -> None:
    target = classes(300)
    target = replace(target, targets=torch.zeros_like(target.targets))  # one way to go
    labels = 1 - target.targets if turned else target.targets
    auxiliary = replace(target, head="auxiliary", targets=labels)
    taught = model()
    with torch.no_grad():  # one head for both: the same answer helps one and harms the other
        taught.heads["auxiliary"] = taught.heads["target"]
    meta = Meta(taught, target, auxiliary, "meta", SHORT)
    for step in range(40):
        meta(0.8 * step / 40)
    weight = meta.weight(0.5)
    assert weight < 0.4 if turned else np.isclose(weight, 0.5, atol=0.15)
    assert meta.weight(0.9) == 0.0
    meta.done(taught)
    assert "coupling" not in taught.state_dict()
