"""The seam to Hugging Face encoders: one small architecture, one row per family that maps to it.

Every supported family is a post-LayerNorm encoder: x <- LN(x + Attention(x)), x <- LN(x + FFN(x)).
Its weights are taken over into modules whose widths may differ from layer to layer; only the
embeddings stay the family's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging
from transformers.activations import ACT2FN

from edgeprune.errors import ModelError
from edgeprune.model_folder import read_config
from edgeprune.shape import LayerShape, Shape
from edgeprune.tensors import save_tensors

MASKED = -1e4  # added to attention scores; within bf16's and fp16's range, unlike -inf


@dataclass(frozen=True)
class Family:
    """Where a Hugging Face model keeps what we need; paths are relative to a layer but `layers`."""

    layers: str
    query: str
    key: str
    value: str
    output: str
    attention_norm: str
    up: str
    down: str
    ffn_norm: str
    activation: str = "hidden_act"  # the config's key
    relative_bias: str | None = None  # an embedding of relative positions, one column a head


_BERT = Family(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    ffn_norm="output.LayerNorm",
)

FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,  # MiniLM too
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": Family(
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        ffn_norm="output_layer_norm",
        activation="activation",
    ),
    "mpnet": Family(
        layers="encoder.layer",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        ffn_norm="output.LayerNorm",
        relative_bias="encoder.relative_attention_bias",
    ),
}


class Attention(nn.Module):
    """LN(x + output(context)); the number of heads is the width over `head_dim`."""

    def __init__(self, hidden: int, heads: int, head_dim: int, buckets: int, eps: float) -> None:
        super().__init__()
        self.head_dim = head_dim
        width = heads * head_dim
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(hidden, width)
        self.value = nn.Linear(hidden, width)
        self.output = nn.Linear(width, hidden)
        self.relative_bias = nn.Embedding(buckets, heads) if buckets else None
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.dropout = nn.Dropout(0.0)

    @property
    def heads(self) -> int:
        return self.query.out_features // self.head_dim

    def forward(self, x: Tensor, mask: Tensor, buckets: Tensor | None) -> Tensor:
        batch, tokens, _ = x.shape
        split = (batch, tokens, self.heads, self.head_dim)
        query, key, value = (
            project(x).view(split).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) * self.head_dim**-0.5
        if self.relative_bias is not None:
            scores = scores + self.relative_bias(buckets).permute(2, 0, 1)
        context = torch.softmax(scores + mask, dim=-1) @ value  # [batch, heads, tokens, head_dim]
        context = context.transpose(1, 2).reshape(batch, tokens, self.heads * self.head_dim)
        return cast(Tensor, self.norm(x + self.dropout(self.output(context))))


class FFN(nn.Module):
    """LN(x + down(act(up(x))))."""

    def __init__(self, hidden: int, width: int, activation: str, eps: float) -> None:
        super().__init__()
        self.up = nn.Linear(hidden, width)
        self.activation = ACT2FN[activation]
        self.down = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.dropout = nn.Dropout(0.0)

    @property
    def width(self) -> int:
        return self.up.out_features

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.norm(x + self.dropout(self.down(self.activation(self.up(x))))))


class Removed(nn.Module):
    """What is left of a sub-layer that was pruned away: LN(x + bias)."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.norm = nn.LayerNorm(hidden, eps=eps)

    def forward(self, x: Tensor, *_: Tensor | None) -> Tensor:
        return cast(Tensor, self.norm(x + self.bias))


class Layer(nn.Module):
    def __init__(self, attention: Attention | Removed, ffn: FFN | Removed) -> None:
        super().__init__()
        self.attention = attention
        self.ffn = ffn

    @property
    def shape(self) -> LayerShape:
        heads = self.attention.heads if isinstance(self.attention, Attention) else 0
        return LayerShape(heads, self.ffn.width if isinstance(self.ffn, FFN) else 0)

    def forward(self, x: Tensor, mask: Tensor, buckets: Tensor | None) -> Tensor:
        return cast(Tensor, self.ffn(self.attention(x, mask, buckets)))


