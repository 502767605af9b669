"""The whole road on a tiny encoder: what is made, what is kept, and what a later call redoes.

Milliseconds are those of the `null` runtime, which derives them from the weights. One run is paid
for; the others start from copies of its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import save_tiny_model
from scipy import stats  # type: ignore[import-untyped]
from tokenizers import Tokenizer

import edgeprune
from edgeprune.ablation import ablate, cells
from edgeprune.compression import compress_all
from edgeprune.effort import EFFORTS, Effort
from edgeprune.errors import BudgetError, InputError, ModelError, RecipeError, Unreachable
from edgeprune.inputs import read_inputs
from edgeprune.learn import train
from edgeprune.learn.fit import Taught
from edgeprune.measure.profile import Profile
from edgeprune.measure.verdict import Reason
from edgeprune.progress import SILENT, Silent
from edgeprune.recipe import Method, Recipe
from edgeprune.report.page import figures_of, read_runs
from edgeprune.report.report import PlanPart, Report
from edgeprune.run import Stage, open_run
from edgeprune.shape import Shape
from edgeprune.ship.bundle import verify_bundle
from edgeprune.size import SLACK_BYTES, ByteTable
from edgeprune.stages import materials, stage_names, teaching, timing
from edgeprune.stages import spelling as spelling_stage
from edgeprune.stages.materials import prepare
from edgeprune.stages.ranking import settle_auxiliary
from edgeprune.stages.spelling import spell_rows
from edgeprune.stages.teaching import pick_depth, teach_teacher, trial_depths
from edgeprune.status import read_status
from edgeprune.vocabulary import rewritten
from edgeprune_cli.app import main
from edgeprune_cli.show import summary

jsonschema = pytest.importorskip("jsonschema")

pytestmark = pytest.mark.skipif(
    not entry_points(group="edgeprune.runtimes", name="null"),
    reason="runtimes are found by the entry points of an installed package",
)

# As little as does the job; a few steps must be large ones.
LITTLE = replace(
    EFFORTS["quick"],
    teacher_steps=60,
    recovery_steps=40,
    statistics_tokens=2_000,
    draws=3,
    judged_rows=32,
    table_heads=1,
    table_widths=1,
)
RATE = 3e-3
SHARED = ["table", "teacher", "curves", "dense"]
STAGES = [*SHARED, "plan-50pct", "student-50pct", "fp32-50pct", "latency"]


@pytest.fixture(scope="module", autouse=True)
def _little_effort() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, Effort], EFFORTS), "quick", LITTLE)
        patch.setattr(materials, "RATE", RATE)
        patch.setattr(timing, "STACK", 1)  # the null runtime's table is exact from one layer
        yield


@dataclass
class Listening(Silent):
    """Notes which stages were made and which were found."""

    made: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def stage(self, name: str, *, cached: bool) -> None:
        (self.found if cached else self.made).append(name)


# --- data: which letter most of the words begin with --------------------------------------------


def words(rng: random.Random, letters: str) -> str:
    told = [f"{letter}{rng.randrange(20)}" for letter in letters]
    told += [f"r{rng.randrange(20)}" for _ in range(rng.randint(0, 2))]
    return " ".join(rng.sample(told, len(told)))


def class_row(rng: random.Random, letters: str) -> dict[str, Any]:
    letter = rng.choice(letters)
    return {"text": words(rng, letter * rng.randint(3, 6)), "label": f"mostly {letter}"}


def score_row(rng: random.Random) -> dict[str, Any]:
    number = rng.randint(0, 5)
    return {"text": words(rng, "p" * (5 - number) + "q" * number), "label": number / 5 + 0.1}


def write_task(folder: Path, row: Callable[[random.Random], dict[str, Any]], train: int) -> str:
    rng = random.Random(folder.name)
    folder.mkdir()
    for split, size in (("train", train), ("validation", 40), ("test", 40)):
        lines = [json.dumps(row(rng)) for _ in range(size)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("compress")
    return Recipe(
        model=str(tiny_model),
        task=write_task(folder / "letters", lambda rng: class_row(rng, "pq"), 60),
        auxiliary=[write_task(folder / "more letters", lambda rng: class_row(rng, "pqr"), 120)],
        budget=["50%"],
        target=["null"],
        effort="quick",
        out=folder / "run",
    )


@dataclass(frozen=True)
class Made:
    recipe: Recipe
    reports: list[Report]
    progress: Listening

    @property
    def report(self) -> Report:
        return self.reports[0]

    @property
    def folder(self) -> Path:
        return self.recipe.out


Later = Callable[[dict[str, Any]], Made]


@pytest.fixture(scope="module")
def first(recipe: Recipe) -> Made:
    """The run that is paid for; its folder is only looked at."""
    progress = Listening()
    return Made(recipe, compress_all(recipe, progress=progress), progress)


@pytest.fixture(scope="module")
def later(first: Made, tmp_path_factory: pytest.TempPathFactory) -> Later:
    """Another call, with some keys changed, in a copy of the first run's folder."""

    def call(changes: dict[str, Any]) -> Made:
        out = tmp_path_factory.mktemp("later") / "run"
        shutil.copytree(first.folder, out, symlinks=True)
        recipe = first.recipe.model_copy(update={"out": out, **changes})
        progress = Listening()
        return Made(recipe, compress_all(recipe, progress=progress), progress)

    return call


# --- what a run leaves --------------------------------------------------------------------------


def test_the_budget_is_met_and_used(first: Made) -> None:
    report = first.report
    assert report.verdict.outcome == "met"
    assert report.exit_code == 0
    assert 0.85 * report.budget.ms <= report.after.p90_ms <= report.budget.ms
    assert report.budget.ms == pytest.approx(0.5 * report.before.p90_ms)
    assert "null (proxy)" in report.verdict.line


def test_the_table_foresaw_the_plan(first: Made) -> None:
    plan = first.report.plan
    assert plan.measured_untrained_ms == pytest.approx(plan.predicted_ms, rel=0.03)
    assert first.report.feasibility.minimum_ms < first.report.budget.ms


def test_what_can_be_learned_is_learned_and_kept(first: Made) -> None:
    assert first.report.before.score > 0.9
    assert first.report.floor_met
    assert first.report.after.metric == "accuracy"


