"""OpenVINO's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

import sys
from typing import Any

# It sends usage data when it is imported, unless it finds this package missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402
from openvino import opset13 as opset  # noqa: E402

PRECISIONS = ("f32", "bf16", "f16")


class Session:
    """A compiled model on the CPU, one stream; the precision that it runs in is among its facts."""

    def __init__(self, path: str, threads: int, precision: str) -> None:
        self._model = compiled(f"{path}/model.xml", threads, precision)
        self._request = self._model.create_infer_request()
        self.inputs = {
            port.get_any_name(): port.get_element_type().to_dtype().name
            for port in self._model.inputs
        }

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        found = self._request.infer(feeds, share_inputs=False, share_outputs=False)
        return [found[port] for port in self._model.outputs]

    def facts(self) -> dict[str, Any]:
        told = {
            "precision": precision_of(self._model),
            "threads": self._model.get_property("INFERENCE_NUM_THREADS"),
            "streams": self._model.get_property("NUM_STREAMS"),
            # Of so many activations at a time, where weights are int8 and the processor can.
            "quantization_group": self._model.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE"),
        }
        version = openvino.get_version().split("-")[0]
        return {"name": "openvino", "version": version} | {k: str(v) for k, v in told.items()}


def compiled(model: Any, threads: int, precision: str) -> Any:
    """A model, or the one at a path. Raises NotImplementedError for a precision that is not had."""
    if precision not in PRECISIONS:
        raise NotImplementedError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    found = openvino.compile_model(model, "CPU", options)
    if precision_of(found) != precision:  # a hint: what the processor lacks is not taken
        raise NotImplementedError(f"no {precision} on this processor; it has {precision_of(found)}")
    return found


def precision_of(model: Any) -> str:
    """What a compiled model computes in."""
    return str(model.get_property("INFERENCE_PRECISION_HINT").to_string())


def check_option(option: str) -> None:
    nothing = opset.parameter([1])
    compiled(openvino.Model([nothing], [nothing]), 1, option)


def open_session(path: str, *, threads: int, seed: int, option: str = "f32") -> Session:
    return Session(path, threads, option)
