"""The recipe in order: teach, time, price, plan, operate, recover, export, measure, judge."""

from __future__ import annotations

import resource
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgeprune.encoder import Classifier
from edgeprune.errors import Unreachable
from edgeprune.learn.train import Sample, teach
from edgeprune.measure.latency import Budget
from edgeprune.measure.profile import Profile, profile
from edgeprune.measure.verdict import judge
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe
from edgeprune.report.environment import environment
from edgeprune.report.folder import budget_folder, slug, write_reports
from edgeprune.report.report import (
    FORMAT,
    Candidate,
    ExportPart,
    Feasibility,
    Figures,
    Judgement,
    Limit,
    ParityRow,
    PlanPart,
    Report,
    TaskPart,
    layer_rows,
)
from edgeprune.report.report import Round as RoundRow
from edgeprune.report.report import Rows as RowCounts
from edgeprune.report.report import Transfer as TransferPart
from edgeprune.run import Run, open_run
from edgeprune.shape import LayerShape
from edgeprune.ship.bundle import write_bundle
from edgeprune.stages import (
    AIM,
    Exported,
    Materials,
    Measured,
    Planned,
    Student,
    Teacher,
    Timing,
    check_feasible,
    deploy,
    export_model,
    gather,
    measure_curves,
    measure_models,
    plan_budget,
    recover_student,
    teach_teacher,
    time_target,
)
from edgeprune.task import Task


def compress(recipe: Recipe, *, progress: Progress = SILENT, restart: bool = False) -> Report:
    """As `compress_all`; the report of the first budget."""
    return compress_all(recipe, progress=progress, restart=restart)[0]


def compress_all(
    recipe: Recipe, *, progress: Progress = SILENT, restart: bool = False
) -> list[Report]:
    """Compress the recipe's encoder to each of its budgets; a report each, in their order.

    Latency is settled before training is paid for: an unreachable budget ends the run at once.
    Stages that an earlier call completed are taken from the run folder, unless `restart`.
    Raises InputError, Unreachable, ParityError, Diverged, TargetError, ResourceError.
    """
    materials = gather(recipe)
    with open_run(recipe.out, progress, restart=restart) as run:
        timing = time_target(run, materials)
        check_feasible(recipe.budgets, timing, materials.encoder.shape)
        teacher = teach_teacher(run, materials)
        sensitivity = measure_curves(run, materials, teacher)
        dense = export_model(run, materials, teacher.model, teacher.stage, "fp32", "dense")
        reports = []
        for budget in recipe.budgets:
            name = slug(str(budget))
            planned = plan_budget(
                run, materials, timing, teacher, sensitivity, budget, f"plan-{name}"
            )
            student = recover_student(
                run, materials, teacher, sensitivity, planned, f"student-{name}"
            )
            exported = [
                export_model(
                    run, materials, student.model, student.stage, precision, f"{precision}-{name}"
                )
                for precision in precisions(recipe)
            ]
            measured = measure_models(run, materials, dense, exported, f"latency-{name}")
            kept, candidates = choose(recipe, dense, exported, measured)
            made = Made(timing, teacher, dense, planned, student, kept, candidates, measured)
            ship(run, materials, budget, made)
            reports.append(tell(run, materials, budget, made))
        write_reports(recipe.out, reports)
        return reports


@dataclass(frozen=True)
class Made:
    """All that one budget led to."""

    timing: Timing
    teacher: Teacher
    dense: Exported
    planned: Planned
    student: Student
    kept: Exported
    candidates: tuple[Candidate, ...]
    measured: Measured


def precisions(recipe: Recipe) -> list[str]:
    return ["fp32", "int8"] if recipe.precision == "auto" else [recipe.precision]


