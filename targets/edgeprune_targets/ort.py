"""ONNX Runtime on the CPU: runs the exported ONNX file as it is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeprune.measure.target import Check, Program, Runtime
from edgeprune_targets import BENCH, SESSIONS


class OnnxRuntime(Runtime):
    """`threads` workers within an operator, one operator at a time, no spinning."""

    option = "an execution provider"
    reference = True

    def check(self) -> Check:
        try:
            return Check(True, version("onnxruntime"))
        except PackageNotFoundError:
            return Check(False, why="not installed", remedy="pip install onnxruntime")

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return onnx

    def program(self) -> Program:
        return Program(BENCH, SESSIONS / "ort.py", packages=("onnxruntime",))
