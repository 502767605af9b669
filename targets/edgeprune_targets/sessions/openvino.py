"""OpenVINO's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

import sys
from typing import Any

# It sends usage data when it is imported, unless it finds this package missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402

PRECISIONS = ("f32", "bf16", "f16")


class Session:
    """A compiled model on the CPU, one stream; the precision that it runs in is among its facts."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        self._model = openvino.compile_model(f"{path}/model.xml", "CPU", options)
        if self._precision != precision:  # a hint: what the processor lacks is not taken
            raise NotImplementedError(f"no {precision} on this processor; it has {self._precision}")
        self._request = self._model.create_infer_request()
        self.inputs = {
            port.get_any_name(): port.get_element_type().to_dtype().name
            for port in self._model.inputs
        }

    @property
    def _precision(self) -> str:
        """What it computes in."""
        return str(self._model.get_property("INFERENCE_PRECISION_HINT").to_string())

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        found = self._request.infer(feeds, share_inputs=False, share_outputs=False)
        return [found[port] for port in self._model.outputs]

    def facts(self) -> dict[str, Any]:
        told = {
            "precision": self._precision,
            "threads": self._model.get_property("INFERENCE_NUM_THREADS"),
            "streams": self._model.get_property("NUM_STREAMS"),
        }
        version = openvino.get_version().split("-")[0]
        return {"name": "openvino", "version": version} | {k: str(v) for k, v in told.items()}


def open_session(path: str, *, threads: int, seed: int, option: str = "f32") -> Session:
    if option not in PRECISIONS:
        raise NotImplementedError(f"no precision {option!r}; there are {', '.join(PRECISIONS)}")
    return Session(path, threads, option)
