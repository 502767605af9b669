"""LiteRT (once TensorFlow Lite) on the CPU, by its XNNPACK delegate."""

from __future__ import annotations

from pathlib import Path

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune.measure.target import Check, Program, Runtime
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.conversion import convert

ENVIRONMENT = PythonEnvironment(
    "litert",
    (
        Package("ai-edge-litert", tested="2.3.0", least="2.0"),
        Package("litert-torch", tested="0.10.0", least="0.10"),
        Package("ai-edge-quantizer", tested="0.10.0", least="0.10"),
        Package("onnx", tested="1.23.2", least="1.21"),
        Package("torch", tested="2.13.0", least="2.10"),
    ),
)


class LiteRt(Runtime):
    """Runs a .tflite file of one input shape."""

    environment = ENVIRONMENT

    def check(self) -> Check:
        return ENVIRONMENT.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return convert("litert", ENVIRONMENT.python(), onnx, folder, batch=batch, sequence=sequence)

    def program(self) -> Program:
        session = SESSIONS / "litert.py"
        return Program(BENCH, session, packages=("ai_edge_litert",), local=ENVIRONMENT.python())
