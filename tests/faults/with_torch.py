"""Commands of the real pipeline with as little effort as does the job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

LITTLE = {
    "teacher_steps": 60,
    "recovery_steps": 40,
    "statistics_tokens": 2_000,
    "draws": 3,
    "judged_rows": 32,
    "table_heads": 1,
    "table_widths": 1,
}


def prepare(teacher_steps: str = "60", every_s: str = "60") -> None:
    """With so many steps of the teacher, and so many seconds between snapshots."""
    from edgeprune import pipeline
    from edgeprune.effort import EFFORTS, Effort
    from edgeprune.learn import snapshots
    from edgeprune.stages import materials, timing

    assert pipeline
    little: dict[str, Any] = LITTLE | {"teacher_steps": int(teacher_steps)}
    cast(dict[str, Effort], EFFORTS)["quick"] = replace(EFFORTS["quick"], **little)
    materials.RATE = 3e-3
    timing.STACK = 1
    snapshots.EVERY_S = float(every_s)
