"""The model card of a bundle: what the model is for, what it was measured to do, and its limits.

Written for whoever finds the bundle without its run. It tells of the data by their counts, never
by a row, and names no folder of the machine that it was made on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from edgeprune.report.markdown import (
    _joined,
    _mono,
    _safe,
    answer,
    comparison_table,
    limit,
    table,
    transfer_line,
)
from edgeprune.report.report import Report
from edgeprune.units import count, ms

MANY_LABELS = 20  # from here on the names are left to config.json


@dataclass(frozen=True)
class ModelFacts:
    """What a bundle tells of its model that no report holds."""

    base: str  # the encoder's name, not its path
    family: str
    licence: str | None  # of the encoder
    labels: tuple[str, ...]  # () for scores
    pairs: bool  # whether a row is a pair of texts


def model_card(report: Report, facts: ModelFacts) -> str:
    """Markdown, with the head that the Hugging Face hub reads."""
    name = _safe(f"{report.task.name}: {facts.base}, compressed to {limit(report)}")
    return _joined(
        [
            _head(facts),
            f"# {name}",
            f"{answer(report).capitalize()}: {_mono(report.verdict.line)}",
            table(*comparison_table(report)),
            "Before is the encoder fine-tuned and unpruned, after is this model; both as ONNX "
            f"files, scored on {report.task.rows.test} test rows.",
            "## Task",
            _task(report, facts),
            "## Data",
            _data(report),
            "## Latency",
            _latency(report),
            "## How it was made",
            _made(report, facts),
            "## Limits",
            "\n".join(f"- {_safe(text)}" for text in limits(report)),
            "## Licence",
            _licence(facts),
        ]
    )


def limits(report: Report) -> list[str]:
    """What a user of the model must know."""
    found = [
        "The latency holds for the device, the runtime and the threads above, and for no other.",
        f"A text is cut at {report.recipe['sequence']} tokens.",
        f"The score is of {report.task.rows.test} test rows of this task; other texts, other "
        "languages, and groups of people apart were not looked at.",
    ]
    if not report.floor_met:
        found.append(f"It is under its quality floor of {report.floor:.0%}.")
    if report.verdict.outcome != "met":
        found.append(f"Its latency budget is {report.verdict.outcome}.")
    return [*found, *report.notes]


def device(report: Report) -> str:
    """What the latency was measured on, in words."""
    found = report.environment
    runtime = found.get("runtime", {})
    words: list[Any] = [found.get("cpu"), found.get("machine"), f"target {found['target']}"]
    words += [f"{runtime.get('name', '')} {runtime.get('version', '')}".strip()]
    words += [f"threads {report.recipe['threads']}"]
    return ", ".join(str(word) for word in words if word)


def _head(facts: ModelFacts) -> str:
    fields: dict[str, Any] = {"library_name": "onnx", "pipeline_tag": "text-classification"}
    if facts.licence is not None:
        fields["license"] = facts.licence
    fields["tags"] = ["edgeprune", "onnx", facts.family]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _task(report: Report, facts: ModelFacts) -> str:
    texts = "pairs of texts" if facts.pairs else "texts"
    if not facts.labels:
        return f"A score of {texts}: {_mono('logits')} [batch, 1]. Metric: {report.task.metric}."
    named = ", ".join(_safe(label) for label in facts.labels[:MANY_LABELS])
    more = " and more, see config.json" if len(facts.labels) > MANY_LABELS else ""
    return (
        f"Classes of {texts}, {len(facts.labels)} of them: {named}{more}. "
        f"Metric: {report.task.metric}."
    )


def _data(report: Report) -> str:
    tasks = [task for task in (report.task, report.auxiliary) if task is not None]
    rows = [
        (task.name, str(task.rows.train), str(task.rows.validation), str(task.rows.test))
        for task in tasks
    ]
    notes = [f"- {_safe(task.name)}: {_safe(note)}" for task in tasks for note in task.notes]
    notes.append(
        "- No text is stored. golden.json holds the tokens of some test rows, which tokenizer.json "
        "can turn into words again."
    )
    return _joined([table(("task", "train", "validation", "test"), rows), "\n".join(notes)])[:-1]


def _latency(report: Report) -> str:
    verdict = report.verdict
    low, high = verdict.interval_ms
    upper = "no upper end" if high is None else ms(high)
    return (
        f"{ms(report.after.p90_ms)} at the 90th percentile, {ms(report.after.p50_ms)} at the "
        f"median, {report.recipe['batch']} x {report.recipe['sequence']} tokens at a time. "
        f"p{verdict.percentile:g} lies in [{ms(low or 0)}, {upper}] at {verdict.confidence:.0%} "
        f"confidence ({verdict.n} inferences in {verdict.launches} launches). "
        f"Measured on: {_safe(device(report))}."
    )


def _made(report: Report, facts: ModelFacts) -> str:
    layers = report.plan.layers
    heads = f"{sum(row.heads for row in layers)} of {sum(row.heads_before for row in layers)}"
    units = f"{sum(row.ffn for row in layers)} of {sum(row.ffn_before for row in layers)}"
    told = [
        f"Encoder: {_safe(facts.base)} ({facts.family}), {len(layers)} layers; kept are "
        f"{heads} heads and {units} FFN units, {count(report.after.parameters)} parameters.",
        *_vocabulary(report),
        f"Auxiliary task: {_safe(transfer_line(report))}",
        f"Precision: {report.after.precision}. Its fp32 file differs from PyTorch by at most "
        f"{max(row.max_abs for row in report.parity):.1e}.",
        f"Versions: {_safe(', '.join(f'{k} {v}' for k, v in versions(report).items()))}.",
        "edgeprune.json has the hash of every file, the shape of every layer, and the hashes of "
        "recipe and data.",
    ]
    return "\n".join(f"- {fact}" for fact in told)


def _vocabulary(report: Report) -> list[str]:
    if (size := report.size) is None:
        return []
    return [
        f"Vocabulary: {size.tokens:,} of the encoder's {size.tokens_before:,} tokens; other words "
        "are read in smaller pieces. tokenizer.json is that of this model alone."
    ]


def versions(report: Report) -> dict[str, str]:
    """The packages that made it."""
    names = ("edgeprune", "python", "torch", "transformers", "onnx", "onnxruntime", "numpy")
    return {n: str(report.environment[n]) for n in names if n in report.environment}


def _licence(facts: ModelFacts) -> str:
    if facts.licence is None:
        return (
            "The encoder's folder does not tell its licence: ask its source before you ship this."
        )
    return f"The encoder's card says: {_safe(facts.licence)}. The data may have terms of their own."
