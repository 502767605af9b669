"""The recipe in order: teach, time, price, plan, operate, recover, export, measure, judge."""

from __future__ import annotations

import copy
import resource
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgeprune.inputs import Inputs
from edgeprune.latency import Budget
from edgeprune.measure.profile import Profile
from edgeprune.model_folder import folder_digest, licence_of
from edgeprune.progress import Progress
from edgeprune.publish import publish_link
from edgeprune.recipe import Recipe
from edgeprune.report.bom import bill_of_materials
from edgeprune.report.card import ModelFacts, device, model_card, versions
from edgeprune.report.environment import environment
from edgeprune.report.folder import budget_folder, keep_reports, slug
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
    SizePart,
    TargetRow,
    TaskPart,
    held_to,
    layer_rows,
)
from edgeprune.report.report import Round as RoundRow
from edgeprune.report.report import Rows as RowCounts
from edgeprune.report.report import Transfer as TransferPart
from edgeprune.run import Run, digest, open_run
from edgeprune.ship.bundle import write_bundle
from edgeprune.stages.export import (
    Exported,
    Measured,
    export_model,
    golden_answers,
    measure_models,
)
from edgeprune.stages.materials import Materials, prepare
from edgeprune.stages.pricing import price_structures
from edgeprune.stages.pruning import Planned, Student, plan_budget, recover_student
from edgeprune.stages.ranking import settle_auxiliary
from edgeprune.stages.spelling import Spelled, spell_rows
from edgeprune.stages.teaching import Teacher, teach_teacher
from edgeprune.stages.timing import Timing, check_feasible, check_size, needless, time_targets
from edgeprune.status import facts_of, recording
from edgeprune.task import Task
from edgeprune.template import command_line

PRICED_BY = {"pooled": "statistics pooled", "auxiliary": "by the auxiliary text alone"}


def run_pipeline(inputs: Inputs, progress: Progress, *, restart: bool) -> list[Report]:
    """Compress the encoder to each budget of the recipe; a report each, in their order.

    The run folder is made once nothing that was given can be wrong any more. Latency is settled
    before training is paid for: an unreachable budget ends the run at once.
    """
    recipe, materials = inputs.recipe, prepare(inputs)
    with (
        open_run(recipe.out, progress, restart=restart) as opened,
        recording(opened, recipe, facts_of(inputs), folder_digest(inputs.model)) as run,
    ):
        materials, picked = settle_auxiliary(run, materials)
        timing = time_targets(run, materials)
        check_feasible(materials, timing, run.progress)
        check_size(materials, timing)
        teacher = teach_teacher(run, materials)
        prices = price_structures(run, materials, timing, teacher)
        dense = export_model(run, materials, teacher.model, teacher.stage, "fp32", "dense")
        built = {}
        for budget in recipe.budgets:
            priced = prices[str(budget)]
            planned = plan_budget(run, materials, timing, teacher, priced, dense.path, budget)
            spelled = spell_rows(run, materials, planned.stage, planned.file_bytes, budget)
            student = recover_student(run, spelled, teacher, priced, planned, budget)
            exported = export_student(run, spelled.shipping, student, budget)
            built[str(budget)] = Built(planned, spelled, student, exported)
        files = [
            (one, budget, built[str(budget)].spelled.shipping)
            for budget in recipe.budgets
            for one in built[str(budget)].exported
        ]
        measured = measure_models(run, materials, dense, files)
        reports = []
        for budget in recipe.budgets:
            one = built[str(budget)]
            kept, candidates = choose(recipe, teacher, one, measured)
            made = Made(timing, teacher, dense, one, kept, candidates, measured)
            reports.append(tell(run, materials, budget, made, picked))
            ship(run, materials, made, reports[-1])
        return keep_reports(recipe.out, reports, progress)


def export_student(
    run: Run, materials: Materials, student: Student, budget: Budget
) -> list[Exported]:
    """The student in every precision that the recipe considers."""
    return [
        export_model(
            run,
            materials,
            student.model,
            student.stage,
            precision,
            f"{precision}-{slug(str(budget))}",
        )
        for precision in materials.recipe.precisions
    ]


@dataclass(frozen=True)
class Built:
    """What was built for one budget, before it is measured."""

    planned: Planned
    spelled: Spelled
    student: Student
    exported: Sequence[Exported]


@dataclass(frozen=True)
class Made:
    """All that one budget led to."""

    timing: Timing
    teacher: Teacher
    dense: Exported
    built: Built
    kept: Exported
    candidates: tuple[Candidate, ...]
    measured: Measured