def test_the_student_is_smaller_in_every_count(first: Made) -> None:
    before, after = first.report.before, first.report.after
    assert after.parameters < before.parameters
    assert after.size_mb < before.size_mb
    for layer in first.report.plan.layers:
        assert (layer.heads_before, layer.ffn_before) == (4, 64)
        assert layer.heads <= 4
        assert layer.ffn <= 64
        assert layer.parameters_after < layer.parameters_before
        assert layer.bytes_after == 4 * layer.parameters_after
    gone = sum(row.parameters_before - row.parameters_after for row in first.report.plan.layers)
    assert before.parameters - after.parameters == gone


def test_the_report_on_disk_is_the_report_and_keeps_to_its_schema(first: Made) -> None:
    told = json.loads((first.folder / "report.json").read_text())
    schema = Path(__file__).parent.parent / "docs" / "report.schema.json"
    jsonschema.validate(told, json.loads(schema.read_text()))
    assert told == json.loads(first.report.to_json())
    assert (first.folder / "budgets" / "50pct" / "report.json").is_file()
    assert "50%" in (first.folder / "report.md").read_text()


def test_every_stage_is_made_once_in_order(first: Made) -> None:
    assert first.progress.made == STAGES
    assert first.progress.found == []
    assert list(first.report.seconds) == STAGES
    assert first.report.cached == ()
    came_as_foreseen(first)


def came_as_foreseen(made: Made) -> None:
    """The status of a finished run tells the stages that its recipe lets expect, and no other."""
    status = read_status(made.folder)
    assert status.state == "finished"
    assert [row.name for row in status.rows] == list(stage_names(made.recipe))
    assert {row.state for row in status.rows} == {"done"}
    assert [row.name for row in status.rows if row.cached] == made.progress.found
    assert {*status.used} <= {path.name for path in (made.folder / "stages").iterdir()}


def rows_of(task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(task) / "test.jsonl").read_text().splitlines()]


