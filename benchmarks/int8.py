"""What seven bits of an int8 weight cost, and what eight cost where products must not overflow.

    python benchmarks/int8.py --models RUN/bundle/model.onnx …

Each fp32 file is quantised with weights of seven bits, as `edgeprune` does, and of eight. Opened
plainly, and with the session option `session.x64quantprecision` that eight bits need on x86
processors without VNNI: undisturbed milliseconds of one row of 128 tokens on one thread, and the
cosine of its answers to those of the fp32 file on rows of random tokens. Writes
benchmarks/results/int8.json. Wants a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgeprune.export.quantize import to_int8
from edgeprune.parity import compare
from edgeprune.report.environment import environment
from edgeprune_targets.local import Local

RESULT = Path(__file__).parent / "results" / "int8.json"
OPTION = "session.x64quantprecision"
ROUNDS, INFERENCES = 5, 40
ROWS, SEQUENCE = 32, 128

Feeds = Mapping[str, NDArray[np.int64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    asked = parser.parse_args()
    told: dict[str, Any] = {
        "what": "int8 files of seven and of eight bits, plain and with " + OPTION,
        "command": "python benchmarks/int8.py",
        "models": [compared(model) for model in asked.models],
        "environment": environment("ort", {"device": Local().facts(), "runtime": {}}),
    }
    RESULT.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["models"], indent=1))


def compared(model: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = {"fp32": model, "seven": to_int8(model, Path(folder) / "seven.onnx")}
        files["eight"] = eight_bits(model, Path(folder) / "eight.onnx")
        sessions = {
            f"{name}{', option' if option else ''}": opened(path, option=option)
            for name, path in files.items()
            for option in (False, True)
            if name != "fp32" or not option
        }
        rows = random_rows(sessions["fp32"])
        theirs = answers(sessions["fp32"], rows)
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                taken[name] += timed(session, rows[0])
    return {
        name: {
            "undisturbed_ms": round(float(np.percentile(taken[name], 5)), 3),
            "cosine": round(compare((1, SEQUENCE), answers(session, rows), theirs).cosine, 5),
        }
        for name, session in sessions.items()
    }


def eight_bits(source: Path, path: Path) -> Path:
    quantize_dynamic(str(source), str(path), per_channel=True, weight_type=QuantType.QInt8)
    made = onnx.load(path)
    del made.graph.value_info[:]
    onnx.save(made, path)
    return path


def opened(path: Path, *, option: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if option:
        options.add_session_config_entry(OPTION, "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def random_rows(session: onnxruntime.InferenceSession) -> list[Feeds]:
    random = np.random.default_rng(0)
    names = [value.name for value in session.get_inputs()]
    rows: list[Feeds] = []
    for _ in range(ROWS):
        own = {"input_ids": random.integers(1_000, 20_000, (1, SEQUENCE))}
        own["attention_mask"] = np.ones_like(own["input_ids"])
        own["token_type_ids"] = np.zeros_like(own["input_ids"])
        rows.append({name: own[name] for name in names})
    return rows


def answers(session: onnxruntime.InferenceSession, rows: list[Feeds]) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(session.run(None, dict(row))[0]) for row in rows])


def timed(session: onnxruntime.InferenceSession, row: Feeds) -> list[float]:
    taken = []
    for _ in range(INFERENCES):
        started = time.process_time_ns()
        session.run(None, dict(row))
        taken.append((time.process_time_ns() - started) / 1e6)
    return taken


if __name__ == "__main__":
    main()
