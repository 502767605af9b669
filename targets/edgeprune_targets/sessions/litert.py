"""LiteRT's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Session:
    """An open model on the CPU; its tensors are known by the names of its one signature."""

    def __init__(self, path: str, threads: int) -> None:
        self._threads = threads
        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        signature = self._interpreter.get_signature_runner()
        given, told = signature.get_input_details(), signature.get_output_details()
        self.inputs = {name: np.dtype(tensor["dtype"]).name for name, tensor in given.items()}
        # By number: the signature itself would have all tensors laid out anew at each call.
        self._given = {name: tensor["index"] for name, tensor in given.items()}
        self._told = [tensor["index"] for tensor in told.values()]

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        for name, index in self._given.items():
            self._interpreter.set_tensor(index, feeds[name])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._told]  # copies

    def facts(self) -> dict[str, Any]:
        operators = [row["op_name"] for row in self._interpreter._get_ops_details()]
        return {
            "name": "litert",
            "version": version("ai-edge-litert"),
            "threads": self._threads,
            "delegated": operators.count("DELEGATE"),
        }


def open_session(path: str, *, threads: int, seed: int) -> Session:
    try:
        return Session(path, threads)
    except RuntimeError as error:
        if "unresolved" in str(error) or "Didn't find op" in str(error):
            raise NotImplementedError(str(error)) from None
        raise
