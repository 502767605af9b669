"""Runtimes beside ONNX Runtime: latency, parity, sizes, the table's error, and budgets met on each.

    python benchmarks/targets.py --data DIR --runs DIR [--only openvino mnn …] [--smoke]

DIR holds mrpc and qqp as folders of JSON Lines. Three models of one run (dense, pruned to 50 %,
that in int8) are timed on every runtime that is usable here, launches of all of them in random
order; then each runtime answers 200 test rows, has its latency table tried on 20 random plans, and
gets a model compressed to 50 % of what the dense one takes on it. Wants a quiet machine.

Writes benchmarks/results/targets.json after every part, and goes on from there: a part is done
again when its runtimes are others. `edgeprune targets install …` comes first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from compress import row as compressed_row
from latency_table import measure as measure_table_error

from edgeprune.compression import compress_all
from edgeprune.errors import EdgepruneError
from edgeprune.export.answers import answer, open_session
from edgeprune.inputs import read_inputs
from edgeprune.latency import Latency
from edgeprune.measure.environment import NodeEnvironment
from edgeprune.measure.launch import Bench, Blocks, Load, files, prepare
from edgeprune.measure.target import Runtime, Target, runtimes
from edgeprune.parity import compare
from edgeprune.recipe import Recipe
from edgeprune.report.environment import environment
from edgeprune.report.report import Report
from edgeprune.stages.materials import prepare as prepare_materials

RESULT = Path(__file__).parent / "results" / "targets.json"
SEQUENCE = 128
ROWS = 200


@dataclass(frozen=True)
class Extent:
    """How much of it is done; a smoke run says only that everything works."""

    effort: str = "standard"
    runs: str = "standard"
    launches: int = 10
    iterations: int = 50
    warmup_s: float = 0.5
    rows: int = ROWS
    plans: int = 20


SMOKE = Extent("quick", "rapid", 1, 5, 0.05, 8, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=runtimes())
    parser.add_argument("--smoke", action="store_true", help="write beside the run folder instead")
    asked = parser.parse_args()
    extent = SMOKE if asked.smoke else Extent()
    path = asked.runs / "targets.json" if asked.smoke else RESULT
    checks = {name: Target.parse(name).runtime.check() for name in sorted({"ort", *asked.only})}
    names = [name for name, check in checks.items() if check.usable and name != "null"]
    parts = Parts(path)
    parts.told["command"] = "python benchmarks/targets.py"
    parts.told["missing"] = {n: c.why for n, c in checks.items() if not c.usable}
    models = find_models(asked.data, asked.runs, extent)
    for model, onnx in models.items():
        parts.do(f"latency {model}", names, lambda onnx=onnx: time_all(onnx, names, extent))
    rows = real_rows(asked.data, asked.runs, extent)
    for name in names:
        parts.do(f"parity {name}", name, lambda name=name: ask_all(models, name, rows))
        parts.do(f"table {name}", name, lambda name=name: table_error(name, extent))
        recipe = recipe_for(asked.data, asked.runs, extent, name)
        parts.do(f"compress {name}", name, lambda recipe=recipe: compressed_row(made(recipe)))
    parts.told["table"] = [summary(parts.told, name, model) for name in names for model in models]
    parts.save()
    for row in parts.told["table"]:
        print(json.dumps(row))


class Parts:
    """The result so far, by part; one that failed says why, and is tried again next time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def do(self, part: str, asked: object, work: Callable[[], Any]) -> None:
        done = self.told.get(part)
        if done is not None and done["asked"] == asked and "error" not in done:
            return
        print(part, flush=True)
        try:
            self.told[part] = {"asked": asked, "found": work()}
        except EdgepruneError as error:
            print(f"  {error}", flush=True)
            self.told[part] = {"asked": asked, "error": str(error)}
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.told, indent=1) + "\n")


def recipe_for(data: Path, runs: Path, extent: Extent, target: str, **more: Any) -> Recipe:
    return Recipe(
        model="demo",
        task=str(data / "mrpc"),
        auxiliary=str(data / "qqp"),
        train_size=500,
        budget=["50%"],
        effort=extent.effort,
        runs=extent.runs,
        sequence=SEQUENCE,
        target=[target],
        # One folder: the teacher is the same for all.
        out=runs / f"targets-{extent.effort}",
        **more,
    )


def made(recipe: Recipe) -> Report:
    return compress_all(recipe)[0]


