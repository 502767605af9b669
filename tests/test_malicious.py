"""A corpus of files made to do harm: none runs, none makes a file outside its folder be opened.

Each file is offered to the command as a stranger's model, data, recipe or bundle. A canary lies
outside; the kernel tells whether anything, in whatever process, as much as opens it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.ship import prove
from edgeprune_cli.app import main

targets_installed = pytest.mark.skipif(
    not entry_points(group="edgeprune.runtimes", name="null"),
    reason="runtimes are found by the entry points of an installed package",
)

# Opened, read, written, its attributes changed, moved or removed.
WATCHED = 0x20 | 0x1 | 0x2 | 0x4 | 0x8 | 0x400 | 0x800
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Canary:
    """A file that nothing has any business with."""

    path: Path
    watch: int

    @property
    def touched(self) -> bool:
        try:
            return bool(os.read(self.watch, 4096))
        except BlockingIOError:
            return False


@pytest.fixture
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    path = tmp_path_factory.mktemp("outside") / "canary"
    path.write_bytes(bytes(4096))
    watch = LIBC.inotify_init1(os.O_NONBLOCK)
    assert LIBC.inotify_add_watch(watch, os.fsencode(path), WATCHED) >= 0
    yield Canary(path, watch)
    os.close(watch)


@dataclass(frozen=True)
class Room:
    """Where a file is made: a folder with a good model, task and bundle, and what it is after."""

    folder: Path
    canary: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def bundle(self) -> Path:
        return self.folder / "run" / "bundle"

    @property
    def mark(self) -> Path:
        """What code of the file would leave."""
        return self.folder / "was run"

    @property
    def code(self) -> str:
        """Python that leaves the mark."""
        return f"open({str(self.mark)!r}, 'w').close()\n"

    @property
    def shell(self) -> str:
        return f"touch '{self.mark}'"

    @property
    def pickled(self) -> bytes:
        """A pickle that runs `shell` when it is loaded."""
        return b"cposix\nsystem\n(V" + self.shell.encode() + b"\ntR."

    def up_to_canary(self, start: Path) -> str:
        return os.path.relpath(self.canary, start)


Make = Callable[[Room], object]
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
# The model is looked at before the task, and nothing of it loaded before both are known.
THEN_STOP = (*COMPRESS, "--metric", "pearson")
PROFILE = ("profile", "model.onnx", "--target", "null", "--runs", "rapid")
PROFILE_FOLDER = ("profile", "stranger", "--target", "null", "--runs", "rapid")
VERIFY = ("verify", "run/bundle")


# --- pretrained models --------------------------------------------------------------------------


def config(name: str = "config.json", **changes: Any) -> Make:
    def make(room: Room) -> None:
        path = room.model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        for module in ("modeling_own.py", "tokenization_own.py", "__init__.py", "setup.py"):
            (room.model / module).write_text(room.code)

    return make


def weights(*names: str, keep: bool = False) -> Make:
    """Pickles by these names, in place of the weights or beside them."""

    def make(room: Room) -> None:
        if not keep:
            (room.model / "model.safetensors").unlink()
        for name in names:
            (room.model / name).write_bytes(room.pickled)

    return make


def linked(name: str, *, folder: bool = False) -> Make:
    def make(room: Room) -> None:
        (room.model / name).unlink(missing_ok=True)
        (room.model / name).symlink_to(room.canary.parent if folder else room.canary)

    return make


def linked_nearly(room: Room) -> None:
    """By a relative path, through a folder whose name begins as the model's does."""
    (room.folder / "model-of-others").mkdir()
    (room.folder / "model-of-others" / "x").symlink_to(room.canary)
    (room.model / "config.json").unlink()
    (room.model / "config.json").symlink_to("../model-of-others/x")


def shards(relative: bool) -> Make:
    def make(room: Room) -> None:
        shard = room.up_to_canary(room.model) if relative else str(room.canary)
        index = {"weight_map": {"embeddings.word_embeddings.weight": shard}}
        (room.model / "model.safetensors.index.json").write_text(json.dumps(index))

    return make


def text(name: str, content: Callable[[Room], str | bytes]) -> Make:
    def make(room: Room) -> None:
        data = content(room)
        path = room.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return make


def renamed(name: Callable[[Room], str]) -> Make:
    """The model's folder by a name that a shell, a client or a terminal would read otherwise."""

    def make(room: Room) -> None:
        (room.model / "config.json").unlink()
        room.model.rename(room.folder / name(room))

    return make


