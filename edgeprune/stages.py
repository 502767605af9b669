"""The stages of a run: each makes its values from those of earlier stages, once, and keeps them.

A stage is a function from values to a value. What it makes is published in the run folder, and
read back from there, so that a value found is the same as a value made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune import __version__
from edgeprune.effort import Effort
from edgeprune.encoder import Classifier, Encoder, load, load_pretrained, save
from edgeprune.errors import RecipeError, Unreachable
from edgeprune.export.answers import Parity, answer_rows, check_parity
from edgeprune.export.inspect import Contents, inspect
from edgeprune.export.onnx import to_onnx
from edgeprune.export.quantize import to_int8
from edgeprune.inputs import Inputs, Transfer
from edgeprune.latency import Budget, LatencyTable
from edgeprune.learn.train import (
    Judge,
    Sample,
    Schedule,
    Taught,
    accelerator,
    imitation_loss,
    inputs_of,
    judge_on,
    predict,
    recover,
    teach,
)
from edgeprune.measure.profile import Profile, Settings, measure_table, profile
from edgeprune.measure.target import Target
from edgeprune.prune.importance import (
    Curves,
    collect_moments,
    error_curves,
    pool,
)
from edgeprune.prune.search import Plan, minimum_ms, search, search_sensitivity
from edgeprune.prune.surgery import operate
from edgeprune.recipe import Recipe
from edgeprune.run import Run, Stage
from edgeprune.shape import LayerShape, Shape
from edgeprune.task import Rows, Task
from edgeprune.tokens import Tokens, endless, tokenize

STACK = 4  # equal layers in a probe of the latency table
PROBE_VOCABULARY = 2_048  # looking tokens up costs the same in a small table, writing it does not
AIM = 0.92  # of the budget; what is under it is room for the noise of the measurement
TIGHT, LOOSE = 0.95, 0.87  # the measured share of the budget with which the plan is left alone
ROUNDS = 4  # of plan, export and measure
JUDGED_AT_MOST = 1_000  # validation rows at a checkpoint


@dataclass(frozen=True)
class Materials:
    """What a run works on: its inputs with the encoder, and every split as tokens."""

    inputs: Inputs
    encoder: Encoder
    tokenizer: Any
    tokens: Mapping[str, Tokens]  # of "train", "validation", "test", "auxiliary"
    encoder_digest: str

    @property
    def recipe(self) -> Recipe:
        return self.inputs.recipe

    @property
    def effort(self) -> Effort:
        return self.inputs.effort

    @property
    def transfer(self) -> Transfer:
        return self.inputs.transfer

    @property
    def target(self) -> Target:
        return self.inputs.target

    @property
    def task(self) -> Task:
        return self.inputs.task

    @property
    def auxiliary(self) -> Task | None:
        return self.inputs.auxiliary

    @property
    def train(self) -> Sample:
        return Sample.of("target", self.task, self.task.train, self.tokens["train"])

    @property
    def validation(self) -> tuple[Rows, Sample]:
        rows, tokens = self.task.validation, self.tokens["validation"]
        if len(rows) > JUDGED_AT_MOST:
            some = np.random.default_rng(self.recipe.seed).permutation(len(rows))[:JUDGED_AT_MOST]
            rows, tokens = rows.take(some), tokens.take(some)
        return rows, Sample.of("target", self.task, rows, tokens)

    @property
    def judge(self) -> Judge:
        return judge_on(self.task, *self.validation)

    @property
    def auxiliary_train(self) -> Sample | None:
        if self.auxiliary is None:
            return None
        tokens = self.tokens["auxiliary"]
        return Sample.of("auxiliary", self.auxiliary, self.auxiliary.train, tokens)

    def schedule(self, steps: int) -> Schedule:
        # Wider encoders are moved by smaller steps.
        rate = 1e-4 if self.encoder.shape.hidden <= 512 else 5e-5
        return Schedule(steps, self.effort.batch, rate, self.recipe.seed)

    def settings(self, runs: str) -> Settings:
        recipe = self.recipe
        return Settings.plan(
            runs, threads=recipe.threads, batch=recipe.batch, sequence=recipe.sequence
        )

    @property
    def probe_precision(self) -> str:
        """What is deployed while planning: int8 is planned in int8, `auto` in fp32."""
        return "int8" if self.recipe.precision == "int8" else "fp32"

    @property
    def measured_how(self) -> dict[str, Any]:
        facts = self.target.device.facts()
        machine = {name: facts.get(name) for name in ("machine", "cpu", "cores")}
        recipe = self.recipe
        where = [self.target.name, recipe.threads, recipe.batch, recipe.sequence]
        return {"where": where, "machine": machine, "versions": versions("onnxruntime")}


def versions(*packages: str) -> dict[str, str]:
    from importlib import metadata

    return {"edgeprune": __version__} | {name: metadata.version(name) for name in packages}


def learnt_how() -> dict[str, Any]:
    """What a trained model depends on beside its recipe."""
    device = accelerator()
    kind = [device.device.type, device.mixed_precision]
    return {"versions": versions("torch", "transformers"), "device": kind}


def prepare(inputs: Inputs) -> Materials:
    """Load the encoder and tokenize every split. Raises ModelError, RecipeError."""
    encoder, tokenizer = load_pretrained(inputs.model)
    task = inputs.task
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    if inputs.auxiliary is not None:
        splits["auxiliary"] = inputs.auxiliary.train
    length, longest = inputs.recipe.sequence, _longest(encoder)
    if length > longest:
        raise RecipeError(
            f"--sequence {length}", why=f"the encoder has positions for {longest} tokens"
        )
    return Materials(
        inputs=inputs,
        encoder=encoder,
        tokenizer=tokenizer,
        tokens={
            name: tokenize(tokenizer, rows.texts, rows.pairs, length)
            for name, rows in splits.items()
        },
        encoder_digest=_weights_digest(encoder),
    )


def _longest(encoder: Encoder) -> int:
    positions = int(getattr(encoder.config, "max_position_embeddings", 512))
    # RoBERTa and its kin count positions from the padding token's id.
    offset = encoder.config.model_type in ("roberta", "xlm-roberta", "mpnet")
    return positions - 2 if offset else positions


def _weights_digest(encoder: Encoder) -> str:
    import hashlib

    total = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        total.update(name.encode())
        total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


# --- latency -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """The latency table, and the dense model's profile that was taken with it."""

    table: LatencyTable
    dense: Profile
    stage: Stage

    def aim_ms(self, budget: Budget) -> float:
        """What the table should predict for a model that meets the budget with room for noise.

        In the table's own, undisturbed milliseconds: the dense model's, scaled as the budget
        relates to the dense model's percentile. A machine in a worse mood moves both.
        """
        dense = self.dense.latency
        share = cast(float, budget.resolve(dense).ms) / dense.percentile(budget.percentile)
        return AIM * share * self.dense.undisturbed_ms

    def smallest_ms(self, budget: Budget, dense: Shape) -> float:
        """The smallest budget that can be reached at this one's percentile."""
        percentile_ms = self.dense.latency.percentile(budget.percentile)
        share = minimum_ms(self.table, dense) / (AIM * self.dense.undisturbed_ms)
        return share * percentile_ms


