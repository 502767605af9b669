"""Error curves against what they claim to be: exact least squares, and the Fisher information."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import BertConfig

from edgeprune.encoder import Classifier, Encoder, adopt
from edgeprune.prune.baselines import magnitude, random, whole
from edgeprune.prune.curves import Curves, Options, Price, error_curves
from edgeprune.prune.fisher import fisher
from edgeprune.prune.learnt import by_gates
from edgeprune.prune.moments import POOLING_TOKENS, Moments, collect_moments, pool
from edgeprune.prune.obs import DAMPING, FISHER_DAMPING, obs
from edgeprune.prune.structures import Matrices, ffn_grid, sub_layers, widths_of
from edgeprune.shape import LayerShape, SubLayer
from edgeprune.testing import random_batch, random_model

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=16,
)
Floats = NDArray[np.float64]


def linear(inputs: int, outputs: int, seed: int = 0) -> nn.Linear:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Linear(inputs, outputs)


def moments_of(x: Floats, gradients: Floats) -> Moments:
    """As they are collected: of the inputs and a constant 1, over tokens."""
    x = np.hstack([x, np.ones((len(x), 1))])
    second = torch.from_numpy(x.T @ x / len(x)).float()
    return Moments(second, torch.from_numpy(gradients).float(), torch.empty(0), len(x))


def prune_matrix(matrix: nn.Linear, moments: Moments, group: int, grid: Iterable[int]) -> Options:
    return obs(Matrices((), matrix, group), moments, list(grid))


def correlated(tokens: int, width: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    mixed: Floats = random.normal(size=(tokens, width)) @ random.normal(size=(width, width))
    return mixed + random.normal(size=width)


def least_squares(
    matrix: nn.Linear, moments: Moments, inputs: list[int]
) -> tuple[Floats, Floats, Floats]:
    """The dense matrix refitted on `inputs` and the constant: weight, bias, what is left of W.

    The ridge of the error curves is written as rows of data, so that numpy's own least squares
    can do the work.
    """
    second = moments.inputs.double().numpy()
    width = len(second) - 1
    ridge = np.diag([DAMPING * second.diagonal()[:-1].mean()] * width + [0.0])
    root = np.linalg.cholesky(second + ridge).T  # rows of data with these second moments
    dense = np.hstack([matrix.weight.detach().double(), matrix.bias.detach().double()[:, None]])
    kept = [*inputs, width]
    found = np.linalg.lstsq(root[:, kept], root @ dense.T, rcond=None)[0]
    left = root @ dense.T - root[:, kept] @ found
    return found[:-1].T, found[-1], left


def inputs_of(kept: Tensor, group: int) -> list[int]:
    return [int(g) * group + i for g in kept for i in range(group)]


@pytest.mark.parametrize("group", [1, 4])
def test_what_is_kept_is_refitted_by_least_squares(group: int) -> None:
    matrix = linear(16, 6)
    moments = moments_of(correlated(200, 16), np.eye(6))
    options = prune_matrix(matrix, moments, group, range(16 // group + 1))
    for width, option in options.items():
        weight, bias, _ = least_squares(matrix, moments, inputs_of(option.kept, group))
        assert option.weight.shape == (6, width * group)
        np.testing.assert_allclose(option.weight, weight, atol=1e-5)
        np.testing.assert_allclose(option.bias, bias, atol=1e-5)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("tokens", [200, 12])  # fewer tokens than inputs, too
def test_the_summed_error_is_that_of_the_refit(group: int, tokens: int) -> None:
    matrix = linear(16, 6)
    moments = moments_of(correlated(tokens, 16), np.eye(6))
    for option in prune_matrix(matrix, moments, group, range(16 // group + 1)).values():
        _, _, left = least_squares(matrix, moments, inputs_of(option.kept, group))
        # Gradients of unit second moment are damped like all others.
        expected = (1 + FISHER_DAMPING) * float(np.square(left).sum())
        assert option.error == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_error_is_weighed_by_the_gradients() -> None:
    random = np.random.default_rng(1)
    gradients = random.normal(size=(20, 6))
    second = gradients.T @ gradients
    matrix, moments = linear(16, 6), moments_of(correlated(200, 16), second)
    damped = second + FISHER_DAMPING * second.diagonal().mean() * np.eye(6)
    for option in prune_matrix(matrix, moments, 1, [12, 8, 4, 0]).values():
        _, _, left = least_squares(matrix, moments, inputs_of(option.kept, 1))
        expected = float(np.einsum("ti,ij,tj->", left, damped, left))
        assert option.error == pytest.approx(expected, rel=1e-3, abs=1e-5)


@given(seed=st.integers(0, 10_000), group=st.sampled_from([1, 2]))
@settings(max_examples=20)
def test_errors_grow_as_widths_shrink(seed: int, group: int) -> None:
    random = np.random.default_rng(seed)
    moments = moments_of(correlated(30, 12, seed), np.diag(random.uniform(0, 1, 5)))
    options = prune_matrix(linear(12, 5, seed), moments, group, range(12 // group + 1))
    errors = [options[width].error for width in sorted(options, reverse=True)]
    assert errors[0] == 0.0
    assert all(a <= b for a, b in itertools.pairwise(errors))


def test_the_dense_width_is_the_matrix_itself() -> None:
    matrix = linear(16, 6)
    dense = prune_matrix(matrix, moments_of(correlated(50, 16), np.eye(6)), 4, [4, 2])[4]
    assert torch.equal(dense.weight, matrix.weight)
    assert torch.equal(dense.bias, matrix.bias)
    assert dense.kept.tolist() == [0, 1, 2, 3]


def test_options_are_nested_and_in_the_old_order() -> None:
    moments = moments_of(correlated(200, 16), np.eye(6))
    options = prune_matrix(linear(16, 6), moments, 1, range(17))
    for width in range(16):
        kept = options[width].kept.tolist()
        assert kept == sorted(kept)
        assert set(kept) < set(options[width + 1].kept.tolist())


def test_an_input_that_others_can_stand_in_for_goes_first() -> None:
    x = np.random.default_rng(0).normal(size=(500, 8))
    x[:, 5] = x[:, 1] + x[:, 2]
    kept = prune_matrix(linear(8, 4), moments_of(x, np.eye(4)), 1, [7])[7].kept.tolist()
    assert set(range(8)) - set(kept) <= {1, 2, 5}


def test_a_constant_input_costs_nothing_as_the_bias_takes_it_over() -> None:
    x = np.random.default_rng(0).normal(size=(500, 8))
    x[:, 3] = 2.0
    matrix = linear(8, 4)
    option = prune_matrix(matrix, moments_of(x, np.eye(4)), 1, [7])[7]
    assert 3 not in option.kept.tolist()
    expected = matrix.bias + 2.0 * matrix.weight[:, 3]
    assert_close(option.bias, expected.detach(), atol=0.05, rtol=0)


def test_an_empty_sub_layer_is_left_its_mean_output() -> None:
    x = correlated(300, 8)
    matrix = linear(8, 4)
    option = prune_matrix(matrix, moments_of(x, np.eye(4)), 1, [0])[0]
    mean = matrix(torch.from_numpy(x.mean(0)).float())
    assert_close(option.bias, mean.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_greedy_choice_is_among_the_best_of_all(seed: int) -> None:
    matrix = linear(10, 4, seed)
    moments = moments_of(correlated(300, 10, seed), np.eye(4))
    kept = prune_matrix(matrix, moments, 1, [5])[5].kept.tolist()
    losses = {
        inputs: float(np.square(least_squares(matrix, moments, list(inputs))[2]).sum())
        for inputs in itertools.combinations(range(10), 5)
    }
    worse = [loss for loss in losses.values() if loss > losses[tuple(kept)]]
    assert len(worse) > 0.9 * len(losses)


# --- moments -----------------------------------------------------------------------------------


def model_of(outputs: int = 3) -> Classifier:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Classifier(adopt(random_model(CONFIG)), {"target": outputs}).eval()


Traced = dict[SubLayer, list[Tensor]]


def traced(model: Classifier, inputs: dict[str, Tensor]) -> tuple[Tensor, Traced, Traced]:
    """Logits, and what goes into and comes out of every output matrix."""
    ins: Traced = {key: [] for key in sub_layers(model)}
    outs: Traced = {key: [] for key in sub_layers(model)}
    hooks = []
    for key, matrices in sub_layers(model).items():

        def keep(_: nn.Module, i: Any, o: Tensor, key: SubLayer = key) -> None:
            ins[key].append(i[0])
            outs[key].append(o)

        hooks.append(matrices.output.register_forward_hook(keep))
    logits, _ = model(inputs)
    for hook in hooks:
        hook.remove()
    return logits, ins, outs


def rows_of(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Each row alone, without its padding."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    return [
        {name: ids[row : row + 1, :length] for name, ids in inputs.items()}
        for row, length in enumerate(lengths)
    ]


def test_input_moments_are_those_of_every_token_and_no_padding() -> None:
    model = model_of()
    batches = [random_batch(CONFIG, (9, 4, 1)), random_batch(CONFIG, (6,))]
    collected = collect_moments(model, batches)
    for key, matrices in sub_layers(model).items():
        rows = [row for batch in batches for row in rows_of(batch)]
        x = torch.cat([traced(model, row)[1][key][0][0] for row in rows]).detach()
        x = torch.cat([x, torch.ones(len(x), 1)], 1)
        assert collected[key].tokens == len(x) == 20
        assert collected[key].inputs.shape == (matrices.output.in_features + 1,) * 2
        assert_close(collected[key].inputs, x.T @ x / len(x), atol=1e-4, rtol=1e-4)


def information(model: Classifier, row: dict[str, Tensor], key: SubLayer) -> Tensor:
    """sum over labels y of p(y) times the outer product of each token's gradient of -log p(y)."""
    logits, _, outs = traced(model, row)
    total = torch.zeros(outs[key][0].shape[-1], outs[key][0].shape[-1])
    for label, probability in enumerate(logits[0].softmax(0).tolist()):
        loss = nn.functional.cross_entropy(logits, torch.tensor([label]))
        gradient = torch.autograd.grad(loss, outs[key][0], retain_graph=True)[0][0]
        total += probability * gradient.T @ gradient
    return total


