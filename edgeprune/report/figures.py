"""What a report shows as numbers: each figure is a small table, drawn, read or stored alike.

A figure holds what it takes to draw it and nothing else, so that the picture on the page, the CSV
and the JSON cannot say different things.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune.errors import ResourceError
from edgeprune.latency import LatencyTable
from edgeprune.report.evidence import Compared, Evidence, LeftOut, Training
from edgeprune.report.folder import slug
from edgeprune.report.markdown import answer
from edgeprune.report.report import LayerRow, Report
from edgeprune.units import ms

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-figure/1"

Cell = str | int | float | None
Row = tuple[Any, ...]  # of cells
Kind = Literal[
    "architecture",
    "distribution",
    "launches",
    "time",
    "pareto",
    "prediction",
    "curves",
    "training",
    "transfer",
    "verdicts",
    "ablation",
]

READING: Mapping[Kind, str] = {
    "architecture": "Each row is a layer, the first on top. Filled is what was kept, outlined what "
    "was there. Both sides are to scale.",
    "distribution": "Each bar counts inferences. The band is the interval of the percentile; it "
    "has no end where the samples do not bound it.",
    "launches": "Each row is a launch: a dot at the median, a tick at the 90th percentile, a thick "
    "bar over the middle half, a thin one from the 5th to the 95th percentile.",
    "training": "Above the loss, averaged over neighbouring steps; below the score on validation "
    "at each checkpoint. The best checkpoint is kept. Losses of different tasks do not compare.",
    "pareto": "Up and to the left is better. A filled dot meets its budget and the quality floor.",
    "time": "By the latency table, which knows what each sub-layer costs by its width. The rest is "
    "what no pruning of layers reaches: embeddings, pooling, the head and the call itself.",
    "prediction": "Undisturbed milliseconds: a ring where the latency table put the model, a dot "
    "where it was measured.",
    "curves": "What it costs to keep fewer heads or FFN units, the rest refitted; logarithmic. A "
    "line for each layer, from the first (pale) to the last (strong).",
    "transfer": "A ring without the auxiliary task, a dot with it, on the validation rows. Where "
    "it does not help it is switched off.",
    "verdicts": "The measured percentile as a share of its budget, with its interval. Left of "
    "100 % is within the budget.",
    "ablation": "A dot is the mean over seeds of what a change of the recipe did to the score, the "
    "bar its 95 % interval. Right of the line is better than the recipe as it is.",
}

BINS = 48
SHOWN = 0.995  # of the inferences are in the picture of their distribution, the slowest are told
QUANTILES = (5, 25, 50, 75, 90, 95)
UNPRUNED = "unpruned"
TASKS = {"target": "target task", "auxiliary": "auxiliary task"}


@dataclass(frozen=True)
class Figure:
    """A table with a title; `facts` hold what belongs to no row, as a budget.

    `says` is what it shows in a sentence or two, for who cannot see the picture; `note` what a
    reader of this one must know beside how its kind is read.
    """

    name: str
    kind: Kind
    title: str
    says: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    facts: Mapping[str, Cell] = field(default_factory=dict)
    note: str = ""

    @property
    def reading(self) -> str:
        """How the picture is to be read."""
        return f"{READING[self.kind]} {self.note}".rstrip()

    def column(self, name: str) -> list[Cell]:
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def numbers(self, name: str) -> list[float]:
        """A column of numbers; None is not a number."""
        return [float("nan") if cell is None else float(cell) for cell in self.column(name)]

    def dicts(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def to_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.columns, *self.rows])
        return text.getvalue()

    def to_json(self) -> str:
        told = {
            "format": FORMAT,
            "name": self.name,
            "title": self.title,
            "says": self.says,
            "facts": dict(self.facts),
            "rows": self.dicts(),
        }
        return json.dumps(told, indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Figures:
    """Those that could be made, and why the others could not: title -> reason."""

    made: tuple[Figure, ...]
    left_out: Mapping[str, str]

    def of(self, *names: str) -> list[Figure]:
        """In the order of the names, those that are there."""
        by_name = {figure.name: figure for figure in self.made}
        return [by_name[name] for name in names if name in by_name]


def run_figures(reports: Sequence[Report], path: Path) -> Figures:
    """Every figure of one run: each budget's own, then those that all budgets share."""
    everything = [Evidence.beside(path, report) for report in reports]
    first = everything[0]
    makers: dict[str, Callable[[], Figure | None]] = {}
    for one in everything:
        makers |= _of_a_budget(one)
    makers |= {
        "Score against latency": lambda: pareto(reports),
        "Where the time goes": lambda: time(everything),
        "Predicted against measured": lambda: prediction(everything),
        "Error curves": lambda: curves(first),
        "Teaching": lambda: training(first, "teacher", "Teaching", "teaching"),
        "What the auxiliary task brought": lambda: transfer(everything),
    }
    return _made(makers)


