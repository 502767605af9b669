"""How long to search and train: the three efforts, each a row of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    teacher_steps: int
    recovery_steps: int
    batch: int  # rows of the target task a step
    checkpoints: int  # of a training, judged on validation
    judge_students: bool  # recover with and without the auxiliary task, keep the better one
    statistics_tokens: int  # of each task, for the error curves
    draws: int  # plans tried by the sensitivity search
    judged_rows: int  # each draw is judged on so many training rows
    table_heads: int  # measured points of the latency table
    table_widths: int
    table_models: int  # random whole models that it is fitted on, beside the dense and the empty
    table_launches: int


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(
        teacher_steps=150,
        recovery_steps=160,
        batch=16,
        checkpoints=1,
        judge_students=False,
        statistics_tokens=8_000,
        draws=8,
        judged_rows=96,
        table_heads=3,
        table_widths=4,
        table_models=1,
        table_launches=2,
    ),
    "standard": Effort(
        teacher_steps=300,
        recovery_steps=400,
        batch=16,
        checkpoints=3,
        judge_students=True,
        statistics_tokens=16_000,
        draws=24,
        judged_rows=128,
        table_heads=5,
        table_widths=7,
        table_models=4,
        table_launches=3,
    ),
    "thorough": Effort(
        teacher_steps=1_000,
        recovery_steps=1_200,
        batch=16,
        checkpoints=5,
        judge_students=True,
        statistics_tokens=32_000,
        draws=80,
        judged_rows=256,
        table_heads=6,
        table_widths=12,
        table_models=6,
        table_launches=3,
    ),
}
