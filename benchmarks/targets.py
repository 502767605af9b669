"""Runtimes beside ONNX Runtime: parity, sizes, latency, the table's error, and budgets met on each.

    python benchmarks/targets.py --run RUN --data DIR --runs DIR [--only openvino mnn …]
                                 [--parts agreement latency table compress] [--effort standard]
                                 [--smoke]

RUN is a finished run of `benchmarks/compress.py` with a budget of 50 % (trec6), DIR holds trec6 and
clinc150 as folders of JSON Lines. Three models of it (dense, pruned, pruned in int8) answer 200
padded test rows on every runtime that is usable here; are timed there, in turn with ONNX Runtime;
then each runtime has its latency table tried on 20 random plans, and gets a model compressed to
50 % of what the dense one takes on it. All but `agreement` want a quiet machine.

Writes benchmarks/results/targets.json after every row, and goes on from there; what failed is tried
again. `edgeprune targets install …` comes first.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from compress import row as compressed_row
from latency_table import measure as measure_table_error
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgeprune.compression import compress_all
from edgeprune.errors import EdgepruneError
from edgeprune.export.answers import answer
from edgeprune.export.quantize import to_int8
from edgeprune.latency import Latency
from edgeprune.measure.environment import NodeEnvironment
from edgeprune.measure.launch import Bench, Blocks, Load, files, prepare
from edgeprune.measure.target import Runtime, Target, runtimes
from edgeprune.onnx_session import open_session
from edgeprune.parity import compare
from edgeprune.recipe import Effort, Recipe
from edgeprune.report.environment import environment
from edgeprune.report.folder import budget_folder

RESULT = Path(__file__).parent / "results" / "targets.json"
PARTS = ("agreement", "latency", "table", "compress")
SEQUENCE = 128
LOAD = Load(sequence=SEQUENCE)

Rows = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Extent:
    """How much of it is done; a smoke run says only that everything works."""

    effort: Effort = "standard"
    launches: int = 10
    iterations: int = 50
    warmup_s: float = 0.5
    rows: int = 200
    plans: int = 20


SMOKE = Extent("quick", 1, 5, 0.05, 8, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=runtimes())
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--smoke", action="store_true", help="write into the runs' folder instead")
    parser.add_argument("--effort", default=Extent.effort, help="of the part compress")
    asked = parser.parse_args()
    extent = SMOKE if asked.smoke else Extent(asked.effort)
    result = Result(asked.runs / "targets.json" if asked.smoke else RESULT)
    with tempfile.TemporaryDirectory() as scratch:
        models = find_models(asked.run, Path(scratch))
        rows = real_rows(budget_folder(asked.run, "50%") / "bundle", asked.data, extent.rows)
        for name in asked.only:
            check = Target.parse(name).runtime.check()
            if name == "null" or not check.usable:
                print(f"{name}: left out {check.why}", flush=True)
                continue
            for part in asked.parts:
                do(result, part, name, models, rows, extent, asked)
    for row in result.rows():
        print(json.dumps(row))


def do(
    result: Result,
    part: str,
    name: str,
    models: Mapping[str, Path],
    rows: Rows,
    extent: Extent,
    asked: argparse.Namespace,
) -> None:
    """One part of one runtime, model by model where it is about models."""
    if part == "table":
        result.add(part, name, "", lambda: table_error(name, extent))
    elif part == "compress":
        recipe = recipe_for(asked.data, asked.runs, extent, name)
        told = {"effort": extent.effort}
        result.add(part, name, "", lambda: told | compressed_row(compress_all(recipe)[0]))
    else:
        for model, onnx in models.items():
            if part == "agreement":
                result.add(part, name, model, partial(agreement, onnx, name, rows))
            else:
                result.add(part, name, model, partial(timed, onnx, name, extent))


class Result:
    """What was found so far; a row that failed says why, and is tried again next time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.told["command"] = "python benchmarks/targets.py"

    def add(self, part: str, name: str, model: str, work: Callable[[], Any]) -> None:
        found = self.told.setdefault(part, {}).setdefault(name, {})
        if "error" not in found.get(model, {"error": ""}):
            return
        print(part, name, model, flush=True)
        try:
            found[model] = work()
        except EdgepruneError as error:
            print(f"  {error}", flush=True)
            found[model] = {"error": error.why}
        self.told["rows"] = self.rows()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.told, indent=1) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The published one: a row for each model on each runtime."""
        parts = [self.told.get(part, {}) for part in ("agreement", "latency")]
        names = sorted({(name, model) for part in parts for name in part for model in part[name]})
        kept = (
            *("agreement", "max_abs", "cosine", "size_mb", "install_mb", "error"),
            *("p50_ms", "p90_ms", "p50_over_ort", "p90_over_ort"),
        )
        rows = []
        for name, model in names:
            found = {k: v for part in parts for k, v in part.get(name, {}).get(model, {}).items()}
            found = {key: found[key] for key in kept if key in found}
            rows.append({"runtime": name, "model": model} | found)
        return rows


def find_models(run: Path, scratch: Path) -> dict[str, Path]:
    """A run's dense model and its pruned one, and that in int8."""
    (dense,) = (run / "stages").glob("dense-*/model.onnx")
    pruned = budget_folder(run, "50%") / "bundle" / "model.onnx"
    int8 = to_int8(pruned, scratch / "model.onnx")
    return {"dense": dense, "pruned": pruned, "pruned int8": int8}


