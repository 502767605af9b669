"""The stages that export a model, score the file, and measure it on the target."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.encoder import Classifier
from edgeprune.export.answers import Inputs, answer, answer_rows, check_parity
from edgeprune.export.inspect import Contents, inspect
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.latency import Budget
from edgeprune.measure.looks import look
from edgeprune.measure.profile import RUN_PLANS, Profile
from edgeprune.measure.samples import Question, Sampled, read_samples, write_samples
from edgeprune.measure.validity import OF_THE_MOMENT
from edgeprune.measure.verdict import Verdict, together
from edgeprune.onnx_session import open_session
from edgeprune.parity import (
    INT8_AGREEMENT,
    INT8_COSINE,
    MAX_ABS,
    MIN_COSINE,
    Floats,
    Parity,
)
from edgeprune.publish import Torn
from edgeprune.report.folder import slug
from edgeprune.run import Run, Stage, write_json
from edgeprune.ship.bundle import Golden
from edgeprune.stages.materials import Materials, versions

GOLDEN_ROWS = 32


@dataclass(frozen=True)
class Exported:
    """An ONNX file whose answers were checked, its contents, and its own scores."""

    path: Path
    precision: str
    parity: tuple[Parity, ...]
    contents: Contents
    validation_score: float | None  # of int8; fp32 answers as the model that it is made of
    test_score: float
    stage: Stage

    @property
    def size_mb(self) -> float:
        return self.path.stat().st_size / 1e6


def export_model(
    run: Run, materials: Materials, model: Classifier, made_by: Stage, precision: str, name: str
) -> Exported:
    """Export, compare with PyTorch at three shapes, and score the file itself. Raises ParityError.

    int8 answers differ from fp32 by design, so its gate is the score, and its parity is told only
    for the fp32 file that it was made from.
    """

    def build(folder: Path) -> None:
        fp32 = to_onnx(model, folder / "model.onnx")
        length = materials.recipe.sequence
        reference = _torch_answers(model)
        tokens = materials.tokens["test"]
        parity = check_parity(fp32, reference, tokens, model.encoder.input_names, length)
        if precision == "int8":
            to_int8(fp32, folder / "int8.onnx").replace(fp32)
        logits = answer_rows(fp32, tokens, run.progress.step)
        told = {
            "parity": [found.to_dict() for found in parity],
            "contents": inspect(fp32, model.encoder.shape).to_dict(),
            "validation_score": None,
            "test_score": materials.task.score(logits, materials.task.test),
        }
        if precision == "int8":
            rows, sample = materials.validation
            logits = answer_rows(fp32, sample.tokens)
            told["validation_score"] = materials.task.score(logits, rows)
        write_json(folder / "export.json", told)

    made_from = {
        "model": made_by.key,
        "precision": precision,
        "test": materials.task.digest,
        "sequence": materials.recipe.sequence,
        "versions": versions("torch", "onnx", "onnxscript", "onnxruntime"),
    }
    stage = run.stage(name, made_from, build)
    told = stage.read("export.json")
    return Exported(
        stage.folder / "model.onnx",
        precision,
        tuple(Parity(**found | {"shape": tuple(found["shape"])}) for found in told["parity"]),
        Contents(**told["contents"]),
        told["validation_score"],
        told["test_score"],
        stage,
    )


def _torch_answers(model: Classifier) -> Callable[[Inputs], Floats]:
    model = model.to("cpu").eval()

    def answers(inputs: Inputs) -> Floats:
        with torch.no_grad():
            logits, _ = model({name: torch.from_numpy(ids) for name, ids in inputs.items()})
        return cast(Floats, logits.numpy())

    return answers


def golden_answers(materials: Materials, exported: Exported) -> Golden:
    """What the file answers to some test rows, each alone and padded to the recipe's length."""
    session = open_session(exported.path, threads=1)
    names = [value.name for value in session.get_inputs()]
    inputs = golden_rows(materials, names)
    rows = [{name: inputs[name][[row]] for name in names} for row in range(len(inputs[names[0]]))]
    logits = np.concatenate([answer(session, row) for row in rows])
    if exported.precision == "int8":
        return Golden(inputs, logits, None, INT8_COSINE, INT8_AGREEMENT)
    # Answers may be large numbers, as scores are; their differences are then large too.
    largest = MAX_ABS * max(1.0, float(np.abs(logits).max()))
    return Golden(inputs, logits, largest, MIN_COSINE, 1.0)