def choose(
    recipe: Recipe, dense: Exported, exported: Sequence[Exported], measured: Measured
) -> tuple[Exported, tuple[Candidate, ...]]:
    """int8 only where it is faster on the target and holds the quality floor on validation."""
    kept = exported[0]
    why = {kept.precision: "the only precision that was asked for"}
    if len(exported) > 1:
        fp32, int8 = exported
        floor = recipe.floor * dense.validation_score
        faster = _p90(measured, "int8") < _p90(measured, "fp32")
        sound = int8.validation_score >= min(floor, fp32.validation_score)
        kept = int8 if faster and sound else fp32
        reason = (
            "faster on the target, and within the quality floor on validation"
            if kept is int8
            else "not faster on the target"
            if not faster
            else f"scores {int8.validation_score:.4f} on validation, the floor is {floor:.4f}"
        )
        why = {"int8": reason, "fp32": "int8 is kept" if kept is int8 else "int8 does not pay"}
    candidates = tuple(
        Candidate(
            precision=one.precision,
            p50_ms=measured.profiles[one.precision].latency.p50_ms,
            p90_ms=_p90(measured, one.precision),
            size_mb=measured.profiles[one.precision].size_mb,
            score=one.test_score,
            kept=one is kept,
            why=why[one.precision],
        )
        for one in exported
    )
    return kept, candidates


def _p90(measured: Measured, name: str) -> float:
    return measured.profiles[name].latency.p90_ms


def ship(run: Run, materials: Materials, budget: Budget, made: Made) -> None:
    """Put the bundle into its budget's folder, and the student's weights beside it."""
    folder = budget_folder(run.folder, str(budget))
    config = made.student.model.encoder.config.to_dict()
    ours = made.student.stage.read("config.json")
    config |= {key: ours[key] for key in ("id2label", "label2id", "problem_type")}
    facts = {
        "task": materials.task.name,
        "metric": materials.task.metric,
        "score": made.kept.test_score,
        "precision": made.kept.precision,
        "sequence": materials.recipe.sequence,
        "shape": made.planned.plan.shape.to_dict(),
        "target": materials.target.name,
    }
    with tempfile.TemporaryDirectory() as temporary:
        materials.tokenizer.save_pretrained(temporary)
        write_bundle(folder / "bundle", made.kept.path, Path(temporary), config, facts)
    _link(made.student.stage.folder, folder / "model")
    _link(made.dense.stage.folder, run.folder / "dense")


def _link(goal: Path, link: Path) -> None:
    """A relative link, replaced in one step."""
    import os

    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(goal, link.parent), target_is_directory=True)
    temporary.replace(link)


def tell(run: Run, materials: Materials, budget: Budget, made: Made) -> Report:
    """The report of one budget."""
    recipe, profiles = materials.recipe, made.measured.profiles
    limit = budget.resolve(profiles["dense"].latency)
    after = profiles[made.kept.precision]
    target = f"{after.target} (proxy)" if after.proxy else after.target
    verdict = judge(after.latency, limit, target=target, doubts=after.doubts)
    before_score, after_score = made.dense.test_score, made.kept.test_score
    ratio = after_score / before_score if before_score > 0 else None
    shape, last = materials.encoder.shape, made.planned.rounds[-1]
    mine = [stage for stage in run.stages if _belongs(stage.name, budget, recipe)]
    return Report(
        schema=FORMAT,
        verdict=Judgement.model_validate(verdict.to_dict()),
        budget=Limit(text=str(budget), ms=cast(float, limit.ms), percentile=limit.percentile),
        before=_figures(materials.task, made.dense, profiles["dense"]),
        after=_figures(materials.task, made.kept, after),
        score_ratio=ratio,
        floor=recipe.floor,
        floor_met=ratio is not None and ratio >= recipe.floor,
        plan=PlanPart(
            layers=layer_rows(shape, made.planned.plan.shape),
            predicted_ms=made.planned.plan.predicted_ms,
            measured_untrained_ms=last.measured_ms,
            rounds=tuple(
                RoundRow(aim_ms=r.aim_ms, predicted_ms=r.predicted_ms, measured_ms=r.measured_ms)
                for r in made.planned.rounds
            ),
        ),
        transfer=_transfer(recipe, made),
        task=_task(materials.task),
        auxiliary=_task(materials.auxiliary) if materials.auxiliary else None,
        parity=tuple(ParityRow.model_validate(found.to_dict()) for found in made.kept.parity),
        export=ExportPart(**made.kept.contents.to_dict(), sha256=after.facts["onnx_sha256"]),
        precisions=made.candidates,
        table=made.timing.table.to_dict(),
        feasibility=Feasibility(
            dense_ms=made.timing.dense.latency.p50_ms,
            minimum_ms=made.timing.table.predict(
                shape.with_layers([LayerShape(0, 0)] * len(shape.layers))
            ),
            budget_ms=made.timing.median_for(budget),
        ),
        seconds={stage.name: stage.seconds for stage in mine},
        cached=tuple(stage.name for stage in mine if stage.cached),
        environment=environment(after.target, after.facts),
        recipe=recipe.model_dump(mode="json"),
        command=command(recipe),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        bundle=str(budget_folder(Path(), str(budget)) / "bundle"),
        run=str(run.folder),
        notes=(*materials.task.notes, *after.notes),
    )


