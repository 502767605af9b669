"""ExecuTorch on the CPU, by its XNNPACK backend."""

from __future__ import annotations

from pathlib import Path

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune.measure.target import Check, Program, Runtime
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.conversion import CONVERTERS, convert

# The package has no __init__.py: a file of its very name would hide it from the converter.
CONVERTER = CONVERTERS / "executorch_xnnpack.py"

ENVIRONMENT = PythonEnvironment(
    "executorch",
    (
        Package("executorch", tested="1.5.1", least="1.5"),
        Package("onnx", tested="1.23.2", least="1.21"),
        Package("torch", tested="2.13.0", least="2.13"),
    ),
)


class ExecuTorch(Runtime):
    """Runs a .pte file of one input shape."""

    environment = ENVIRONMENT

    def check(self) -> Check:
        return ENVIRONMENT.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return convert(
            *("executorch", ENVIRONMENT.python(), onnx, folder),
            batch=batch,
            sequence=sequence,
            converter=CONVERTER,
        )

    def program(self) -> Program:
        session = SESSIONS / "executorch.py"
        return Program(BENCH, session, packages=("executorch",), local=ENVIRONMENT.python())
