"""Every runtime that edgeprune brings keeps the contract, and answers alike for uneven models."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from transformers import BertConfig

from edgeprune.encoder import Classifier, Encoder
from edgeprune.errors import OnnxError, TargetError
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.measure.doctor import diagnose
from edgeprune.measure.launch import Blocks, Load, prepare
from edgeprune.measure.profile import Profile, Settings, profile
from edgeprune.measure.target import Runtime, Target
from edgeprune.onnx_file import load_onnx
from edgeprune.parity import compare
from edgeprune.shape import LayerShape, Shape
from edgeprune.testing import RuntimeContract, save_tiny_onnx
from edgeprune_targets.conversion import CONVERTERS, converter_of
from edgeprune_targets.executorch import ExecuTorch
from edgeprune_targets.litert import LiteRt
from edgeprune_targets.mnn import Mnn
from edgeprune_targets.ncnn import Ncnn
from edgeprune_targets.openvino import OpenVino
from edgeprune_targets.ort import OnnxRuntime
from edgeprune_targets.ort_mobile import OrtMobile
from edgeprune_targets.ort_web import OrtChromium, OrtWeb

# Whole, with fewer heads and units, without attention, without an FFN, without either.
UNEVEN = (
    LayerShape(4, 64),
    LayerShape(3, 20),
    LayerShape(0, 24),
    LayerShape(3, 0),
    LayerShape(0, 0),
)
# What several converters share lies beside them.
LOAD = """
import runpy, sys
sys.path.append(sys.argv[1])
for path in sys.argv[2:]:
    runpy.run_path(path)
"""
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
    # Two ways to round to eight bits do not come to the same in a network that enlarges each error.
    calm = _export(folder / "calm.onnx", UNEVEN, scale=2.0)
    return paths | {"int8": to_int8(calm, folder / "int8.onnx")}


def _export(path: Path, layers: Sequence[LayerShape], scale: float = 4.0) -> Path:
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
            weight.mul_(scale)  # as trained ones are, so that a wrong mask or order shows
    return to_onnx(model, path)


def save_scaled(path: Path) -> Path:
    """A model whose last operator is of ONNX's other domain."""
    model = load_onnx(save_tiny_onnx(path))
    model.graph.node[-1].output[0] = "raw"
    node = helper.make_node("Scaler", ["raw"], ["logits"], domain="ai.onnx.ml")
    values = (("scale", [1.0]), ("offset", [0.0]))
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values)
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    path.write_bytes(model.SerializeToString())
    return path