def _belongs(stage: str, budget: Budget, recipe: Recipe) -> bool:
    """Whether a stage is this budget's or shared by all."""
    others = {slug(str(other)) for other in recipe.budgets} - {slug(str(budget))}
    return not any(stage.endswith(f"-{other}") for other in others)


def _figures(task: Task, exported: Exported, taken: Profile) -> Figures:
    return Figures(
        score=exported.test_score,
        metric=task.metric,
        p50_ms=taken.latency.p50_ms,
        p90_ms=taken.latency.p90_ms,
        size_mb=taken.size_mb,
        parameters=exported.contents.parameters,
        precision=exported.precision,
    )


def _task(task: Task) -> TaskPart:
    return TaskPart(
        name=task.name,
        kind=task.kind,
        metric=task.metric,
        labels=len(task.labels),
        rows=RowCounts(train=len(task.train), validation=len(task.validation), test=len(task.test)),
        notes=task.notes,
        digest=task.digest,
    )


def _transfer(recipe: Recipe, made: Made) -> TransferPart:
    teacher, student = made.teacher, made.student
    notes = []
    if teacher.gain is not None:
        verb = "kept" if teacher.taught else "switched off"
        notes.append(f"teacher: {verb}, {teacher.gain:+.4f} on validation")
    if student.gain is not None:
        verb = "kept" if student.recovered else "switched off"
        notes.append(f"recovery: {verb}, {student.gain:+.4f} on validation")
    return TransferPart(
        how=recipe.transfer_how,
        what=recipe.transfer_what,
        when=recipe.transfer_when,
        gain=student.gain if student.gain is not None else teacher.gain,
        used=teacher.taught or student.recovered,
        note="; ".join(notes),
    )


def command(recipe: Recipe) -> str:
    """The line that does the run again."""
    words = ["edgeprune", "compress"]
    for key, value in recipe.model_dump(mode="json", exclude_defaults=True).items():
        option = f"--{key.replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [option, str(one)]
    return shlex.join(words)


# --- before the first minute is spent ----------------------------------------------------------


@dataclass(frozen=True)
class DryRun:
    """What a run would do: its stages in order with expected minutes, and what can be reached."""

    recipe: Recipe
    dense_ms: float
    minimum_ms: float
    budgets_ms: tuple[float, ...]
    stages: tuple[tuple[str, float], ...]  # name, minutes

    @property
    def feasible(self) -> bool:
        return all(AIM * ms >= self.minimum_ms for ms in self.budgets_ms)

    def lines(self) -> Iterator[str]:
        yield (
            f"target     {self.recipe.target}, {self.recipe.threads} thread(s), "
            f"batch {self.recipe.batch}, {self.recipe.sequence} tokens"
        )
        yield f"dense      {self.dense_ms:.2f} ms (median)"
        yield f"smallest   {self.minimum_ms:.2f} ms, with every head and FFN unit gone"
        for text, ms in zip(self.recipe.budget, self.budgets_ms, strict=True):
            answer = "feasible" if AIM * ms >= self.minimum_ms else "unreachable"
            yield f"budget     {text} is {ms:.2f} ms: {answer}"
        for name, minutes in self.stages:
            yield f"stage      {name:<20} {minutes:5.1f} min"
        yield f"total      {sum(minutes for _, minutes in self.stages):.1f} min expected"