OWN = {"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.Own"}
MODELS: dict[str, tuple[Make, int, Sequence[str]]] = {
    "auto_map": (config(auto_map=OWN), 6, COMPRESS),
    "auto_map of the hub": (config(auto_map={"AutoModel": "who/what--x.Y"}), 6, COMPRESS),
    "auto_map inside": (config(backbone_config={"x": [{"auto_map": OWN}]}), 6, COMPRESS),
    "trust_remote_code": (config(trust_remote_code=True), 6, COMPRESS),
    "kernels": (config(_attn_implementation_internal="who/kernel"), 6, COMPRESS),
    "tokenizer code": (
        config("tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.T", None]}),
        6,
        COMPRESS,
    ),
    "an unknown type with code beside": (config(model_type="own"), 2, COMPRESS),
    "pickled weights": (weights("pytorch_model.bin"), 2, COMPRESS),
    "pickled weights as .pt": (weights("model.pt", "checkpoint.bin"), 2, COMPRESS),
    "a pickle called safetensors": (weights("model.safetensors"), 2, COMPRESS),
    "pickles beside the weights": (
        weights("pytorch_model.bin", "training_args.bin", "optimizer.pt", keep=True),
        2,
        THEN_STOP,
    ),
    "code beside the weights": (config(), 2, THEN_STOP),
    "config linked": (linked("config.json"), 6, COMPRESS),
    "config linked nearly": (linked_nearly, 6, COMPRESS),
    "weights linked": (linked("model.safetensors"), 6, COMPRESS),
    "tokenizer linked": (linked("tokenizer.json"), 6, COMPRESS),
    "vocabulary linked": (linked("vocab.txt"), 6, COMPRESS),
    "card linked": (linked("README.md"), 6, COMPRESS),
    "folder linked": (linked("1_Pooling", folder=True), 6, COMPRESS),
    "shard above": (shards(True), 6, COMPRESS),
    "shard absolute": (shards(False), 6, COMPRESS),
    "card of YAML": (
        text(
            "model/README.md",
            lambda r: f"---\nlicense: !!python/object/apply:os.system [{r.shell!r}]\n---\n",
        ),
        2,
        THEN_STOP,
    ),
    "template of a chat": (
        config(
            "tokenizer_config.json",
            chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}",
        ),
        2,
        THEN_STOP,
    ),
    "a name for a shell": (renamed(lambda r: "$(touch 'was run')"), 2, ("compress", "--model")),
    "a name for a shell too": (renamed(lambda r: "a;touch 'was run';"), 2, ("compress", "--model")),
    "a name for a terminal": (renamed(lambda r: "\x1b]0;x\x07\x1b[2J"), 2, ("compress", "--model")),
}

# --- ONNX files ---------------------------------------------------------------------------------


def graph_of(nodes: Sequence[Any], weights: Sequence[Any], **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 3])],
        weights,
        **more,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


LOOK_UP = helper.make_node("Gather", ["table", "input_ids"], ["logits"])


def outside(location: str, **more: str) -> TensorProto:
    tensor = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[8, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, told in ({"location": location} | more).items():
        tensor.external_data.add(key=key, value=told)
    return tensor


def reading(location: Callable[[Room], str], **more: str) -> Make:
    """A model whose weights are said to lie there."""

    def make(room: Room) -> None:
        (room.folder / "below").mkdir(exist_ok=True)
        save(room, graph_of([LOOK_UP], [outside(location(room), **more)]))

    return make


def save(room: Room, model: onnx.ModelProto) -> None:
    (room.folder / "model.onnx").write_bytes(model.SerializeToString())


def in_a_constant(room: Room) -> None:
    tensor = outside(room.up_to_canary(room.folder))
    save(room, graph_of([helper.make_node("Constant", [], ["table"], value=tensor), LOOK_UP], []))


def in_a_branch(room: Room) -> None:
    tensor = outside(room.up_to_canary(room.folder))
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["inner"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [8, 3])],
    )
    chosen = helper.make_node("If", ["yes"], ["table"], then_branch=branch, else_branch=branch)
    save(room, graph_of([chosen, LOOK_UP], [numpy_helper.from_array(np.array(True), "yes")]))


def in_a_function(room: Room) -> None:
    tensor = outside(room.up_to_canary(room.folder))
    body = [
        helper.make_node("Constant", [], ["table"], value=tensor),
        helper.make_node("Gather", ["table", "x"], ["y"]),
    ]
    function = helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    model = graph_of([helper.make_node("F", ["input_ids"], ["logits"], domain="own")], [])
    model.functions.append(function)
    save(room, model)


