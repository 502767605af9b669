"""Every runtime that edgeprune brings keeps the contract, and answers alike for uneven models."""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig

from edgeprune.encoder import Classifier, Encoder
from edgeprune.errors import TargetError
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.target import Runtime
from edgeprune.shape import LayerShape, Shape
from edgeprune.testing import RuntimeContract, save_tiny_onnx
from edgeprune_targets.mnn import Mnn
from edgeprune_targets.openvino import OpenVino
from edgeprune_targets.ort_mobile import OrtMobile

# Whole, with fewer heads and units, without attention, without an FFN, without either.
UNEVEN = (
    LayerShape(4, 64),
    LayerShape(3, 20),
    LayerShape(0, 24),
    LayerShape(3, 0),
    LayerShape(0, 0),
)
BRIEF = Settings(launches=1, iterations=2, warmup_s=0.0, sequence=16)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A dense and an uneven encoder with random weights, the latter in int8 too."""
    folder = tmp_path_factory.mktemp("models")
    whole = [UNEVEN[0]] * len(UNEVEN)
    paths = {
        name: _export(folder / f"{name}.onnx", layers)
        for name, layers in (("dense", whole), ("uneven", UNEVEN))
    }
    return paths | {"int8": to_int8(paths["uneven"], folder / "int8.onnx")}


def _export(path: Path, layers: Sequence[LayerShape]) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=len(layers),
        num_attention_heads=4,
        intermediate_size=64,
    )
    encoder = Encoder(config, Shape(tuple(layers), 32, 8, 60))
    model = Classifier(encoder, {"target": 5}).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)  # as trained ones are, so that a wrong mask or order shows
    return to_onnx(model, path)


class Usable(RuntimeContract, ABC):
    """The contract, and encoders as they are pruned; skipped where the runtime is not there."""

    int8 = True

    @pytest.fixture(autouse=True)
    def _is_usable(self) -> None:
        check = self.runtime().check()
        if not check.usable:
            why = f"{check.why}: {check.remedy}"
            named = type(self.runtime()).__module__.rpartition(".")[2]
            if named in os.environ.get("EDGEPRUNE_REQUIRE_TARGETS", "").split():
                pytest.fail(why)
            pytest.skip(why)

    @pytest.mark.parametrize("name", ["dense", "uneven", "int8"])
    def test_encoders_answer_alike_on_padded_rows(
        self, models: Mapping[str, Path], name: str
    ) -> None:
        if name == "int8" and not self.int8:
            with pytest.raises(TargetError):
                self._profile(models[name])
            return
        told = self._profile(models[name])
        assert told["rows"] == 32
        assert told["cosine"] > 0.99

    def _profile(self, onnx: Path) -> Mapping[str, Any]:
        taken = profile({"model": onnx}, self._target(), BRIEF)["model"]
        assert taken.size_mb > 0
        assert taken.peak_mb > 1
        assert taken.facts["runtime"]["version"] == self.runtime().check().version
        parity = taken.facts["parity"]
        assert isinstance(parity, dict)
        return parity


class TestOrtMobile(Usable):
    @classmethod
    def runtime(cls) -> Runtime:
        return OrtMobile()

    def test_what_a_reduced_build_needs_lies_beside_the_file(self, tmp_path: Path) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        made = self.runtime().convert(onnx, tmp_path, batch=1, sequence=8)
        assert made.name == "model.ort"
        (config,) = tmp_path.glob("*.config")
        assert "ai.onnx;" in config.read_text()
        assert "NNAPI" in (tmp_path / "usability.txt").read_text()


class TestOpenVino(Usable):
    @classmethod
    def runtime(cls) -> Runtime:
        return OpenVino()

    def test_it_runs_in_32_bit_floats_whatever_the_processor_has(self, tmp_path: Path) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        taken = profile({"model": onnx}, self._target(), BRIEF)["model"]
        assert taken.facts["runtime"]["precision"] == "f32"
        assert taken.facts["runtime"]["threads"] == "1"


class TestMnn(Usable):
    tolerance = 1e-2

    @classmethod
    def runtime(cls) -> Runtime:
        return Mnn()
