"""Gates that are learnt: what they multiply and cost, and where the Lagrangian drives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import CONFIG, DENSE
from torch import nn
from torch.testing import assert_close

from edgeprune.encoder import Classifier, Encoder
from edgeprune.latency import LatencyTable
from edgeprune.learn.answers import Sample
from edgeprune.learn.fit import Schedule
from edgeprune.learn.gates import Gated, learn_gates, predicted_ms
from edgeprune.progress import SILENT
from edgeprune.shape import SubLayer
from edgeprune.tokens import Tokens

TABLE = LatencyTable({0: 0.0, 1: 1.0, 2: 1.5}, {0: 0.0, 24: 2.4}, 0.5)
SCHEDULE = Schedule(steps=60, batch=16, learning_rate=1e-3, head_learning_rate=1e-3, seed=0)


def gated(*logits: float, whole: float = 50.0, group: int = 1) -> Gated:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        gate = Gated(nn.Linear(len(logits) * group, 3), len(logits))
    with torch.no_grad():
        gate.units.copy_(torch.tensor(logits))
        gate.whole.fill_(whole)
    return gate


def test_open_gates_change_nothing_and_shut_ones_take_their_structure_away() -> None:
    gate, x = gated(50.0, -50.0, group=2).eval(), torch.randn(5, 4)
    without = torch.cat([x[:, :2], torch.zeros(5, 2)], 1)
    assert_close(gate(x), gate.matrix(without))
    assert_close(gated(50.0, 50.0, group=2).eval()(x), gate.matrix(x))


def test_a_shut_sub_layer_says_nothing_not_even_its_bias() -> None:
    assert torch.equal(gated(50.0, whole=-50.0).eval()(torch.randn(5, 1)), torch.zeros(5, 3))


def test_gates_are_drawn_in_training_as_often_open_as_their_probability_says() -> None:
    gate = gated(*[0.3] * 4_000).train()
    torch.manual_seed(0)
    drawn = gate._factors(gate.units)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    share = float((drawn > 0).float().mean())
    assert share == pytest.approx(float(gate.openness().open[0]), abs=0.03)


def test_open_gates_cost_what_the_table_says_of_the_dense_model() -> None:
    gates: dict[SubLayer, Gated] = {}
    for layer in (0, 1):
        gates[layer, "attention"] = gated(*[50.0] * 2)
        gates[layer, "ffn"] = gated(*[50.0] * 24)
    assert predicted_ms(gates, TABLE).item() == pytest.approx(TABLE.predict(DENSE))
    with torch.no_grad():
        gates[1, "ffn"].whole.fill_(-50.0)
        gates[0, "attention"].units[1] = -50.0
    assert predicted_ms(gates, TABLE).item() == pytest.approx(0.5 + 1.0 + 2.4 + 1.5)


def test_learning_comes_down_to_the_milliseconds_and_leaves_plain_matrices() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(64) % 2
    words = [np.array([2, *(5 + 15 * label + random.integers(0, 15, 5)), 3]) for label in labels]
    tokens = Tokens(tuple(words), tuple(np.zeros_like(row) for row in words), 0)
    sample = Sample("target", tokens, torch.from_numpy(labels), regression=False)
    torch.manual_seed(0)
    teacher = Classifier(Encoder(CONFIG, DENSE), {"target": 2}).eval()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    limit_ms = 0.4 * TABLE.predict(DENSE)
    model, found = learn_gates(teacher, sample, None, "none", TABLE, limit_ms, SCHEDULE, SILENT)
    spent_ms = TABLE.rest_ms
    for (_, kind), one in found.items():
        width = float(one.open.sum())
        known = TABLE.attention_ms if kind == "attention" else TABLE.ffn_ms
        spent_ms += float(np.interp(width, sorted(known), [known[w] for w in sorted(known)]))
    assert spent_ms < 1.3 * limit_ms
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], one) for name, one in teacher.state_dict().items())
