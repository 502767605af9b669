"""A bundle: what is shipped to a device, the hash of every file and answers to expect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import EdgepruneError, OnnxError, RefusedError, ResourceError, TargetError
from edgeprune.hashing import described
from edgeprune.publish import publishing
from edgeprune.ship import prove

# The names that prove.py has for them.
MANIFEST, MODEL, GOLDEN = prove.MANIFEST, prove.MODEL, prove.GOLDEN
# 2: also golden, measured, verdict, plan, recipe_sha256, data_sha256, versions; golden.json
# 1 (0.1.0): {"format", "files": {name: {size, sha256}}, ...facts, "sha256": of all the rest}
FORMAT = 2
GOLDEN_FORMAT = (
    1  # 1: {"format", "inputs": {name: [rows][tokens]}, "outputs": {"logits": [rows][]}}
)
ERRORS: Mapping[str, type[EdgepruneError]] = {
    "input": OnnxError,
    "refused": RefusedError,
    "target": TargetError,
    "resource": ResourceError,
}


@dataclass(frozen=True)
class Golden:
    """Inputs, what the shipped file answered to each alone, and how far others may differ."""

    inputs: Mapping[str, NDArray[np.int64]]  # each [rows, tokens]
    logits: NDArray[np.float32]  # [rows, outputs]
    max_abs: float | None
    cosine: float
    agreement: float

    def to_json(self) -> str:
        """A row a line."""
        inputs = {name: _lines(values) for name, values in self.inputs.items()}
        parts = ",\n".join(f" {json.dumps(name)}: {rows}" for name, rows in inputs.items())
        logits = _lines(self.logits)
        return (
            f'{{"format": {GOLDEN_FORMAT}, "inputs": {{\n{parts}}},\n'
            f'"outputs": {{\n "logits": {logits}}}}}\n'
        )

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        tolerance = {"max_abs": self.max_abs, "cosine": self.cosine, "agreement": self.agreement}
        return {"rows": len(self.logits), **tolerance}


def _lines(rows: NDArray[Any]) -> str:
    return "[" + ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows.tolist()) + "]"


def write_bundle(
    folder: Path,
    model: Path,
    tokenizer_files: Path,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    *,
    golden: Golden | None = None,
    documents: Mapping[str, str] | None = None,
) -> None:
    """model.onnx, the tokenizer's files, config.json, and a manifest of them with `facts`.

    `golden` answers and `documents` (texts by file name) lie beside them. The layout is one that
    Optimum's ORTModelForSequenceClassification loads.
    """
    with publishing(folder) as new:
        shutil.copyfile(model, new / MODEL)
        for path in sorted(tokenizer_files.iterdir()):
            shutil.copyfile(path, new / path.name)
        (new / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
        for name, text in (documents or {}).items():
            (new / name).write_text(text, encoding="utf-8")
        if golden is not None:
            (new / GOLDEN).write_text(golden.to_json())
            facts = {**facts, "golden": golden.facts()}
        files = {path.name: described(path) for path in sorted(new.iterdir())}
        manifest = {"format": FORMAT, "files": files, **facts}
        manifest["sha256"] = prove.digest(manifest)
        (new / MANIFEST).write_bytes(prove.written(manifest))


def verify_bundle(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose every file is as it was written, the manifest included.

    Raises OnnxError for a folder that is no bundle, RefusedError for a file that was changed,
    added, exchanged, or put behind a link.
    """
    try:
        with prove.Bundle(str(folder)) as bundle:
            manifest = bundle.manifest()
            bundle.check(manifest)
    except prove.ProofError as fault:
        raise error_of(prove.as_told(fault)["fault"], folder) from fault
    return manifest


def error_of(fault: Mapping[str, str], bundle: Path | str) -> EdgepruneError:
    """A fault that prove.py told, as one of our errors."""
    what = f"bundle {bundle}" + (f": {fault['what']}" if fault["what"] else "")
    return ERRORS[fault["kind"]](what, why=fault["why"], remedy=fault["remedy"])
