"""A classifier as one ONNX file: batch and sequence dynamic, logits the only output."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.encoder import Classifier
from edgeprune.errors import OnnxError
from edgeprune.quiet import wait_while_measuring

OPSET = 20  # the first with Gelu as one operator; onnxruntime has it since 1.17
SINGLE_FILE_BYTES = 2**31


class _Deployed(nn.Module):
    """Positional inputs in, logits of the target head out."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        states = self.model.encoder(input_ids, attention_mask, token_type_ids)
        return self.model.read(states[-1], attention_mask)


def to_onnx(model: Classifier, path: Path) -> Path:
    """Write the model's target head as ONNX, in one file. Raises OnnxError above 2 GB."""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size >= SINGLE_FILE_BYTES:
        raise OnnxError(f"ONNX file of {size / 1e9:.1f} GB", why="one file holds at most 2 GB")
    names = model.encoder.input_names
    # Batch and length of at least 2: the exporter would take a 1 for a constant.
    ids = torch.full((2, 16), 5, dtype=torch.int64)
    inputs = {name: torch.zeros_like(ids) for name in names}
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    wait_while_measuring()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Deployed(model).eval(),
            tuple(inputs[name] for name in names),
            dynamo=True,
            dynamic_shapes=tuple(dynamic for _ in names),
            input_names=names,
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # only the legacy exporter returns nothing
    _name_dimensions(program.model)
    _forget_shapes(program.model)
    program.save(str(path), external_data=False)
    return path


def _name_dimensions(model: object) -> None:
    """`batch` and `sequence` instead of the exporter's symbols, for whoever reads the inputs."""
    graph = model.graph  # type: ignore[attr-defined]
    for value in graph.inputs:
        value.shape[0], value.shape[1] = "batch", "sequence"
    for value in graph.outputs:
        value.shape[0] = "batch"


def _forget_shapes(model: object) -> None:
    """Leave the shapes between operators out of the file.

    By them, ONNX Runtime fuses residual and LayerNorm into SkipLayerNormalization, whose kernel for
    processors is the slower way: a sixth of a small encoder's latency. Whoever wants shapes infers
    them. (benchmarks/fusion.py)
    """
    graph = model.graph  # type: ignore[attr-defined]
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's chatter (about torchvision, about symbols) tells a user nothing."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