class Usable(RuntimeContract, ABC):
    """The contract, and encoders as they are pruned; skipped where the runtime is not there."""

    @pytest.fixture(autouse=True)
    def _is_usable(self) -> None:
        check = self.runtime().check()
        if not check.usable:
            why = f"{check.why}: {check.remedy}"
            named = type(self.runtime()).__module__.rpartition(".")[2].replace("_", "-")
            if named in os.environ.get("EDGEPRUNE_REQUIRE_TARGETS", "").split():
                pytest.fail(why)
            pytest.skip(why)

    def test_what_it_imports_leaves_no_trace_of_the_user(self, tmp_path: Path) -> None:
        """Some send usage data when they are loaded, and keep an identifier in the home folder."""
        program = self.runtime().program()
        if not program.portable:
            pytest.skip("no Python")
        converter = converter_of(program.session.stem)
        loaded = [str(path) for path in (program.session, converter) if path.exists()]
        words = [*(program.local or (sys.executable, "-P")), "-c", LOAD, str(CONVERTERS), *loaded]
        quiet = {"ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL"}
        environment = {name: value for name, value in os.environ.items() if name not in quiet}
        environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        environment.pop("XDG_CACHE_HOME", None)
        subprocess.run(words, env=environment, check=True, timeout=120)
        assert [*tmp_path.iterdir()] == []

    def test_an_operator_that_it_lacks_is_one_line_of_exit_code_4_or_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ONNX Runtime has this one, and most others do not."""
        onnx = save_scaled(tmp_path / "model.onnx")
        with tempfile.TemporaryDirectory() as scratch:  # a browser's sockets want a short path
            monkeypatch.setattr(tempfile, "tempdir", scratch)
            try:
                profile({"model": onnx}, self._target(), BRIEF)
            except TargetError as error:
                assert "Scaler" in str(error)
                assert "another target" in error.remedy
            assert [*Path(scratch).iterdir()] == []

    @pytest.mark.parametrize("name", ["dense", "uneven", "int8"])
    def test_encoders_answer_alike_on_padded_rows(
        self, models: Mapping[str, Path], name: str
    ) -> None:
        if name == "int8" and "int8" not in self.runtime().precisions:
            with pytest.raises(TargetError, match="int8"):
                profile({"model": models[name]}, self._target(), BRIEF)
            return
        taken = profile({"model": models[name]}, self._target(), BRIEF)["model"]
        assert taken.size_mb > 0.05
        assert taken.peak_mb > 10
        assert taken.facts["runtime"]["version"] == self.runtime().check().version
        self.check_parity(models[name], taken)

    def check_parity(self, onnx: Path, taken: Profile) -> None:
        parity = taken.facts["parity"]
        assert parity["rows"] == 32
        assert parity["cosine"] >= 0.99
        assert parity["agreement"] >= 0.9


class TestOrt(Usable):
    @classmethod
    def runtime(cls) -> Runtime:
        return OnnxRuntime()

    def check_parity(self, onnx: Path, taken: Profile) -> None:
        assert taken.facts["parity"] is None  # the very file, by what all are compared with

    def test_a_provider_that_is_asked_for_is_told_and_compared(
        self, models: Mapping[str, Path]
    ) -> None:
        target = Target.parse("ort:cpu")
        taken = profile({"model": models["uneven"]}, target, BRIEF)["model"]
        assert taken.facts["runtime"]["requested_providers"] == ["CPUExecutionProvider"]
        assert set(taken.facts["runtime"]["placement"]) == {"CPUExecutionProvider"}
        assert taken.facts["parity"]["agreement"] == 1

    @pytest.mark.parametrize("name", ["no-such", "xnnpack"])
    def test_a_provider_that_is_not_there_is_told_with_those_that_are(
        self, tmp_path: Path, name: str
    ) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        with pytest.raises(TargetError, match=f"{name!r}; it has .*cpu") as caught:
            profile({"model": onnx}, Target.parse(f"ort:{name}"), BRIEF)
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
        found = diagnose(f"ort:{name}")
        assert (found.runtime.usable, found.there.usable) == (True, False)
        assert "'ort' alone" in found.there.remedy

    def test_a_library_that_is_too_old_for_a_file_is_at_fault_and_not_the_file(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.onnx"
        model = load_onnx(save_tiny_onnx(path))
        model.opset_import[0].version = 999
        path.write_bytes(model.SerializeToString())
        with pytest.raises(TargetError, match=r"is too old: Opset 999") as caught:
            profile({"model": path}, self._target(), BRIEF)
        assert "newer runtime" in caught.value.remedy

    def test_int8_answers_as_in_exact_integers_on_every_processor(
        self, models: Mapping[str, Path]
    ) -> None:
        """Sums of two products overflow on x86 processors without VNNI, if they can."""
        mask = np.ones((1, 16), np.int64)
        feeds = {"input_ids": mask * 7, "attention_mask": mask, "token_type_ids": mask * 0}
        with prepare({"int8": models["int8"]}, self._target(), BRIEF.load) as bench:
            ((ours,),) = bench.answer("int8", [feeds])
        (exact, *_) = ReferenceEvaluator(str(models["int8"])).run(None, feeds)
        assert compare((1, 16), ours, np.asarray(exact)).cosine > 0.999


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

    def test_a_precision_that_is_asked_for_is_what_runs_or_is_refused(self, tmp_path: Path) -> None:
        # Not an encoder with random weights, whose answers hang on the last bits.
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        target = Target.parse("openvino:bf16")
        try:
            taken = profile({"model": onnx}, target, BRIEF)["model"]
        except TargetError as error:
            assert "no bf16 on this processor; it has f32" in str(error)
            return
        assert taken.facts["runtime"]["precision"] == "bf16"

    def test_a_precision_that_it_does_not_know_is_told_with_those_that_it_does(
        self, tmp_path: Path
    ) -> None:
        onnx, why = (
            save_tiny_onnx(tmp_path / "model.onnx"),
            "no precision 'int4'; there are f32, bf16, f16",
        )
        with pytest.raises(TargetError, match=why):
            profile({"model": onnx}, Target.parse("openvino:int4"), BRIEF)
        assert diagnose("openvino:int4").there.why == why
        assert diagnose("openvino:f32").usable


class TestMnn(Usable):
    tolerance = 1e-2

    @classmethod
    def runtime(cls) -> Runtime:
        return Mnn()


class TestLiteRt(Usable):
    @classmethod
    def runtime(cls) -> Runtime:
        return LiteRt()


class TestExecuTorch(Usable):
    @classmethod
    def runtime(cls) -> Runtime:
        return ExecuTorch()


class TestNcnn(Usable):
    @classmethod
    def runtime(cls) -> Runtime:
        return Ncnn()

    def test_rows_of_another_length_are_refused_and_not_answered_wrongly(
        self, tmp_path: Path
    ) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        mask = np.ones((1, 5), np.int64)
        with (
            prepare({"model": onnx}, self._target(), Load(sequence=8)) as bench,
            pytest.raises(OnnxError, match="made for 8 tokens"),
        ):
            bench.answer("model", [{"input_ids": mask, "attention_mask": mask}])


class InJavaScript(Usable, ABC):
    tolerance = 1e-3

    def test_it_runs_on_this_machine_only(self) -> None:
        target = Target("far", self.runtime(), Target.parse("null@ssh:nowhere").device)
        with pytest.raises(TargetError, match="on this machine only") as caught:
            target.device.starts(self.runtime().program())
        assert caught.value.exit_code == 4


class TestOrtWeb(InJavaScript):
    @classmethod
    def runtime(cls) -> Runtime:
        return OrtWeb()


class TestOrtChromium(InJavaScript):
    @classmethod
    def runtime(cls) -> Runtime:
        return OrtChromium()

    def test_the_samples_are_those_of_a_page_with_a_fine_clock(self, tmp_path: Path) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        with prepare({"model": onnx}, self._target(), Load(sequence=8)) as bench:
            run = bench.launch(["model"], Blocks(6, 2, 1, 0.0), seed=0)
        assert "Chrome" in run.result["runtime"]["host"]
        assert 0 < run.result["resolution_ns"] <= 10_000