def noise_fisher(model: Classifier, row: dict[str, Tensor], key: SubLayer) -> Tensor:
    """Of a score with Gaussian noise of variance 1: the gradient of the score itself."""
    logits, _, outs = traced(model, row)
    gradient = torch.autograd.grad(logits[0, 0], outs[key][0])[0][0]
    return gradient.T @ gradient


@pytest.mark.parametrize("outputs", [3, 1])
def test_gradient_moments_estimate_the_fisher_information(outputs: int) -> None:
    model = model_of(outputs)
    inputs = random_batch(CONFIG, (9, 4, 1))
    often = {name: ids.repeat(2_000, 1) for name, ids in inputs.items()}  # labels are sampled
    collected = collect_moments(model, [often])
    exact = noise_fisher if outputs == 1 else information
    for key in sub_layers(model):
        wanted = torch.stack([exact(model, row, key) for row in rows_of(inputs)]).mean(0)
        found = collected[key].gradients
        assert (found - wanted).norm() < 0.05 * wanted.norm()


def test_collecting_leaves_the_model_as_it_was() -> None:
    model = model_of().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    collect_moments(model, [random_batch(CONFIG, (5, 2))])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_same_text_gives_the_same_moments() -> None:
    model, batches = model_of(), [random_batch(CONFIG, (9, 4))]
    first, second = collect_moments(model, batches), collect_moments(model, batches)
    for key in first:
        assert torch.equal(first[key].gradients, second[key].gradients)


