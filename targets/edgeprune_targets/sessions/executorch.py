"""ExecuTorch's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that all of its Python interface may still change
    from executorch.extension.pybindings import portable_lib

# A program has no names; the converter keeps this order.
NAMES = ("input_ids", "attention_mask", "token_type_ids")
# c10::ScalarType
DTYPES = {3: "int32", 4: "int64", 6: "float32"}


class Session:
    """An open program on the CPU."""

    def __init__(self, path: str, threads: int) -> None:
        portable_lib._unsafe_reset_threadpool(threads)
        self._program = portable_lib._load_for_executorch(path)
        told = self._program.method_meta("forward")
        tensors = [told.input_tensor_meta(index) for index in range(told.num_inputs())]
        self.inputs = {name: DTYPES[t.dtype()] for name, t in zip(NAMES, tensors)}  # noqa: B905

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        given = tuple(torch.from_numpy(feeds[name]) for name in self.inputs)
        return [output.numpy() for output in self._program.forward(given)]  # copies

    def facts(self) -> dict[str, Any]:
        return {
            "name": "executorch",
            "version": version("executorch"),
            "threads": portable_lib._threadpool_get_thread_count(),
            "backends": portable_lib._get_registered_backend_names(),
        }


def open_session(path: str, *, threads: int, seed: int) -> Session:
    return Session(path, threads)
