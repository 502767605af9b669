"""Heads that start where a linear probe of the encoder ends."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CONFIG, DENSE

from edgeprune.encoder import Classifier, Encoder
from edgeprune.learn import probe
from edgeprune.learn.answers import Sample, accelerator, features, gold_loss, predict
from edgeprune.learn.masking import Blanks
from edgeprune.learn.probe import start_head
from edgeprune.tokens import Tokens


def model(outputs: int) -> Classifier:
    torch.manual_seed(0)
    encoder = Encoder(CONFIG, DENSE)
    return Classifier(encoder, {"target": outputs}).to(accelerator().device)


def sample(labels: list[int], words: list[int] | None = None) -> Sample:
    """Rows of one word each, said three times; by default the word is the label's own."""
    words = [5 + label for label in labels] if words is None else words
    ids = tuple(np.array([2, word, word, word, 3], dtype=np.int64) for word in words)
    tokens = Tokens(ids, tuple(np.zeros_like(row) for row in ids), 0)
    return Sample("target", tokens, torch.tensor(labels), regression=False)


def test_a_head_starts_with_what_the_encoder_knows_already() -> None:
    rows = sample([0, 1, 2] * 20)
    classifier = model(3)
    start_head(classifier, rows, seed=0)
    logits = predict(classifier, rows)
    assert (logits.argmax(1) == rows.targets).all()
    # And leaves the encoder something to learn.
    assert float(gold_loss(logits, rows.targets, regression=False)) > 0.1


def test_where_features_tell_nothing_it_starts_with_how_frequent_classes_are() -> None:
    rows = sample([0] * 30 + [1] * 10, words=[7] * 40)
    classifier = model(2)
    start_head(classifier, rows, seed=0)
    shares = torch.softmax(predict(classifier, rows)[0], 0)
    assert shares.tolist() == pytest.approx([0.75, 0.25], abs=0.01)


def test_a_class_without_a_row_gets_next_to_no_chance() -> None:
    rows = sample([0, 1] * 20)
    classifier = model(3)
    start_head(classifier, rows, seed=0)
    assert float(torch.softmax(predict(classifier, rows), 1)[:, 2].max()) < 0.01


def test_scores_start_at_their_mean_whatever_the_text() -> None:
    rows = replace(sample([0, 1, 2] * 4), targets=torch.tensor([1.0, 2, 6] * 4), regression=True)
    classifier = model(1)
    start_head(classifier, rows, seed=0)
    assert predict(classifier, rows)[:, 0].tolist() == pytest.approx([3.0] * 12)


def test_a_head_that_fills_blanks_is_left_as_it_is() -> None:
    rows = replace(sample([0, 1]), blanks=Blanks(mask=4, special=(0, 2, 3, 4)))
    classifier = model(16)
    before = classifier.heads["target"].state_dict()["weight"].clone()
    start_head(classifier, rows, seed=0)
    assert torch.equal(before, classifier.heads["target"].state_dict()["weight"])


def test_many_rows_are_not_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ROWS", 8)
    read: list[int] = []

    def counted(classifier: Classifier, rows: Sample) -> torch.Tensor:
        read.append(len(rows))
        return features(classifier, rows)

    monkeypatch.setattr(probe, "features", counted)
    start_head(model(2), sample([0, 1] * 20), seed=0)
    assert read == [8]


def test_it_is_the_minimum_that_the_equation_names() -> None:
    rows = sample([0, 1, 2, 2] * 10, words=[5 + i % 7 for i in range(40)])
    classifier = model(3)
    start_head(classifier, rows, seed=0)
    head, known = classifier.heads["target"], features(classifier, rows)

    def value(scale: float) -> float:
        weight = scale * head.get_parameter("weight").detach().cpu()
        logits = known @ weight.T + head.get_parameter("bias").detach().cpu()
        penalty = probe.PENALTY * float(weight.square().sum()) / (2 * len(rows) * 3)
        return float(gold_loss(logits, rows.targets, regression=False)) + penalty

    assert math.isfinite(value(1.0))
    assert value(1.0) < min(value(0.9), value(1.1))
