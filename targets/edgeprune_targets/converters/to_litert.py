"""ONNX to LiteRT: by litert-torch, inputs named as in the ONNX file."""

from __future__ import annotations

from pathlib import Path

import litert_torch
import onnx_module
from ai_edge_quantizer import quantizer, recipe


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    loaded = onnx_module.load(onnx, batch=batch, sequence=sequence)
    path = Path(folder) / "model.tflite"
    litert_torch.convert(loaded.module, sample_kwargs=dict(loaded.inputs)).export(str(path))
    if loaded.quantized:
        quantize(path)
    return str(path)


def quantize(path: Path) -> None:
    """Weights per channel to int8, embeddings too; activations as they come."""
    from_float = quantizer.Quantizer(str(path), recipe.dynamic_wi8_afp32())
    from_float.quantize().export_model(str(path), overwrite=True)