def time_target(run: Run, materials: Materials) -> Timing:
    """Measure the latency table on the target, from stacks of equal sub-layers."""
    shape, effort = materials.encoder.shape, materials.effort

    def build(folder: Path) -> None:
        probes = folder / "probes"
        probes.mkdir()
        write = Probes(materials, probes)
        heads = _points(shape.layers[0].heads, effort.table_heads)
        widths = _points(shape.layers[0].ffn, effort.table_widths)
        total = len(heads) + len(widths) + 5
        count = iter(range(1, total + 1))

        def probe(layers: Sequence[LayerShape]) -> Path:
            path = write(layers)
            run.progress.step(next(count), total, "exporting probes")
            return path

        attention = {h: probe([LayerShape(h, 0)] * STACK) for h in heads}
        ffn = {w: probe([LayerShape(0, w)] * STACK) for w in widths}
        empty = probe([LayerShape(0, 0)] * STACK)
        wholes = [(whole, probe(whole.layers)) for whole in _wholes(shape)]
        table = measure_table(
            attention,
            ffn,
            empty,
            wholes,
            stack=STACK,
            target=materials.target,
            settings=materials.settings("quick"),
            progress=run.progress,
        )
        dense = profile(
            {"dense": write(shape.layers, "fp32")}, materials.target, materials.settings("rapid")
        )["dense"]
        _write_json(folder / "table.json", table.to_dict())
        _write_json(folder / "dense.json", dense.to_dict())
        for path in probes.iterdir():
            path.unlink()
        probes.rmdir()

    made_from = {
        "encoder": [materials.encoder.config.model_type, shape.to_dict()],
        "measured": materials.measured_how,
        "precision": materials.probe_precision,
        "points": [effort.table_heads, effort.table_widths],
    }
    stage = run.stage("table", made_from, build)
    table = LatencyTable.from_dict(stage.read("table.json"))
    return Timing(table, Profile.from_dict(stage.read("dense.json")), stage)


