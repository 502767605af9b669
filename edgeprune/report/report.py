"""The Report: what was asked of a run, what came out of it and how to do it again, as JSON.

One report tells of one budget. Read `verdict.outcome` first; `before` and `after` are the
unpruned teacher and the pruned student, both as exported ONNX files, on the test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeprune.errors import InputError
from edgeprune.report.discretion import discreet
from edgeprune.shape import LayerShape, Shape
from edgeprune.units import megabytes

# The stored format; 1 (0.1.0): the first.
FORMAT: Literal["edgeprune-report/1"] = "edgeprune-report/1"
FP32_BYTES = 4
MAX_REPORT_BYTES = 64_000_000

Outcome = Literal["met", "missed", "inconclusive"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reason(_Part):
    """Why a verdict is what it is; the code is stable."""

    code: str
    text: str


class Judgement(_Part):
    """The verdict on the measured latency, and the numbers it rests on: a Verdict's `to_dict`.

    Under a size budget it is missed too where the file is too large.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    percentile: float
    observed_ms: float | None = Field(description="The measured percentile; null if unmeasured.")
    budget_ms: float
    interval_ms: tuple[float | None, float | None] = Field(
        description="Of the percentile; null where the samples do not bound it."
    )
    confidence: float
    n: int = Field(description="Timed inferences.")
    n_effective: float = Field(description="Independent inferences that these are worth.")
    exceeded: int = Field(description="Inferences over the budget.")
    launches: int
    more: str = Field(default="", description="What would decide an inconclusive verdict.")
    target: str
    look: int = Field(description="The number of this look at growing data.")
    looks: int = Field(description="Looks that there may be; each has its part of the error.")
    targets: int = Field(description="Targets that are judged together.")
    exit_code: int
    line: str = Field(description="All of it in one line.")


class Limit(_Part):
    """The budget: as it was asked for, and in milliseconds."""

    text: str
    ms: float
    percentile: float


class Figures(_Part):
    """One exported model, measured on the target and scored on the test rows."""

    score: float
    metric: str
    p50_ms: float
    p90_ms: float
    size_mb: float
    parameters: int
    precision: str


class LayerRow(_Part):
    """One encoder layer before and after surgery; parameters with biases and LayerNorms."""

    heads: int
    ffn: int
    heads_before: int
    ffn_before: int
    parameters_before: int
    parameters_after: int
    bytes_before: int = Field(description="Of the parameters in fp32.")
    bytes_after: int = Field(description="Of the parameters in fp32.")


class Round(_Part):
    """One turn of the loop that plans, exports and times before any training."""

    aim_ms: float
    predicted_ms: float
    measured_ms: float


class PlanPart(_Part):
    """Which architecture the budget bought, and how well the latency table foresaw it."""

    layers: tuple[LayerRow, ...]
    predicted_ms: float
    measured_untrained_ms: float
    rounds: tuple[Round, ...] = ()


class SizePart(_Part):
    """The size budget, and where the bytes of the exported file go."""

    text: str
    limit_bytes: int
    file_bytes: int = Field(description="Of what the target runs; of several, the largest.")
    met: bool
    tokens: int = Field(description="That the tokenizer knows.")
    tokens_before: int
    tokens_needed: int = Field(
        description="Those of the training rows and of the given text, and what reads any text."
    )
    vocabulary_bytes: int = Field(description="Of the tokens' embeddings.")
    weight_bytes: int = Field(description="Of all other weights.")
    graph_bytes: int = Field(description="Of operators and names.")

    @property
    def line(self) -> str:
        """All of it in one line."""
        size, rest = megabytes(self.file_bytes / 1e6), "" if self.met else ", which is too much"
        return f"{size} of {self.text}{rest}, {self.tokens:,} of {self.tokens_before:,} tokens"


class Transfer(_Part):
    """How the auxiliary task took part.

    `gain` is what it brought on validation: to the student where both ways were tried, else to the
    teacher.
    """

    how: str
    what: str
    when: str
    gain: float | None = None
    used: bool
    note: str = ""


class Rows(_Part):
    train: int
    validation: int
    test: int


class TaskPart(_Part):
    """A data set as it was used; `labels` counts classes, 0 for a score."""

    name: str
    kind: str
    metric: str
    labels: int
    rows: Rows
    notes: tuple[str, ...] = ()
    digest: str


class ParityRow(_Part):
    """The exported file against PyTorch on one input shape, batch x tokens."""

    shape: tuple[int, ...]
    max_abs: float
    cosine: float
    agreement: float = Field(description="Share of rows with the same answer.")


class Fusion(_Part):
    expected: int
    found: int


class ExportPart(_Part):
    """What stands in the shipped ONNX file."""

    operators: dict[str, int]
    fusions: dict[str, Fusion] = {}
    opset: int
    inputs: tuple[str, ...]
    sha256: str
    initializer_bytes: int
    parameters: int


class Candidate(_Part):
    """A precision that was tried on the target, and why it was kept or not."""

    precision: str
    p50_ms: float
    p90_ms: float
    size_mb: float
    score: float
    kept: bool
    why: str


class Feasibility(_Part):
    """What was known before any training, at the budget's percentile.

    The dense model, the smallest budget that can be reached, and the budget.
    """

    dense_ms: float
    minimum_ms: float
    budget_ms: float


