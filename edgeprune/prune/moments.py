"""Second moments of a model at work: what the methods that look at data compute from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.encoder import Classifier
from edgeprune.prune.structures import Matrices, sub_layers
from edgeprune.shape import SubLayer

POOLING_TOKENS = 4  # tau_0 in tokens per input of the sub-layer's output matrix

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Moments:
    """Second moments of one sub-layer on one task's text."""

    inputs: Tensor  # [inputs + 1, inputs + 1], over tokens, of the output matrix's input and a 1
    gradients: Tensor  # [hidden, hidden], of the loss by the sub-layer's output
    masks: Tensor  # [width, width], over rows, of the loss by a factor on each head or FFN unit
    tokens: int


def collect_moments(model: Classifier, batches: Iterable[Inputs]) -> dict[SubLayer, Moments]:
    """Run the batches through the model and sum what the methods need, in one pass.

    The gradients are of labels sampled from the model's own predictions, which makes their second
    moment the Fisher information rather than the empirical one, and needs no labels.
    """
    model.eval()
    sums = {key: _Sum(matrices) for key, matrices in sub_layers(model).items()}
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
        (1 - rho) * target.masks + rho * auxiliary.masks,
        target.tokens + auxiliary.tokens,
    )


class _Sum:
    """The moments of one sub-layer, as the batches come."""

    def __init__(self, matrices: Matrices) -> None:
        self.linear, self.group = matrices.output, matrices.group
        inputs, outputs = self.linear.in_features, self.linear.out_features
        device = self.linear.weight.device
        self.inputs = torch.zeros(inputs + 1, inputs + 1, device=device)
        self.gradients = torch.zeros(outputs, outputs, device=device)
        self.masks = torch.zeros(matrices.width, matrices.width, device=device)
        self.tokens = 0
        self.mask = torch.empty(0)

    def hooks(self) -> list[torch.utils.hooks.RemovableHandle]:
        return [self.linear.register_forward_hook(self._forward)]

    def _forward(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        x = inputs[0].detach()
        tokens = x[self.mask]
        tokens = torch.cat([tokens, tokens.new_ones(len(tokens), 1)], dim=1)
        self.inputs += tokens.T @ tokens
        self.tokens += len(tokens)
        output.register_hook(lambda gradient: self._backward(x, gradient))

    def _backward(self, x: Tensor, gradient: Tensor) -> None:
        tokens = gradient[self.mask]
        self.gradients += tokens.T @ tokens
        by_input = x * (gradient @ self.linear.weight.detach()) * self.mask[:, :, None]
        by_mask = by_input.sum(1).unflatten(1, (-1, self.group)).sum(2)  # [rows, structures]
        self.masks += by_mask.T @ by_mask

    def moments(self, rows: int) -> Moments:
        # A row's loss is the sum over its tokens, so gradients are averaged over rows.
        return Moments(
            self.inputs.cpu() / self.tokens,
            self.gradients.cpu() / rows,
            self.masks.cpu() / rows,
            self.tokens,
        )


def _sampled_loss(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Summed over rows: of labels drawn from the predictions; of Gaussian noise for scores."""
    if logits.shape[1] == 1:
        noise = torch.randn(logits.shape, generator=generator).to(logits.device)
        return (noise * logits).sum()
    predictions = torch.softmax(logits.detach(), dim=-1).cpu()
    labels = torch.multinomial(predictions, 1, generator=generator)[:, 0].to(logits.device)
    return nn.functional.cross_entropy(logits, labels, reduction="sum")
