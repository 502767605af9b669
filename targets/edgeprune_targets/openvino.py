"""OpenVINO on the CPU, in 32-bit floats: its own default drops to bf16 where the CPU has it."""

from __future__ import annotations

from pathlib import Path

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune.measure.target import Check, Program, Runtime
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.conversion import convert

ENVIRONMENT = PythonEnvironment(
    "openvino", (Package("openvino", tested="2026.4.1", least="2025.0"),)
)


class OpenVino(Runtime):
    """Runs its own two files, of one input shape."""

    precisions = ("fp32",)  # int8 it computes in floats, so that nothing is gained
    environment = ENVIRONMENT

    def check(self) -> Check:
        return ENVIRONMENT.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        python = ENVIRONMENT.python()
        return convert("openvino", python, onnx, folder, batch=batch, sequence=sequence)

    def program(self) -> Program:
        session = SESSIONS / "openvino.py"
        return Program(BENCH, session, packages=("openvino",), local=ENVIRONMENT.python())