def _of_a_budget(one: Evidence) -> dict[str, Callable[[], Figure | None]]:
    text = one.report.budget.text
    name = slug(text)
    return {
        f"Architecture at {text}": lambda: architecture(one.report),
        f"Latency at {text}": lambda: distribution(one),
        f"Latency by launch at {text}": lambda: launches(one),
        f"Recovery at {text}": lambda: training(
            one, f"student-{name}", "Recovery", f"recovery-{name}"
        ),
    }


def comparison_figures(reports: Mapping[str, Report]) -> Figures:
    """Those that compare budgets of several runs, each by its label: "A 50%"."""
    makers: dict[str, Callable[[], Figure | None]] = {
        "Verdicts": lambda: verdicts(reports),
        "Score against latency": lambda: pareto_of_runs(reports),
        "Where the time goes": lambda: time_of_runs(reports),
    }
    return _made(makers)


def _made(makers: Mapping[str, Callable[[], Figure | None]]) -> Figures:
    made, left_out = [], {}
    for title, make in makers.items():
        try:
            figure = make()
        except LeftOut as why:
            left_out[title] = str(why)
        else:
            made += [figure] if figure else []
    return Figures(tuple(made), left_out)


def write_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """NAME.csv and NAME.json of each. Raises ResourceError."""
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            for suffix, text in ((".csv", figure.to_csv()), (".json", figure.to_json())):
                path = folder / f"{figure.name}{suffix}"
                path.write_text(text, encoding="utf-8", newline="")
                written.append(path)
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(
            f"figures in {folder}", why=why, remedy="choose another folder"
        ) from None
    return written


# --- one budget ---------------------------------------------------------------------------------


def architecture(report: Report) -> Figure:
    """Heads and FFN width of every layer, before and after."""
    layers = report.plan.layers
    heads, heads_before = _total(layers, "heads")
    ffn, ffn_before = _total(layers, "ffn")
    return Figure(
        name=f"architecture-{slug(report.budget.text)}",
        kind="architecture",
        title="What was removed",
        says=f"{heads} of {heads_before} attention heads and {ffn} of {ffn_before} FFN units "
        f"are kept in {len(layers)} layers.",
        columns=("layer", "heads_before", "heads", "ffn_before", "ffn"),
        rows=tuple(
            (number, row.heads_before, row.heads, row.ffn_before, row.ffn)
            for number, row in enumerate(layers, start=1)
        ),
        facts={"heads": heads, "heads_before": heads_before, "ffn": ffn, "ffn_before": ffn_before},
    )


def _total(layers: Sequence[LayerRow], what: str) -> tuple[int, int]:
    """After and before."""
    after = sum(getattr(layer, what) for layer in layers)
    return after, sum(getattr(layer, f"{what}_before") for layer in layers)


