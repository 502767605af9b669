"""Error curves: what each sub-layer loses when its least important heads or FFN units go.

Optimal brain surgeon on the output matrix of every sub-layer (Hassibi & Stork 1993; for
transformers Frantar & Alistarh 2022): remove the structure whose loss the others can best make up
for, and refit them by least squares in closed form. Errors are weighed by the Fisher information
of the sub-layer's output (the K-FAC approximation, Martens & Grosse 2015), so that they come in
units of the loss and can be compared between layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgeprune.encoder import FFN, Attention, Classifier, Layer
from edgeprune.shape import Shape
from edgeprune.tensors import save_tensors

Kind = Literal["attention", "ffn"]
SubLayer = tuple[int, Kind]
Inputs = Mapping[str, Tensor]

DAMPING = 0.01  # lambda, of the mean diagonal
FISHER_DAMPING = 0.1
POOLING_TOKENS = 4  # tau_0 in tokens per input of the sub-layer's output matrix


@dataclass(frozen=True)
class Moments:
    """Second moments over tokens, of one sub-layer on one task's text."""

    inputs: Tensor  # [width + 1, width + 1], of the output matrix's input and a constant 1
    gradients: Tensor  # [hidden, hidden], of the loss by the sub-layer's output
    tokens: int


@dataclass(frozen=True)
class Option:
    """A width that a sub-layer can be pruned to, with the output matrix refitted to it."""

    error: float
    kept: Tensor  # [width] int64: heads, or FFN units, in their old order
    weight: Tensor  # [hidden, inputs that stay]
    bias: Tensor  # [hidden]


@dataclass(frozen=True)
class Curves:
    """Every sub-layer's options by width; the largest width is the dense sub-layer itself."""

    options: Mapping[SubLayer, Mapping[int, Option]]

    def errors(self) -> dict[SubLayer, dict[int, float]]:
        return {
            sub_layer: {width: option.error for width, option in options.items()}
            for sub_layer, options in self.options.items()
        }

    def save(self, path: Path) -> None:
        tensors = {}
        for (layer, kind), options in self.options.items():
            for width, option in options.items():
                name = f"{layer}.{kind}.{width}"
                tensors[f"{name}.error"] = torch.tensor(option.error, dtype=torch.float64)
                tensors[f"{name}.kept"] = option.kept
                tensors[f"{name}.weight"] = option.weight.contiguous()
                tensors[f"{name}.bias"] = option.bias.contiguous()
        save_tensors(tensors, path)

    @classmethod
    def read(cls, path: Path) -> Curves:
        tensors = load_file(path)
        options: dict[SubLayer, dict[int, Option]] = {}
        for name in sorted({name.rpartition(".")[0] for name in tensors}):
            layer, kind, width = name.split(".")
            options.setdefault((int(layer), cast(Kind, kind)), {})[int(width)] = Option(
                float(tensors[f"{name}.error"]),
                tensors[f"{name}.kept"],
                tensors[f"{name}.weight"],
                tensors[f"{name}.bias"],
            )
        return cls({key: dict(sorted(value.items())) for key, value in sorted(options.items())})


def collect_moments(model: Classifier, batches: Iterable[Inputs]) -> dict[SubLayer, Moments]:
    """Run the batches through the model and sum what the error curves need, in one pass.

    The gradients are of labels sampled from the model's own predictions, which makes their second
    moment the Fisher information rather than the empirical one, and needs no labels.
    """
    model.eval()
    sums = {key: _Sum(linear) for key, linear in output_matrices(model).items()}
    hooks = [hook for total in sums.values() for hook in total.hooks()]
    rows = 0
    generator = torch.Generator().manual_seed(0)
    try:
        for inputs in batches:
            for total in sums.values():
                total.mask = inputs["attention_mask"].bool()
            logits, _ = model(inputs)
            model.zero_grad(set_to_none=True)
            _sampled_loss(logits, generator).backward()
            rows += len(logits)
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    return {key: total.moments(rows) for key, total in sums.items()}


def output_matrices(model: Classifier) -> dict[SubLayer, nn.Linear]:
    """The attention output and the FFN down projection of every layer that has them."""
    matrices: dict[SubLayer, nn.Linear] = {}
    for index, layer in enumerate(cast(Sequence[Layer], model.encoder.layers)):
        if isinstance(layer.attention, Attention):
            matrices[index, "attention"] = layer.attention.output
        if isinstance(layer.ffn, FFN):
            matrices[index, "ffn"] = layer.ffn.down
    return matrices


