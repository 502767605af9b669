"""Do we time what others time? Our launches against the benchmark that onnxruntime itself ships.

    python benchmarks/onnxruntime_loop.py MODEL.onnx [--rounds 10] [--inferences 200]

Each round runs both once, in random order, each in a process of its own with one thread: a launch
of ours, and `onnxruntime/transformers/bert_perf_test.py` as it is installed, whose median is read
from the table that it writes. Takes about two minutes for a model of 8 ms, and asks for a machine
on which nothing else works. Needs the extra `train`, as that program imports torch.

Writes benchmarks/results/onnxruntime_loop.json: both medians of each round, and their ratio.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime

from edgeprune.latency import Latency
from edgeprune.measure.launch import Bench, Blocks, Load, prepare
from edgeprune.measure.tails import t_quantile
from edgeprune.measure.target import Target
from edgeprune.report.environment import environment

RESULT = Path(__file__).parent / "results" / "onnxruntime_loop.json"
THEIRS = Path(onnxruntime.__file__).parent / "transformers" / "bert_perf_test.py"
SEQUENCE = 128
WITHIN = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--inferences", type=int, default=200)
    asked = parser.parse_args()
    target, order = Target.parse("ort"), random.Random(0)
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    with (
        tempfile.TemporaryDirectory() as scratch,
        prepare({"model": asked.model}, target, Load(sequence=SEQUENCE)) as bench,
    ):
        model = Path(shutil.copy(asked.model, scratch))
        for number in range(asked.rounds):
            for who in order.sample([*found], len(found)):
                found[who].append(
                    ours_ms(bench, asked.inferences, number)
                    if who == "ours"
                    else theirs_ms(model, asked.inferences, number)
                )
            print({who: round(ms[-1], 3) for who, ms in found.items()}, flush=True)
        facts = bench.launch(["model"], Blocks(1, 1, 0, 0.0), seed=0).result["runtime"]
    logs = [math.log(a / b) for a, b in zip(found["ours"], found["theirs"], strict=True)]
    reach = t_quantile(0.995, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    ratio = statistics.median(found["ours"]) / statistics.median(found["theirs"])
    result = {
        "what": "median latency of launches of ours over that of onnxruntime's bert_perf_test.py, "
        "run in turn; the interval is of the geometric mean of the rounds' ratios, at 99 %",
        "command": "python benchmarks/onnxruntime_loop.py MODEL.onnx",
        "model_mb": round(asked.model.stat().st_size / 1e6, 1),
        "inferences": asked.inferences,
        "medians_ms": found,
        "ratio": round(ratio, 4),
        "interval": [round(math.exp(statistics.mean(logs) + end), 4) for end in (-reach, reach)],
        "within_3_percent": abs(ratio - 1) <= WITHIN,
        "environment": environment("ort", {"device": target.device.facts(), "runtime": facts}),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"ours / theirs {ratio:.4f}")


def ours_ms(bench: Bench, inferences: int, seed: int) -> float:
    """The median of one launch, warmed up as for a verdict."""
    run = bench.launch(["model"], Blocks(inferences, inferences, 0, 0.5), seed=seed)
    return Latency.of([run.samples_ms("model")]).p50_ms


def theirs_ms(model: Path, inferences: int, seed: int) -> float:
    """The median that onnxruntime's own program writes of one call."""
    words = ["--model", str(model), "--batch_size", "1", "--sequence_length", str(SEQUENCE)]
    words += ["--samples", str(inferences), "--test_times", "1", "--seed", str(seed)]
    words += ["--intra_op_num_threads", "1"]
    subprocess.run([sys.executable, str(THEIRS), *words], check=True, stdout=subprocess.DEVNULL)
    [table] = model.parent.glob("perf_results_*.txt")
    with table.open(newline="") as file:
        [row] = csv.DictReader(file, delimiter="\t")
    table.unlink()
    return float(row["Latency_P50"])


if __name__ == "__main__":
    main()
