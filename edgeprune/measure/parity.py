"""Whether a runtime answers as ONNX Runtime does, whatever it made of the ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import OnnxError, ParityError
from edgeprune.measure.launch import Bench, Feeds, Load
from edgeprune.onnx_file import is_int8, load_onnx
from edgeprune.onnx_session import open_session
from edgeprune.parity import INT8_AGREEMENT, INT8_COSINE, MIN_COSINE, Parity, compare

ROWS = 32  # as many are asked, or one batch
SEED = 0
VOCABULARY = 16  # the smallest that any model has


def check_converted(bench: Bench, name: str, rows: Feeds | None) -> dict[str, Any] | None:
    """Compare the named model's answers on the target with ONNX Runtime's here, on padded rows.

    `rows` are inputs [rows, tokens] of real text; None stands for seeded ones. Returns what was
    found, for the profile; None for ONNX Runtime itself, unless an option is asked of it, and for a
    runtime that infers nothing. fp32 is held to the runtime's tolerance; int8, and options
    that compute in fewer bits, to cosine and labels. Raises ParityError.
    """
    onnx, runtime = bench.models[name], bench.target.runtime
    option = bench.target.option
    if runtime.proxy or (runtime.reference and not option):
        return None
    asked = _batches(rows if rows is not None else _seeded(onnx, bench.load), bench.load)
    theirs = _flat(_reference(onnx, asked))
    ours = _flat(bench.answer(name, asked))
    rounded = option in runtime.coarse or is_int8(load_onnx(onnx))
    limit = None if rounded else runtime.tolerance * max(1.0, float(np.abs(theirs).max()))
    shape = (bench.load.batch, bench.load.sequence)
    found = compare(shape, ours, theirs, 2 * (limit or 0.0))
    least = (INT8_COSINE, INT8_AGREEMENT) if rounded else (MIN_COSINE, 1.0)
    told = {
        **found.to_dict(),
        "rows": len(asked) * bench.load.batch,
        "real": rows is not None,
        "limits": {"max_abs": limit, "cosine": least[0], "agreement": least[1]},
    }
    if not _is_alike(found, limit, *least):
        raise ParityError(
            f"model {name!r} ({onnx}) on target {bench.target.name}",
            why=f"answers unlike ONNX Runtime on {told['rows']} padded rows: {found}",
            remedy="try another version of the runtime, or another target",
        )
    return told


def _is_alike(found: Parity, limit: float | None, cosine: float, agreement: float) -> bool:
    near = limit is None or found.max_abs <= limit
    return near and found.cosine >= cosine and found.agreement >= agreement


def _seeded(onnx: Path, load: Load) -> Feeds:
    """Rows of all lengths, padded as text is."""
    random = np.random.default_rng(SEED)
    count = max(ROWS, load.batch)
    lengths = random.integers(1, load.sequence + 1, count)
    mask = (np.arange(load.sequence) < lengths[:, None]).astype(np.int64)
    ids = random.integers(2, VOCABULARY, mask.shape) * mask
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    declared = [value.name for value in load_onnx(onnx, weights=False).graph.input]
    unknown = sorted(set(declared) - set(known))
    if unknown:
        raise OnnxError(f"ONNX file {onnx}", why=f"has an input {unknown[0]!r} of unknown meaning")
    return {name: known[name] for name in declared}


def _batches(rows: Feeds, load: Load) -> list[Feeds]:
    """The rows at the one shape that is measured; what does not fill a batch begins anew."""
    count = len(next(iter(rows.values())))
    whole = -(-min(count, max(ROWS, load.batch)) // load.batch) * load.batch
    order = np.arange(whole) % count
    shaped = {name: _shaped(array[order], load.sequence) for name, array in rows.items()}
    return [
        {name: array[start : start + load.batch] for name, array in shaped.items()}
        for start in range(0, whole, load.batch)
    ]


def _shaped(array: NDArray[Any], sequence: int) -> NDArray[Any]:
    """Cut or padded to so many tokens."""
    cut = array[:, :sequence]
    return np.pad(cut, ((0, 0), (0, sequence - cut.shape[1])))


def _reference(onnx: Path, asked: Sequence[Feeds]) -> list[list[NDArray[Any]]]:
    session = open_session(onnx, threads=1)
    try:
        return [list(session.run(None, dict(feeds))) for feeds in asked]
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        why = f"does not run in ONNX Runtime: {str(error).splitlines()[0][:300]}"
        raise OnnxError(f"ONNX file {onnx}", why=why) from error


def _flat(answers: Sequence[Sequence[NDArray[Any]]]) -> NDArray[np.float32]:
    """[rows, outputs] of all batches: the first output's, which are the logits where it has any."""
    first = [np.asarray(outputs[0], dtype=np.float32) for outputs in answers]
    return np.concatenate([array.reshape(len(array), -1) for array in first])