class _Sum:
    """Second moments of one linear layer's input and of its output's gradient, as they come."""

    def __init__(self, linear: nn.Linear) -> None:
        self.linear = linear
        device = linear.weight.device
        size = linear.in_features + 1
        self.inputs = torch.zeros(size, size, device=device)
        self.gradients = torch.zeros(linear.out_features, linear.out_features, device=device)
        self.tokens = 0
        self.mask = torch.empty(0)

    def hooks(self) -> list[torch.utils.hooks.RemovableHandle]:
        return [self.linear.register_forward_hook(self._forward)]

    def _forward(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        x = inputs[0].detach()[self.mask]
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.inputs += x.T @ x
        self.tokens += len(x)
        output.register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        gradient = gradient[self.mask]
        self.gradients += gradient.T @ gradient

    def moments(self, rows: int) -> Moments:
        # A row's loss is the sum over its tokens, so gradients are averaged over rows.
        return Moments(self.inputs.cpu() / self.tokens, self.gradients.cpu() / rows, self.tokens)


def _sampled_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Summed over rows: of labels drawn from the predictions; of Gaussian noise for scores."""
    if logits.shape[1] == 1:
        noise = torch.randn(logits.shape, generator=generator).to(logits.device)
        return (noise * logits).sum()
    predictions = torch.softmax(logits.detach(), dim=-1).cpu()
    labels = torch.multinomial(predictions, 1, generator=generator)[:, 0].to(logits.device)
    return nn.functional.cross_entropy(logits, labels, reduction="sum")


def pool(target: Moments, auxiliary: Moments | None) -> Moments:
    """H = (1 - rho) H_target + rho H_auxiliary, rho = tau / (tau + N_target).

    With few target rows H is close to singular; the statistics are what is scarce, and text of a
    related task has them.
    """
    if auxiliary is None:
        return target
    tau = POOLING_TOKENS * len(target.inputs)
    rho = tau / (tau + target.tokens)
    return Moments(
        (1 - rho) * target.inputs + rho * auxiliary.inputs,
        (1 - rho) * target.gradients + rho * auxiliary.gradients,
        target.tokens + auxiliary.tokens,
    )


def ffn_grid(width: int) -> list[int]:
    """Widths worth an option: every sixteenth, and halves of the smallest, 0 and all included."""
    return sorted({width * i // 32 for i in (0, 1, 2, 3, *range(4, 33, 2))})


def error_curves(
    model: Classifier,
    moments: Mapping[SubLayer, Moments],
    done: Callable[[int, int], None] = lambda done, total: None,
) -> Curves:
    """Each sub-layer's options, dearest structures last."""
    options = {}
    matrices = output_matrices(model)
    head_dim = model.encoder.shape.head_dim
    for index, (key, linear) in enumerate(matrices.items()):
        group = head_dim if key[1] == "attention" else 1
        width = linear.in_features // group
        grid = list(range(width + 1)) if key[1] == "attention" else ffn_grid(width)
        options[key] = prune_matrix(linear, moments[key], group, grid)
        done(index + 1, len(matrices))
    return Curves(options)


def prune_matrix(
    linear: nn.Linear, moments: Moments, group: int, grid: Sequence[int]
) -> dict[int, Option]:
    """Greedy optimal brain surgeon over groups of inputs, the refit kept at each width of `grid`.

    score(R) = tr(W_R ([H^-1]_RR)^-1 W_R^T), W weighed by the square root of the Fisher information
    W      <- W - W_R ([H^-1]_RR)^-1 [H^-1]_R,:
    H^-1   <- H^-1 - [H^-1]_:R ([H^-1]_RR)^-1 [H^-1]_R,:
    The bias is an input that is always 1 and never removed.
    """
    weight = torch.cat([linear.weight, linear.bias[:, None]], dim=1).detach().cpu().double()
    inverse = _damped_inverse(moments.inputs.double())
    root = _square_root(moments.gradients.double())
    alive = torch.arange(linear.in_features // group)
    options: dict[int, Option] = {}
    error = 0.0
    for width in sorted(grid, reverse=True):
        while len(alive) > width:
            weighed = root @ weight
            scores = _scores(weighed, inverse, len(alive), group)
            # One exact step takes several of the least important at once, the fewer the nearer
            # the end: scores age as their neighbours go.
            count = min(len(alive) - width, max(1, len(alive) // 48))
            gone = torch.topk(scores, count, largest=False).indices
            inputs = (gone[:, None] * group + torch.arange(group)).flatten()
            block = torch.linalg.inv(inverse[inputs][:, inputs])
            error += float(((weighed[:, inputs] @ block) * weighed[:, inputs]).sum())
            step = block @ inverse[inputs]
            weight = weight - weight[:, inputs] @ step
            inverse = inverse - inverse[:, inputs] @ step
            stay = torch.ones(len(inverse), dtype=torch.bool)
            stay[inputs] = False
            weight, inverse = weight[:, stay], inverse[stay][:, stay]
            survivors = torch.ones(len(alive), dtype=torch.bool)
            survivors[gone] = False
            alive = alive[survivors]
        options[width] = Option(
            error, alive.clone(), weight[:, :-1].float().clone(), weight[:, -1].float().clone()
        )
    return options


def _scores(weighed: Tensor, inverse: Tensor, groups: int, group: int) -> Tensor:
    """Loss [groups] of removing each group alone, the others refitted."""
    inputs = groups * group
    if group == 1:
        return weighed[:, :inputs].square().sum(0) / inverse.diagonal()[:inputs]
    index = torch.arange(inputs).view(groups, group)
    blocks = torch.linalg.inv(inverse[index[:, :, None], index[:, None, :]])
    columns = weighed[:, :inputs].T.view(groups, group, -1)  # [groups, group, hidden]
    return cast(Tensor, ((blocks @ columns) * columns).sum((1, 2)))


def _damped_inverse(moments: Tensor) -> Tensor:
    damping = DAMPING * float(moments.diagonal()[:-1].mean())
    ridge = torch.full((len(moments),), max(damping, 1e-9), dtype=moments.dtype)
    ridge[-1] = 0.0  # the constant input
    return cast(Tensor, torch.linalg.inv(moments + torch.diag(ridge)))


def _square_root(matrix: Tensor) -> Tensor:
    damping = FISHER_DAMPING * float(matrix.diagonal().mean())
    values, vectors = torch.linalg.eigh(matrix)
    scaled = vectors * (values.clamp(min=0) + max(damping, 1e-12)).sqrt()
    return cast(Tensor, scaled @ vectors.T)


def widths_of(shape: Shape) -> dict[SubLayer, int]:
    """The width of every sub-layer of a shape, 0 for one that is not there."""
    widths: dict[SubLayer, int] = {}
    for index, layer in enumerate(shape.layers):
        widths[index, "attention"] = layer.heads
        widths[index, "ffn"] = layer.ffn
    return widths
