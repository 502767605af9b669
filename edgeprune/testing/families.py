"""The contract of a row in `encoder.FAMILIES`, as a test class; see docs/adding-a-family.md.

    class TestBert(FamilyContract):
        @classmethod
        def config(cls) -> PretrainedConfig:
            return BertConfig(hidden_size=32, num_hidden_layers=3, ...)

pytest finds its tests by the subclass's name. Every weight is random, biases and LayerNorms too:
as models are created, a path to the wrong one of two zeros would pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoModel, PretrainedConfig

from edgeprune.encoder import Classifier, Encoder, adopt, load, save
from edgeprune.export.answers import answer
from edgeprune.export.onnx import to_onnx
from edgeprune.export.resize import resized
from edgeprune.onnx_session import open_session
from edgeprune.prune.curves import Curves, error_curves
from edgeprune.prune.moments import collect_moments
from edgeprune.prune.obs import obs
from edgeprune.prune.surgery import mask, operate, with_tokens
from edgeprune.shape import LayerShape, Shape

SAME = 1e-5  # two ways of PyTorch to the same answer
EXPORTED = 1e-4  # another library's sums, in another order
SCATTER = 0.2  # standard deviation of what is added to every weight
LENGTHS = ((1,), (7,), (20, 5, 1))  # tokens of each row; the last batch is padded


class FamilyContract(ABC):
    """What a row of the table promises; subclasses give a tiny config of their family.

    The config needs three layers or more, two heads or more, and room for 20 tokens.
    """

    @classmethod
    @abstractmethod
    def config(cls) -> PretrainedConfig:
        """Of a random model, small enough to be exported in seconds."""

    def test_it_answers_as_the_hugging_face_model(self) -> None:
        theirs = random_model(self.config())
        ours = adopt(theirs).eval()
        for lengths in LENGTHS:
            inputs = random_batch(self.config(), lengths)
            with torch.no_grad():
                wanted = theirs(**inputs).last_hidden_state
                states = ours(**{name: inputs[name] for name in ours.input_names})
            tokens = inputs["attention_mask"].bool()
            assert_close(states[-1][tokens], wanted[tokens], atol=SAME, rtol=SAME)

    def test_a_pruned_model_answers_as_its_masked_twin(self) -> None:
        model, curves = subject(type(self))
        for shape in shapes(model.encoder.shape, curves):
            pruned, twin = operate(model, shape, curves), mask(model, shape, curves)
            assert tuple(layer.shape for layer in pruned.encoder.layers) == shape.layers
            for lengths in LENGTHS:
                ours, theirs = (logits(one, lengths) for one in (pruned, twin))
                assert_close(ours, theirs, atol=SAME, rtol=SAME)

    def test_a_saved_model_answers_the_same_when_loaded(self, tmp_path: Path) -> None:
        model, curves = subject(type(self))
        for number, shape in enumerate(shapes(model.encoder.shape, curves)):
            pruned, folder = operate(model, shape, curves), tmp_path / str(number)
            save(pruned, folder, labels=("no", "yes"))
            for lengths in LENGTHS:
                assert torch.equal(logits(load(folder), lengths), logits(pruned, lengths))

    def test_with_fewer_tokens_it_answers_as_with_all(self, tmp_path: Path) -> None:
        model, _ = subject(type(self))
        config = model.encoder.config
        kept = [n for n in range(config.vocab_size) if n <= config.pad_token_id or n % 3]
        small = with_tokens(model, kept)
        assert small.encoder.shape.vocab == small.encoder.config.vocab_size == len(kept)
        assert small.encoder.config.pad_token_id == config.pad_token_id
        save(small, tmp_path, labels=("no", "yes"))
        for lengths in LENGTHS:
            inputs = _inputs(model, lengths)
            new = inputs["input_ids"] % len(kept)
            old = inputs | {"input_ids": torch.tensor(kept)[new]}
            with torch.no_grad():
                wanted = model(old)[0]
                for one in (small, load(tmp_path)):
                    assert torch.equal(one(inputs | {"input_ids": new})[0], wanted)

    def test_its_exported_file_answers_alike_at_every_shape(self, tmp_path: Path) -> None:
        model, curves = subject(type(self))
        pruned = operate(model, next(shapes(model.encoder.shape, curves)), curves)
        session = open_session(to_onnx(pruned, tmp_path / "model.onnx"))
        for lengths in LENGTHS:
            inputs = {name: ids.numpy() for name, ids in _inputs(pruned, lengths).items()}
            theirs = torch.from_numpy(answer(session, inputs))
            assert_close(theirs, logits(pruned, lengths), atol=EXPORTED, rtol=EXPORTED)

    def test_a_resized_file_is_that_of_a_model_of_those_widths(self, tmp_path: Path) -> None:
        dense = subject(type(self))[0].encoder.shape
        encoder = adopt(random_model(self.config()))

        def model(layer: LayerShape) -> Classifier:
            shape = dense.with_layers([layer])
            return Classifier(Encoder(encoder.config, shape), {"target": 2}).eval()

        heads, ffn = 7, 1_031
        pattern = to_onnx(model(LayerShape(heads, ffn)), tmp_path / "pattern.onnx")
        sizes = {heads: 2, heads * dense.head_dim: 2 * dense.head_dim, ffn: 48}
        file = resized(pattern, sizes, tmp_path / "resized.onnx")
        wanted = model(LayerShape(2, 48))
        inputs = {name: ids.numpy() for name, ids in _inputs(wanted, LENGTHS[-1]).items()}
        assert np.isfinite(answer(open_session(file), inputs)).all()
        inside = {w.name: tuple(w.dims) for w in onnx.load(file).graph.initializer}
        there = {name: tuple(w.shape) for name, w in wanted.named_parameters()}
        widths = [
            (inside[f"model.{name}"], shape)
            for name, shape in there.items()
            if f"model.{name}" in inside
        ]
        assert len(widths) > len(there) // 2
        assert all(ours == theirs for ours, theirs in widths)


@cache
def subject(contract: type[FamilyContract]) -> tuple[Classifier, Curves]:
    """The contract's model with two labels, and its error curves; the same for all its tests."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = Classifier(adopt(random_model(contract.config())), {"target": 2}).eval()
    batches = [_inputs(model, (9, 9, 8, 4, 3, 1)), _inputs(model, (7, 6, 6, 2))]
    return model, error_curves(model, collect_moments(model, batches), obs)