def distribution(one: Evidence) -> Figure:
    """Inferences of the shipped model by their latency, with the budget and the interval."""
    samples = one.timed(one.kept).latency.samples_ms
    verdict = one.report.verdict
    end_ms = max(float(np.quantile(samples, SHOWN)), verdict.observed_ms or 0.0)
    counts, edges = np.histogram(samples, bins=BINS, range=(float(samples.min()), end_ms))
    beyond = int((samples > end_ms).sum())
    slowest = f"Slower than is shown: {beyond}, the slowest {ms(samples.max())}."
    return Figure(
        name=f"latency-{slug(one.report.budget.text)}",
        kind="distribution",
        title="Latency of the compressed model",
        says=f"{verdict.n} inferences. {_judged(one.report)}",
        note=slowest if beyond else "",
        columns=("from_ms", "to_ms", "inferences"),
        rows=tuple(
            (float(low), float(high), int(count))
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ),
        facts=_verdict_facts(one.report) | {"beyond": beyond, "slowest_ms": float(samples.max())},
    )


def launches(one: Evidence) -> Figure:
    """Quantiles of each launch of the shipped model."""
    budget_ms = one.report.budget.ms
    rows = []
    for number, launch in enumerate(one.timed(one.kept).latency.launches_ms, start=1):
        samples = np.asarray(launch)
        found = np.percentile(samples, QUANTILES, method="inverted_cdf")
        over = int((samples > budget_ms).sum())
        rows.append((number, samples.size, *(float(x) for x in found), over))
    return Figure(
        name=f"launches-{slug(one.report.budget.text)}",
        kind="launches",
        title="Latency by launch",
        says=f"{len(rows)} launches, each a fresh process. Their medians lie from "
        f"{ms(min(row[4] for row in rows))} to {ms(max(row[4] for row in rows))}.",
        columns=("launch", "inferences", *(f"p{q}_ms" for q in QUANTILES), "over_budget"),
        rows=tuple(rows),
        facts=_verdict_facts(one.report),
    )


def _judged(report: Report) -> str:
    verdict = report.verdict
    at = f"the {verdict.percentile:g}th percentile"
    observed = "is unknown" if verdict.observed_ms is None else f"is {ms(verdict.observed_ms)}"
    return f"The budget is {ms(verdict.budget_ms)}; {at} {observed}: {verdict.outcome}."


def _verdict_facts(report: Report) -> dict[str, Cell]:
    verdict = report.verdict
    low, high = verdict.interval_ms
    return {
        "budget_ms": verdict.budget_ms,
        "percentile": verdict.percentile,
        "observed_ms": verdict.observed_ms,
        "interval_low_ms": low,
        "interval_high_ms": high,
        "confidence": verdict.confidence,
        "outcome": verdict.outcome,
    }


def training(one: Evidence, stage: str, title: str, name: str) -> Figure | None:
    """Losses by step, and validation scores, of the trainings of a stage."""
    trainings = one.trainings(stage)
    rows = [row for how, told in trainings.items() for row in _training_rows(how, told)]
    if not rows:
        raise LeftOut("its history is empty")
    best = {how: max(told.scores.values()) for how, told in trainings.items() if told.scores}
    scores = ", ".join(f"{_how(how)} {score:.3f}" for how, score in best.items())
    return Figure(
        name=name,
        kind="training",
        title=title,
        says=f"Best {one.report.after.metric} on validation: {scores}.",
        columns=("training", "curve", "step", "value"),
        rows=tuple(rows),
        facts={"metric": one.report.after.metric},
    )


def _training_rows(how: str, told: Training) -> Iterable[Row]:
    for head, losses in told.losses.items():
        yield from ((how, f"loss, {TASKS.get(head, head)}", *point) for point in losses.items())
    yield from ((how, "validation score", *point) for point in told.scores.items())


def _how(how: str) -> str:
    return {"alone": "alone", "coupled": "with the auxiliary task"}.get(how, how)


# --- all budgets of a run -----------------------------------------------------------------------


def pareto(reports: Sequence[Report]) -> Figure:
    """Score and 90th percentile of every budget and of the unpruned model."""
    points = {report.budget.text: report for report in reports}
    unpruned = {UNPRUNED: reports[0]}
    chosen = reports[0].budget.text if len(reports) > 1 else None
    return _pareto(unpruned, points, reports[0].floor * reports[0].before.score, chosen)