def dry_run(recipe: Recipe, *, progress: Progress = SILENT) -> DryRun:
    """Read everything, time the dense and the smallest model and a few steps; write nothing.

    Raises what `compress` would raise for its input.
    """
    materials = gather(recipe)
    dense = materials.encoder.shape
    smallest = dense.with_layers([LayerShape(0, 0)] * len(dense.layers))
    with tempfile.TemporaryDirectory() as temporary:
        from edgeprune.encoder import Encoder

        files = {}
        for name, shape in (("dense", dense), ("smallest", smallest)):
            encoder = (
                materials.encoder if shape is dense else Encoder(materials.encoder.config, shape)
            )
            model = Classifier(encoder, {"target": materials.task.outputs}).eval()
            precision = "fp32" if name == "dense" else materials.probe_precision
            files[name] = deploy(model, Path(temporary) / f"{name}.onnx", precision)
        profiles = profile(files, materials.target, materials.settings("rapid"), progress)
    latency = profiles["dense"].latency
    budgets_ms = tuple(
        cast(float, budget.resolve(latency).ms)
        * latency.p50_ms
        / latency.percentile(budget.percentile)
        for budget in recipe.budgets
    )
    return DryRun(
        recipe,
        latency.p50_ms,
        profiles["smallest"].latency.p50_ms,
        budgets_ms,
        tuple(_expected(materials)),
    )


def _expected(materials: Materials) -> Iterator[tuple[str, float]]:
    """Minutes of each stage, from a few timed steps of training."""
    effort, transfer, recipe = materials.effort, materials.transfer, materials.recipe
    alone = _seconds_a_step(materials, None)
    coupled = _seconds_a_step(materials, materials.auxiliary_train) if materials.auxiliary else 0.0
    probes = effort.table_heads + effort.table_widths + 5
    yield "table", (4.0 * probes + 30) / 60
    taught = alone + (coupled if transfer.taught else 0.0)
    yield "teacher", effort.teacher_steps * taught / 60
    yield "curves", (effort.statistics_tokens / 400 * alone / 16 + 20) / 60
    yield "dense", (10 + 0.02 * len(materials.task.test)) / 60
    for budget in recipe.budgets:
        name = slug(str(budget))
        yield f"plan-{name}", (effort.draws * effort.judged_rows / 16 * alone / 4 + 40) / 60
        arms = (coupled if transfer.recovered else alone) + (
            alone if transfer.recovered and effort.judge_students else 0.0
        )
        yield f"student-{name}", effort.recovery_steps * arms / 60
        yield f"export-{name}", (10 + 0.01 * len(materials.task.test)) / 60
        yield f"latency-{name}", 1.5


def _seconds_a_step(materials: Materials, auxiliary: Sample | None) -> float:
    outputs = {"target": materials.task.outputs}
    if auxiliary is not None and materials.auxiliary is not None:
        outputs["auxiliary"] = materials.auxiliary.outputs
    steps = 4
    started = time.monotonic()
    teach(
        materials.encoder,
        materials.train,
        auxiliary,
        outputs,
        "joint" if auxiliary else "none",
        materials.schedule(steps),
        lambda _: (0.0, 0.0),
        SILENT,
    )
    return (time.monotonic() - started) / steps


__all__ = ["DryRun", "Unreachable", "compress", "compress_all", "dry_run"]
