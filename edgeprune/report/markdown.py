"""Reports as Markdown: was the budget met, what did it cost, what was removed, how to do it again.

Every text that a user chose (a task's name, a path, a note) is escaped, never taken as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edgeprune.report.report import Figures, Report, TaskPart
from edgeprune.units import count, duration, megabytes, ms

Row = tuple[str, ...]

LIMIT = 65_536  # characters of a comment on GitHub
CUT = "\n*Cut here: a comment on GitHub holds 65,536 characters. report.json has all of it.*\n"


def to_markdown(reports: Sequence[Report]) -> str:
    """One report in full; several as one table of all budgets, then each in full.

    What a comment on GitHub does not hold is cut off, and the text says so.
    """
    if len(reports) == 1:
        return _fitted(_joined(_story(reports[0], "#")))
    head = ["# edgeprune: " + "; ".join(f"{_safe(r.budget.text)} {answer(r)}" for r in reports)]
    head.append(table(*budgets_table(reports)))
    parts = [*head, *(part for report in reports for part in _story(report, "##"))]
    return _fitted(_joined(parts))


def _fitted(text: str) -> str:
    """Whole lines, as many as fit."""
    if len(text) <= LIMIT:
        return text
    return text[: text.rfind("\n", 0, LIMIT - len(CUT)) + 1] + CUT


def answer(report: Report) -> str:
    """The verdict in a word or two; a latency that is met below the quality floor is no success."""
    outcome = report.verdict.outcome
    return outcome if report.floor_met else f"{outcome}, under the quality floor"


def limit(report: Report) -> str:
    """The budget as it was asked for; a share also in milliseconds."""
    text = report.budget.text
    return f"{text} ({ms(report.budget.ms)})" if "%" in text else text


def comparison_table(report: Report) -> tuple[Row, list[Row]]:
    """Head and rows: what is compared, before, after, and the change."""
    before, after = report.before, report.after
    return ("", "before", "after", "change"), [
        ("p50 latency", ms(before.p50_ms), ms(after.p50_ms), _times(before.p50_ms, after.p50_ms)),
        ("p90 latency", ms(before.p90_ms), ms(after.p90_ms), _times(before.p90_ms, after.p90_ms)),
        (after.metric, f"{before.score:.3f}", f"{after.score:.3f}", _kept(report)),
        (
            "size",
            megabytes(before.size_mb),
            megabytes(after.size_mb),
            _less(before.size_mb, after.size_mb),
        ),
        *_vocabulary(report),
        (
            "parameters",
            count(before.parameters),
            count(after.parameters),
            _less(before.parameters, after.parameters),
        ),
        ("precision", before.precision, after.precision, ""),
    ]


def _vocabulary(report: Report) -> list[Row]:
    if (size := report.size) is None:
        return []
    before, after = f"{size.tokens_before:,}", f"{size.tokens:,}"
    return [("vocabulary", before, after, _less(size.tokens_before, size.tokens))]


def budgets_table(reports: Sequence[Report]) -> tuple[Row, list[Row]]:
    """Head and rows: one row for the unpruned model, then one for each budget."""
    first = reports[0]
    head = ("budget", "verdict", "p90", first.after.metric, "kept", "size", "parameters")
    rows = [("unpruned", "", *_figures(first.before, ""))]
    rows += [(limit(r), answer(r), *_figures(r.after, _kept(r))) for r in reports]
    return head, rows


def transfer_line(report: Report) -> str:
    """How the auxiliary task took part and what it brought, in one sentence."""
    if report.auxiliary is None:
        return "No auxiliary task."
    transfer = report.transfer
    brought = "" if transfer.gain is None else f", gain {transfer.gain:+.3f} {report.after.metric}"
    how = f"how {transfer.how}, what {transfer.what}, when {transfer.when}"
    used = "used" if transfer.used else "not used"
    note = f" — {transfer.note}" if transfer.note else ""
    return f"{report.auxiliary.name} {used} ({how}){brought}{note}"


def verdict_lines(report: Report) -> list[str]:
    """One for each target."""
    if len(report.targets) > 1:
        return [row.line for row in report.targets]
    return [report.verdict.line]


def size_lines(report: Report) -> list[str]:
    """One where there is a size budget."""
    return [] if report.size is None else [f"size      {report.size.line}"]


def _story(report: Report, level: str) -> list[str]:
    reasons = [
        f"- {_safe(reason.text)} ({_mono(reason.code)})" for reason in report.verdict.reasons
    ]
    return [
        f"{level} {_safe(limit(report))}: {answer(report)}",
        _code("\n".join([*verdict_lines(report), *size_lines(report)])),
        "\n".join(reasons),
        table(*comparison_table(report)),
        *_removed(report, level),
        *_size(report, level),
        f"{level}# Transfer",
        _safe(transfer_line(report)),
        *_export(report, level),
        *_data(report, level),
        *_run(report, level),
    ]


def _removed(report: Report, level: str) -> list[str]:
    plan = report.plan
    rows = [
        (
            str(number),
            _arrow(layer.heads_before, layer.heads),
            _arrow(layer.ffn_before, layer.ffn),
            f"{count(layer.parameters_before)} → {count(layer.parameters_after)}",
            f"{megabytes(layer.bytes_before / 1e6)} → {megabytes(layer.bytes_after / 1e6)}",
        )
        for number, layer in enumerate(plan.layers, start=1)
    ]
    foreseen = (
        f"The latency table foresaw {ms(plan.predicted_ms)} undisturbed; the exported, untrained "
        f"model took {ms(plan.measured_untrained_ms)}. Rounds of planning and timing: "
        f"{len(plan.rounds)}. Before training, at p{report.budget.percentile:g}: unpruned "
        f"{ms(report.feasibility.dense_ms)}, smallest budget that can be reached "
        f"{ms(report.feasibility.minimum_ms)}."
    )
    layers = table(("layer", "heads", "FFN", "parameters", "fp32"), rows)
    return [f"{level}# What was removed", layers, foreseen]


def _size(report: Report, level: str) -> list[str]:
    if (size := report.size) is None:
        return []
    rows = [
        ("vocabulary", megabytes(size.vocabulary_bytes / 1e6)),
        ("other weights", megabytes(size.weight_bytes / 1e6)),
        ("graph", megabytes(size.graph_bytes / 1e6)),
    ]
    told = (
        f"Of {size.tokens_before:,} tokens {size.tokens:,} are kept. {size.tokens_needed:,} had to "
        "be: those of the training rows and of the given text, and those that read any other text "
        "letter by letter."
    )
    return [f"{level}# Size", table(("part", "size"), rows), told]


def _export(report: Report, level: str) -> list[str]:
    parity = [
        (
            "x".join(str(side) for side in row.shape),
            f"{row.max_abs:.1e}",
            f"{row.cosine:.6f}",
            f"{row.agreement:.1%}",
        )
        for row in report.parity
    ]
    precisions = [
        (
            candidate.precision,
            ms(candidate.p90_ms),
            f"{candidate.score:.3f}",
            megabytes(candidate.size_mb),
            "kept" if candidate.kept else "not kept",
            candidate.why,
        )
        for candidate in report.precisions
    ]
    export = report.export
    fusions = [f"{name} {f.found} of {f.expected}" for name, f in export.fusions.items()]
    facts = [f"opset {export.opset}", f"{sum(export.operators.values())} operators", *fusions]
    return [
        f"{level}# The exported file",
        _safe(", ".join(facts)) + f", sha256 {_mono(export.sha256)}",
        "Answers against PyTorch:",
        table(("batch x tokens", "max difference", "cosine", "same answer"), parity),
        *_runtime_parity(report),
        table(("precision", "p90", "score", "size", "", "why"), precisions),
    ]


def _runtime_parity(report: Report) -> list[str]:
    row = report.runtime_parity
    if row is None:
        return []
    return [
        f"Answers of {_safe(report.environment['target'])} against ONNX Runtime, on padded test "
        f"rows: max difference {row.max_abs:.1e}, cosine {row.cosine:.6f}, same answer in "
        f"{row.agreement:.1%}.",
    ]


def _data(report: Report, level: str) -> list[str]:
    tasks = [task for task in (report.task, report.auxiliary) if task is not None]
    notes = [f"- {_safe(task.name)}: {_safe(note)}" for task in tasks for note in task.notes]
    head = ("task", "kind", "metric", "classes", "train", "validation", "test")
    return [f"{level}# Data", table(head, [_task(task) for task in tasks]), "\n".join(notes)]


def _task(task: TaskPart) -> Row:
    rows = (task.rows.train, task.rows.validation, task.rows.test)
    return (task.name, task.kind, task.metric, str(task.labels or "-"), *(str(n) for n in rows))


def _run(report: Report, level: str) -> list[str]:
    stages = [
        (name, duration(seconds), "cached" if name in report.cached else "")
        for name, seconds in report.seconds.items()
    ]
    facts = [f"- {_safe(name)}: {_safe(fact)}" for name, fact in report.environment.items()]
    return [
        f"{level}# The run",
        table(("stage", "time", ""), stages),
        f"Peak memory {report.peak_mb:.0f} MB. Bundle: {_mono(report.bundle)}.",
        "\n".join(f"- {_safe(note)}" for note in report.notes),
        "\n".join(facts),
        "Again:",
        _code(report.command),
    ]


def _figures(figures: Figures, kept: str) -> Row:
    size, parameters = megabytes(figures.size_mb), count(figures.parameters)
    return (ms(figures.p90_ms), f"{figures.score:.3f}", kept, size, parameters)


def _kept(report: Report) -> str:
    floor = f"floor {report.floor:.0%}"
    if report.score_ratio is None:
        return f"{report.after.score - report.before.score:+.3f}"
    return f"{report.score_ratio:.1%} kept, {floor}{'' if report.floor_met else ' not met'}"


def _times(before: float, after: float) -> str:
    return f"{before / after:.2f}x faster" if after <= before else f"{after / before:.2f}x slower"


def _less(before: float, after: float) -> str:
    return f"{after / before - 1:+.0%}" if before and after != before else ""


def _arrow(before: int, after: int) -> str:
    return str(after) if before == after else f"{before} → {after}"


def table(head: Row, rows: Sequence[Row]) -> str:
    """Columns of numbers after a column of names; cells are escaped. Empty without rows."""
    if not rows:
        return ""
    rule = ("---", *("---:" for _ in head[1:]))
    cells = [tuple(_safe(cell) for cell in row) for row in (head, *rows)]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _safe(text: object) -> str:
    """One line that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(text).split()))


def _mono(text: str) -> str:
    return f"`{' '.join(text.replace('`', '').split())}`"


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
