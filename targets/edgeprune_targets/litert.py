"""LiteRT (once TensorFlow Lite) on the CPU, by its XNNPACK delegate."""

from __future__ import annotations

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune_targets.conversion import Converted

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


class LiteRt(Converted):
    """Runs a .tflite file of one input shape."""

    environment = ENVIRONMENT
    package = "ai_edge_litert"
