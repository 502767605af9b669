"""Our own runtimes and this machine keep the contracts that third parties test theirs by."""

from __future__ import annotations

from edgeprune.measure.target import Device, Runtime
from edgeprune.testing import DeviceContract, RuntimeContract
from edgeprune_targets.local import Local
from edgeprune_targets.null import Null
from edgeprune_targets.ort import OnnxRuntime


class TestOnnxRuntime(RuntimeContract):
    @classmethod
    def runtime(cls) -> Runtime:
        return OnnxRuntime()


class TestNull(RuntimeContract):
    @classmethod
    def runtime(cls) -> Runtime:
        return Null()


class TestLocal(DeviceContract):
    @classmethod
    def device(cls) -> Device:
        return Local()
