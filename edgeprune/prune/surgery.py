"""Surgery: heads, FFN units and whole sub-layers removed physically, as a plan says."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from edgeprune.encoder import FFN, Attention, Classifier, Encoder, Layer, Removed
from edgeprune.prune.curves import Curves, Option
from edgeprune.prune.structures import columns_of
from edgeprune.shape import Shape


def operate(model: Classifier, shape: Shape, curves: Curves) -> Classifier:
    """A physically smaller copy of `model` in `shape`, its output matrices refitted by the curves.

    Every width of `shape` must be an option of the curves, and the curves must be of this model.
    """
    outputs = {name: cast(nn.Linear, head).out_features for name, head in model.heads.items()}
    with torch.device("meta"):
        encoder = Encoder(model.encoder.config, shape)
    small = Classifier(encoder, outputs)
    encoder.embeddings = copy.deepcopy(model.encoder.embeddings)
    encoder.embeddings_project = copy.deepcopy(model.encoder.embeddings_project)
    small.heads = copy.deepcopy(model.heads)
    layers = cast(Sequence[Layer], model.encoder.layers)
    pruned = []
    for index, layer in enumerate(layers):
        wanted = shape.layers[index]
        pruned.append(
            Layer(
                _cut_attention(layer, curves, index, wanted.heads),
                _cut_ffn(layer, curves, index, wanted.ffn),
            )
        )
    encoder.layers = nn.ModuleList(pruned)
    return small.eval()


def mask(model: Classifier, shape: Shape, curves: Curves) -> Classifier:
    """The dense twin of `operate`: as large as `model`, its removed structures multiplied by 0."""
    twin = copy.deepcopy(model)
    for (index, kind), options in curves.options.items():
        layer = cast(Sequence[Layer], twin.encoder.layers)[index]
        option = options[getattr(shape.layers[index], "heads" if kind == "attention" else "ffn")]
        if kind == "attention":
            linear = cast(Attention, layer.attention).output
            kept = columns_of(option.kept, model.encoder.shape.head_dim)
        else:
            linear, kept = cast(FFN, layer.ffn).down, option.kept
        with torch.no_grad():
            linear.weight.zero_()
            linear.weight[:, kept] = option.weight
            linear.bias.copy_(option.bias)
    return twin.eval()


def with_tokens(model: Classifier, kept: Sequence[int]) -> Classifier:
    """A copy that knows the tokens of these ids alone, ascending; their places are the new ids.

    The padding's id has to stay: RoBERTa and its kin count positions from it.
    """
    small = copy.deepcopy(model)
    encoder, new = small.encoder, {old: number for number, old in enumerate(kept)}
    fields = encoder.config.to_dict()
    for name, value in fields.items():
        if name.endswith("_token_id") and isinstance(value, int):
            fields[name] = new.get(value)
    encoder.config = type(encoder.config).from_dict(fields | {"vocab_size": len(kept)})
    encoder.shape = replace(encoder.shape, vocab=len(kept))
    words = cast(nn.Embedding, encoder.embeddings.word_embeddings)
    with torch.no_grad():
        words.weight = nn.Parameter(words.weight[list(kept)].clone(), words.weight.requires_grad)
    words.num_embeddings = len(kept)
    return small.eval()


def _cut_attention(layer: Layer, curves: Curves, index: int, heads: int) -> Attention | Removed:
    if isinstance(layer.attention, Removed):
        return copy.deepcopy(layer.attention)
    option = curves.options[index, "attention"][heads]
    if not heads:
        return _removed(layer.attention.norm, option)
    attention = copy.deepcopy(layer.attention)
    kept = columns_of(option.kept, attention.head_dim)
    attention.query = _rows(attention.query, kept)
    attention.key = _rows(attention.key, kept)
    attention.value = _rows(attention.value, kept)
    attention.output = _linear(option.weight, option.bias)
    if attention.relative_bias is not None:
        attention.relative_bias = nn.Embedding.from_pretrained(
            attention.relative_bias.weight.detach()[:, option.kept].clone(), freeze=False
        )
    return attention


def _cut_ffn(layer: Layer, curves: Curves, index: int, width: int) -> FFN | Removed:
    if isinstance(layer.ffn, Removed):
        return copy.deepcopy(layer.ffn)
    option = curves.options[index, "ffn"][width]
    if not width:
        return _removed(layer.ffn.norm, option)
    ffn = copy.deepcopy(layer.ffn)
    ffn.up = _rows(ffn.up, option.kept)
    ffn.down = _linear(option.weight, option.bias)
    return ffn


def _removed(norm: nn.LayerNorm, option: Option) -> Removed:
    removed = Removed(norm.normalized_shape[0], norm.eps)
    removed.norm = copy.deepcopy(norm)
    removed.bias = nn.Parameter(option.bias.clone())
    return removed


def _rows(linear: nn.Linear, kept: Tensor) -> nn.Linear:
    return _linear(linear.weight.detach()[kept], linear.bias.detach()[kept])


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight = nn.Parameter(weight.clone().contiguous())
    linear.bias = nn.Parameter(bias.clone())
    return linear