def answers_of(bundle: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """Logits by nothing but onnxruntime and tokenizers, as on a device."""
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    session = onnxruntime.InferenceSession(
        bundle / "model.onnx", providers=["CPUExecutionProvider"]
    )
    found = []
    for text in texts:
        encoding = tokenizer.encode(text)
        row = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feeds = {one.name: np.array([row[one.name]]) for one in session.get_inputs()}
        found.append(np.asarray(session.run(["logits"], feeds)[0])[0])
    return np.stack(found)


def test_the_score_is_that_of_the_shipped_file(first: Made) -> None:
    bundle = first.folder / first.report.bundle
    verify_bundle(bundle)
    names = json.loads((bundle / "config.json").read_text())["id2label"]
    rows = rows_of(first.recipe.task)
    logits = answers_of(bundle, [row["text"] for row in rows])
    said = [names[str(label)] for label in logits.argmax(1)]
    right = np.mean([label == row["label"] for label, row in zip(said, rows, strict=True)])
    assert first.report.after.score == pytest.approx(right)


def test_the_model_for_pytorch_answers_as_the_shipped_file(first: Made) -> None:
    model = edgeprune.load(first.folder / "budgets" / "50pct" / "model")
    assert list(model.heads) == ["target"]  # the auxiliary head does not ship
    shape = [(layer.heads, layer.ffn) for layer in model.encoder.shape.layers]
    assert shape == [(row.heads, row.ffn) for row in first.report.plan.layers]
    tokenizer = Tokenizer.from_file(str(first.folder / "bundle" / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode("p1 q2 p3").ids])
    with torch.no_grad():
        logits, _ = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    shipped = answers_of(first.folder / "bundle", ["p1 q2 p3"])
    np.testing.assert_allclose(logits.numpy(), shipped, atol=1e-4)


def test_the_shipped_file_is_told_and_passed_the_gate_of_parity(first: Made) -> None:
    assert [row.shape[0] for row in first.report.parity] == [1, 1, 8]
    assert all(row.max_abs < 1e-3 and row.agreement == 1 for row in first.report.parity)
    assert first.report.export.parameters == first.report.after.parameters
    assert first.report.precisions[0].kept


def test_the_auxiliary_task_is_told(first: Made) -> None:
    report = first.report
    assert report.auxiliary is not None
    assert report.auxiliary.rows.train == 120
    assert (report.transfer.how, report.transfer.what, report.transfer.when) == (
        "joint",
        "both",
        "all",
    )
    assert report.transfer.gain is not None
    assert "statistics pooled" in report.transfer.note


def test_the_bundle_proves_what_it_is(first: Made) -> None:
    bundle = first.folder / "bundle"
    verified = edgeprune.verify(bundle)
    assert verified.agrees
    assert verified.golden is not None
    assert verified.golden["rows"] == 32
    assert verified.golden["tolerance"]["agreement"] == 1
    manifest = verify_bundle(bundle)
    assert manifest["measured"]["sha256"] == first.report.export.sha256
    assert manifest["verdict"]["outcome"] == "met"
    assert manifest["data_sha256"] == first.report.task.digest
    assert manifest["versions"]["edgeprune"] == edgeprune.__version__
    golden = json.loads((bundle / "golden.json").read_text())
    assert all(len(row) == first.recipe.sequence for row in golden["inputs"]["input_ids"])


def test_whoever_loads_the_bundle_cuts_rows_where_the_run_did(first: Made) -> None:
    bundle = first.folder / "bundle"
    cuts = json.loads((bundle / "tokenizer.json").read_text())["truncation"]
    told = json.loads((bundle / "tokenizer_config.json").read_text())
    assert cuts["max_length"] == told["model_max_length"] == first.recipe.sequence


def test_the_bundle_tells_no_row_and_no_folder(first: Made) -> None:
    bundle = first.folder / "bundle"
    texts = [row["text"] for row in rows_of(first.recipe.task)]
    for path in bundle.iterdir():
        told = path.read_bytes().decode("utf-8", "replace")
        assert str(first.folder.parent) not in told
        assert first.recipe.model not in told
        assert not any(text in told for text in texts)
    assert "more letters used" in (bundle / "README.md").read_text()


def test_nothing_half_made_is_left(first: Made) -> None:
    hidden = [path for path in first.folder.rglob(".*") if path.name != ".lock"]
    assert hidden == []
    dangling = [path for path in first.folder.rglob("*") if not path.exists()]
    assert dangling == []


def test_everything_that_a_page_shows_lies_in_the_run_folder(first: Made) -> None:
    found = figures_of(read_runs([first.folder]))
    assert found.left_out == {}
    names = {figure.name for figure in found.made}
    assert {"teaching", "recovery-50pct", "errors", "transfer", "latency-50pct"} <= names
    (teaching,) = found.of("teaching")
    assert len({row["step"] for row in teaching.dicts()}) == LITTLE.teacher_steps
    assert {row["training"] for row in teaching.dicts()} == {"alone", "coupled"}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- a later call -------------------------------------------------------------------------------


def test_a_second_call_redoes_nothing_and_says_the_same(first: Made, later: Later) -> None:
    second = later({})
    assert second.progress.made == []
    assert second.report.cached == tuple(STAGES)
    about = {"cached", "peak_mb", "run", "recipe", "command"}
    told = [json.loads(made.report.to_json()) for made in (first, second)]
    ours, theirs = ({k: v for k, v in one.items() if k not in about} for one in told)
    assert ours == theirs
    assert bytes_of(second.folder / "bundle") == bytes_of(first.folder / "bundle")


def test_another_budget_redoes_only_what_depends_on_it(first: Made, later: Later) -> None:
    both = later({"budget": ["30%", "50%"]})
    assert both.progress.made == ["plan-30pct", "student-30pct", "fp32-30pct", "latency"]
    assert both.progress.found == [*SHARED, "plan-50pct", "student-50pct", "fp32-50pct"]
    for report in both.reports:
        assert report.verdict.outcome == "met"
        assert 0.85 * report.budget.ms <= report.after.p90_ms <= report.budget.ms
        verify_bundle(both.folder / report.bundle)
    tight, loose = both.reports
    assert (tight.budget.text, loose.budget.text) == ("30%", "50%")
    assert tight.after.parameters < loose.after.parameters == first.report.after.parameters
    assert tight.before == loose.before  # measured once, in the same minutes
    assert (both.folder / "bundle").resolve().parent.name == "30pct"
    assert "plan-50pct" not in tight.seconds
    came_as_foreseen(both)


@pytest.mark.parametrize("method", [name for name in get_args(Method) if name != "obs"])
def test_every_method_takes_the_same_road(later: Later, method: str) -> None:
    made = later({"method": method, "floor": 0.1})
    assert made.report.verdict.outcome == "met"
    assert {"table", "teacher", "dense"} <= set(made.progress.found)
    assert ("curves" in made.progress.found) is (method == "oneshot")  # those of the default
    came_as_foreseen(made)
    rows = made.report.plan.layers
    if method == "layerdrop":
        whole = [((r.heads_before, r.ffn_before), (r.heads, r.ffn)) for r in rows]
        assert all(after in (before, (0, 0)) for before, after in whole)
    if method == "oneshot":
        trained = json.loads((stage_of(made, "student-50pct") / "history.json").read_text())
        assert trained == {"alone": {"steps": [], "checkpoints": []}}
    verify_bundle(made.folder / "bundle")


def test_of_several_auxiliary_tasks_the_most_promising_is_taken(
    first: Made, later: Later, tmp_path: Path
) -> None:
    def noise(rng: random.Random) -> dict[str, Any]:
        return {"text": words(rng, "pq"), "label": rng.choice(["yes", "no"])}

    folder = tmp_path / "sets"
    folder.mkdir()
    write_task(folder / "noise", noise, 120)
    shutil.copytree(first.recipe.auxiliary[0], folder / "more letters")
    made = later({"auxiliary": [f"auto:{folder}"]})
    assert made.progress.made[0] == "ranking"
    assert made.report.auxiliary is not None
    assert made.report.auxiliary.name == "more letters"
    assert made.report.notes[0].startswith("auxiliary: more letters taken; by the proxy: more")
    assert {"table", "teacher", "curves"} <= set(made.progress.found)  # as it was the only one
    came_as_foreseen(made)


def test_of_auxiliary_tasks_in_an_order_all_teach_and_the_last_stays(
    first: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noise(rng: random.Random) -> dict[str, Any]:
        return {"text": words(rng, "pq"), "label": rng.choice(["yes", "no", "never"])}

    write_task(tmp_path / "noise", noise, 120)
    sets = [first.recipe.auxiliary[0], str(tmp_path / "noise")]
    asked = {"out": tmp_path / "run", "order": "interference", "auxiliary": sets}
    taught = []

    def teach(*arguments: Any, **options: Any) -> Taught:
        found = train.teach(*arguments, **options)
        taught.append((arguments, found.model))
        return found

    monkeypatch.setattr(teaching, "teach", teach)
    changed = first.recipe.model_copy(update=asked)
    with open_run(changed.out, SILENT) as run:
        prepared, (note,) = settle_auxiliary(run, prepare(read_inputs(changed)))
        teach_teacher(run, prepared)
    letters = Path(sets[0]).name
    assert note.startswith(f"auxiliary: noise, then {letters} taken; by the proxy: {letters} ")
    assert prepared.auxiliary is not None
    assert prepared.auxiliary.name == letters
    (alone, _), (earlier, schooled), (coupled, _) = taught
    assert earlier[3] == {"target": 3}
    assert earlier[5].steps == round(teaching.EARLIER * alone[5].steps)
    assert alone[0] is prepared.encoder
    assert coupled[0] is schooled.encoder


@pytest.mark.parametrize(("code", "made"), [("overloaded", ["latency"]), ("emulated", [])])
def test_what_the_moment_spoilt_is_measured_again_and_nothing_else(
    later: Later, monkeypatch: pytest.MonkeyPatch, code: str, made: list[str]
) -> None:
    doubt = Reason(code, "2.3 processes wanted the 2 cores")
    monkeypatch.setattr(Profile, "doubts", property(lambda profile: (doubt,)))
    again = later({})
    assert again.progress.made == made
    assert again.report.verdict.outcome == "inconclusive"


def test_plain_text_is_an_auxiliary_task(later: Later, tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "letters at large.txt"
    path.write_text("\n\n".join(words(rng, "pqr") for _ in range(80)))
    made = later({"auxiliary": [str(path)]})
    assert made.report.auxiliary is not None
    assert made.report.auxiliary.kind == "text"
    assert made.report.auxiliary.rows.train == 80
    assert made.report.transfer.gain is not None
    assert list(edgeprune.load(made.folder / "budgets" / "50pct" / "model").heads) == ["target"]
    came_as_foreseen(made)


def stage_of(made: Made, name: str) -> Path:
    return made.folder / "stages" / f"{name}-{made.report.stages[name][:12]}"


def test_an_ablation_shares_what_its_cells_have_in_common(first: Made, tmp_path: Path) -> None:
    told: list[str] = []

    class Telling(Listening):
        def note(self, text: str) -> None:
            told.append(text)

    compared = cells(first.recipe, ["method=magnitude", "when=teacher"])
    found = ablate(compared, seeds=1, jobs=1, out=tmp_path, progress=(progress := Telling()))
    assert progress.made.count("table") == progress.made.count("teacher") == 1
    assert progress.made.count("plan-50pct") == 3
    assert [one.cell for one in found] == ["as it is", "method magnitude", "when teacher"]
    assert all(one.met == one.seeds == 1 for one in found)
    left = {path.name.rpartition("-")[0] for path in (tmp_path / "runs/seed-0/stages").iterdir()}
    assert left == set(SHARED)
    assert "method magnitude, seed 0 is done, 2 of 3 cells" in told


def test_another_way_to_measure_redoes_only_the_measurement(
    later: Later,
) -> None:
    assert later({"runs": "rapid", "floor": 0.5}).progress.made == ["latency"]


SLOW = """
import json
from edgeprune_targets.null import Null as _Null

class Slow(_Null):
    precisions = ("fp32",)

    def convert(self, onnx, folder, *, batch, sequence):
        path = super().convert(onnx, folder, batch=batch, sequence=sequence)
        cost = json.loads(path.read_text())
        path.write_text(json.dumps(cost | {"ms": 3 * cost["ms"] + 0.05}))
        return path
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A second runtime, on which the parts that stay cost more of the whole."""
    (tmp_path / "slow_runtime.py").write_text(SLOW)
    metadata = tmp_path / "slow_runtime-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-runtime\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[edgeprune.runtimes]\nslow = slow_runtime:Slow\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "slow"


def test_a_budget_for_several_targets_is_met_on_each_and_used_on_one(
    first: Made, later: Later, slow: str
) -> None:
    made = later({"target": ["null", slow]})
    assert made.progress.found == ["teacher", "curves", "dense"]
    report = made.report
    assert report.verdict.outcome == "met"
    assert [(row.target, row.outcome) for row in report.targets] == [("null", "met"), (slow, "met")]
    shares = [row.after_p90_ms / row.budget_ms for row in report.targets]
    assert 0.85 <= max(shares) <= 1
    assert report.targets[1].budget_ms == pytest.approx(report.targets[1].before_p90_ms / 2)
    assert report.after.parameters < first.report.after.parameters  # the other one asks for more
    assert report.verdict.targets == 2
    for text in ((made.folder / "report.md").read_text(), summary(made.reports)):
        assert all(row.line in text for row in report.targets)
    came_as_foreseen(made)


def test_milliseconds_for_several_targets_are_judged_on_the_slowest(
    first: Made, later: Later, slow: str
) -> None:
    on_slow = 3 * first.report.after.p90_ms + 0.05
    made = later({"target": [slow, "null"], "budget": [f"{on_slow}ms"]})
    row, other = made.report.targets
    assert 0.85 <= row.after_p90_ms / row.budget_ms <= 1
    assert other.after_p90_ms < 0.5 * row.budget_ms
    assert made.report.verdict.outcome == "met"


def test_one_target_that_cannot_meet_it_ends_the_run_before_training(
    first: Made, later: Later, slow: str
) -> None:
    with pytest.raises(Unreachable, match="at p90 on slow"):
        later({"target": ["null", slow], "budget": [f"{first.report.after.p90_ms}ms"]})


def test_a_target_without_int8_leaves_fp32(later: Later, slow: str) -> None:
    made = later({"target": ["null", slow], "precision": "auto"})
    assert [candidate.precision for candidate in made.report.precisions] == ["fp32"]
    with pytest.raises(RecipeError, match="slow does not take ONNX files in int8"):
        later({"target": [slow], "precision": "int8"})


def test_int8_is_tried_and_kept_where_it_pays(first: Made, later: Later) -> None:
    made = later({"precision": "auto"})
    assert made.progress.made == ["int8-50pct", "latency"]
    came_as_foreseen(made)
    fp32, int8 = made.report.precisions
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert int8.p90_ms < fp32.p90_ms  # the null runtime goes by bytes
    assert int8.size_mb < fp32.size_mb
    assert int8.kept is not fp32.kept
    kept = int8 if int8.kept else fp32
    assert (made.report.after.precision, made.report.after.score) == (kept.precision, kept.score)
    assert verify_bundle(made.folder / "bundle")["precision"] == kept.precision
    assert edgeprune.verify(made.folder / "bundle").agrees
    if not int8.kept:
        assert "on validation, the floor is" in int8.why


def test_int8_is_expected_to_answer_alike_and_not_the_same(later: Later) -> None:
    bundle = later({"precision": "int8"}).folder / "bundle"
    golden = verify_bundle(bundle)["golden"]
    assert (golden["max_abs"], golden["cosine"], golden["agreement"]) == (None, 0.99, 0.9)
    assert edgeprune.verify(bundle).agrees


def test_scores_are_compressed_too_one_task_after_the_other(
    first: Made, later: Later, tmp_path: Path
) -> None:
    task = write_task(tmp_path / "shares", score_row, 60)
    made = later({"task": task, "transfer_how": "sequential", "transfer_what": "weights"})
    assert made.progress.found == ["table"]  # it knows nothing of tasks
    report = made.report
    assert report.verdict.outcome == "met"
    assert (report.task.kind, report.after.metric) == ("regression", "spearman")
    assert (report.transfer.how, report.transfer.what) == ("sequential", "weights")
    rows = rows_of(task)
    said = answers_of(made.folder / "bundle", [row["text"] for row in rows])
    assert said.shape == (40, 1)
    told = stats.spearmanr([row["label"] for row in rows], said[:, 0]).statistic
    assert report.after.score == pytest.approx(float(told), abs=1e-6)
    assert report.before.score > 0.5


def test_a_plan_of_an_earlier_run_has_a_vote(first: Made, later: Later) -> None:
    made = later({"votes": [str(first.folder)]})
    assert made.progress.found == SHARED
    assert made.progress.made[0] == "plan-50pct"
    assert made.report.verdict.outcome == "met"
    assert made.report.recipe["votes"] == [str(first.folder)]
    again = Listening()
    compress_all(made.recipe, progress=again)
    assert again.made == []


def test_a_run_of_another_encoder_has_no_vote(
    first: Made, tmp_path: Path, make_run: Callable[..., Path]
) -> None:
    votes = [str(make_run("50%", plan=wider(first.report.plan)))]
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "votes": votes})
    with pytest.raises(RecipeError, match="its encoder has 2 layers of 8 heads and 64 FFN units"):
        compress_all(changed)
    assert not changed.out.exists()


def wider(plan: PlanPart) -> PlanPart:
    layers = [layer.model_copy(update={"heads_before": 8}) for layer in plan.layers]
    return plan.model_copy(update={"layers": tuple(layers)})


# --- before the training is paid for ------------------------------------------------------------


def only_the_table(first: Made, out: Path) -> Path:
    (table,) = (first.folder / "stages").glob("table-*")
    shutil.copytree(table, out / "stages" / table.name)
    return out


def test_a_budget_below_the_smallest_plan_ends_before_any_training(
    first: Made, tmp_path: Path
) -> None:
    out = only_the_table(first, tmp_path / "run")
    changed = first.recipe.model_copy(update={"out": out, "budget": ["50%", "2%"]})
    with pytest.raises(Unreachable, match="the smallest budget that can be reached is") as caught:
        compress_all(changed)
    assert caught.value.exit_code == 1
    assert [path.name.split("-")[0] for path in (out / "stages").iterdir()] == ["table"]
    # What it names can be reached.
    smallest_ms = float(caught.value.remedy.split(" is ")[1].split(" ms")[0])
    assert smallest_ms < first.report.budget.ms


def test_a_budget_that_needs_no_pruning_is_told_before_any_training(
    first: Made, tmp_path: Path
) -> None:
    told: list[str] = []

    class Hearing(Silent):
        def note(self, text: str) -> None:
            told.append(text)

    out = only_the_table(first, tmp_path / "run")
    changed = first.recipe.model_copy(update={"out": out, "budget": ["5s", "50%"]})
    prepared = prepare(read_inputs(changed))
    with open_run(out, SILENT) as run:
        timed = timing.time_targets(run, prepared)
    timing.check_feasible(prepared, timed, Hearing())
    (line,) = told
    assert line.startswith("the unpruned model meets 5000ms as it is, with ")


def test_a_share_at_a_percentile_that_could_not_be_told_ends_before_any_training(
    first: Made, tmp_path: Path
) -> None:
    out = only_the_table(first, tmp_path / "run")
    changed = first.recipe.model_copy(update={"out": out, "budget": ["50%@p99.9999"]})
    with pytest.raises(BudgetError, match=r"p99.9999 takes \d+ inferences to tell, \d+ are meas"):
        compress_all(changed)
    assert [path.name.split("-")[0] for path in (out / "stages").iterdir()] == ["table"]


def test_a_sequence_longer_than_the_encoder_is_refused(first: Made, tmp_path: Path) -> None:
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "sequence": 256})
    with pytest.raises(RecipeError, match="positions for 128 tokens"):
        compress_all(changed)
    assert not changed.out.exists()


