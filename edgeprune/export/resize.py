"""The same ONNX graph at other widths, with weights drawn anew: many probes from one export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

SHAPE_NUMBERS = 4  # a constant of at most so many integers is (part of) a shape
SCALE = 0.02  # of the weights, as encoders are initialised


def resized(source: Path, sizes: Mapping[int, int], path: Path) -> Path:
    """Write `source` with every size of `sizes` replaced, in weights' dimensions and in shapes.

    Right only where those numbers mean nothing else in the graph, so they are best chosen to be
    like no other. The weights that change are random. An export takes seconds, this does not.
    """
    model = onnx.load(source)
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.int64 and value.size <= SHAPE_NUMBERS:
            flat = [sizes.get(int(number), int(number)) for number in value.ravel()]
            new = np.array(flat, np.int64).reshape(value.shape)
        else:
            shape = tuple(sizes.get(size, size) for size in value.shape)
            if shape == value.shape:
                continue
            new = (SCALE * random.standard_normal(shape)).astype(value.dtype)
        tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    del model.graph.value_info[:]  # weights' old widths stand there too
    onnx.save(model, path)
    return path