@dataclass(frozen=True)
class Probes:
    """Writes encoders with random weights and a small vocabulary as ONNX files."""

    materials: Materials
    folder: Path

    def __call__(self, layers: Sequence[LayerShape], precision: str | None = None) -> Path:
        encoder = self.materials.encoder
        fields = encoder.config.to_dict() | {"vocab_size": PROBE_VOCABULARY}
        config = type(encoder.config).from_dict(fields)
        shape = Shape(tuple(layers), encoder.shape.hidden, encoder.shape.head_dim, PROBE_VOCABULARY)
        model = Classifier(Encoder(config, shape), {"target": self.materials.task.outputs}).eval()
        path = self.folder / f"{len(list(self.folder.iterdir()))}.onnx"
        return deploy(model, path, precision or self.materials.probe_precision)


def _points(width: int, count: int) -> list[int]:
    """`count` widths from a small one to all; nothing costs nothing."""
    return sorted(
        {max(1, round(width * i / count)) for i in range(1, count + 1)}
        | {max(1, width // (4 * count))}
    )


def _wholes(dense: Shape) -> Iterator[Shape]:
    """The whole models that the table is fitted on: dense, empty, and two that are neither."""
    yield dense
    yield dense.with_layers([LayerShape(0, 0)] * len(dense.layers))
    random = np.random.default_rng(0)
    for _ in range(2):
        layers = [
            LayerShape(int(random.integers(0, old.heads + 1)), int(random.integers(0, old.ffn + 1)))
            for old in dense.layers
        ]
        yield dense.with_layers(layers)


def deploy(model: Classifier, path: Path, precision: str) -> Path:
    """The model as the ONNX file that a target gets."""
    if precision == "fp32":
        return to_onnx(model, path)
    fp32 = to_onnx(model, path.with_suffix(".fp32.onnx"))
    try:
        return to_int8(fp32, path)
    finally:
        fp32.unlink()


def check_feasible(budgets: Sequence[Budget], timing: Timing, dense: Shape) -> None:
    """Before any training. Raises Unreachable for the first budget below the smallest plan."""
    for budget in budgets:
        if timing.aim_ms(budget) < minimum_ms(timing.table, dense):
            asked_ms = cast(float, budget.resolve(timing.dense.latency).ms)
            smallest_ms = timing.smallest_ms(budget, dense)
            raise unreachable(asked_ms, smallest_ms, budget.percentile)


def unreachable(asked_ms: float, smallest_ms: float, percentile: float) -> Unreachable:
    at = f"p{percentile:g}"
    return Unreachable(
        f"budget {asked_ms:.2f} ms at {at}",
        why="unreachable: too little even with every head and FFN unit gone",
        remedy=f"the smallest budget that can be reached is {smallest_ms:.2f} ms at {at}",
    )


# --- learning ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """The fine-tuned dense model; `gain` is what the auxiliary task brought on validation."""

    model: Classifier
    score: float
    gain: float | None
    taught: bool  # with the auxiliary task
    stage: Stage


def teach_teacher(run: Run, materials: Materials) -> Teacher:
    """Fine-tune alone and, where asked, coupled with the auxiliary task; keep the better one."""
    effort, transfer = materials.effort, materials.transfer
    task, auxiliary = materials.task, materials.auxiliary
    coupled = transfer.taught and auxiliary is not None

    def build(folder: Path) -> None:
        schedule = materials.schedule(effort.teacher_steps)

        def taught(how: str) -> Taught:
            outputs = {"target": task.outputs}
            other = None
            if how != "none" and auxiliary is not None:
                outputs["auxiliary"] = auxiliary.outputs
                other = materials.auxiliary_train
            return teach(
                materials.encoder,
                materials.train,
                other,
                outputs,
                how,
                schedule,
                materials.judge,
                run.progress,
            )

        best, gain = taught("none"), None
        if coupled:
            together = taught(transfer.how)
            gain = together.score - best.score
            best = together if together.beats(best) else best
        save(best.model, folder, labels=task.labels)
        scores = {"score": best.score, "gain": gain, "taught": "auxiliary" in best.model.heads}
        _write_json(folder / "scores.json", scores)

    made_from = {
        "encoder": materials.encoder_digest,
        "task": task.digest,
        "auxiliary": auxiliary.digest if coupled and auxiliary else None,
        "how": transfer.how if coupled else "none",
        "schedule": asdict(materials.schedule(effort.teacher_steps)),
        "sequence": materials.recipe.sequence,
        "learnt": learnt_how(),
    }
    stage = run.stage("teacher", made_from, build)
    scores = stage.read("scores.json")
    return Teacher(load(stage.folder), scores["score"], scores["gain"], scores["taught"], stage)


@dataclass(frozen=True)
class Sensitivity:
    """The teacher's error curves."""

    curves: Curves
    stage: Stage


def measure_curves(run: Run, materials: Materials, teacher: Teacher) -> Sensitivity:
    """What each structure of the teacher costs to lose, on target text pooled with auxiliary."""
    pooled = materials.transfer.pooled and materials.auxiliary is not None

    def build(folder: Path) -> None:
        model = teacher.model.to(accelerator().device)
        moments = collect_moments(model, _text(materials, materials.tokens["train"], model))
        if pooled:
            text = _text(materials, materials.tokens["auxiliary"], model)
            auxiliary = collect_moments(model, text)
            moments = {key: pool(moments[key], auxiliary[key]) for key in moments}
        curves = error_curves(model, moments, run.progress.step)
        curves.save(folder / "curves.safetensors")

    made_from = {
        "teacher": teacher.stage.key,
        "auxiliary": materials.auxiliary.digest if pooled and materials.auxiliary else None,
        "tokens": materials.effort.statistics_tokens,
        "seed": materials.recipe.seed,
        "learnt": learnt_how(),
    }
    stage = run.stage("curves", made_from, build)
    return Sensitivity(Curves.read(stage.folder / "curves.safetensors"), stage)


def _text(
    materials: Materials, tokens: Tokens, model: Classifier
) -> Iterator[Mapping[str, Tensor]]:
    """Batches of rows, until enough tokens or all rows have been seen."""
    enough = min(materials.effort.statistics_tokens, int(tokens.lengths.sum()))
    seen = 0
    for rows in endless(tokens, 32, materials.recipe.seed):
        yield inputs_of(tokens, rows, model.encoder)
        seen += int(tokens.lengths[rows].sum())
        if seen >= enough:
            return


# --- one budget --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """One turn of plan, export and measure, before any training; undisturbed ms."""

    aim_ms: float
    predicted_ms: float
    measured_ms: float
    share: float  # of the budget, at its percentile


@dataclass(frozen=True)
class Planned:
    """The plan that was measured to meet the budget, and the rounds that led to it."""

    plan: Plan
    rounds: tuple[Round, ...]
    stage: Stage


def plan_budget(
    run: Run,
    materials: Materials,
    timing: Timing,
    teacher: Teacher,
    sensitivity: Sensitivity,
    budget: Budget,
    name: str,
) -> Planned:
    """Search, export, measure; correct the aim by the table's error and search again.

    The dense model is measured in the same rounds, so that a share of its latency, and the
    machine's mood, are known when the candidate is judged.
    """
    shape, curves, effort = teacher.model.encoder.shape, sensitivity.curves, materials.effort
    errors = curves.errors()

    def build(folder: Path) -> None:
        aim_ms = timing.aim_ms(budget)
        plan, weights = search_sensitivity(
            errors,
            timing.table,
            shape,
            aim_ms,
            _one_shot_judge(run, materials, teacher, curves),
            draws=effort.draws,
            seed=materials.recipe.seed,
        )
        dense = deploy(teacher.model, folder / "dense.onnx", "fp32")
        rounds: list[tuple[Plan, Round]] = []
        for _ in range(ROUNDS):
            model = operate(teacher.model, plan.shape, curves)
            path = deploy(model, folder / "candidate.onnx", materials.probe_precision)
            profiles = profile(
                {"dense": dense, "candidate": path}, materials.target, materials.settings("rapid")
            )
            measured_ms, share = _share(profiles["candidate"], profiles["dense"], budget)
            rounds.append((plan, Round(aim_ms, plan.predicted_ms, measured_ms, share)))
            text = f"{plan.predicted_ms:.2f} ms predicted, {measured_ms:.2f} ms measured"
            run.progress.note(f"{text}, {share:.0%} of the budget")
            if LOOSE <= share <= TIGHT:
                break
            aim_ms = max(aim_ms * AIM / share, minimum_ms(timing.table, shape))
            plan = search(errors, timing.table, shape, aim_ms, weights)
            if plan.shape in (earlier.shape for earlier, _ in rounds):
                break
        best = min(range(len(rounds)), key=lambda i: _preference(rounds[i][1].share))
        told = {
            "plan": rounds[best][0].to_dict(),
            "rounds": [asdict(round_) for _, round_ in rounds],
            "chosen": best,
        }
        _write_json(folder / "plan.json", told)
        dense.unlink()
        (folder / "candidate.onnx").unlink()

    made_from = {
        "table": timing.stage.key,
        "curves": sensitivity.stage.key,
        "budget": str(budget),
        "draws": [effort.draws, effort.judged_rows, materials.recipe.seed],
    }
    stage = run.stage(name, made_from, build)
    told = stage.read("plan.json")
    rounds = tuple(Round(**round_) for round_ in told["rounds"])
    # The chosen round last: it is the one that the report tells.
    order = [*(i for i in range(len(rounds)) if i != told["chosen"]), told["chosen"]]
    return Planned(Plan.from_dict(told["plan"]), tuple(rounds[i] for i in order), stage)


def _share(candidate: Profile, dense: Profile, budget: Budget) -> tuple[float, float]:
    """The candidate's undisturbed ms, and its share of the budget.

    By the ratio to the dense model in the same launches: undisturbed times are steady where the
    percentile of a few samples is not.
    """
    limit_ms = cast(float, budget.resolve(dense.latency).ms)
    expected_ms = (
        dense.latency.percentile(budget.percentile)
        * candidate.undisturbed_ms
        / dense.undisturbed_ms
    )
    return candidate.undisturbed_ms, expected_ms / limit_ms


def _preference(share: float) -> tuple[bool, float]:
    """Within the budget first, and then as near to the aim as can be."""
    return share > TIGHT, abs(share - AIM)


def _one_shot_judge(run: Run, materials: Materials, teacher: Teacher, curves: Curves) -> Any:
    """How far a plan, untrained, strays from the teacher on some training rows."""
    some = np.random.default_rng(materials.recipe.seed).permutation(len(materials.train))
    sample = materials.train.take(some[: materials.effort.judged_rows])
    wanted = predict(teacher.model.to(accelerator().device), sample)
    teacher.model.to("cpu")
    tried = iter(range(1, materials.effort.draws + 1))

    def judge(plan: Plan) -> float:
        student = operate(teacher.model, plan.shape, curves).to(accelerator().device)
        run.progress.step(next(tried), materials.effort.draws, "plans tried")
        value = float(imitation_loss(predict(student, sample), wanted, sample.regression))
        return value if math.isfinite(value) else math.inf

    return judge


@dataclass(frozen=True)
class Student:
    """The recovered model; `gain` is what the auxiliary task brought in recovery, if compared."""

    model: Classifier
    score: float
    gain: float | None
    recovered: bool  # with the auxiliary task
    stage: Stage


def recover_student(
    run: Run,
    materials: Materials,
    teacher: Teacher,
    sensitivity: Sensitivity,
    planned: Planned,
    name: str,
) -> Student:
    """Distil the pruned model back; the guard compares recovery with and without the auxiliary."""
    transfer, effort = materials.transfer, materials.effort
    # A source that did not help the teacher is not offered to the student.
    offered = transfer.recovered and (teacher.taught or not transfer.taught)
    schedule = materials.schedule(effort.recovery_steps)

    def build(folder: Path) -> None:
        start = operate(teacher.model, planned.plan.shape, sensitivity.curves)

        def recovered(auxiliary: Sample | None) -> Taught:
            return recover(
                start,
                teacher.model,
                materials.train,
                auxiliary,
                transfer.how if auxiliary else "none",
                schedule,
                materials.judge,
                run.progress,
            )

        best = recovered(materials.auxiliary_train if offered else None)
        gain, with_auxiliary = None, offered
        if offered and effort.judge_students:
            alone = recovered(None)
            gain = best.score - alone.score
            if alone.beats(best):
                best, with_auxiliary = alone, False
        _drop_auxiliary_head(best.model)
        save(best.model, folder, labels=materials.task.labels)
        told = {"score": best.score, "gain": gain, "recovered": with_auxiliary}
        _write_json(folder / "scores.json", told)

    made_from = {
        "plan": planned.stage.key,
        "shape": planned.plan.shape.to_dict(),
        "offered": offered and materials.auxiliary is not None and materials.auxiliary.digest,
        "how": transfer.how,
        "judged": effort.judge_students,
        "schedule": asdict(schedule),
        "learnt": learnt_how(),
    }
    stage = run.stage(name, made_from, build)
    told = stage.read("scores.json")
    return Student(load(stage.folder), told["score"], told["gain"], told["recovered"], stage)


def _drop_auxiliary_head(model: Classifier) -> None:
    """It does not ship."""
    if "auxiliary" in model.heads:
        del model.heads["auxiliary"]


@dataclass(frozen=True)
class Exported:
    """An ONNX file whose answers were checked, its contents, and its own scores."""

    path: Path
    precision: str
    parity: tuple[Parity, ...]
    contents: Contents
    validation_score: float
    test_score: float
    stage: Stage


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
        rows, sample = materials.validation
        answers = {
            "validation": answer_rows(fp32, sample.tokens),
            "test": answer_rows(fp32, tokens, run.progress.step),
        }
        told = {
            "parity": [found.to_dict() for found in parity],
            "contents": inspect(fp32, model.encoder.shape).to_dict(),
            "validation_score": materials.task.score(answers["validation"], rows),
            "test_score": materials.task.score(answers["test"], materials.task.test),
        }
        _write_json(folder / "export.json", told)

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


def _torch_answers(model: Classifier) -> Any:
    model = model.to("cpu").eval()

    def answers(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits, _ = model({name: torch.from_numpy(ids) for name, ids in inputs.items()})
        return cast(NDArray[np.float32], logits.numpy())

    return answers


@dataclass(frozen=True)
class Measured:
    """Profiles by name, taken in interleaved launches: "dense", "fp32", "int8"."""

    profiles: Mapping[str, Profile]
    stage: Stage


def measure_models(
    run: Run, materials: Materials, dense: Exported, students: Sequence[Exported], name: str
) -> Measured:
    """Measure the dense model and the students on the target, launch by launch in turn."""
    files = {"dense": dense.path} | {exported.precision: exported.path for exported in students}

    def build(folder: Path) -> None:
        settings = materials.settings(materials.recipe.run_plan)
        for key, taken in profile(files, materials.target, settings, run.progress).items():
            _write_json(folder / f"{key}.json", taken.to_dict())
            taken.write_samples(folder / f"{key}.samples.jsonl.gz")

    made_from = {
        "models": [exported.stage.key for exported in (dense, *students)],
        "measured": materials.measured_how,
        "runs": materials.recipe.run_plan,
    }
    stage = run.stage(name, made_from, build)
    profiles = {key: Profile.from_dict(stage.read(f"{key}.json")) for key in files}
    return Measured(profiles, stage)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