def test_more_frozen_layers_than_may_be_are_refused_before_anything_is_trained(
    first: Made, tmp_path: Path
) -> None:
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "frozen_layers": 2})
    with pytest.raises(RecipeError, match=r"--frozen-layers 2 — the encoder has 2 .*at most 1"):
        compress_all(changed)
    assert not changed.out.exists()


def test_layers_that_are_frozen_stay_as_they_are_in_the_teacher(
    first: Made, tmp_path: Path
) -> None:
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "frozen_layers": 1})
    prepared = prepare(read_inputs(changed))
    with open_run(changed.out, SILENT) as run:
        teacher = teach_teacher(run, prepared)
    lower, upper = (layer.state_dict() for layer in teacher.model.encoder.layers)
    before = [layer.state_dict() for layer in prepared.encoder.layers]
    assert all(torch.equal(before[0][name], tensor) for name, tensor in lower.items())
    assert any(not torch.equal(before[1][name], tensor) for name, tensor in upper.items())
    assert teacher.stage.key not in first.report.stages.values()


def test_how_many_layers_are_frozen_can_be_tried_and_is_told(first: Made, tmp_path: Path) -> None:
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "frozen_layers": "auto"})
    prepared = prepare(read_inputs(changed))
    with open_run(changed.out, SILENT) as run:
        teacher = teach_teacher(run, prepared)
        again = teach_teacher(run, prepared)
    (note,) = teacher.notes
    picked = teacher.stage.read("scores.json")["frozen_layers"]
    told = (
        rf"teacher: {picked} of 2 layers frozen; on validation, by trials: 0 [01]\.\d+, 1 [01]\.\d+"
    )
    assert re.fullmatch(told, note)
    before = prepared.encoder.layers[0].state_dict()
    after = teacher.model.encoder.layers[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) is (picked == 1)
    assert (again.stage.cached, again.notes) == (True, teacher.notes)


