"""Contracts as test classes: what a family of encoders, a runtime or a device must keep.

Subclass one in a test file of your own; pytest finds its tests by the subclass's name. That of a
family needs torch, those of targets do not, so each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.testing.families import FamilyContract, random_batch, random_model
    from edgeprune.testing.targets import DeviceContract, RuntimeContract, save_tiny_onnx

__all__ = [
    "DeviceContract",
    "FamilyContract",
    "RuntimeContract",
    "random_batch",
    "random_model",
    "save_tiny_onnx",
]

_TARGETS = ("DeviceContract", "RuntimeContract", "save_tiny_onnx")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgeprune.testing' has no attribute {name!r}")
    room = "targets" if name in _TARGETS else "families"
    return getattr(import_module(f"edgeprune.testing.{room}"), name)