def in_a_sparse_tensor(room: Room) -> None:
    values = outside(room.up_to_canary(room.folder))
    values.dims[:] = [24]
    indices = numpy_helper.from_array(np.arange(24), "indices")
    model = graph_of([LOOK_UP], [])
    model.graph.sparse_initializer.append(
        onnx.SparseTensorProto(values=values, indices=indices, dims=[8, 3])
    )
    save(room, model)


def weights_linked(room: Room) -> None:
    (room.folder / "weights.bin").symlink_to(room.canary)
    reading(lambda r: "weights.bin")(room)


def weights_linked_twice(room: Room) -> None:
    (room.folder / "other.bin").symlink_to(room.canary)
    (room.folder / "weights.bin").symlink_to("other.bin")
    reading(lambda r: "weights.bin")(room)


def folder_linked(room: Room) -> None:
    (room.folder / "linked").symlink_to(room.canary.parent)
    reading(lambda r: "linked/canary")(room)


def operator_of_ones_own(domain: str, name: str) -> Make:
    def make(room: Room) -> None:
        node = helper.make_node(name, ["input_ids"], ["logits"], domain=domain, code=room.code)
        model = graph_of([node], [])
        model.opset_import.append(helper.make_opsetid(domain, 1))
        save(room, model)

    return make


def names_for_a_terminal(room: Room) -> None:
    tensor = outside("missing.bin")
    tensor.name = "\x1b]0;owned\x07\x1b[2Jtable\nerror[EP000]: all is well"
    save(room, graph_of([LOOK_UP], [tensor, numpy_helper.from_array(np.ones((8, 3)), "table")]))


def a_strangers_folder(name: str) -> Make:
    """A folder without a manifest, whose model.onnx leads out of it."""

    def make(room: Room) -> None:
        (room.folder / "stranger").mkdir()
        (room.folder / "stranger" / name).symlink_to(room.canary)

    return make


def field(number: int, data: bytes) -> bytes:
    """A part of a protobuf message, as it is on the wire."""
    size, length = len(data), b""
    while size >= 128:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def deep(room: Room) -> None:
    """Graphs within graphs, deeper than any stack: no library of ours writes such a file."""
    graph = b""
    for _ in range(2_000):  # a graph in an attribute in a node in a graph
        graph = field(1, field(4, b"If") + field(5, field(6, graph)))
    (room.folder / "model.onnx").write_bytes(b"\x08\x09" + field(7, graph))


def raw(content: Callable[[Room], bytes]) -> Make:
    return lambda room: (room.folder / "model.onnx").write_bytes(content(room))


ONNX: dict[str, tuple[Make, int, Sequence[str]]] = {
    "above": (reading(lambda r: r.up_to_canary(r.folder)), 6, PROFILE),
    "above by a detour": (
        reading(lambda r: "below/../" + r.up_to_canary(r.folder)),
        6,
        PROFILE,
    ),
    "absolute": (reading(lambda r: str(r.canary)), 6, PROFILE),
    "absolute with two slashes": (reading(lambda r: f"/{r.canary}"), 6, PROFILE),
    "as an address": (reading(lambda r: f"file://{r.canary}"), 6, PROFILE),
    "with backslashes": (
        reading(lambda r: r.up_to_canary(r.folder).replace("/", "\\")),
        6,
        PROFILE,
    ),
    "in per cents": (
        reading(lambda r: r.up_to_canary(r.folder).replace("../", "%2e%2e/")),
        2,
        PROFILE,
    ),
    "in a home": (reading(lambda r: "~/canary"), 2, PROFILE),
    "behind a NUL": (reading(lambda r: f"x\0{r.canary}"), 6, PROFILE),
    "by a variable": (reading(lambda r: "$HOME/canary"), 2, PROFILE),
    "by another key": (
        reading(lambda r: "canary", basepath="/etc"),
        2,
        PROFILE,
    ),
    "by a link": (weights_linked, 6, PROFILE),
    "by a link to a link": (weights_linked_twice, 6, PROFILE),
    "by a linked folder": (folder_linked, 6, PROFILE),
    "in a constant": (in_a_constant, 6, PROFILE),
    "in a branch": (in_a_branch, 6, PROFILE),
    "in a function": (in_a_function, 6, PROFILE),
    "in a sparse tensor": (in_a_sparse_tensor, 6, PROFILE),
    "an operator of Python": (operator_of_ones_own("ai.onnx.contrib", "PyOp"), 2, PROFILE),
    "an operator of a library": (operator_of_ones_own("com.evil", "Run"), 2, PROFILE),
    "names for a terminal": (names_for_a_terminal, 2, PROFILE),
    "deep": (deep, 2, PROFILE),
    "a pickle": (raw(lambda r: r.pickled), 2, PROFILE),
    "a script": (raw(lambda r: f"#!/bin/sh\n{r.shell}\n".encode()), 2, PROFILE),
    "a program": (raw(lambda r: Path("/bin/true").read_bytes()), 2, PROFILE),
    "a zip": (raw(lambda r: b"PK\x03\x04" + r.pickled), 2, PROFILE),
    "a folder of a stranger": (a_strangers_folder("model.onnx"), 6, PROFILE_FOLDER),
    "with a report of a stranger": (a_strangers_folder("report.json"), 2, PROFILE_FOLDER),
}