def pareto_of_runs(reports: Mapping[str, Report]) -> Figure:
    metrics = {report.after.metric for report in reports.values()}
    tasks = {report.task.digest for report in reports.values()}
    if len(metrics) > 1 or len(tasks) > 1:
        raise LeftOut("the runs are of different tasks, whose scores do not compare")
    unpruned: dict[str, Report] = {}
    for label, report in reports.items():
        known = [one.before for one in unpruned.values()]
        if report.before not in known:
            unpruned[f"{label.split()[0]} {UNPRUNED}"] = report
    return _pareto(unpruned, reports, None, None)


def _pareto(
    unpruned: Mapping[str, Report],
    pruned: Mapping[str, Report],
    floor: float | None,
    chosen: str | None,
) -> Figure:
    first = next(iter(pruned.values()))
    rows: list[Row] = [
        (name, report.before.p90_ms, report.before.score, None, "")
        for name, report in unpruned.items()
    ]
    rows += [
        (name, report.after.p90_ms, report.after.score, report.budget.ms, answer(report))
        for name, report in pruned.items()
    ]
    told = "; ".join(f"{row[0]} {ms(row[1])}, {row[2]:.3f}" for row in rows)
    return Figure(
        name="pareto",
        kind="pareto",
        title="Score against latency",
        says=f"90th percentile and {first.after.metric} on the test rows: {told}.",
        note="The ringed one is the run's own bundle." if chosen else "",
        columns=("model", "p90_ms", "score", "budget_ms", "verdict"),
        rows=tuple(rows),
        facts={"metric": first.after.metric, "floor_score": floor, "chosen": chosen},
    )


def time(everything: Sequence[Evidence]) -> Figure:
    """What the latency table says embeddings, attention and FFN cost, before and after."""
    first = everything[0].report
    models = {UNPRUNED: (first, True)}
    models |= {one.report.budget.text: (one.report, False) for one in everything}
    return _time(models)


def time_of_runs(reports: Mapping[str, Report]) -> Figure:
    return _time({label: (report, False) for label, report in reports.items()})


def _time(models: Mapping[str, tuple[Report, bool]]) -> Figure:
    rows: list[Row] = []
    for name, (report, before) in models.items():
        parts = _parts_ms(report, before=before)
        rows.append((name, *parts, sum(parts)))
    told = "; ".join(f"{row[0]} {ms(row[4])}" for row in rows)
    return Figure(
        name="time",
        kind="time",
        title="Where the time goes",
        says=f"Undisturbed milliseconds by the latency table: {told}.",
        columns=("model", "rest_ms", "attention_ms", "ffn_ms", "total_ms"),
        rows=tuple(rows),
    )


def _parts_ms(report: Report, *, before: bool) -> tuple[float, float, float]:
    """Rest, attention and FFN."""
    table = latency_table(report)
    layers = report.plan.layers
    heads = [layer.heads_before if before else layer.heads for layer in layers]
    widths = [layer.ffn_before if before else layer.ffn for layer in layers]
    return (
        table.rest_ms,
        table.slope * sum(table.attention(count) for count in heads),
        table.slope * sum(table.ffn(width) for width in widths),
    )


def latency_table(report: Report) -> LatencyTable:
    """Raises LeftOut."""
    try:
        return LatencyTable.from_dict(report.table)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LeftOut("the report's latency table is in another form") from None


def prediction(everything: Sequence[Evidence]) -> Figure:
    """What the latency table foresaw of each model, and what it took."""
    rows: list[Row] = []
    first = everything[0]
    table = latency_table(first.report)
    try:
        measured = first.timed("dense").undisturbed_ms
        rows.append((UNPRUNED, sum(_parts_ms(first.report, before=True)), measured))
    except LeftOut:
        pass  # the rounds of planning stand in the report itself
    for one in everything:
        plan, text = one.report.plan, one.report.budget.text
        for number, turn in enumerate(plan.rounds, start=1):
            which = f", round {number}" if len(plan.rounds) > 1 else ""
            rows.append((f"{text} untrained{which}", turn.predicted_ms, turn.measured_ms))
        try:
            rows.append((f"{text} shipped", plan.predicted_ms, one.timed(one.kept).undisturbed_ms))
        except LeftOut:
            continue
    apart = [abs(row[2] / row[1] - 1) for row in rows if row[1]]
    if not apart:
        raise LeftOut("nothing was predicted")
    return Figure(
        name="prediction",
        kind="prediction",
        title="Predicted against measured",
        says=f"The measured models differ from their prediction by {max(apart):.1%} at most.",
        note=_trust(table),
        columns=("model", "predicted_ms", "measured_ms"),
        rows=tuple(rows),
        facts={"fit_error": table.fit_error, "spread": table.spread},
    )


