"""The facts of machine and software that a report carries: an allow-list and nothing beside it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

PACKAGES = ("edgeprune", "torch", "transformers", "onnx", "onnxruntime", "numpy")
DEVICE = (
    *("device", "machine", "board", "cpu", "flags", "cores", "memory_mb", "kernel", "governor"),
    *("android", "thermal_status", "battery_celsius", "powered", "fixed_performance"),
)
RUNTIME = (
    *("name", "version", "providers", "placement", "intra_op_threads", "graph_optimization"),
    "config",
    *("synthetic", "precision", "threads", "streams", "provider", "host"),
)


def environment(target: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run used: its Python and packages, and its target by the facts of a Profile."""
    return {
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "target": target,
        **_allowed(facts.get("device", {}), DEVICE),
        "runtime": _allowed(facts.get("runtime", {}), RUNTIME),
    }


def _allowed(facts: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