class TargetRow(_Part):
    """The verdict on one target, and what it rests on."""

    target: str
    outcome: Outcome
    line: str
    budget_ms: float
    before_p90_ms: float
    after_p90_ms: float
    runtime_parity: ParityRow | None = None


class Report(_Part):
    """One budget of a run. The home folder is shown as `~` and secrets are redacted throughout."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )

    # pydantic's own `schema` attribute would be hidden by a field of that name.
    format: Literal["edgeprune-report/1"] = Field(default=FORMAT, alias="schema")
    verdict: Judgement = Field(
        description="Of all targets together. Of several, it is that of the first which was "
        "missed, else left open, else met; latency, table and environment are of that target."
    )
    targets: tuple[TargetRow, ...] = Field(default=(), description="The verdict on each target.")
    budget: Limit
    size: SizePart | None = Field(default=None, description="Null without a size budget.")
    before: Figures
    after: Figures
    score_ratio: float | None = Field(description="after / before; null unless before is above 0.")
    floor: float = Field(description="Smallest score_ratio that was asked for.")
    floor_met: bool
    plan: PlanPart
    transfer: Transfer
    task: TaskPart
    auxiliary: TaskPart | None = None
    parity: tuple[ParityRow, ...]
    runtime_parity: ParityRow | None = Field(
        default=None,
        description="What the target's runtime made of the file against ONNX Runtime, on padded "
        "test rows; null for ONNX Runtime itself.",
    )
    export: ExportPart
    precisions: tuple[Candidate, ...] = ()
    table: dict[str, Any] = Field(description="The latency table and how it spread.")
    feasibility: Feasibility
    seconds: dict[str, float] = Field(description="Of each stage, when it was computed.")
    cached: tuple[str, ...] = Field(default=(), description="Stages taken from an earlier run.")
    stages: dict[str, str] = Field(
        default={}, description="The key of each stage: it lies in stages/NAME-<its first 12>."
    )
    environment: dict[str, Any]
    recipe: dict[str, Any]
    command: str = Field(description="Does it again.")
    peak_mb: float = Field(description="Peak memory of the run's process.")
    bundle: str = Field(description="Relative to the run folder if inside it.")
    run: str
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _is_discreet(cls, data: object) -> object:
        return discreet(data)

    @property
    def exit_code(self) -> int:
        """0 met, 1 missed or under the quality floor, 3 inconclusive."""
        if self.verdict.outcome == "missed" or not self.floor_met:
            return 1
        return 0 if self.verdict.outcome == "met" else 3

    def to_json(self) -> str:
        return self.model_dump_json(by_alias=True, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report of a JSON file. Raises InputError."""
        try:
            if path.stat().st_size > MAX_REPORT_BYTES:
                raise InputError(f"report {path}", why=f"over {MAX_REPORT_BYTES} bytes")
            raw = path.read_bytes()
        except OSError as error:
            why = error.strerror or "cannot be read"
            raise InputError(f"report {path}", why=why) from None
        try:
            report = cls.model_validate_json(raw)
        except ValidationError as error:
            raise _explained(error, path) from None
        if "format" not in report.model_fields_set:
            raise InputError(f"report {path}", why=f"its format is not named {FORMAT!r}")
        return report


def held_to(size: SizePart | None, judgement: Judgement) -> Judgement:
    """The verdict on latency and size together: a file that is too large misses its budget."""
    if size is None:
        return judgement
    code = "within_size" if size.met else "over_size"
    reasons = (*judgement.reasons, Reason(code=code, text=f"The file takes {size.line}."))
    if size.met:
        return judgement.model_copy(update={"reasons": reasons})
    line = f"missed  size {size.line} (latency: {judgement.line})"
    return judgement.model_copy(
        update={"outcome": "missed", "exit_code": 1, "line": line, "reasons": reasons}
    )


def exit_code(reports: Sequence[Report]) -> int:
    """Of several budgets together: 1 if any was missed, else 3 if any is inconclusive, else 0."""
    codes = {report.exit_code for report in reports}
    return next((code for code in (1, 3) if code in codes), 0)


def layer_rows(before: Shape, after: Shape) -> tuple[LayerRow, ...]:
    """Each layer's heads, FFN width and parameters before and after surgery."""

    def parameters(layer: LayerShape) -> int:
        return before.with_layers([layer]).encoder_parameters

    return tuple(
        LayerRow(
            heads=new.heads,
            ffn=new.ffn,
            heads_before=old.heads,
            ffn_before=old.ffn,
            parameters_before=parameters(old),
            parameters_after=parameters(new),
            bytes_before=FP32_BYTES * parameters(old),
            bytes_after=FP32_BYTES * parameters(new),
        )
        for old, new in zip(before.layers, after.layers, strict=True)
    )


def _explained(error: ValidationError, path: Path) -> InputError:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if where == "schema":
        why = f"its format is {first['input']!r}, this edgeprune reads {FORMAT!r}"
        return InputError(f"report {path}", why=why, remedy="use the edgeprune that wrote it")
    why = f"{where}: {first['msg'].lower()}" if where else first["msg"].lower()
    remedy = "run `edgeprune compress` again with the same recipe to write it anew"
    return InputError(f"report {path}", why=why, remedy=remedy)
