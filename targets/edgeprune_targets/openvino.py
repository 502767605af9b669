"""OpenVINO on the CPU, in 32-bit floats: its own default drops to bf16 where the CPU has it."""

from __future__ import annotations

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune_targets.conversion import Converted

ENVIRONMENT = PythonEnvironment(
    "openvino", (Package("openvino", tested="2026.4.1", least="2025.0"),)
)


class OpenVino(Converted):
    """Runs its own two files, of one input shape."""

    precisions = ("fp32",)  # int8 it computes in floats, so that nothing is gained
    option = "a precision, bf16 or f16"
    coarse = ("bf16", "f16")
    environment = ENVIRONMENT
    package = "openvino"
