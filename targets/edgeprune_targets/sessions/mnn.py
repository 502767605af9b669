"""MNN's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

from typing import Any

import MNN
import MNN.expr
import MNN.nn
import numpy as np

# What the formats of other runtimes call int64 is int32 here.
DTYPE = "int32"
CPU = 0


class Session:
    """An open model on the CPU, with as many threads as were asked for."""

    def __init__(self, path: str, threads: int) -> None:
        self._options = {"backend": CPU, "numThread": threads, "precision": "high"}
        manager = MNN.nn.create_runtime_manager((self._options,))
        self._names = self._names_in(path, manager)
        self._model = MNN.nn.load_module_from_file(path, *self._names, runtime_manager=manager)
        self.inputs = dict.fromkeys(self._names[0], DTYPE)

    @staticmethod
    def _names_in(path: str, manager: Any) -> tuple[list[str], list[str]]:
        info = MNN.nn.load_module_from_file(path, [], [], runtime_manager=manager).get_info()
        return info["inputNames"], info["outputNames"]

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        given = [self._placed(feeds[name]) for name in self._names[0]]
        return [np.array(output.read()) for output in self._model.forward(given)]

    def _placed(self, array: Any) -> Any:
        placed = MNN.expr.placeholder(list(array.shape), MNN.expr.NCHW, MNN.expr.int)
        placed.write(array)
        return placed

    def facts(self) -> dict[str, Any]:
        told = {"precision": self._options["precision"], "threads": self._options["numThread"]}
        return {"name": "mnn", "version": MNN.version()} | told


def open_session(path: str, *, threads: int, seed: int) -> Session:
    return Session(path, threads)
