"""The null runtime's part of the timing program: a clock that only it advances, no inference."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

# Samples scatter by about this share, log-normally, as a quiet machine's do.
JITTER = 0.005


class Session:
    """Each `run` takes the milliseconds that the cost file states, by `clock_ns` and at once."""

    def __init__(self, path: str, seed: int) -> None:
        cost = json.loads(Path(path).read_text(encoding="utf-8"))
        self.inputs: dict[str, str] = cost["inputs"]
        self._ms: float = cost["ms"]
        self._random = random.Random(seed)
        self._now_ns = 0

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        self._now_ns += round(self._ms * 1e6 * math.exp(self._random.gauss(0.0, JITTER)))
        return []

    def clock_ns(self) -> int:
        return self._now_ns

    def facts(self) -> dict[str, Any]:
        return {"name": "null", "version": "1", "synthetic": True}


def open_session(path: str, *, threads: int, seed: int) -> Session:
    return Session(path, seed)
