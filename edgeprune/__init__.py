"""Compress transformer encoders to a latency budget in milliseconds, and prove that it is met.

    report = edgeprune.compress(edgeprune.Recipe(model="DIR", task="data/mrpc", budget=["50%"]))
    verdict = edgeprune.check("runs/edgeprune", "12ms")

Each name is imported when it is first used, so that what measures never loads what learns.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.compression import compress, compress_all, dry_run
    from edgeprune.delivery import verify
    from edgeprune.encoder import load
    from edgeprune.errors import (
        BudgetError,
        DataError,
        Diverged,
        EdgepruneError,
        InputError,
        Missed,
        ModelError,
        OnnxError,
        ParityError,
        RecipeError,
        RefusedError,
        ResourceError,
        TargetError,
        Unreachable,
    )
    from edgeprune.gate.check import Checked, check, profile
    from edgeprune.gate.compare import Comparison, compare
    from edgeprune.gate.convert import Converted, convert
    from edgeprune.latency import Budget, Latency, LatencyTable
    from edgeprune.measure.profile import Profile
    from edgeprune.measure.verdict import Verdict
    from edgeprune.progress import Progress
    from edgeprune.recipe import Recipe
    from edgeprune.report.report import Report
    from edgeprune.shape import LayerShape, Shape

__version__ = "0.1.0"

# Threads that spin while they wait make training up to 30 times slower as soon as another process
# wants a core, and threads that never do cost a tenth of it on a free machine. So they spin for a
# few microseconds; OpenMP reads this when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# The wheels of ONNX Runtime send usage data since 1.32, unless this is set when they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Budget",
    "BudgetError",
    "Checked",
    "Comparison",
    "Converted",
    "DataError",
    "Diverged",
    "EdgepruneError",
    "InputError",
    "Latency",
    "LatencyTable",
    "LayerShape",
    "Missed",
    "ModelError",
    "OnnxError",
    "ParityError",
    "Profile",
    "Progress",
    "Recipe",
    "RecipeError",
    "RefusedError",
    "Report",
    "ResourceError",
    "Shape",
    "TargetError",
    "Unreachable",
    "Verdict",
    "check",
    "compare",
    "compress",
    "compress_all",
    "convert",
    "dry_run",
    "load",
    "profile",
    "verify",
]

_ROOMS = {
    "edgeprune.compression": ("compress", "compress_all", "dry_run"),
    "edgeprune.delivery": ("verify",),
    "edgeprune.encoder": ("load",),
    "edgeprune.gate.check": ("Checked", "check", "profile"),
    "edgeprune.gate.compare": ("Comparison", "compare"),
    "edgeprune.gate.convert": ("Converted", "convert"),
    "edgeprune.latency": ("Budget", "Latency", "LatencyTable"),
    "edgeprune.measure.profile": ("Profile",),
    "edgeprune.measure.verdict": ("Verdict",),
    "edgeprune.progress": ("Progress",),
    "edgeprune.recipe": ("Recipe",),
    "edgeprune.report.report": ("Report",),
    "edgeprune.shape": ("LayerShape", "Shape"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    room = _ROOM_OF.get(name, "edgeprune.errors")
    try:
        value = getattr(import_module(room), name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("edgeprune"):
            raise
        told = f"edgeprune.{name} needs {error.name}: pip install 'edgeprune[train]'"
        raise ModuleNotFoundError(told, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
