"""Does the latency table predict whole models? 20 random plans, predicted and measured.

    python benchmarks/latency_table.py [--model demo] [--target ort] [--plans 20]

Writes benchmarks/results/latency_table.json. Wants a quiet machine. Beside the error in
milliseconds stands that of the share of the dense model's, which is what budgets are planned by:
a machine that is slower when the plans are measured than when the table was moves only the first.

A plan is timed in processes of its own, as a bundle is, and in as many inferences as one figure of
the table: a low percentile of fewer, taken within a second, is higher by some percent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.demo import write_demo
from edgeprune.inputs import read_inputs
from edgeprune.measure.profile import GLANCE, profile
from edgeprune.progress import SILENT
from edgeprune.prune.structures import ffn_grid
from edgeprune.recipe import Recipe
from edgeprune.report.environment import environment
from edgeprune.run import open_run
from edgeprune.shape import LayerShape, Shape
from edgeprune.stages.materials import prepare
from edgeprune.stages.timing import Probes, time_targets

LAUNCHES = replace(GLANCE, launches=7, iterations=15)  # as many inferences as table launches take
RESULT = Path(__file__).parent / "results" / "latency_table.json"


def random_shapes(dense: Shape, count: int, seed: int = 1) -> list[Shape]:
    """Plans of every size: a share is drawn for each, then widths around it that plans can have."""
    random = np.random.default_rng(seed)
    shapes = []
    for share in np.linspace(0.1, 0.9, count):
        layers = []
        for old in dense.layers:
            heads, ffn = np.clip(random.normal(share, 0.3, 2), 0, 1)
            width = min(ffn_grid(old.ffn), key=lambda w: abs(w - ffn * old.ffn))
            layers.append(LayerShape(round(heads * old.heads), width))
        shapes.append(dense.with_layers(layers))
    return shapes


def measure(target: str, model: str = "demo", plans: int = 20) -> dict[str, Any]:
    """A table of the target, and random plans predicted by it and measured there."""
    with tempfile.TemporaryDirectory() as folder:
        demo = write_demo(Path(folder) / "demo")
        options = {"model": model, "target": target, "out": f"{folder}/run"}
        options |= {"sequence": "128", "effort": "standard"}
        materials = prepare(read_inputs(Recipe.read(demo, options)))
        with open_run(Path(folder) / "run", SILENT) as run:
            timing = time_targets(run, materials)
        (Path(folder) / "plans").mkdir()
        write = Probes(materials, Path(folder) / "plans")
        dense = materials.encoder.shape
        shapes = random_shapes(dense, plans)
        files = {str(i): write(shape.layers) for i, shape in enumerate(shapes)}
        files |= {"dense": write(dense.layers)}
        taken = profile(files, materials.targets[0], materials.settings(LAUNCHES))
    table = timing.targets[0].table
    rows = []
    mood = taken["dense"].undisturbed_ms / table.predict(dense)
    for i, shape in enumerate(shapes):
        predicted, measured = table.predict(shape), taken[str(i)].undisturbed_ms
        error = predicted / measured - 1
        share_error = mood * predicted / measured - 1
        rows.append(
            {
                "shape": str(shape),
                "predicted_ms": round(predicted, 4),
                "measured_ms": round(measured, 4),
                "error": round(error, 4),
                "share_error": round(share_error, 4),
            }
        )
        told = f"{predicted:8.2f} ms predicted {measured:8.2f} ms measured {error:+7.1%}"
        print(f"{told} {share_error:+7.1%} of dense  {shape}")
    errors = [abs(float(str(row["error"]))) for row in rows]
    share_errors = [abs(float(str(row["share_error"]))) for row in rows]
    return {
        "what": "latency table against whole models, undisturbed ms (5th percentile)",
        "command": "python benchmarks/latency_table.py",
        "median_error": statistics.median(errors),
        "worst_error": max(errors),
        "median_share_error": statistics.median(share_errors),
        "worst_share_error": max(share_errors),
        "table_seconds": timing.stage.seconds,
        "table": table.to_dict(),
        "plans": rows,
        "environment": environment(target, taken["dense"].facts),
        "notes": list(taken["dense"].notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--target", default="ort")
    parser.add_argument("--plans", type=int, default=20)
    asked = parser.parse_args()
    result = measure(asked.target, asked.model, asked.plans)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"median {result['median_error']:.1%}, worst {result['worst_error']:.1%}")
    told = f"median {result['median_share_error']:.1%}, worst {result['worst_share_error']:.1%}"
    print(f"of dense: {told}: {RESULT}")


if __name__ == "__main__":
    main()