def find_models(data: Path, runs: Path, extent: Extent) -> dict[str, Path]:
    """Of one run for ONNX Runtime: its dense model, and the student in both precisions."""
    recipe = recipe_for(data, runs, extent, "ort", precision="auto")
    stages = made(recipe).stages
    wanted = {"dense": "dense", "pruned": "fp32-50pct", "pruned int8": "int8-50pct"}
    return {
        model: recipe.out / "stages" / f"{stage}-{stages[stage][:12]}" / "model.onnx"
        for model, stage in wanted.items()
    }


def real_rows(data: Path, runs: Path, extent: Extent) -> Mapping[str, Any]:
    materials = prepare_materials(read_inputs(recipe_for(data, runs, extent, "ort")))
    tokens = materials.tokens["test"]
    some = np.random.default_rng(0).permutation(len(tokens))[: extent.rows]
    return tokens.batch(some, materials.encoder.input_names, SEQUENCE)


def time_all(onnx: Path, names: Sequence[str], extent: Extent) -> dict[str, Any]:
    """One model on every runtime: launches in random order within each round."""
    blocks = Blocks(extent.iterations, extent.iterations, 0, extent.warmup_s)
    order, found = random.Random(0), dict[str, Any]()
    with contextlib.ExitStack() as stack:
        benches: dict[str, Bench] = {}
        for name in names:
            try:
                load = Load(sequence=SEQUENCE)
                bench = prepare({"model": onnx}, Target.parse(name), load)
                benches[name] = stack.enter_context(bench)
            except EdgepruneError as error:
                found[name] = {"error": str(error)}
        runs = {name: [] for name in benches}
        for turn in range(extent.launches):
            for name in order.sample(sorted(benches), len(benches)):
                runs[name].append(benches[name].launch(["model"], blocks, seed=turn))
        ort = Latency.of([run.samples_ms("model") for run in runs["ort"]])
        for name, bench in benches.items():
            latency = Latency.of([run.samples_ms("model") for run in runs[name]])
            size = sum(file.stat().st_size for file in files(bench.converted["model"]))
            facts = {"runtime": runs[name][0].result["runtime"]}
            facts["device"] = bench.target.device.facts()
            found[name] = {
                "p50_ms": round(latency.p50_ms, 4),
                "p90_ms": round(latency.p90_ms, 4),
                "p50_over_ort": round(latency.p50_ms / ort.p50_ms, 4),
                "p90_over_ort": round(latency.p90_ms / ort.p90_ms, 4),
                "size_mb": round(size / 1e6, 3),
                "peak_mb": round(max(run.peak_mb for run in runs[name]), 1),
                "cold_ms": round(statistics.median(r.cold_ms("model") for r in runs[name]), 1),
                "install_mb": install_mb(bench.target.runtime),
                "launches": [[round(ms, 4) for ms in run] for run in latency.launches_ms],
                "environment": environment(name, facts),
            }
    return found


def ask_all(
    models: Mapping[str, Path], name: str, rows: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Answers of a runtime to real rows, each alone and padded, against ONNX Runtime's."""
    target, found = Target.parse(name), dict[str, Mapping[str, Any]]()
    count = len(next(iter(rows.values())))
    asked = [{key: array[[row]] for key, array in rows.items()} for row in range(count)]
    for model, onnx in models.items():
        try:
            with prepare({"model": onnx}, target, Load(sequence=SEQUENCE)) as bench:
                ours = np.concatenate([outputs[0] for outputs in bench.answer("model", asked)])
        except EdgepruneError as error:
            found[model] = {"error": str(error)}
            continue
        session = open_session(onnx, threads=1)
        theirs = np.concatenate([answer(session, feeds) for feeds in asked])
        found[model] = {"rows": count, **compare((1, SEQUENCE), ours, theirs).to_dict()}
    return found


def table_error(name: str, extent: Extent) -> dict[str, Any]:
    told = measure_table_error(name, plans=extent.plans)
    keys = ("median_error", "worst_error", "median_share_error", "worst_share_error")
    return {key: round(told[key], 4) for key in keys} | {"plans": told["plans"]}


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


def summary(told: Mapping[str, Any], name: str, model: str) -> dict[str, Any]:
    """A row of the published table."""
    timed = told[f"latency {model}"].get("found", {}).get(name, {})
    asked = told[f"parity {name}"].get("found", {}).get(model, {})
    kept = ("p50_ms", "p90_ms", "p50_over_ort", "size_mb", "install_mb", "error")
    parity = ("max_abs", "cosine", "agreement")
    return (
        {"runtime": name, "model": model}
        | {key: timed[key] for key in kept if key in timed}
        | {key: asked[key] for key in parity if key in asked}
        | {"table_error": told[f"table {name}"].get("found", {}).get("median_share_error")}
    )


if __name__ == "__main__":
    main()
