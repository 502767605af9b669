"""A run without torch: its stages are made of hashes, everything around them is the real thing.

It takes the place of `edgeprune.pipeline`, so that the command, the inputs, the run folder, the
status, the bundle and the reports can be tried at each of their writes in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from edgeprune.inputs import Inputs
from edgeprune.model_folder import folder_digest
from edgeprune.progress import Progress
from edgeprune.publish import publish_link
from edgeprune.report.folder import budget_folder, keep_reports, slug
from edgeprune.report.report import Limit, Report
from edgeprune.run import open_run, write_json
from edgeprune.ship.bundle import write_bundle
from edgeprune.status import facts_of, recording


def run_pipeline(inputs: Inputs, progress: Progress, *, restart: bool) -> list[Report]:
    recipe = inputs.recipe
    with (
        open_run(recipe.out, progress, restart=restart) as opened,
        recording(opened, recipe, facts_of(inputs), folder_digest(inputs.model)) as run,
    ):
        facts = {"seed": recipe.seed, "task": inputs.task.digest}
        teacher = run.stage("teacher", facts, making("teacher", recipe.seed))
        reports = []
        for budget in recipe.budgets:
            name = slug(str(budget))
            made_from = {"teacher": teacher.key, "budget": str(budget)}
            student = run.stage(f"student-{name}", made_from, making(name, teacher.key))
            folder = budget_folder(recipe.out, str(budget))
            told = {"sequence": 8, "seed": recipe.seed}
            write_bundle(
                folder / "bundle",
                student.folder / "weights.bin",
                student.folder / "tokenizer",
                {"model_type": "bert"},
                told,
                documents={"README.md": f"# {name}\n"},
            )
            publish_link(student.folder, folder / "model")
            report = Report.read(Path(os.environ["SMALL_REPORT"]))
            limit = Limit(text=str(budget), ms=report.budget.ms, percentile=90)
            changes = {"budget": limit, "recipe": recipe.model_dump(mode="json")}
            reports.append(report.model_copy(update=changes))
        return keep_reports(recipe.out, reports, progress)


def making(*parts: object) -> Callable[[Path], None]:
    """Writes the same bytes each time, and others for other parts."""

    def build(folder: Path) -> None:
        seed = hashlib.sha256(repr(parts).encode()).digest()
        (folder / "weights.bin").write_bytes(seed * 64)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps({"seed": seed.hex()}))
        write_json(folder / "scores.json", {"score": seed[0] / 256})

    return build