# --- recipes, data and words --------------------------------------------------------------------

RECIPE = ("compress", "recipe.yaml")
GOOD = {"model": "model", "task": "task", "target": "null"}  # JSON is YAML


def recipe(content: Callable[[Room], str]) -> Make:
    return text("recipe.yaml", content)


def rows_for_a_shell(room: Room) -> None:
    rows = [{"text": f"$({room.shell})", "label": f"`{room.shell}`\x1b[2J"} for _ in range(16)]
    lines = "\n".join(json.dumps(row) for row in rows)
    (room.folder / "task" / "train.jsonl").write_text(lines)


def pickled_data(room: Room) -> None:
    for path in (room.folder / "task").iterdir():
        path.unlink()
    for name in ("train.pkl", "train.pt", "train.parquet", "dataset.py"):
        (room.folder / "task" / name).write_bytes(room.pickled)


WORDS: dict[str, tuple[Make, int, Sequence[str]]] = {
    "YAML that calls": (
        recipe(lambda r: f"model: !!python/object/apply:os.system [{r.shell!r}]"),
        2,
        RECIPE,
    ),
    "YAML that starts a process": (
        recipe(lambda r: f"? !!python/object/new:subprocess.Popen [[touch, {r.mark}]]\n: x"),
        2,
        RECIPE,
    ),
    "YAML that imports": (recipe(lambda r: "task: !!python/module:antigravity"), 2, RECIPE),
    "YAML that names": (recipe(lambda r: "task: !!python/name:os.system"), 2, RECIPE),
    "YAML that multiplies": (
        recipe(lambda r: "a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9))),
        2,
        RECIPE,
    ),
    "an option of ssh": (
        recipe(lambda r: json.dumps({**GOOD, "target": f"ssh://-oProxyCommand={r.shell}"})),
        6,
        RECIPE,
    ),
    "a shell in a target": (
        recipe(lambda r: json.dumps({**GOOD, "target": f"ort@local:$({r.shell})"})),
        6,
        RECIPE,
    ),
    "out onto the canary": (
        recipe(lambda r: json.dumps({**GOOD, "out": str(r.canary)})),
        2,
        RECIPE,
    ),
    "a data set of the hub": (
        recipe(lambda r: json.dumps({**GOOD, "task": f"hf:../../{r.canary}"})),
        2,
        RECIPE,
    ),
    "rows for a shell": (rows_for_a_shell, 2, COMPRESS),
    "pickled rows": (pickled_data, 2, COMPRESS),
}

# --- bundles ------------------------------------------------------------------------------------


def forged(change: Callable[[Room, dict[str, Any]], object]) -> Make:
    """A bundle whose manifest agrees with itself."""

    def make(room: Room) -> None:
        path = room.bundle / prove.MANIFEST
        manifest = json.loads(path.read_text())
        del manifest["sha256"]
        change(room, manifest)
        manifest["sha256"] = prove.digest(manifest)
        path.write_bytes(prove.written(manifest))

    return make


def listed(name: Callable[[Room], str]) -> Make:
    said = {"size": 4096, "sha256": "0" * 64}
    return forged(lambda room, manifest: manifest["files"].update({name(room): said}))


def bundle_file(name: str, data: Callable[[Room], bytes]) -> Make:
    """A file in the bundle, and in the manifest as well."""

    def change(room: Room, manifest: dict[str, Any]) -> None:
        (room.bundle / name).write_bytes(data(room))
        handle = prove.Bundle(str(room.bundle))
        with handle:
            manifest["files"][name] = handle._describe(name)

    return forged(change)


def bundle_linked(name: str) -> Make:
    def make(room: Room) -> None:
        (room.bundle / name).unlink()
        (room.bundle / name).symlink_to(room.canary)

    return make


def added(name: str) -> Make:
    return lambda room: (room.bundle / name).write_text(room.code)


def external_in_a_bundle(room: Room) -> None:
    forged(lambda room, manifest: manifest.pop("measured"))(room)
    model = graph_of([LOOK_UP], [outside(room.up_to_canary(room.bundle))])
    bundle_file("model.onnx", lambda r: model.SerializeToString())(room)


def golden(told: Any) -> Make:
    return bundle_file("golden.json", lambda r: json.dumps(told).encode())


BUNDLES: dict[str, tuple[Make, int, Sequence[str]]] = {
    "a file above": (listed(lambda r: r.up_to_canary(r.bundle)), 6, VERIFY),
    "a file elsewhere": (listed(lambda r: str(r.canary)), 6, VERIFY),
    "a file linked": (bundle_linked("config.json"), 6, VERIFY),
    "the model linked": (bundle_linked("model.onnx"), 6, VERIFY),
    "the manifest linked": (bundle_linked(prove.MANIFEST), 6, VERIFY),
    "code beside": (added("sitecustomize.py"), 6, VERIFY),
    "a library beside": (added("onnxruntime.py"), 6, VERIFY),
    "paths beside": (added("evil.pth"), 6, VERIFY),
    "external data": (external_in_a_bundle, 6, VERIFY),
    "a pickle for golden answers": (bundle_file("golden.json", lambda r: r.pickled), 2, VERIFY),
    "golden answers without end": (
        bundle_file("golden.json", lambda r: b"[" * 99_999),
        2,
        VERIFY,
    ),
    "golden answers of the wrong form": (
        golden({"inputs": {"input_ids": [1, 2]}, "outputs": {"logits": [[1], [2]]}}),
        4,
        VERIFY,
    ),
    "golden answers for a file": (
        golden({"inputs": {"../../x": [[1]]}, "outputs": {"logits": [[1]]}}),
        4,
        VERIFY,
    ),
    "shipped onto the canary": (lambda room: None, 2, ("ship", "run/bundle", "CANARY")),
    "shipped by an option": (
        lambda room: None,
        6,
        ("ship", "run/bundle", "local:-oProxyCommand=x:/srv"),
    ),
}

CORPUS = {
    f"{kind}: {name}": one
    for kind, some in {"model": MODELS, "ONNX": ONNX, "words": WORDS, "bundle": BUNDLES}.items()
    for name, one in some.items()
}


@pytest.fixture
def room(tiny_model: Path, small_bundle: Path, tmp_path: Path, canary: Canary) -> Room:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "task").mkdir()
    for name, size in (("train", 16), ("validation", 8), ("test", 8)):
        rows = [{"text": f"{name} {i}", "label": ("yes", "no")[i % 2]} for i in range(size)]
        lines = "\n".join(json.dumps(row) for row in rows)
        (tmp_path / "task" / f"{name}.jsonl").write_text(lines)
    return Room(tmp_path, canary.path)


