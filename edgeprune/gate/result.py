"""The JSON of a check, as programs read it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeprune.gate.demands import Demands
from edgeprune.report.report import Judgement


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class GateRow(_Part):
    """A demand that no clock has a part in, and that cannot flake."""

    name: str
    passed: bool
    text: str


class ModelPart(_Part):
    """The countable facts of the model file."""

    sha256: str
    size_bytes: int
    parameters: int
    multiply_adds: int | None = Field(
        description="Of one inference; null where shapes are unknown."
    )
    operators: dict[str, int]
    fusions: dict[str, int] = Field(description="Found in the graph that ONNX Runtime runs.")
    score: float | None = Field(description="Of the exported file on the test rows of its run.")


class TargetPart(_Part):
    """One target: the verdict, and the measurement with every sample that it rests on."""

    target: str
    verdict: Judgement
    profile: dict[str, Any]
    environment: dict[str, Any]


class Seconds(_Part):
    measuring: float
    total: float


class CheckResult(_Part):
    """What `edgeprune check --json` prints. Read `outcome` or `exit_code` first."""

    format: Literal["edgeprune-check/1"] = Field(alias="schema")
    outcome: Literal["met", "missed", "inconclusive"]
    exit_code: int
    demands: Demands = Field(description="What was asked, by options and edgeprune.toml.")
    attempt: int = Field(description="How often the CI job was started for this commit.")
    model: ModelPart
    gates: list[GateRow]
    targets: list[TargetPart] = Field(description="Empty where a gate failed.")
    seconds: Seconds
    command: str = Field(description="Does it again.")
