"""What an ONNX file answers for rows of text, and whether that is what its model answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgeprune.errors import ParityError
from edgeprune.onnx_session import open_session
from edgeprune.parity import MAX_ABS, MIN_COSINE, Floats, Parity, compare
from edgeprune.quiet import wait_while_measuring
from edgeprune.tokens import Tokens

Inputs = Mapping[str, NDArray[np.int64]]


def answer(session: onnxruntime.InferenceSession, inputs: Inputs) -> Floats:
    return np.asarray(session.run(["logits"], dict(inputs))[0], dtype=np.float32)


def answer_rows(
    path: Path, tokens: Tokens, done: Callable[[int, int], None] = lambda done, total: None
) -> Floats:
    """Logits [rows, outputs], row by row and unpadded, as a device would be asked."""
    wait_while_measuring()
    # A short row leaves most of a second thread unused; a second row does not.
    session = open_session(path, threads=1)
    names = [value.name for value in session.get_inputs()]

    def one(row: int) -> Floats:
        logits: Floats = answer(session, tokens.batch([row], names))[0]
        return logits

    rows = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for row, logits in enumerate(pool.map(one, range(len(tokens)))):
            rows.append(logits)
            if row % 50 == 0:
                done(row, len(tokens))
    return np.stack(rows)


def check_parity(
    path: Path,
    reference: Callable[[Inputs], Floats],
    tokens: Tokens,
    names: Sequence[str],
    length: int,
) -> list[Parity]:
    """Compare the file with `reference` at three shapes: one row, one padded row, a padded batch.

    Raises ParityError, with the shape and the figures, where they differ.
    """
    session = open_session(path)
    batch = list(range(min(8, len(tokens))))
    found = []
    for rows, padded in (([0], None), ([0], length), (batch, length)):
        inputs = tokens.batch(rows, names, padded)
        shape = inputs["input_ids"].shape
        found.append(compare(shape, answer(session, inputs), reference(inputs)))
    for parity in found:
        alike = parity.max_abs <= MAX_ABS and parity.cosine >= MIN_COSINE and parity.agreement == 1
        if not alike:
            raise ParityError(
                f"ONNX file {path.name} at {'x'.join(map(str, parity.shape))}",
                why=f"answers unlike its model: {parity}",
                remedy="please report the model and the versions of torch and onnxruntime",
            )
    return found
