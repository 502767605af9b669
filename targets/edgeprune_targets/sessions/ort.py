"""ONNX Runtime's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

import os
import time
from typing import Any

# Read when the library is loaded: from 1.32 on it sends usage data, from threads of its own.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    NotImplemented as Unsupported,
)

PROVIDERS = ["CPUExecutionProvider"]
DTYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(bool)": "bool",
}


class Session:
    """An open model on the CPU; whether its pool spins is among its facts."""

    def __init__(self, path: str, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A pool that spins doubles the latency where another process has one of the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._options = options
        self._session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
        self.inputs = {i.name: DTYPES.get(i.type, i.type) for i in self._session.get_inputs()}

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        return list(self._session.run(None, feeds))

    def clock_ns(self) -> int:
        return time.perf_counter_ns()

    def cpu_ns(self) -> int:
        return time.process_time_ns()

    def facts(self) -> dict[str, Any]:
        return {
            "name": "onnxruntime",
            "version": onnxruntime.__version__,
            "requested_providers": PROVIDERS,
            "providers": self._session.get_providers(),
            "intra_op_threads": self._options.intra_op_num_threads,
            "inter_op_threads": self._options.inter_op_num_threads,
            "spinning": False,
            "graph_optimization": self._options.graph_optimization_level.name,
        }


def open_session(path: str, *, threads: int, seed: int) -> Session:
    try:
        return Session(path, threads)
    except Unsupported as error:
        raise NotImplementedError(str(error)) from None
