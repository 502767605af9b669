"""OpenVINO on the CPU, in 32-bit floats: its own default drops to bf16 where the CPU has it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune.onnx_file import is_int8, load_onnx
from edgeprune_targets.conversion import Converted
from edgeprune_targets.int8_weights import with_float_products

ENVIRONMENT = PythonEnvironment(
    "openvino", (Package("openvino", tested="2026.4.1", least="2025.0"),)
)


class OpenVino(Converted):
    """Runs its own two files, of one input shape."""

    option = "a precision, bf16 or f16"
    coarse = ("bf16", "f16")
    environment = ENVIRONMENT
    package = "openvino"

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        """Products of integers as ONNX Runtime has them, it would compute in floats."""
        model = load_onnx(onnx)
        if not is_int8(model):
            return super().convert(onnx, folder, batch=batch, sequence=sequence)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
            path = Path(scratch) / onnx.name
            path.write_bytes(with_float_products(model).SerializeToString())
            return super().convert(path, folder, batch=batch, sequence=sequence)
