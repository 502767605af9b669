"""How a teacher's heads start, and what that and the auxiliary task are worth to it.

    python benchmarks/teacher.py --data DIR [--only trec6 …] [--seeds 2] [--effort quick]

DIR holds the tasks and their auxiliary tasks as folders of JSON Lines. The dense model is taught as
`edgeprune compress` does it, from heads of random weights, from heads that know how frequent each
class is (`prior`), and from probes, alone and coupled (`joint`) with the auxiliary task; it is
scored on the test rows. A call that was stopped goes on. Writes benchmarks/results/teacher.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import compress
import torch

from edgeprune.demo import write_demo
from edgeprune.encoder import Classifier
from edgeprune.inputs import read_inputs
from edgeprune.learn import probe, train
from edgeprune.learn.answers import Sample, accelerator, predict
from edgeprune.progress import SILENT
from edgeprune.recipe import Recipe
from edgeprune.stages.materials import Materials, prepare

RESULT = Path(__file__).parent / "results" / "teacher.json"
# Beside the demo: those of benchmarks/compress.py that can be learnt, and one of many classes.
TASKS = {name: compress.TASKS[name] for name in ("trec6", "mrpc", "stsb")}
TASKS["banking77"] = ("clinc150", 500)
DEMO = "demo"
COUPLINGS = ("none", "joint")


def random_start(model: Classifier, sample: Sample, seed: int) -> None:
    """As torch makes them; a score from its mean."""
    if sample.regression:
        with torch.no_grad():
            model.heads[sample.head].get_parameter("bias").fill_(float(sample.targets.mean()))


def prior_start(model: Classifier, sample: Sample, seed: int) -> None:
    with patch.object(probe, "PENALTY", 1e9):
        probe.start_head(model, sample, seed)


STARTS: dict[str, Callable[[Classifier, Sample, int], None]] = {
    "random": random_start,
    "prior": prior_start,
    "probe": probe.start_head,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[DEMO, *TASKS])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--effort", default="quick")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asked.scratch = Path(scratch)
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    there = {(row["task"], row["seed"], row["start"], row["how"]) for row in rows}
    for seed, task in itertools.product(range(asked.seeds), asked.only):
        todo = [
            (start, how)
            for start, how in itertools.product(STARTS, COUPLINGS)
            if (task, seed, start, how) not in there
        ]
        if not todo:
            continue
        materials = prepare(read_inputs(recipe(task, seed, asked)))
        for start, how in todo:
            row = {"task": task, "seed": seed, "start": start, "how": how}
            rows.append(row | taught(materials, start, how))
            print(rows[-1], flush=True)
            RESULT.write_text(json.dumps(result(rows, asked.effort), indent=1) + "\n")


def recipe(task: str, seed: int, asked: argparse.Namespace) -> Recipe:
    if task == DEMO:
        # The rows are the demo's own; the seed is that of heads and batches.
        path = write_demo(asked.scratch / f"demo-{seed}")
        options = {"effort": asked.effort, "seed": str(seed), "out": str(asked.scratch / "run")}
        return Recipe.read(path, options)
    auxiliary, rows = TASKS[task]
    return Recipe(
        model="demo",
        task=str(asked.data / task),
        auxiliary=[str(asked.data / auxiliary)],
        train_size=rows,
        effort=asked.effort,
        seed=seed,
        out=asked.scratch / "run",
    )


def taught(materials: Materials, start: str, how: str) -> dict[str, float]:
    coupled = how != "none"
    with patch.object(train, "start_head", STARTS[start]):
        teacher = train.teach(
            materials.encoder,
            materials.train,
            materials.auxiliary_train if coupled else None,
            materials.outputs if coupled else {"target": materials.task.outputs},
            how,
            materials.schedule(materials.effort.teacher_steps),
            materials.judge,
            SILENT,
        )
    task = materials.task
    rows = Sample.of("target", task, task.test, materials.tokens["test"])
    logits = predict(teacher.model.to(accelerator().device), rows)
    return {
        "validation": round(teacher.score, 4),
        "test": round(task.score(logits.numpy(), task.test), 4),
    }


def result(rows: Sequence[dict[str, Any]], effort: str) -> dict[str, Any]:
    cells: dict[str, dict[str, float]] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        cells[task] = {
            f"{start}, {how}": round(statistics.fmean(scores), 4)
            for start, how in itertools.product(STARTS, COUPLINGS)
            if (scores := [r["test"] for r in mine if (r["start"], r["how"]) == (start, how)])
        }
    return {
        "what": "test scores of the dense model, by the start of its heads and its coupling; means "
        "over seeds",
        "command": f"python benchmarks/teacher.py --effort {effort}",
        "means": cells,
        "rows": list(rows),
    }


if __name__ == "__main__":
    main()
