"""ncnn on the CPU, in 32-bit floats: its own default halves them where the CPU can."""

from __future__ import annotations

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune_targets.conversion import Converted

ENVIRONMENT = PythonEnvironment(
    "ncnn",
    (
        Package("ncnn", tested="1.0.20261020", least="1.0.20250503"),
        Package("pnnx", tested="20261020", least="20250503"),
        Package("onnx", tested="1.23.2", least="1.21"),
        Package("torch", tested="2.13.0", least="2.10"),
    ),
)


class Ncnn(Converted):
    """Runs its own two files, of one sequence length; a batch goes through row by row."""

    precisions = ("fp32",)  # its tools for int8 are not in its Python package
    environment = ENVIRONMENT
    package = "ncnn"