def test_the_coupled_training_draws_what_the_one_alone_found_easy_first(
    first: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "order": "easy-first"})
    prepared, taught = prepare(read_inputs(changed)), []

    def teach(*arguments: Any, **options: Any) -> Taught:
        found = train.teach(*arguments, **options)
        taught.append((arguments[1], found.model))
        return found

    monkeypatch.setattr(teaching, "teach", teach)
    with open_run(changed.out, SILENT) as run:
        teacher = teach_teacher(run, prepared)
    (alone, model), (coupled, _) = taught
    assert alone.difficulty is None
    assert np.array_equal(coupled.difficulty, teaching.difficulty_for(model, alone))
    assert teacher.stage.key not in first.report.stages.values()


@pytest.mark.parametrize(
    ("scores", "picked"),
    [
        ({0: 0.8, 2: 0.7, 4: 0.6}, 0),
        ({0: 0.7, 2: 0.8, 4: 0.6}, 2),
        ({0: 0.8, 2: 0.8, 4: 0.8}, 4),  # it takes the least time
        ({0: 0.8, 2: 0.8, 4: 0.7}, 2),
    ],
)
def test_the_depth_that_scores_best_is_frozen_and_the_deepest_of_equals(
    scores: dict[int, float], picked: int
) -> None:
    found, note = pick_depth(6, scores.__getitem__)
    assert found == picked
    assert note.startswith(f"teacher: {picked} of 6 layers frozen")
    assert f"2 {scores[2]:.4f}" in note


@pytest.mark.parametrize(
    ("layers", "depths"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (12, [0, 4, 8])]
)
def test_never_all_layers_are_tried_frozen(layers: int, depths: list[int]) -> None:
    assert trial_depths(layers) == depths


