"""ONNX to MNN, by the converter inside its Python package.

Never by the scripts that come with it: they install a logging package with whatever `pip` there is,
and send usage data.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import _tools


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    converted = Path(folder) / "model.mnn"
    words = ["mnnconvert", "-f", "ONNX", "--modelFile", onnx, "--MNNModel", str(converted)]
    said = overheard([*words, "--bizCode", "edgeprune"])
    lacking = re.search(r"Not Support:?\s*(.+)", said)
    if lacking:
        raise NotImplementedError(f"lacks the operator {lacking[1].strip()}")
    if not converted.exists():
        raise ValueError((said.strip().splitlines() or ["no message"])[-1])
    return str(converted)


def overheard(words: list[str]) -> str:
    """Runs the converter; it tells what went wrong on stdout only."""
    with tempfile.TemporaryFile() as heard:
        before = os.dup(1)
        os.dup2(heard.fileno(), 1)
        try:
            _tools.mnnconvert(words)
        finally:
            os.dup2(before, 1)
            os.close(before)
        heard.seek(0)
        return heard.read().decode(errors="replace")
