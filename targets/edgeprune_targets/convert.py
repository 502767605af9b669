"""Runs a converter: `python convert.py CONVERTER ONNX FOLDER BATCH SEQUENCE`, in its own process.

Imports the standard library and the converter's file, which imports what its runtime has and
nothing of ours. Such a file defines
    convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str
which writes what the runtime runs into the folder and returns its path; other files there are for
people. It raises NotImplementedError for an operator that the runtime lacks, and anything else for
a model that it cannot take.

The answer is the last line on stdout, MARK and a JSON object: {"path"}, or {"fault", "why"} with a
fault that is "import", "lacking" or "model". All else that is written goes to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

MARK = "edgeprune-said"


def main(converter: str, onnx: str, folder: str, batch: str, sequence: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # native libraries chat there too
    told = converted(converter, onnx, folder, int(batch), int(sequence))
    print(f"{MARK} {json.dumps(told)}", file=answers, flush=True)


def converted(path: str, onnx: str, folder: str, batch: int, sequence: int) -> dict[str, Any]:
    try:
        converter = load_module(path)
    except ImportError as error:
        return {"fault": "import", "why": str(error)}
    try:
        return {"path": converter.convert(onnx, folder, batch=batch, sequence=sequence)}
    except NotImplementedError as error:
        return {"fault": "lacking", "why": str(error)}
    except Exception as error:
        return {"fault": "model", "why": str(error) or type(error).__name__}


def load_module(path: str) -> Any:
    # What several converters share lies beside them.
    sys.path.append(str(Path(path).parent))
    specification = importlib.util.spec_from_file_location("edgeprune_converter", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
