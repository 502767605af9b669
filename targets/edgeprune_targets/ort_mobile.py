"""ONNX Runtime's own format for phones: the graph as it was optimised here, and no ONNX parser."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeprune.measure.target import Check, Program, Runtime
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.conversion import convert
from edgeprune_targets.ort import OnnxRuntime


class OrtMobile(Runtime):
    """Runs the very `.ort` file; beside it lies which operators a reduced build must have."""

    def check(self) -> Check:
        return OnnxRuntime().check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        python = (sys.executable, "-P")
        return convert("ort-mobile", python, onnx, folder, batch=batch, sequence=sequence)

    def program(self) -> Program:
        return Program(BENCH, SESSIONS / "ort.py", packages=("onnxruntime",))