@pytest.mark.parametrize(
    ("changes", "coupled"),
    [
        ({"transfer_how": "none"}, False),
        ({"auxiliary": []}, False),
        ({"transfer_what": "stats"}, False),
        ({"transfer_how": "sequential"}, True),
    ],
)
def test_the_teacher_is_taught_as_the_recipe_couples_it(
    first: Made, tmp_path: Path, changes: dict[str, Any], coupled: bool
) -> None:
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", **changes})
    prepared = prepare(read_inputs(changed))
    with open_run(changed.out, SILENT) as run:
        teacher = teach_teacher(run, prepared)
        assert (teacher.gain is not None) is coupled
        assert ("auxiliary" in teacher.model.heads) is teacher.taught
        assert coupled or not teacher.taught
        assert teach_teacher(run, prepared).stage.cached


def test_a_teacher_that_the_auxiliary_task_does_not_help_is_the_one_taught_alone(
    first: Made, tmp_path: Path
) -> None:
    """The guard: alone and coupled are compared on validation, and the better one is kept."""
    changed = first.recipe.model_copy(update={"out": tmp_path / "run", "transfer_how": "none"})
    with open_run(changed.out, SILENT) as run:
        alone = teach_teacher(run, prepare(read_inputs(changed)))
    (stage,) = (first.folder / "stages").glob("teacher-*")
    scores = json.loads((stage / "scores.json").read_text())
    assert scores["score"] >= alone.score
    assert scores["score"] == pytest.approx(
        alone.score + (scores["gain"] if scores["taught"] else 0)
    )


# --- the command --------------------------------------------------------------------------------

COMMAND = """
import sys
from dataclasses import replace
from edgeprune.effort import EFFORTS, Effort
from edgeprune.stages import materials, timing
from edgeprune_cli.app import main

EFFORTS["quick"] = {effort!r}
materials.RATE = {rate!r}
timing.STACK = 1
sys.exit(main(sys.argv[1:]))
"""


def options(made: Made, out: Path, budget: str) -> list[str]:
    recipe = made.recipe
    return [
        *("compress", "--model", recipe.model, "--task", recipe.task),
        *("--auxiliary", *recipe.auxiliary, "--budget", budget, "--target", "null"),
        *("--effort", "quick", "--out", str(out)),
    ]