def choose(
    recipe: Recipe,
    teacher: Teacher,
    built: Built,
    measured: Measured,
) -> tuple[Exported, tuple[Candidate, ...]]:
    """int8 only where it is faster on every target and holds the quality floor on validation."""
    exported = built.exported
    kept = exported[0]
    why = {kept.precision: "the only precision that was asked for"}
    if len(exported) > 1:
        fp32, int8 = exported
        floor, int8_score = recipe.floor * teacher.score, cast(float, int8.validation_score)
        pairs = zip(measured.of(int8), measured.of(fp32), strict=True)
        faster = all(ours.latency.p90_ms < theirs.latency.p90_ms for ours, theirs in pairs)
        sound = int8_score >= min(floor, built.student.score)
        kept = int8 if faster and sound else fp32
        reason = (
            "faster on the target, and within the quality floor on validation"
            if kept is int8
            else "not faster on the target"
            if not faster
            else f"scores {int8_score:.4f} on validation, the floor is {floor:.4f}"
        )
        why = {"int8": reason, "fp32": "int8 is kept" if kept is int8 else "int8 does not pay"}
    at = measured.deciding(kept)
    candidates = tuple(
        Candidate(
            precision=one.precision,
            p50_ms=measured.of(one)[at].latency.p50_ms,
            p90_ms=measured.of(one)[at].latency.p90_ms,
            size_mb=_size_mb(one, measured.of(one)[at]),
            score=one.test_score,
            kept=one is kept,
            why=why[one.precision],
        )
        for one in exported
    )
    return kept, candidates


def ship(run: Run, materials: Materials, made: Made, report: Report) -> None:
    """Put the bundle into its budget's folder, and the student's weights beside it."""
    folder = budget_folder(run.folder, report.budget.text)
    config = made.built.student.model.encoder.config.to_dict()
    ours = made.built.student.stage.read("config.json")
    config |= {key: ours[key] for key in ("id2label", "label2id", "problem_type")}
    recipe = materials.recipe
    told = {key: value for key, value in report.recipe.items() if key != "out"}
    facts = {
        "task": report.task.name,
        "metric": report.task.metric,
        "score": report.after.score,
        "precision": report.after.precision,
        "threads": recipe.threads,
        "batch": recipe.batch,
        "sequence": recipe.sequence,
        "runs": recipe.run_plan,
        "budget": {"ms": report.budget.ms, "percentile": report.budget.percentile},
        "shape": made.built.student.model.encoder.shape.to_dict(),
        "target": report.environment["target"],
        "plan": {
            "predicted_ms": made.built.planned.plan.predicted_ms,
            "predicted_loss": made.built.planned.plan.predicted_loss,
        },
        "verdict": report.verdict.model_dump(mode="json"),
        "measured": {"sha256": report.export.sha256, "on": device(report)},
        "recipe_sha256": digest(told),
        "data_sha256": report.task.digest,
        "versions": versions(report),
    }
    model = model_facts(materials, config)
    documents = {
        "README.md": model_card(report, model),
        "bom.cdx.json": bill_of_materials(report, model),
    }
    if report.size is not None:
        facts["size"] = {"bytes": report.size.limit_bytes, "tokens": report.size.tokens}
    golden = golden_answers(made.built.spelled.shipping, made.kept)
    tokenizer = copy.deepcopy(made.built.spelled.shipping.tokenizer)
    tokenizer.model_max_length = recipe.sequence  # as tokenizer.json cuts, for who loads both
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save_pretrained(temporary)
        write_bundle(
            folder / "bundle",
            made.kept.path,
            Path(temporary),
            config,
            facts,
            golden=golden,
            documents=documents,
        )
    publish_link(made.built.student.stage.folder, folder / "model")
    publish_link(made.dense.stage.folder, run.folder / "dense")


def model_facts(materials: Materials, config: Mapping[str, Any]) -> ModelFacts:
    """What the bundle tells of its model beside the report."""
    asked, found = materials.recipe.model, Path(materials.inputs.model)
    return ModelFacts(
        base=Path(asked).name if Path(asked).is_dir() else asked,
        family=str(config["model_type"]),
        licence=licence_of(found),
        labels=materials.task.labels,
        pairs=materials.task.test.pairs is not None,
    )


