"""ONNX to ExecuTorch: what XNNPACK takes goes there, the rest to the portable kernels."""

from __future__ import annotations

from pathlib import Path

import onnx_module
import torch
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    loaded = onnx_module.load(onnx, batch=batch, sequence=sequence)
    examples = tuple(loaded.inputs.values())
    exported = torch.export.export(loaded.module, examples)
    partitioners = [XnnpackPartitioner()]
    if loaded.quantized:
        exported = torch.export.export(quantize(exported.module(), examples), examples)
        # First what is quantized, or the rest would take its parts.
        dynamic = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT)
        partitioners.insert(0, dynamic)
    program = to_edge_transform_and_lower(exported, partitioner=partitioners)
    path = Path(folder) / "model.pte"
    path.write_bytes(program.to_executorch().buffer)
    return str(path)


def quantize(
    module: torch.fx.GraphModule, examples: tuple[torch.Tensor, ...]
) -> torch.fx.GraphModule:
    """Linear layers per channel to int8, their inputs as they come; embeddings stay fp32."""
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    prepared = prepare_pt2e(module, quantizer)
    prepared(*examples)
    quantized: torch.fx.GraphModule = convert_pt2e(prepared)
    return quantized
