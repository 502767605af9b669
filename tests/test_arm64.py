"""A 64-bit Arm device that is emulated here: what models answer there, and what its times are not.

    tests/arm64.sh DIR && EDGEPRUNE_ARM64=DIR/python3 pytest tests/test_arm64.py

It is reached by ssh like any other; its Python and ONNX Runtime are those for Arm.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from bundles import CLASSES, make_small_bundle, make_small_onnx
from onnx import helper, numpy_helper
from test_ssh import Server, served

from edgeprune.export.answers import answer
from edgeprune.export.quantize import to_int8
from edgeprune.measure.launch import Load, prepare
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.samples import Question
from edgeprune.measure.target import Target
from edgeprune.onnx_file import load_onnx
from edgeprune.onnx_session import open_session
from edgeprune.testing import save_tiny_onnx
from edgeprune_cli.app import main

__all__ = ["served"]  # the fixture

ARM = Target.parse("ort@ssh:pi4")
FEW = Settings(sequence=8, launches=2, iterations=5, warmup_s=0.01, limit_s=300)
CPUS = ("cortex-a76", "cortex-a72")  # with dot products of int8, and without


@pytest.fixture(params=CPUS)
def arm(
    request: pytest.FixtureRequest, served: Server, server_missing: Callable[[str], NoReturn]
) -> str:
    """The processor that is emulated."""
    python = os.environ.get("EDGEPRUNE_ARM64")
    if python is None:
        server_missing("no emulated Arm machine: tests/arm64.sh makes one, see there")
    there = served.home / ".edgeprune/venv/bin/python"
    there.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"export EDGEPRUNE_ARM64_CPU={request.param}", f'exec {python} "$@"')
    served.program(str(there), *lines)
    return str(request.param)


def rows() -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]]:
    """Some of different lengths, padded."""
    random = np.random.default_rng(0)
    found = []
    for length in (8, 5, 1):
        mask = (np.arange(8) < length).astype(np.int64)[None]
        found.append({"input_ids": random.integers(2, 30, (1, 8)) * mask, "attention_mask": mask})
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_answers_there_as_here(arm: str, tmp_path: Path, precision: str) -> None:
    path = save_tiny_onnx(tmp_path / "fp32.onnx", width=64)
    if precision == "int8":
        path = to_int8(path, tmp_path / "int8.onnx")
    session = open_session(path)
    here = np.concatenate([answer(session, feeds) for feeds in rows()])
    with prepare({"model": path}, ARM, Load(sequence=8, limit_s=300)) as bench:
        there = np.concatenate([outputs[0] for outputs in bench.answer("model", rows())])
    cosine = (here * there).sum() / np.linalg.norm(here) / np.linalg.norm(there)
    assert cosine > (0.999999 if precision == "fp32" else 0.99)
    assert (here.argmax(1) == there.argmax(1)).all()
    if precision == "fp32":
        np.testing.assert_allclose(there, here, atol=1e-4)


def test_its_times_are_a_proxy_and_meet_no_budget(arm: str, tmp_path: Path) -> None:
    path = save_tiny_onnx(tmp_path / "model.onnx")
    taken = profile({"model": path}, ARM, FEW)["model"]
    assert (taken.facts["device"]["machine"], taken.facts["device"]["emulated"]) == (
        "aarch64",
        True,
    )
    assert taken.proxy
    verdict = Question(60_000.0).answer(taken)
    assert verdict.outcome == "inconclusive"
    assert "emulated" in [reason.code for reason in verdict.reasons]
    assert "(proxy)" in verdict.line()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundle_proves_there_what_it_is(
    arm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    model, int8 = with_a_product(make_small_onnx(tmp_path / "fp32.onnx")), precision == "int8"
    model = to_int8(model, tmp_path / "int8.onnx") if int8 else model
    bundle = make_small_bundle(tmp_path / "bundle", model, int8=int8)
    assert main(["ship", str(bundle), f"ssh:pi4:~/models/{arm}-{precision}"]) == 0
    assert "golden answers agree" in capsys.readouterr().err


def with_a_product(path: Path) -> Path:
    """A model with a product at its end, which int8 has something to do with."""
    model = load_onnx(path)
    model.graph.node[-1].output[0] = "votes for"
    model.graph.node.append(helper.make_node("MatMul", ["votes for", "same"], ["logits"]))
    same = numpy_helper.from_array(np.eye(len(CLASSES), dtype=np.float32), "same")
    model.graph.initializer.append(same)
    path.write_bytes(model.SerializeToString())
    return path