class Encoder(nn.Module):
    """Embeddings of a Hugging Face model under layers that may each have widths of their own."""

    def __init__(self, config: PretrainedConfig, shape: Shape) -> None:
        """With random weights, in the given shape."""
        super().__init__()
        family = family_of(config)
        self.config = config
        self.shape = shape
        bare = AutoModel.from_config(_with_layers(config, 0))
        self.embeddings = bare.embeddings
        self.embeddings_project = getattr(bare, "embeddings_project", None)  # ELECTRA's
        relative = attrgetter(family.relative_bias)(bare) if family.relative_bias else None
        buckets = relative.num_embeddings if relative else 0
        eps = float(getattr(config, "layer_norm_eps", 1e-12))
        activation = str(getattr(config, family.activation))
        self.layers = nn.ModuleList(
            Layer(
                Attention(shape.hidden, layer.heads, shape.head_dim, buckets, eps)
                if layer.heads
                else Removed(shape.hidden, eps),
                FFN(shape.hidden, layer.ffn, activation, eps)
                if layer.ffn
                else Removed(shape.hidden, eps),
            )
            for layer in shape.layers
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> list[Tensor]:
        """Hidden states [batch, tokens, hidden] of the embeddings and of every layer.

        `input_ids`, `attention_mask` (1 = token, 0 = padding), `token_type_ids`: [batch, tokens].
        """
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        x = self.embeddings(input_ids=input_ids, **types)
        if self.embeddings_project is not None:
            x = self.embeddings_project(x)
        # A mask of our own, added to the scores: Hugging Face's mask code is what most mobile
        # converters fail on.
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * MASKED
        buckets = _relative_buckets(input_ids) if self._has_relative_bias else None
        states = [x]
        for layer in self.layers:
            x = layer(x, mask, buckets)
            states.append(x)
        return states

    @property
    def _has_relative_bias(self) -> bool:
        return family_of(self.config).relative_bias is not None

    @property
    def input_names(self) -> list[str]:
        names = ["input_ids", "attention_mask"]
        return (
            [*names, "token_type_ids"] if getattr(self.config, "type_vocab_size", 0) > 1 else names
        )


class Classifier(nn.Module):
    """An encoder, mean pooling over tokens, and one linear head per task."""

    def __init__(self, encoder: Encoder, outputs: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(
            {name: nn.Linear(encoder.shape.hidden, size) for name, size in outputs.items()}
        )
        self.dropout = nn.Dropout(0.0)

    def forward(
        self, inputs: Mapping[str, Tensor], head: str = "target"
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits [batch, outputs] in fp32, and the encoder's hidden states."""
        states = self.encoder(**inputs)
        return self.read(states[-1], inputs["attention_mask"], head), states

    def read(self, states: Tensor, attention_mask: Tensor, head: str = "target") -> Tensor:
        pooled = mean_of_tokens(states, attention_mask)
        return cast(Tensor, self.heads[head](self.dropout(pooled))).float()

    def set_dropout(self, probability: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability


def mean_of_tokens(states: Tensor, attention_mask: Tensor) -> Tensor:
    """[batch, hidden] of states [batch, tokens, hidden], without those that only fill the row."""
    weights = attention_mask[:, :, None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def family_of(config: PretrainedConfig) -> Family:
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        raise ModelError(
            f"model type {config.model_type!r}",
            why="not a supported encoder",
            remedy=f"supported: {', '.join(FAMILIES)}",
        ) from None


def _with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    fields = config.to_dict()
    fields[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = layers
    return type(config).from_dict(fields)


def _relative_buckets(input_ids: Tensor) -> Tensor:
    """[tokens, tokens] bucket of every pair's distance, as MPNet counts them."""
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    distances = positions[None, :] - positions[:, None]
    return cast(Tensor, MPNetEncoder.relative_position_bucket(distances))


def adopt(model: nn.Module) -> Encoder:
    """Our encoder with the weights of a Hugging Face model of a supported family."""
    config = cast(PretrainedConfig, model.config)
    family = family_of(config)
    layers = list(attrgetter(family.layers)(model))
    encoder = Encoder(config, _shape_of(config, family, layers))
    _copy(model, "embeddings", encoder.embeddings)
    if encoder.embeddings_project is not None:
        _copy(model, "embeddings_project", encoder.embeddings_project)
    for ours, theirs in zip(cast(Sequence[Layer], encoder.layers), layers, strict=True):
        attention, ffn = cast(Attention, ours.attention), cast(FFN, ours.ffn)
        _copy(theirs, family.query, attention.query)
        _copy(theirs, family.key, attention.key)
        _copy(theirs, family.value, attention.value)
        _copy(theirs, family.output, attention.output)
        _copy(theirs, family.attention_norm, attention.norm)
        _copy(theirs, family.up, ffn.up)
        _copy(theirs, family.down, ffn.down)
        _copy(theirs, family.ffn_norm, ffn.norm)
        if family.relative_bias and attention.relative_bias is not None:
            _copy(model, family.relative_bias, attention.relative_bias)
    return encoder


def _copy(model: nn.Module, path: str, ours: nn.Module) -> None:
    ours.load_state_dict(model.get_submodule(path).state_dict())


def _shape_of(config: PretrainedConfig, family: Family, layers: Sequence[nn.Module]) -> Shape:
    from optimum.utils import NormalizedConfigManager

    normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    hidden, heads = int(normal.hidden_size), int(normal.num_attention_heads)
    widths = [attrgetter(family.up)(layer).out_features for layer in layers]
    return Shape(
        tuple(LayerShape(heads, width) for width in widths),
        hidden,
        hidden // heads,
        int(normal.vocab_size),
    )


def load_pretrained(name: str) -> tuple[Encoder, Any]:
    """The encoder and the tokenizer of a folder, as `find_model` gives it.

    Reads safetensors only, runs no code that comes with a model. Raises ModelError,
    RefusedError.
    """
    fields = read_config(Path(name))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = type(AutoConfig.for_model(fields["model_type"])).from_dict(fields)
        model, loading = AutoModel.from_pretrained(
            name,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # they are told below, with their names
        )
        tokenizer = AutoTokenizer.from_pretrained(name, config=config, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # a stranger's files bring out assertions and missing attributes too
        remedy = "check its config.json and the tokenizer's files"
        raise ModelError(f"model {name}", why=_first_line(error), remedy=remedy) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    _check_weights(name, model, loading)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"tokenizer of {name}",
            why=f"{len(tokenizer)} tokens, but the embedding has {config.vocab_size} rows",
            remedy="give the tokenizer that the model was trained with",
        )
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"tokenizer of {name}",
            why="has no token to pad with",
            remedy='name it in tokenizer_config.json: "pad_token": "[PAD]"',
        )
    return adopt(model), tokenizer


def _first_line(error: Exception) -> str:
    """Of what it says; the second too, where the first only announces it."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    told = " ".join(lines[: 1 + lines[0].endswith(":")])[:300]
    is_bare = isinstance(error, KeyError) or not told  # which says no more than the key
    return f"{type(error).__name__} {told}".strip() if is_bare else told


def _check_weights(source: str, model: PreTrainedModel, loading: Mapping[str, Any]) -> None:
    missing = [name for name in loading["missing_keys"] if "pooler" not in name]
    if missing:
        raise ModelError(
            f"model {source}",
            why=f"{len(missing)} tensors missing, {sorted(missing)[0]} among them",
        )
    mismatched = sorted(loading["mismatched_keys"])
    if mismatched:
        tensor, found, wanted = mismatched[0]
        raise ModelError(
            f"model {source}: {tensor}",
            why=f"has the shape {list(found)}, its config wants {list(wanted)}",
            remedy="give the config.json that belongs to the weights",
        )
    layers = f"{FAMILIES[model.config.model_type].layers}."
    # Heads of other tasks have no place here; layers without one mean another config.
    placeless = sorted(name for name in loading["unexpected_keys"] if layers in name)
    if placeless:
        raise ModelError(
            f"model {source}",
            why=f"its config has no place for {len(placeless)} tensors, {placeless[0]} among them",
            remedy="give the config.json that belongs to the weights",
        )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"model {source}: {name}", why="holds NaN or infinite weights")


SAVED_VERSION = 1  # 1: config.json carries {"edgeprune": {version, shape, outputs}}


def save(classifier: Classifier, folder: Path, *, labels: Sequence[str] = ()) -> None:
    """Write config.json and model.safetensors that `load` takes back."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = classifier.encoder.config.to_dict()
    outputs = {name: head.out_features for name, head in classifier.heads.items()}
    fields |= {
        "edgeprune": {
            "version": SAVED_VERSION,
            "shape": classifier.encoder.shape.to_dict(),
            "outputs": outputs,
        }
    }
    if "target" in outputs:
        names = list(labels) or ["score"]
        fields["id2label"] = {str(i): name for i, name in enumerate(names)}
        fields["label2id"] = {name: i for i, name in enumerate(names)}
        fields["problem_type"] = "single_label_classification" if labels else "regression"
    fields.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(fields, indent=2, sort_keys=True))
    tensors = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    save_tensors(tensors, folder / "model.safetensors")


def load(folder: str | Path) -> Classifier:
    """A classifier that `save` wrote, of whatever widths, in evaluation mode. Raises ModelError."""
    folder = Path(folder)
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        ours = fields.pop("edgeprune")
        if ours["version"] != SAVED_VERSION:
            raise ModelError(
                f"model folder {folder}",
                why=f"written in format {ours['version']}, this edgeprune reads {SAVED_VERSION}",
            )
        config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        classifier = Classifier(Encoder(config, Shape.from_dict(ours["shape"])), ours["outputs"])
        classifier.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        why = "not a model that edgeprune saved" if isinstance(error, KeyError) else ""
        raise ModelError(f"model folder {folder}", why=why or _first_line(error)) from error
    return classifier.eval()