@pytest.mark.parametrize("tokens", [10, 1_000, 1_000_000])
def test_pooling_leans_on_the_auxiliary_task_when_target_tokens_are_few(tokens: int) -> None:
    width = 9
    target = Moments(torch.zeros(width, width), torch.zeros(4, 4), torch.zeros(2, 2), tokens)
    auxiliary = Moments(torch.ones(width, width), torch.ones(4, 4), torch.ones(2, 2), 500)
    pooled = pool(target, auxiliary)
    tau = POOLING_TOKENS * width
    rho = tau / (tau + tokens)
    assert_close(pooled.inputs, torch.full((width, width), rho))
    assert_close(pooled.gradients, torch.full((4, 4), rho))
    assert_close(pooled.masks, torch.full((2, 2), rho))
    assert pooled.tokens == tokens + 500


def test_nothing_to_pool_with_changes_nothing() -> None:
    target = Moments(torch.eye(3), torch.eye(2), torch.eye(1), 7)
    assert pool(target, None) is target


def test_mask_moments_are_of_the_loss_by_a_factor_on_each_structure() -> None:
    model = model_of(outputs=1)  # its loss is noise times the score: no labels to be drawn
    inputs = random_batch(CONFIG, (9, 4, 1))
    often = {name: ids.repeat(2_000, 1) for name, ids in inputs.items()}
    collected = collect_moments(model, [often])
    for key, matrices in sub_layers(model).items():
        wanted = torch.zeros(matrices.width, matrices.width)
        for row in rows_of(inputs):
            factors = torch.ones(matrices.width, requires_grad=True)

            def scale(_: nn.Module, x: tuple[Tensor], f: Tensor = factors) -> tuple[Tensor]:
                return (x[0] * f.repeat_interleave(x[0].shape[-1] // len(f)),)

            hook = matrices.output.register_forward_pre_hook(scale)
            gradient = torch.autograd.grad(model(row)[0][0, 0], factors)[0]
            hook.remove()
            wanted += torch.outer(gradient, gradient) / 3
        assert (collected[key].masks - wanted).norm() < 0.05 * wanted.norm()


# --- other methods ------------------------------------------------------------------------------


def matrices_of(width: int = 8, group: int = 1, seed: int = 0) -> Matrices:
    inputs = linear(6, width * group, seed)
    return Matrices((inputs,), linear(width * group, 5, seed + 1), group)


def text_of(matrices: Matrices, seed: int = 0) -> Moments:
    moments = moments_of(correlated(300, matrices.output.in_features, seed), np.eye(5))
    masks = np.random.default_rng(seed).normal(size=(40, matrices.width))
    return replace(moments, masks=torch.from_numpy(masks.T @ masks / 40))


PRICES = (obs, fisher, magnitude, random, whole)


@pytest.mark.parametrize("price", PRICES)
@pytest.mark.parametrize("group", [1, 2])
def test_every_method_prices_from_the_dense_matrix_to_nothing(price: Price, group: int) -> None:
    matrices = matrices_of(group=group)
    options = price(matrices, text_of(matrices), range(9))
    assert {0, 8} <= set(options)
    assert_close(options[8].weight, matrices.output.weight.detach(), atol=1e-5, rtol=1e-5)
    errors = [options[width].error for width in sorted(options, reverse=True)]
    assert errors[0] == 0
    assert all(a <= b for a, b in itertools.pairwise(errors))
    for width, option in options.items():
        assert option.kept.tolist() == sorted(set(option.kept.tolist()))
        assert option.weight.shape == (5, width * group)
        assert len(option.kept) == width


def test_fisher_keeps_what_the_loss_would_miss() -> None:
    matrices = matrices_of(width=4)
    masks = torch.diag(torch.tensor([3.0, 1.0, 2.0, 4.0]))
    options = fisher(matrices, replace(text_of(matrices), masks=masks), range(5))
    assert options[2].kept.tolist() == [0, 3]
    assert [options[w].error for w in (4, 3, 2, 1, 0)] == [0, 1, 3, 6, 10]


def test_fisher_does_not_lose_both_of_two_that_do_the_same() -> None:
    """Each alone is cheap, as the other is there; the two together are dear."""
    matrices = matrices_of(width=3)
    masks = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.5]])
    options = fisher(matrices, replace(text_of(matrices), masks=masks), range(4))
    assert 2 not in options[1].kept.tolist()
    assert options[1].error == pytest.approx(2.5)