def golden_rows(materials: Materials, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Some test rows as the named inputs, padded to the recipe's length."""
    tokens, recipe = materials.tokens["test"], materials.recipe
    chosen = np.random.default_rng(recipe.seed).permutation(len(tokens))[:GOLDEN_ROWS]
    return tokens.batch(chosen, names, recipe.sequence)


@dataclass(frozen=True)
class Measured:
    """What interleaved launches of every exported model gave, and the verdicts on the students."""

    # For each target, by the name of the stage that exported the model.
    taken: tuple[Mapping[str, Sampled], ...]
    stage: Stage

    def of(self, exported: Exported) -> list[Profile]:
        """On each target."""
        return [taken[exported.stage.name].profile for taken in self.taken]

    def asked(self, exported: Exported) -> list[Question]:
        """What a student's samples were asked: its budget in milliseconds, at the last look."""
        questions = [taken[exported.stage.name].question for taken in self.taken]
        assert None not in questions  # every student has a budget
        return [question for question in questions if question is not None]

    def verdicts(self, exported: Exported) -> list[Verdict]:
        pairs = zip(self.asked(exported), self.of(exported), strict=True)
        return [question.answer(profile) for question, profile in pairs]

    def deciding(self, exported: Exported) -> int:
        """The target whose verdict on a student is that of all together; the first of several."""
        outcomes = [verdict.outcome for verdict in self.verdicts(exported)]
        return outcomes.index(together(outcomes))


def measure_models(
    run: Run,
    materials: Materials,
    dense: Exported,
    students: Sequence[tuple[Exported, Budget, Materials]],
) -> Measured:
    """Measure the dense model and every student on each target, launch by launch in turn.

    A student comes with the materials that it was exported by: its tokens may be others.

    Again and as often as before, twice at most, those whose verdict is still open, and the dense
    model with them where the budget is a share of its latency.
    """
    models = (dense, *(exported for exported, _, _ in students))
    files = {exported.stage.name: exported.path for exported in models}
    budgets = {exported.stage.name: budget for exported, budget, _ in students}

    def build(folder: Path) -> None:
        settings = materials.settings(RUN_PLANS[materials.recipe.run_plan])
        names = dense.contents.inputs
        rows = {dense.stage.name: golden_rows(materials, names)}
        rows |= {one.stage.name: golden_rows(own, names) for one, _, own in students}
        for target in materials.targets:
            taken = look(
                files,
                target,
                settings,
                budgets,
                dense=dense.stage.name,
                targets=len(materials.targets),
                rows=rows,
                progress=run.progress,
            )
            for name, sampled in taken.items():
                own = f"{slug(target.name)}.{name}"
                write_json(folder / f"{own}.json", sampled.profile.to_dict())
                write_samples(folder / f"{own}.samples.jsonl.gz", [sampled])

    made_from = {
        "models": [exported.stage.key for exported in models],
        "budgets": [str(budget) for _, budget, _ in students],
        "measured": materials.measured_how,
        "runs": materials.recipe.run_plan,
    }

    def read(folder: Path) -> tuple[dict[str, Sampled], ...]:
        def of(target: str, name: str) -> Sampled:
            return read_samples(folder / f"{target}.{name}.samples.jsonl.gz")[0]

        slugs = [slug(target.name) for target in materials.targets]
        return tuple({name: of(target, name) for name in files} for target in slugs)

    def check(folder: Path) -> None:
        """What spoilt a measurement may be gone; a verdict that is open without it stays."""
        taken = (sampled.profile for target in read(folder) for sampled in target.values())
        for reason in itertools.chain.from_iterable(profile.doubts for profile in taken):
            if reason.code in OF_THE_MOMENT:
                raise Torn(reason.text)

    stage = run.stage("latency", made_from, build, check)
    return Measured(read(stage.folder), stage)
