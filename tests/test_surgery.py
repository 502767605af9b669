"""Surgery on a tiny model: what goes, what stays, and what the family contract cannot see."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from torch.testing import assert_close
from transformers import BertConfig, ElectraConfig, PretrainedConfig

from edgeprune.encoder import FFN, Attention, Classifier, Layer, Removed, adopt
from edgeprune.prune.curves import Curves, error_curves
from edgeprune.prune.moments import collect_moments
from edgeprune.prune.obs import obs
from edgeprune.prune.surgery import mask, operate
from edgeprune.shape import LayerShape, Shape
from edgeprune.testing import random_batch, random_model

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
BERT = BertConfig(**SIZES)
NARROW = [LayerShape(3, 10), LayerShape(0, 4), LayerShape(1, 0)]

Patient = tuple[Classifier, Curves]


def patient_of(config: PretrainedConfig) -> Patient:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        heads = {"target": 2, "auxiliary": 3}
        model = Classifier(adopt(random_model(config)), heads).eval()
    text = [random_batch(config, (9, 8, 4)), random_batch(config, (6, 5))]
    return model, error_curves(model, collect_moments(model, text), obs)


@pytest.fixture(scope="module")
def patient() -> Patient:
    return patient_of(BERT)


def narrow(patient: Patient) -> tuple[Classifier, Shape]:
    model, curves = patient
    shape = model.encoder.shape.with_layers(NARROW)
    return operate(model, shape, curves), shape


def answers(model: Classifier, head: str = "target") -> torch.Tensor:
    with torch.no_grad():
        return cast(torch.Tensor, model(random_batch(BERT, (9, 4, 1)), head)[0])


def layer_of(model: Classifier, index: int) -> Layer:
    return cast(Layer, model.encoder.layers[index])


def test_what_a_plan_removes_is_gone_physically(patient: Patient) -> None:
    small, shape = narrow(patient)
    assert small.encoder.shape == shape
    assert sum(p.numel() for p in small.encoder.layers.parameters()) == shape.encoder_parameters
    first = layer_of(small, 0)
    assert cast(Attention, first.attention).query.weight.shape == (12, 16)
    assert cast(Attention, first.attention).output.weight.shape == (16, 12)
    assert cast(FFN, first.ffn).up.weight.shape == (10, 16)
    assert isinstance(layer_of(small, 1).attention, Removed)
    assert isinstance(layer_of(small, 2).ffn, Removed)


def test_the_dense_shape_is_the_model_itself(patient: Patient) -> None:
    model, curves = patient
    same = operate(model, model.encoder.shape, curves)
    for head in ("target", "auxiliary"):
        assert torch.equal(answers(same, head), answers(model, head))


def test_both_heads_and_the_embeddings_stay(patient: Patient) -> None:
    model, (small, _) = patient[0], narrow(patient)
    for part in ("encoder.embeddings", "heads"):
        ours, theirs = small.get_submodule(part), model.get_submodule(part)
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], tensor)


def test_rows_that_stay_are_those_of_the_kept_structures(patient: Patient) -> None:
    model, curves = patient
    small, _ = narrow(patient)
    kept = curves.options[0, "ffn"][10].kept
    up, dense = cast(FFN, layer_of(small, 0).ffn).up, cast(FFN, layer_of(model, 0).ffn).up
    assert torch.equal(up.weight, dense.weight[kept])
    heads = curves.options[2, "attention"][1].kept
    value = cast(Attention, layer_of(small, 2).attention).value
    of_all = cast(Attention, layer_of(model, 2).attention).value
    assert torch.equal(value.weight, of_all.weight.view(4, 4, 16)[heads[0]])


def test_the_patient_is_left_as_it_was(patient: Patient) -> None:
    model, curves = patient
    before = copy.deepcopy(model.state_dict())
    small, _ = narrow(patient)
    wanted = answers(small)
    mask(model, small.encoder.shape, curves)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # Nor do the curves share memory with what was made from them.
    assert torch.equal(answers(narrow(patient)[0]), wanted)


def test_every_weight_of_the_smaller_model_can_be_trained(patient: Patient) -> None:
    small, _ = narrow(patient)
    logits, states = small(random_batch(BERT, (9, 4)))
    (logits.sum() + small.read(states[-1], torch.ones(2, 9), "auxiliary").sum()).backward()
    untouched = [
        name
        for name, parameter in small.named_parameters()
        if not parameter.requires_grad or parameter.grad is None
    ]
    assert untouched == []


def test_a_pruned_model_can_be_pruned_again(patient: Patient) -> None:
    """In stages: the curves of what is left lead to a smaller model that matches its own twin."""
    small, shape = narrow(patient)
    curves = error_curves(small, collect_moments(small, [random_batch(BERT, (9, 8, 7))]), obs)
    fewer = shape.with_layers([LayerShape(1, 5), LayerShape(0, 2), LayerShape(0, 0)])
    twice, twin = operate(small, fewer, curves), mask(small, fewer, curves)
    assert twice.encoder.shape == fewer
    assert_close(answers(twice), answers(twin), atol=1e-5, rtol=1e-5)


def test_a_projection_after_the_embeddings_stays() -> None:
    config = ElectraConfig(**SIZES, embedding_size=8)
    model, curves = patient_of(config)
    small = operate(model, model.encoder.shape.with_layers(NARROW), curves)
    assert small.encoder.embeddings_project is not model.encoder.embeddings_project
    ours, theirs = small.encoder.embeddings_project, model.encoder.embeddings_project
    assert ours is not None and theirs is not None
    assert torch.equal(ours.weight, theirs.weight)