def _trust(table: LatencyTable) -> str:
    """What is known of a table's error; one of as few models as it has numbers fits them all."""
    errs = f"errs by {table.fit_error:.1%} at most" if table.fit_error >= 0.0005 else "is exact"
    apart = f"differ by up to {table.spread:.1%}" if table.spread else "hardly differ"
    return f"On the models that it was fitted to, the table {errs}; repeats of a timing {apart}."


def curves(one: Evidence) -> Figure:
    """Expected loss of every sub-layer by the width that stays; the plan's width is marked."""
    errors = one.errors()
    layers = one.report.plan.layers
    rows: list[Row] = []
    for kind, chosen in (
        ("attention", [layer.heads for layer in layers]),
        ("ffn", [layer.ffn for layer in layers]),
    ):
        for layer, curve in errors[kind].items():
            rows += [
                (kind, layer + 1, width, error, int(layer < len(chosen) and chosen[layer] == width))
                for width, error in curve.items()
            ]
    if not rows:
        raise LeftOut("the error curves are empty")
    return Figure(
        name="errors",
        kind="curves",
        title="Error curves",
        says="Expected loss of every layer's attention and FFN by the width that stays, with the "
        f"widths of the plan for {one.report.budget.text} marked.",
        note=f"Dots mark the plan for {one.report.budget.text}.",
        columns=("sub_layer", "layer", "width", "expected_loss", "chosen"),
        rows=tuple(rows),
    )


def transfer(everything: Sequence[Evidence]) -> Figure | None:
    """Validation scores without and with the auxiliary task, wherever both were tried."""
    first = everything[0].report
    if first.auxiliary is None:
        return None
    found: dict[str, Compared | None] = {"teacher": everything[0].compared("teacher")}
    for one in everything:
        text = one.report.budget.text
        found[f"recovery, {text}"] = one.compared(f"student-{slug(text)}")
    rows = tuple(
        (name, told.alone, told.coupled, told.coupled - told.alone, "yes" if told.kept else "no")
        for name, told in found.items()
        if told is not None
    )
    if not rows:
        return None
    metric = first.after.metric
    return Figure(
        name="transfer",
        kind="transfer",
        title="What the auxiliary task brought",
        says=f"{metric} on validation without and with it: "
        + "; ".join(f"{row[0]} {row[1]:.3f} and {row[2]:.3f}" for row in rows)
        + ".",
        columns=("training", "alone", "coupled", "gain", "kept"),
        rows=rows,
        facts={"metric": metric},
    )


# --- several runs -------------------------------------------------------------------------------


def verdicts(reports: Mapping[str, Report]) -> Figure:
    """The measured percentile of every budget with its interval, as a share of the budget."""
    rows = []
    for label, report in reports.items():
        verdict = report.verdict
        ends = (*verdict.interval_ms, verdict.observed_ms)
        low, high, observed = (None if x is None else x / verdict.budget_ms for x in ends)
        rows.append((label, verdict.budget_ms, observed, low, high, verdict.outcome))
    told = "; ".join(f"{row[0]} {row[5]}" for row in rows)
    return Figure(
        name="verdicts",
        kind="verdicts",
        title="Verdicts",
        says=f"{told}.",
        columns=("model", "budget_ms", "observed_share", "low_share", "high_share", "verdict"),
        rows=tuple(rows),
    )