def real_rows(bundle: Path, data: Path, count: int) -> Rows:
    """Test rows of trec6 as tokens, all of one length."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.enable_truncation(SEQUENCE)
    tokenizer.enable_padding(length=SEQUENCE)
    lines = (data / "trec6" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["sentence1"] for line in random.Random(0).sample(lines, count)]
    found = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([one.ids for one in found]),
        "attention_mask": np.array([one.attention_mask for one in found]),
        "token_type_ids": np.array([one.type_ids for one in found]),
    }


def agreement(onnx: Path, name: str, rows: Rows) -> dict[str, Any]:
    """Answers of a runtime to real rows, each alone and padded, against ONNX Runtime's."""
    session = open_session(onnx, threads=1)
    wanted = [value.name for value in session.get_inputs()]
    count = len(rows["input_ids"])
    asked = [{key: rows[key][[row]] for key in wanted} for row in range(count)]
    theirs = np.concatenate([answer(session, feeds) for feeds in asked])
    target = Target.parse(name)
    with prepare({"model": onnx}, target, LOAD) as bench:
        ours = np.concatenate([outputs[0] for outputs in bench.answer("model", asked)])
        size = sum(file.stat().st_size for file in files(bench.converted["model"]))
    return {
        "rows": count,
        **compare((1, SEQUENCE), ours, theirs).to_dict(),
        "size_mb": round(size / 1e6, 3),
        "install_mb": install_mb(target.runtime),
        "version": target.runtime.check().version,
    }


def timed(onnx: Path, name: str, extent: Extent) -> dict[str, Any]:
    """A model on a runtime and on ONNX Runtime, launches in random order within each round."""
    blocks = Blocks(extent.iterations, extent.iterations, 0, extent.warmup_s)
    order = random.Random(0)
    with ExitStack() as stack:
        benches: dict[str, Bench] = {
            one: stack.enter_context(prepare({"model": onnx}, Target.parse(one), LOAD))
            for one in sorted({"ort", name})
        }
        runs: dict[str, list[Any]] = {one: [] for one in benches}
        stack.enter_context(benches[name].target.alone(print))
        for turn in range(extent.launches):
            for one in order.sample([*benches], len(benches)):
                runs[one].append(benches[one].launch(["model"], blocks, seed=turn))
        facts = {
            "runtime": runs[name][0].result["runtime"],
            "device": benches[name].target.device.facts(),
        }
    latency = Latency.of([run.samples_ms("model") for run in runs[name]])
    ort = Latency.of([run.samples_ms("model") for run in runs["ort"]])
    return {
        "p50_ms": round(latency.p50_ms, 4),
        "p90_ms": round(latency.p90_ms, 4),
        "p50_over_ort": round(latency.p50_ms / ort.p50_ms, 4),
        "p90_over_ort": round(latency.p90_ms / ort.p90_ms, 4),
        "peak_mb": round(max(run.peak_mb for run in runs[name]), 1),
        "cold_ms": round(statistics.median(run.cold_ms("model") for run in runs[name]), 1),
        "launches": [[round(ms, 4) for ms in run] for run in latency.launches_ms],
        "ort_launches": [[round(ms, 4) for ms in run] for run in ort.launches_ms],
        "environment": environment(name, facts),
    }


def table_error(name: str, extent: Extent) -> dict[str, Any]:
    told = measure_table_error(name, plans=extent.plans)
    keys = ("median_error", "worst_error", "median_share_error", "worst_share_error")
    return {key: round(told[key], 4) for key in keys} | {"plans": told["plans"]}


def recipe_for(data: Path, runs: Path, extent: Extent, target: str) -> Recipe:
    return Recipe(
        model="demo",
        task=str(data / "trec6"),
        auxiliary=[str(data / "clinc150")],
        train_size=300,
        budget=["50%"],
        effort=extent.effort,
        sequence=SEQUENCE,
        target=[target],
        # One folder: the teacher is the same for all.
        out=runs / f"targets-{extent.effort}",
    )


def install_mb(runtime: Runtime) -> float:
    """What its environment holds beside pip, or what its packages put into edgeprune's own."""
    own = runtime.environment
    if isinstance(own, NodeEnvironment):
        return round(own.size_mb, 1)
    packages = [package.name for package in own.packages] if own else ["onnxruntime"]
    if own is not None and own.is_installed:
        site = [str(path) for path in own.folder.glob("lib/python*/site-packages")]
        found = [
            d for d in metadata.distributions(path=site) if d.name not in ("pip", "setuptools")
        ]
    else:
        found = [metadata.distribution(name) for name in packages]
    paths = [Path(str(d.locate_file(file))) for d in found for file in d.files or ()]
    return round(sum(path.stat().st_size for path in paths if path.is_file()) / 1e6, 1)


if __name__ == "__main__":
    main()
