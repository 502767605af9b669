"""ncnn's part of the timing program; runs on the device and imports nothing of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ncnn
import numpy as np


class Session:
    """An open model on the CPU, in 32-bit floats; it takes one row at a time."""

    def __init__(self, path: str, threads: int) -> None:
        folder = Path(path)
        told = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
        self.inputs = {name: row["dtype"] for name, row in told.items()}
        self._length = next(iter(told.values()))["shape"][1]
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{half}", False)
        if self._net.load_param(str(folder / "model.ncnn.param")):
            raise NotImplementedError("a layer that this ncnn does not have")
        if self._net.load_model(str(folder / "model.ncnn.bin")):
            raise ValueError("its weights are not those of its layers")

    def run(self, feeds: dict[str, Any]) -> list[Any]:
        rows = zip(*(feeds[name] for name in self.inputs))  # noqa: B905
        return [np.stack([self._infer(row) for row in rows])]

    def _infer(self, row: tuple[Any, ...]) -> Any:
        extractor = self._net.create_extractor()
        for index, array in enumerate(row):
            # Of another length it would answer, without a complaint, something else.
            if array.shape != (self._length,):
                raise ValueError(f"made for {self._length} tokens, got {array.shape}")
            extractor.input(f"in{index}", ncnn.Mat(array))
        code, output = extractor.extract("out0")
        if code:
            raise RuntimeError(f"ncnn failed with code {code}")
        return np.array(output)  # a copy: the memory is the extractor's

    def facts(self) -> dict[str, Any]:
        return {
            "name": "ncnn",
            "version": ncnn.__version__,
            "threads": self._net.opt.num_threads,
            "fp16": self._net.opt.use_fp16_storage,
        }


def open_session(path: str, *, threads: int, seed: int) -> Session:
    return Session(path, threads)
