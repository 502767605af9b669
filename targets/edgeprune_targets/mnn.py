"""MNN on the CPU, in its high precision: its own default may halve it."""

from __future__ import annotations

from pathlib import Path

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune.measure.target import Check, Program, Runtime
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.conversion import convert

ENVIRONMENT = PythonEnvironment("mnn", (Package("MNN", tested="3.6.1", least="3.4.0"),))


class Mnn(Runtime):
    """Runs its own file, of any input shape."""

    precisions = ("fp32",)  # of int8 it makes a model that answers wrongly
    environment = ENVIRONMENT
    # It computes exponentials and the error function by short series.
    tolerance = 2e-2

    def check(self) -> Check:
        return ENVIRONMENT.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return convert("mnn", ENVIRONMENT.python(), onnx, folder, batch=batch, sequence=sequence)

    def program(self) -> Program:
        session = SESSIONS / "mnn.py"
        return Program(BENCH, session, packages=("MNN",), local=ENVIRONMENT.python())
