"""The facts of machine and software that a report carries: an allow-list and nothing beside it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "numpy")


def environment(target: str, facts: Mapping[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    """Versions of what a run used, and the allowed ones among the facts of its target's profile."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: version for name in PACKAGES if (version := _version(name))},
        "target": target,
        **{name: facts[name] for name in sorted(allowed & facts.keys())},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