@pytest.mark.parametrize("group", [1, 2])
def test_fisher_scales_what_is_left_by_least_squares(group: int) -> None:
    matrices = matrices_of(group=group)
    x = correlated(300, matrices.output.in_features)
    option = fisher(matrices, text_of(matrices), [5])[5]
    weight = matrices.output.weight.detach().double().numpy()
    parts = (x[:, None, :] * weight).reshape(len(x), 5, 8, group).sum(-1)  # [tokens, 5, structures]
    kept = parts[:, :, option.kept.numpy()].reshape(-1, 5)
    factors = np.linalg.lstsq(kept, parts.sum(-1).reshape(-1), rcond=None)[0]
    columns = (option.kept[:, None] * group + torch.arange(group)).flatten()
    expected = weight[:, columns.numpy()] * factors.repeat(group)
    np.testing.assert_allclose(option.weight, expected, rtol=0.1, atol=0.02)


def test_magnitude_looks_at_both_sides_of_a_structure() -> None:
    matrices = matrices_of(width=3)
    with torch.no_grad():
        for one in (*matrices.inputs, matrices.output):
            one.weight.fill_(0.1)
        matrices.inputs[0].weight[0] = 5.0
        matrices.output.weight[:, 1] = 3.0
    assert magnitude(matrices, text_of(matrices), [2])[2].kept.tolist() == [0, 1]


