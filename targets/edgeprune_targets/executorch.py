"""ExecuTorch on the CPU, by its XNNPACK backend."""

from __future__ import annotations

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune_targets.conversion import Converted

ENVIRONMENT = PythonEnvironment(
    "executorch",
    (
        Package("executorch", tested="1.5.1", least="1.5"),
        Package("onnx", tested="1.23.2", least="1.21"),
        Package("torch", tested="2.13.0", least="2.13"),
    ),
)


class ExecuTorch(Converted):
    """Runs a .pte file of one input shape."""

    environment = ENVIRONMENT
    package = "executorch"