def test_the_command_exits_0_with_the_report_of_a_met_budget(first: Made, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(first.folder, out, symlinks=True)
    program = COMMAND.format(effort=LITTLE, rate=RATE)
    child = subprocess.run(
        [sys.executable, "-c", program, *options(first, out, "50%"), "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout)
    told = told[0] if isinstance(told, list) else told
    assert told["verdict"]["outcome"] == "met"
    assert told["cached"] == STAGES  # another process comes to the same keys


def test_the_command_exits_1_for_a_budget_out_of_reach(
    first: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = only_the_table(first, tmp_path / "run")
    assert main([*options(first, out, "2%"), "--quiet"]) == 1
    assert "the smallest budget that can be reached" in capsys.readouterr().err


# --- stopped, and gone on with ------------------------------------------------------------------


def into_the_teacher(made: Made, out: Path) -> subprocess.Popen[bytes]:
    """The same command in another process, in the middle of a training that takes hours."""
    program = COMMAND.format(effort=replace(LITTLE, teacher_steps=1_000_000), rate=RATE)
    words = [sys.executable, "-c", program, *options(made, out, "50%"), "--quiet"]
    child = subprocess.Popen(words)
    while child.poll() is None:
        with contextlib.suppress(InputError):  # it has not begun
            row = read_status(out).current
            if row is not None and row.name == "teacher" and row.done:
                break
        time.sleep(0.05)
    return child


def test_a_killed_run_is_told_and_gone_on_with_to_the_same_end(
    first: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = only_the_table(first, tmp_path / "run")
    with into_the_teacher(first, out) as child:
        assert main(["status", str(out)]) == 0
        assert f"process {child.pid}" in capsys.readouterr().out
        assert main(["resume", str(out), "--quiet"]) == 2
        assert f"in use by process {child.pid}" in capsys.readouterr().err
        child.kill()
    assert main(["status", str(out)]) == 0
    told = capsys.readouterr().out
    assert "stopped in stage teacher at step " in told
    assert "run the same command to go on" in told
    assert not (out / "report.json").exists()
    assert main(["resume", str(out), "--quiet", "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert resumed["cached"] == ["table"]
    unbroken = json.loads(first.report.to_json())
    about = {"cached", "seconds", "peak_mb", "run", "recipe", "command"}
    ours, theirs = ({k: v for k, v in one.items() if k not in about} for one in (resumed, unbroken))
    assert ours == theirs
    assert read_status(out).state == "finished"
    assert [path for path in (out / "stages").iterdir() if path.name.startswith(".")] == []


def test_going_on_with_what_is_done_redoes_nothing(
    later: Later, capsys: pytest.CaptureFixture[str]
) -> None:
    made = later({})
    assert main(["resume", str(made.folder), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["cached"] == STAGES


def test_data_that_changed_are_refused_unless_all_is_done_again(
    first: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The budget is out of reach, so that nothing is trained here."""
    task = tmp_path / "letters"
    shutil.copytree(first.recipe.task, task)
    out = only_the_table(first, tmp_path / "run")
    changes = {"out": out, "task": str(task), "budget": ["2%"]}
    with pytest.raises(Unreachable):
        compress_all(first.recipe.model_copy(update=changes))
    assert read_status(out).state == "failed"
    assert main(["resume", str(out), "--quiet"]) == 1
    capsys.readouterr()
    with (task / "train.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"text": "p1 p2 q3", "label": "mostly p"}))
    before = list((out / "stages").iterdir())
    assert main(["resume", str(out), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "its data changed since it began (task letters: train 60 → 61)" in error
    assert "--restart" in error
    made = before[0].stat().st_mtime_ns
    assert main(["resume", str(out), "--quiet", "--restart"]) == 1
    assert [path.name for path in (out / "stages").iterdir()] == [before[0].name]
    assert before[0].stat().st_mtime_ns > made  # all is done again, the table first
    assert read_status(out).data["task"].train == 61


# --- a size budget ------------------------------------------------------------------------------

LETTERS_ALONE = (*"pqr0123456789", *(f"##{letter}" for letter in "pqr0123456789"))
FEW = 6  # numbers of words that training has, of 20


@pytest.fixture(scope="module")
def spelling(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """An encoder that can spell, and a task of which training shows few of the words."""
    folder = tmp_path_factory.mktemp("spelling")
    task = Path(write_task(folder / "few letters", lambda rng: class_row(rng, "pq"), 8))
    rng = random.Random(1)
    few = [few_row(rng) for _ in range(60)]
    (task / "train.jsonl").write_text("\n".join(json.dumps(row) for row in few))
    model = save_tiny_model(folder / "model", LETTERS_ALONE)
    changes = {"model": str(model), "task": str(task), "auxiliary": [], "out": folder / "run"}
    return recipe.model_copy(update=changes)


def few_row(rng: random.Random) -> dict[str, Any]:
    letter = rng.choice("pq")
    other = "q" if letter == "p" else "p"
    told = [f"{letter}{rng.randrange(FEW)}" for _ in range(4)] + [f"{other}{rng.randrange(FEW)}"]
    return {"text": " ".join(told), "label": f"mostly {letter}"}


@pytest.fixture(scope="module")
def unlimited(spelling: Recipe) -> Made:
    """Without a size budget; the others start from its folder."""
    return Made(spelling, compress_all(spelling, progress=SILENT), Listening())


@pytest.fixture(scope="module")
def sized(unlimited: Made, tmp_path_factory: pytest.TempPathFactory) -> Later:
    def call(changes: dict[str, Any]) -> Made:
        out = tmp_path_factory.mktemp("sized") / "run"
        shutil.copytree(unlimited.folder, out, symlinks=True)
        recipe = Recipe.model_validate(unlimited.recipe.model_dump() | {"out": out, **changes})
        progress = Listening()
        return Made(recipe, compress_all(recipe, progress=progress), progress)

    return call


def bytes_without(made: Made, tokens: int) -> str:
    """The size of its file with so many tokens fewer."""
    return f"{round(made.report.after.size_mb * 1e6) - tokens * 32 * 4}B"


@pytest.fixture(scope="module")
def smaller(unlimited: Made, sized: Later) -> Made:
    return sized({"size": bytes_without(unlimited, 40)})


def test_a_size_budget_cuts_the_vocabulary_and_redoes_what_depends_on_it(smaller: Made) -> None:
    own = ["plan-50pct", "vocabulary-50pct", "student-50pct", "fp32-50pct", "latency"]
    assert smaller.progress.made == own
    assert smaller.progress.found == SHARED
    came_as_foreseen(smaller)
    size = smaller.report.size
    assert size is not None
    assert size.met
    assert size.limit_bytes - 32 * 4 < size.file_bytes <= size.limit_bytes
    assert (size.tokens_before, size.tokens) == (91, 51)
    assert size.tokens_needed == 5 + len(LETTERS_ALONE) + 2 * FEW
    parts = size.vocabulary_bytes + size.weight_bytes + size.graph_bytes
    assert parts == size.file_bytes == (smaller.folder / "bundle" / "model.onnx").stat().st_size
    assert smaller.report.verdict.outcome == "met"
    assert smaller.report.verdict.reasons[-1].code == "within_size"
    assert smaller.report.exit_code == 0


def test_files_are_as_large_as_the_table_of_bytes_foresees(smaller: Made) -> None:
    table = ByteTable.from_dict(json.loads((stage_of(smaller, "table") / "bytes.json").read_text()))
    planned = json.loads((stage_of(smaller, "plan-50pct") / "plan.json").read_text())
    taken = planned["rounds"][planned["chosen"]]["file_bytes"]
    head = 2 * (32 + 1) * 4
    foreseen = table.predict(Shape.from_dict(planned["plan"]["shape"]), 91) + head
    assert abs(taken - foreseen) < SLACK_BYTES


def test_latency_is_used_as_without_a_size_budget(unlimited: Made, smaller: Made) -> None:
    assert smaller.report.plan.layers == unlimited.report.plan.layers


def test_the_score_is_that_of_the_shipped_file_and_its_own_tokenizer(smaller: Made) -> None:
    bundle = smaller.folder / "bundle"
    names = json.loads((bundle / "config.json").read_text())["id2label"]
    rows = rows_of(smaller.recipe.task)
    logits = answers_of(bundle, [row["text"] for row in rows])
    said = [names[str(label)] for label in logits.argmax(1)]
    right = np.mean([label == row["label"] for label, row in zip(said, rows, strict=True)])
    assert smaller.report.after.score == pytest.approx(right)


def test_a_bundle_with_fewer_tokens_is_whole_and_is_read_by_others(smaller: Made) -> None:
    from transformers import AutoTokenizer

    bundle = smaller.folder / "bundle"
    assert edgeprune.verify(bundle).agrees
    assert verify_bundle(bundle)["shape"]["vocab"] == 51
    assert verify_bundle(bundle)["size"]["tokens"] == 51
    config = json.loads((bundle / "config.json").read_text())
    assert (config["vocab_size"], config["pad_token_id"]) == (51, 0)
    shipped = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    assert shipped.get_vocab_size() == 51
    texts = ["p0 q19 r7", "p3 q2", "zebra p1"]
    theirs = AutoTokenizer.from_pretrained(bundle)(texts)["input_ids"]
    assert theirs == [shipped.encode(text).ids for text in texts]
    assert shipped.encode("q19").tokens == ["[CLS]", "q1", "##9", "[SEP]"]


def test_the_model_for_pytorch_has_the_shipped_tokens(smaller: Made) -> None:
    model = edgeprune.load(smaller.folder / "budgets" / "50pct" / "model")
    assert model.encoder.shape.vocab == model.encoder.config.vocab_size == 51
    tokenizer = Tokenizer.from_file(str(smaller.folder / "bundle" / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode("p1 q19 p3").ids])
    with torch.no_grad():
        logits, _ = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    shipped = answers_of(smaller.folder / "bundle", ["p1 q19 p3"])
    np.testing.assert_allclose(logits.numpy(), shipped, atol=1e-4)


def test_the_size_is_told_wherever_the_verdict_is(smaller: Made) -> None:
    line = "51 of 91 tokens"
    report = (smaller.folder / "report.md").read_text()
    card = (smaller.folder / "bundle" / "README.md").read_text()
    assert all(line in text for text in (report, summary(smaller.reports)))
    assert "## Size" in report
    assert "| vocabulary | 91 | 51 | -44% |" in report
    assert "Vocabulary: 51 of the encoder's 91 tokens" in card


def test_a_gate_holds_a_bundle_to_the_size_of_its_run(smaller: Made) -> None:
    passed = edgeprune.check(smaller.folder / "bundle", runs="rapid")
    (gate,) = [gate for gate in passed.gates if gate.name == "size"]
    assert gate.passed
    assert "may be" in gate.text


def test_a_second_call_under_a_size_budget_redoes_nothing(smaller: Made) -> None:
    again = Listening()
    compress_all(smaller.recipe, progress=again)
    assert again.made == []
    other = smaller.recipe.model_copy(update={"size": bytes_without(smaller, 1)})
    assert stage_names(other) == stage_names(smaller.recipe)


def test_more_is_pruned_where_the_tokens_that_are_needed_lack_room(
    unlimited: Made, sized: Later
) -> None:
    tokens = 91 - (5 + len(LETTERS_ALONE) + 2 * FEW)
    made = sized({"size": bytes_without(unlimited, tokens + 60), "floor": 0.1})
    size = made.report.size
    assert size is not None
    assert size.met
    assert size.tokens >= size.tokens_needed
    before, after = (
        sum(row.parameters_after for row in one.report.plan.layers) for one in (unlimited, made)
    )
    assert after < before
    assert made.report.after.p90_ms < unlimited.report.after.p90_ms
    assert made.report.verdict.outcome == "met"


def test_words_of_a_given_text_are_kept(unlimited: Made, sized: Later, tmp_path: Path) -> None:
    text = tmp_path / "words.txt"
    text.write_text("q19 p18\nr7\n")
    changes = {"size": bytes_without(unlimited, 91 - 46), "vocabulary_text": str(text)}
    made = sized(changes)
    size = made.report.size
    assert size is not None
    assert size.tokens_needed == 5 + len(LETTERS_ALONE) + 2 * FEW + 3
    known = Tokenizer.from_file(str(made.folder / "bundle" / "tokenizer.json")).get_vocab()
    assert {"q19", "p18", "r7"} <= known.keys()
    assert read_status(made.folder).data["vocabulary text"].train == 2


def test_int8_leaves_room_for_more_tokens(unlimited: Made, sized: Later) -> None:
    made = sized({"size": bytes_without(unlimited, 60), "precision": "int8", "floor": 0.1})
    size = made.report.size
    assert size is not None
    assert size.met
    assert size.tokens == 91
    parts = size.vocabulary_bytes + size.weight_bytes + size.graph_bytes
    assert parts == size.file_bytes
    assert size.vocabulary_bytes == 91 * 32


def test_a_size_below_the_smallest_ends_before_any_training(
    unlimited: Made, tmp_path: Path
) -> None:
    out = only_the_table(unlimited, tmp_path / "run")
    changed = unlimited.recipe.model_copy(update={"out": out, "size": "20kB"})
    with pytest.raises(Unreachable, match="the smallest size that can be reached is") as caught:
        compress_all(changed)
    assert caught.value.exit_code == 1
    assert "less with --precision int8" in caught.value.remedy
    assert "43 tokens (31 of them to read any text)" in caught.value.why
    assert [path.name.split("-")[0] for path in (out / "stages").iterdir()] == ["table"]


PLAN = Stage("plan-50pct", Path(), "0" * 64, 0.0, False)


def test_a_file_that_leaves_no_room_for_what_is_needed_ends_the_run(
    spelling: Recipe, tmp_path: Path
) -> None:
    sized = spelling.model_copy(update={"size": "100kB", "out": tmp_path / "run"})
    prepared, budget = prepare(read_inputs(sized)), sized.budgets[0]
    with (
        open_run(sized.out, SILENT) as run,
        pytest.raises(Unreachable, match=r"leaves room for 0 of 43 tokens .* at least 993\.856kB"),
    ):
        spell_rows(run, prepared, PLAN, 1_000_000, budget)


def test_a_tokenizer_that_reads_otherwise_than_it_may_stops_the_run(
    spelling: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(spec: dict[str, Any], kept: list[int]) -> dict[str, Any]:
        found = rewritten(spec, kept)
        vocab = found["model"]["vocab"]
        vocab["p0"], vocab["q0"] = vocab["q0"], vocab["p0"]
        return found

    monkeypatch.setattr(spelling_stage, "rewritten", swapped)
    sized = spelling.model_copy(update={"size": "100kB", "out": tmp_path / "run"})
    prepared, budget = prepare(read_inputs(sized)), sized.budgets[0]
    with (
        open_run(sized.out, SILENT) as run,
        pytest.raises(ModelError, match=r"with 91 tokens it reads \d+ train rows in another way"),
    ):
        spell_rows(run, prepared, PLAN, 50_000, budget)


def test_a_tokenizer_of_another_kind_is_not_cut(spelling: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(spelling.model, folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    words = {"type": "WordLevel", "vocab": spec["model"]["vocab"], "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps(spec | {"model": words}))
    changed = spelling.model_copy(update={"model": str(folder), "out": tmp_path / "run"})
    assert prepare(read_inputs(changed)).vocabulary is None
    with pytest.raises(ModelError, match="of the kind WordLevel, whose vocabulary cannot be cut"):
        prepare(read_inputs(changed.model_copy(update={"size": "1MB"})))


def test_an_encoder_that_cannot_spell_keeps_every_token(recipe: Recipe) -> None:
    prepared = prepare(read_inputs(recipe.model_copy(update={"size": "1MB"})))
    assert prepared.vocabulary is not None
    assert prepared.vocabulary.total == 65


def test_a_text_to_keep_without_a_size_budget_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    changed = recipe.model_copy(update={"vocabulary_text": str(tmp_path / "words.txt")})
    with pytest.raises(RecipeError, match=r"--vocabulary-text .* give --size too"):
        read_inputs(changed)
    with pytest.raises(InputError, match="No such file"):
        read_inputs(changed.model_copy(update={"size": "1MB"}))


def test_a_dry_run_tells_the_smallest_size(spelling: Recipe, tmp_path: Path) -> None:
    for size, answer in (("20kB", "unreachable"), ("1MB", "feasible")):
        plan = edgeprune.dry_run(
            spelling.model_copy(update={"size": size, "out": tmp_path / "run"})
        )
        (line,) = [line for line in plan.lines() if line.startswith("size")]
        assert line.endswith(f"with 43 of 91 tokens: {answer}")
        assert plan.feasible is (answer == "feasible")
        assert "vocabulary-50pct" in dict(plan.stages)
