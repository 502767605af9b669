"""What ONNX Runtime's SkipLayerNormalization costs: the same models with the fusion and without.

    python benchmarks/fusion.py

edgeprune's files leave out the shapes between operators, by which ONNX Runtime would fuse residual
and LayerNorm. Here they are inferred and put back. A MiniLM of random weights, dense and with half
of its heads and FFN units, in fp32 and int8, one row of 128 tokens on one thread, in interleaved
launches. Writes benchmarks/results/fusion.json.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from transformers import BertConfig

from edgeprune.encoder import Classifier, Encoder
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.target import Target
from edgeprune.report.environment import environment
from edgeprune.shape import LayerShape, Shape

RESULT = Path(__file__).parent / "results" / "fusion.json"
MINILM = BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
PLANS = {"dense": LayerShape(12, 1536), "half": LayerShape(6, 768)}
SETTINGS = Settings(launches=10, iterations=30, sequence=128)


def main() -> None:
    target = Target.parse("ort")
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, layer in PLANS.items():
            fp32 = to_onnx(model(layer), Path(folder) / f"{name}.onnx")
            for precision in ("fp32", "int8"):
                path = (
                    fp32 if precision == "fp32" else to_int8(fp32, fp32.with_suffix(".int8.onnx"))
                )
                files[f"{name} {precision}"] = path
                files[f"{name} {precision} fused"] = with_shapes(path)
        taken = profile(files, target, SETTINGS)
        operators = {name: fused(path) for name, path in files.items()}
    rows = {
        name: {
            "p50_ms": one.latency.p50_ms,
            "undisturbed_ms": one.undisturbed_ms,
            "SkipLayerNormalization": operators[name],
        }
        for name, one in taken.items()
    }
    plain = [name for name in files if not name.endswith("fused")]
    told: dict[str, Any] = {
        "what": "milliseconds with ONNX Runtime's SkipLayerNormalization ('fused') and without",
        "command": "python benchmarks/fusion.py",
        "fused_costs": {
            name: taken[f"{name} fused"].undisturbed_ms / taken[name].undisturbed_ms - 1
            for name in plain
        },
        "models": rows,
        "environment": environment(target.name, taken[plain[0]].facts),
    }
    RESULT.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["fused_costs"], indent=1))


def model(layer: LayerShape) -> Classifier:
    torch.manual_seed(0)
    shape = Shape((layer,) * 6, hidden=384, head_dim=32, vocab=MINILM.vocab_size)
    return Classifier(Encoder(MINILM, shape), {"target": 2}).eval()


def with_shapes(path: Path) -> Path:
    inferred = SymbolicShapeInference.infer_shapes(onnx.load(path), auto_merge=True)
    other = path.with_suffix(".shapes.onnx")
    onnx.save(inferred, other)
    return other


def fused(path: Path) -> int:
    """How many of them stand in the graph that runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimised"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    return Counter(node.op_type for node in graph.node)["SkipLayerNormalization"]


if __name__ == "__main__":
    main()