def words_for(name: str, room: Room) -> list[str]:
    _, _, words = CORPUS[name]
    if words == ("compress", "--model"):  # the folder by the name that it was given
        (found,) = (p for p in room.folder.iterdir() if (p / "model.safetensors").is_file())
        return [*words, f"./{found.name}", *COMPRESS[3:]]
    return [str(room.canary) if word == "CANARY" else word for word in words]


@targets_installed
@pytest.mark.parametrize("name", CORPUS)
def test_nothing_of_it_runs_and_nothing_outside_is_opened(
    room: Room,
    canary: Canary,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, code, _ = CORPUS[name]
    monkeypatch.chdir(room.folder)
    make(room)
    assert not canary.touched
    assert main(words_for(name, room)) == code
    assert not canary.touched
    assert not room.mark.exists()
    captured = capsys.readouterr()
    (line,) = (one for one in captured.err.splitlines() if not one.startswith("|"))
    assert line.startswith("error[EP")
    assert line.isprintable()
    assert not (room.folder / "new").exists()


def test_the_corpus_is_large_and_the_canary_sings(canary: Canary) -> None:
    assert len(CORPUS) >= 60
    assert not canary.touched
    canary.path.read_bytes()
    assert canary.touched
    assert not canary.touched


def test_a_strangers_folder_lends_no_module(small_bundle: Path, tmp_path: Path) -> None:
    """Called in a folder that holds modules by the names of ours, none of them is imported."""
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    mark = tmp_path / "was run"
    for name in ("numpy", "onnx", "onnxruntime", "json", "resource", "runpy", "sitecustomize"):
        (stranger / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "edgeprune_cli", "verify", str(small_bundle)],
        cwd=stranger,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not mark.exists()