def random_model(config: PretrainedConfig, seed: int = 0) -> nn.Module:
    """A Hugging Face model of which no two weights are alike."""
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(seed)
        model: nn.Module = AutoModel.from_config(config, attn_implementation="eager")
        for parameter in model.parameters():
            parameter.add_(SCATTER * torch.randn_like(parameter))
    return model.eval()


def random_batch(config: PretrainedConfig, lengths: Sequence[int]) -> dict[str, Tensor]:
    """Rows of so many random tokens, padded to the longest, as a Hugging Face model takes them."""
    generator = torch.Generator().manual_seed(sum(lengths))
    size = (len(lengths), max(lengths))
    words = torch.tensor([i for i in range(config.vocab_size) if i != config.pad_token_id])
    ids = words[torch.randint(len(words), size, generator=generator)]
    mask = (torch.arange(size[1])[None] < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": ids.where(mask.bool(), config.pad_token_id), "attention_mask": mask}
    types = getattr(config, "type_vocab_size", 0)
    if types > 1:
        inputs["token_type_ids"] = torch.randint(types, size, generator=generator)
    return inputs


def shapes(dense: Shape, curves: Curves) -> Iterator[Shape]:
    """Shapes that the curves can make: one with each thing that can go gone, random ones, empty."""
    random = np.random.default_rng(0)

    def widths(index: int) -> LayerShape:
        heads, ffn = (sorted(curves.options[index, kind])[1:] for kind in ("attention", "ffn"))
        return LayerShape(int(random.choice(heads)), int(random.choice(ffn)))

    layers = [widths(index) for index in range(len(dense.layers))]
    no_heads, no_ffn = LayerShape(0, layers[0].ffn), LayerShape(layers[1].heads, 0)
    yield dense.with_layers([no_heads, no_ffn, LayerShape(0, 0), *layers[3:]])
    for _ in range(3):
        yield dense.with_layers([widths(index) for index in range(len(dense.layers))])
    yield dense.emptied()


def logits(model: Classifier, lengths: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return cast(Tensor, model(_inputs(model, lengths))[0])


def _inputs(model: Classifier, lengths: Sequence[int]) -> dict[str, Tensor]:
    inputs = random_batch(model.encoder.config, lengths)
    return {name: inputs[name] for name in model.encoder.input_names}
