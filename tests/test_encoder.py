"""The seam to Hugging Face encoders, beyond the contract that test_families.py holds them to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    BertConfig,
    GPT2Config,
    RobertaConfig,
)

import edgeprune
from edgeprune.encoder import (
    Classifier,
    Encoder,
    Layer,
    Removed,
    adopt,
    load,
    load_pretrained,
    save,
)
from edgeprune.errors import ModelError
from edgeprune.shape import LayerShape, Shape
from edgeprune.testing import random_batch, random_model

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
CONFIG = BertConfig(**SIZES)
DENSE = Shape.uniform(2, 2, 24, hidden=16, head_dim=8, vocab=40)


def small(outputs: dict[str, int] | None = None, shape: Shape = DENSE) -> Classifier:
    torch.manual_seed(0)
    return Classifier(Encoder(CONFIG, shape), outputs or {"target": 3}).eval()


def answers(model: Classifier, lengths: tuple[int, ...] = (9, 4), head: str = "target") -> Any:
    with torch.no_grad():
        return model(random_batch(CONFIG, lengths), head)[0]


def test_the_shape_of_a_model_is_read_from_its_layers() -> None:
    assert adopt(random_model(CONFIG)).shape == DENSE


def test_states_are_those_of_the_embeddings_and_of_every_layer() -> None:
    encoder = adopt(random_model(CONFIG)).eval()
    inputs = random_batch(CONFIG, (5, 3))
    with torch.no_grad():
        states = encoder(**inputs)
        embedded = encoder.embeddings(inputs["input_ids"], inputs["token_type_ids"])
    assert [tuple(state.shape) for state in states] == [(2, 5, 16)] * 3
    assert torch.equal(states[0], embedded)


def test_padding_changes_no_answer() -> None:
    model = Classifier(adopt(random_model(CONFIG)), {"target": 3}).eval()
    inputs = random_batch(CONFIG, (9, 4))
    short = {name: ids[1:, :4] for name, ids in inputs.items()}
    with torch.no_grad():
        padded, alone = model(inputs)[0][1:], model(short)[0]
    assert_close(padded, alone, atol=1e-6, rtol=1e-6)


def test_token_types_are_asked_for_only_where_there_are_several() -> None:
    assert small().encoder.input_names == ["input_ids", "attention_mask", "token_type_ids"]
    roberta = Encoder(RobertaConfig(**SIZES, type_vocab_size=1), DENSE)
    assert roberta.input_names == ["input_ids", "attention_mask"]


def test_what_is_removed_leaves_its_norm_and_bias() -> None:
    model = small(shape=DENSE.with_layers([LayerShape(0, 24), LayerShape(2, 0)]))
    first, second = cast("list[Layer]", list(model.encoder.layers))
    assert isinstance(first.attention, Removed)
    assert isinstance(second.ffn, Removed)
    x = torch.randn(1, 3, 16)
    bias = torch.randn(16)
    first.attention.bias = nn.Parameter(bias)
    with torch.no_grad():
        assert_close(first.attention(x, x, None), torch.layer_norm(x + bias, (16,), eps=1e-12))


@pytest.mark.parametrize(
    "layers",
    [
        [LayerShape(2, 24), LayerShape(2, 24)],
        [LayerShape(1, 5), LayerShape(0, 24)],
        [LayerShape(0, 0), LayerShape(2, 0)],
    ],
)
def test_a_shape_counts_the_parameters_of_its_layers(layers: list[LayerShape]) -> None:
    shape = DENSE.with_layers(layers)
    counted = sum(p.numel() for p in Encoder(CONFIG, shape).layers.parameters())
    assert counted == shape.encoder_parameters


def test_other_families_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"'gpt2'.*not a supported encoder.*bert, roberta"):
        Encoder(GPT2Config(), DENSE)


def test_each_head_answers_for_its_task() -> None:
    model = small({"target": 3, "auxiliary": 5})
    assert answers(model).shape == (2, 3)
    assert answers(model, head="auxiliary").shape == (2, 5)


def test_dropout_is_set_everywhere() -> None:
    model = small()
    model.set_dropout(0.3)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.3}
    model.set_dropout(0.0)
    assert torch.equal(answers(model.train()), answers(model.eval()))


# --- loading -----------------------------------------------------------------------------------


def test_a_model_folder_is_loaded_with_its_tokenizer(tiny_model: Path) -> None:
    encoder, tokenizer = load_pretrained(str(tiny_model))
    assert str(encoder.shape) == "4h/64 4h/64"
    assert tokenizer("p0 q1")["input_ids"] == [2, 5, 26, 3]


def test_the_weights_that_were_saved_are_the_weights_that_are_loaded(tiny_model: Path) -> None:
    encoder, _ = load_pretrained(str(tiny_model))
    saved = load_file(tiny_model / "model.safetensors")
    layer = cast(Layer, encoder.layers[1])
    assert torch.equal(
        layer.ffn.get_parameter("up.weight"), saved["encoder.layer.1.intermediate.dense.weight"]
    )


# --- saving ------------------------------------------------------------------------------------


def test_every_head_is_saved(tmp_path: Path) -> None:
    model = small({"target": 3, "auxiliary": 5})
    save(model, tmp_path, labels=("a", "b", "c"))
    for head in ("target", "auxiliary"):
        assert torch.equal(answers(load(tmp_path), head=head), answers(model, head=head))


def test_the_public_load_is_the_inverse_of_save(tmp_path: Path) -> None:
    model = small(shape=DENSE.with_layers([LayerShape(1, 7), LayerShape(0, 0)]))
    save(model, tmp_path, labels=("a", "b", "c"))
    loaded = edgeprune.load(str(tmp_path))
    assert loaded.encoder.shape == model.encoder.shape
    assert not loaded.training
    assert torch.equal(answers(loaded), answers(model))


def test_a_saved_config_names_the_labels_as_hugging_face_does(tmp_path: Path) -> None:
    save(small(), tmp_path / "classes", labels=("no", "maybe", "yes"))
    config = AutoConfig.from_pretrained(tmp_path / "classes")
    assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert config.problem_type == "single_label_classification"
    save(small({"target": 1}), tmp_path / "score")
    assert AutoConfig.from_pretrained(tmp_path / "score").problem_type == "regression"


def test_only_json_and_safetensors_are_written(tmp_path: Path) -> None:
    save(small(), tmp_path, labels=("a", "b", "c"))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_what_a_loaded_model_saves_is_the_same_again(tmp_path: Path) -> None:
    save(small(), tmp_path / "once", labels=("a", "b", "c"))
    save(load(tmp_path / "once"), tmp_path / "twice", labels=("a", "b", "c"))
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def spoil_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


def test_a_folder_that_edgeprune_did_not_save_is_told_so(tmp_path: Path) -> None:
    save(small(), tmp_path)
    spoil_config(tmp_path, edgeprune=None)
    with pytest.raises(ModelError, match="not a model that edgeprune saved"):
        load(tmp_path)


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    save(small(), tmp_path)
    spoil_config(tmp_path, edgeprune={"version": 2})
    with pytest.raises(ModelError, match="format 2, this edgeprune reads 1"):
        load(tmp_path)


def test_weights_unlike_the_shape_are_refused(tmp_path: Path) -> None:
    save(small(), tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if "down" not in name}, path)
    with pytest.raises(ModelError, match=str(tmp_path)) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_were_cut_are_refused(tmp_path: Path) -> None:
    save(small(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelError, match=str(tmp_path)):
        load(tmp_path)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        load(tmp_path / "nowhere")