def tell(
    run: Run, materials: Materials, budget: Budget, made: Made, picked: Sequence[str] = ()
) -> Report:
    """The report of one budget."""
    recipe = materials.recipe
    at = made.measured.deciding(made.kept)
    before, after = made.measured.of(made.dense)[at], made.measured.of(made.kept)[at]
    question, verdict = made.measured.asked(made.kept)[at], made.measured.verdicts(made.kept)[at]
    before_score, after_score = made.dense.test_score, made.kept.test_score
    ratio = after_score / before_score if before_score > 0 else None
    shape, last = materials.encoder.shape, made.built.planned.rounds[-1]
    told = made.timing.targets[at]
    doubts = [materials.task.unlearnt(before_score), needless(budget, before.latency)]
    size = _size_part(materials, made)
    judgement = held_to(size, Judgement.model_validate(verdict.to_dict()))
    mine = [stage for stage in run.stages if _belongs(stage.name, budget, recipe)]
    return Report(
        schema=FORMAT,
        verdict=judgement,
        targets=tuple(_on_targets(made)),
        budget=Limit(text=str(budget), ms=question.budget_ms, percentile=question.percentile),
        size=size,
        before=_figures(materials.task, made.dense, before),
        after=_figures(materials.task, made.kept, after),
        score_ratio=ratio,
        floor=recipe.floor,
        floor_met=ratio is not None and ratio >= recipe.floor,
        plan=PlanPart(
            layers=layer_rows(shape, made.built.planned.plan.shape),
            predicted_ms=made.built.planned.plan.predicted_ms,
            measured_untrained_ms=last.measured_ms,
            rounds=tuple(
                RoundRow(aim_ms=r.aim_ms, predicted_ms=r.predicted_ms, measured_ms=r.measured_ms)
                for r in made.built.planned.rounds
            ),
        ),
        transfer=_transfer(materials.inputs, made),
        task=_task(materials.task),
        auxiliary=_task(materials.auxiliary) if materials.auxiliary else None,
        parity=tuple(ParityRow.model_validate(found.to_dict()) for found in made.kept.parity),
        runtime_parity=_runtime_parity(after),
        export=ExportPart(**made.kept.contents.to_dict(), sha256=after.facts["onnx_sha256"]),
        precisions=made.candidates,
        table=told.table.to_dict(),
        feasibility=Feasibility(
            dense_ms=told.dense.latency.percentile(budget.percentile),
            minimum_ms=told.smallest_ms(budget, shape),
            budget_ms=cast(float, budget.resolve(told.dense.latency).ms),
        ),
        seconds={stage.name: stage.seconds for stage in mine},
        cached=tuple(stage.name for stage in mine if stage.cached),
        stages={stage.name: stage.key for stage in mine},
        environment=environment(after.target, after.facts),
        recipe=recipe.model_dump(mode="json"),
        command=command_line(recipe),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        bundle=str(budget_folder(Path(), str(budget)) / "bundle"),
        run=str(run.folder),
        notes=(
            *picked,
            *materials.task.notes,
            *filter(None, doubts),
            *made.teacher.notes,
            *made.built.student.notes,
            *after.notes,
        ),
    )


def _on_targets(made: Made) -> Iterator[TargetRow]:
    """What came of the kept model on each target."""
    verdicts, asked = made.measured.verdicts(made.kept), made.measured.asked(made.kept)
    profiles = zip(made.measured.of(made.dense), made.measured.of(made.kept), strict=True)
    for verdict, question, (before, after) in zip(verdicts, asked, profiles, strict=True):
        yield TargetRow(
            target=after.target,
            outcome=verdict.outcome,
            line=verdict.line(),
            budget_ms=question.budget_ms,
            before_p90_ms=before.latency.p90_ms,
            after_p90_ms=after.latency.p90_ms,
            runtime_parity=_runtime_parity(after),
        )


def _runtime_parity(taken: Profile) -> ParityRow | None:
    parity = taken.facts.get("parity")
    if parity is None:
        return None
    return ParityRow.model_validate({name: parity[name] for name in ParityRow.model_fields})


def _size_mb(exported: Exported, taken: Profile) -> float:
    """Of what the target runs, where that is a real one."""
    return exported.size_mb if taken.proxy else taken.size_mb


def _size_part(materials: Materials, made: Made) -> SizePart | None:
    budget, vocabulary, kept = (
        materials.recipe.size_budget,
        materials.vocabulary,
        made.built.spelled.kept,
    )
    if budget is None or vocabulary is None or kept is None:
        return None
    exported = made.kept
    largest = max(round(1e6 * _size_mb(exported, taken)) for taken in made.measured.of(exported))
    row = materials.token_bytes(exported.precision)
    weights = exported.contents.initializer_bytes
    return SizePart(
        text=str(budget),
        limit_bytes=budget.bytes,
        file_bytes=largest,
        met=largest <= budget.bytes,
        tokens=len(kept),
        tokens_before=len(vocabulary.order),
        tokens_needed=vocabulary.needed,
        vocabulary_bytes=row * len(kept),
        weight_bytes=weights - row * len(kept),
        graph_bytes=exported.path.stat().st_size - weights,
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
        size_mb=_size_mb(exported, taken),
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


def _transfer(inputs: Inputs, made: Made) -> TransferPart:
    teacher, student = made.teacher, made.built.student
    statistics = inputs.transfer.statistics
    notes = []
    if teacher.gain is not None:
        verb = "kept" if teacher.taught else "switched off"
        notes.append(f"teacher: {verb}, {teacher.gain:+.4f} on validation")
    if statistics != "target":
        notes.append(f"pruning: {PRICED_BY[statistics]}")
    if student.gain is not None:
        verb = "kept" if student.recovered else "switched off"
        notes.append(f"recovery: {verb}, {student.gain:+.4f} on validation")
    return TransferPart(
        how=inputs.recipe.transfer_how,
        what=inputs.recipe.transfer_what,
        when=inputs.recipe.transfer_when,
        gain=student.gain if student.gain is not None else teacher.gain,
        used=teacher.taught or statistics != "target" or student.recovered,
        note="; ".join(notes),
    )
