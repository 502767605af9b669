"""ONNX Runtime's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

import os
import re
from typing import Any

# Read when the library is loaded: from 1.32 on it sends usage data, from threads of its own.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    NotImplemented as Unsupported,
)

CPU = "CPUExecutionProvider"
CONFIG = {
    # A pool that spins doubles the latency where another process has one of the cores.
    "session.intra_op.allow_spinning": "0",
    # Which provider runs which operators; unknown to releases before 1.24, which ignore it.
    "session.record_ep_graph_assignment_info": "1",
}
# What a release says of a file that is newer than it.
TOO_OLD = re.compile(
    r"Opset \d+ is under development|Unsupported model IR version: \d+"
    r"|\S+ is not a registered function"
)
DTYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(bool)": "bool",
}


class Session:
    """An open model; what is not for the provider that was asked for runs on the CPU's own."""

    def __init__(self, path: str, threads: int, provider: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for name, value in CONFIG.items():
            options.add_session_config_entry(name, value)
        self._options = options
        self._asked = list(dict.fromkeys([provider, CPU]))
        self._session = onnxruntime.InferenceSession(path, options, providers=self._asked)
        if self._session.get_providers()[0] != provider:  # it falls back with a warning
            raise NotImplementedError(f"{provider} does not start here")
        self.inputs = {i.name: DTYPES.get(i.type, i.type) for i in self._session.get_inputs()}

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        return list(self._session.run(None, feeds))

    def facts(self) -> dict[str, Any]:
        return {
            "name": "onnxruntime",
            "version": onnxruntime.__version__,
            "requested_providers": self._asked,
            "providers": self._session.get_providers(),
            "placement": placement(self._session),
            "intra_op_threads": self._options.intra_op_num_threads,
            "inter_op_threads": self._options.inter_op_num_threads,
            "config": CONFIG,
            "graph_optimization": self._options.graph_optimization_level.name,
        }


def placement(session: Any) -> dict[str, int] | None:
    """How many nodes each provider was given; None where the library tells nothing of a file."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    found: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name] = found.get(part.ep_name, 0) + len(part.get_nodes())
    return found or None


def provider_named(option: str) -> str:
    """As in "xnnpack" for XnnpackExecutionProvider. Raises NotImplementedError."""
    there: dict[str, str] = {
        name.replace("ExecutionProvider", "").lower(): name
        for name in onnxruntime.get_available_providers()
    }
    if option.lower() not in there:
        raise NotImplementedError(
            f"this onnxruntime has no execution provider {option!r}; it has {', '.join(there)}"
        )
    return there[option.lower()]


def check_option(option: str) -> None:
    provider_named(option)


def open_session(path: str, *, threads: int, seed: int, option: str = "cpu") -> Session:
    provider = provider_named(option)
    try:
        return Session(path, threads, provider)
    except Unsupported as error:
        raise NotImplementedError(str(error)) from None
    except Exception as error:  # the library's exceptions share no base class of their own
        newer = TOO_OLD.search(str(error))
        if newer is None:
            raise
        why = f"onnxruntime {onnxruntime.__version__} is too old: {newer[0]}"
        raise NotImplementedError(why) from None