def test_chance_follows_the_seed() -> None:
    matrices = matrices_of(width=8)
    kept = []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            kept.append(random(matrices, text_of(matrices), [4])[4].kept.tolist())
    assert kept[0] == kept[1] != kept[2]


def test_the_most_open_gates_stay_and_scale_their_part() -> None:
    matrices = matrices_of(width=3, group=2)
    opened, factors = torch.tensor([0.9, 0.1, 0.5]), torch.tensor([1.0, 0.0, 0.5])
    option = by_gates(matrices, opened, factors, 0.8, [2])[2]
    assert option.kept.tolist() == [0, 2]
    assert option.error == pytest.approx(0.1)
    weight = matrices.output.weight.detach()
    assert_close(option.weight, torch.cat([weight[:, :2], 0.5 * weight[:, 4:]], 1))
    assert_close(option.bias, 0.8 * matrices.output.bias.detach())


# --- curves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 7, 24, 64, 1536, 3072])
def test_the_grid_of_widths_goes_from_nothing_to_all(width: int) -> None:
    grid = ffn_grid(width)
    assert (grid[0], grid[-1]) == (0, width)
    assert grid == sorted(set(grid))
    assert len(grid) <= 19


def test_every_sub_layer_has_a_curve_and_it_is_read_back_as_saved(tmp_path: Path) -> None:
    model = model_of()
    told: list[tuple[int, int]] = []
    moments = collect_moments(model, [random_batch(CONFIG, (9, 7, 5))])
    curves = error_curves(model, moments, obs, lambda done, total: told.append((done, total)))
    assert set(curves.options) == set(widths_of(model.encoder.shape))
    assert sorted(curves.options[0, "attention"]) == [0, 1, 2, 3, 4]
    assert sorted(curves.options[1, "ffn"]) == ffn_grid(24)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    curves.save(tmp_path / "curves.safetensors")
    again = Curves.read(tmp_path / "curves.safetensors")
    assert again.errors() == curves.errors()
    assert list(again.options) == list(curves.options)
    for key, options in curves.options.items():
        for width, option in options.items():
            read = again.options[key][width]
            assert torch.equal(read.weight, option.weight)
            assert torch.equal(read.bias, option.bias)
            assert torch.equal(read.kept, option.kept)


def test_a_model_pruned_before_has_curves_of_what_is_left() -> None:
    dense = model_of().encoder.shape
    layers = [LayerShape(2, 0), LayerShape(0, 8)]
    model = Classifier(Encoder(CONFIG, dense.with_layers(layers)), {"target": 2}).eval()
    curves = error_curves(model, collect_moments(model, [random_batch(CONFIG, (9, 7))]), obs)
    assert set(curves.options) == {(0, "attention"), (1, "ffn")}
    assert max(curves.options[0, "attention"]) == 2
    assert max(curves.options[1, "ffn"]) == 8
