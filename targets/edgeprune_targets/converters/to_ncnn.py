"""ONNX to ncnn: a trace of one row, translated by pnnx."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tempfile
from pathlib import Path

import onnx_module
import torch

SHORT = {torch.int32: "i32", torch.float32: "f32"}


def convert(onnx: str, folder: str, *, batch: int, sequence: int) -> str:
    # A net knows no batch; the session feeds it row by row.
    loaded = onnx_module.load(onnx, batch=1, sequence=sequence)
    if loaded.quantized:
        raise NotImplementedError("int8: ncnn's tools for it are not in its Python package")
    made = Path(folder) / "model"
    made.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "model.pt"
        examples = tuple(loaded.inputs.values())
        torch.jit.trace(loaded.module, examples, check_trace=False).save(str(trace))
        shapes = ",".join(f"[1,{sequence}]{SHORT[example.dtype]}" for example in examples)
        translate(trace, shapes)
        for suffix in ("param", "bin"):
            (Path(scratch) / f"model.ncnn.{suffix}").replace(made / f"model.ncnn.{suffix}")
    refuse_foreign_layers(made / "model.ncnn.param")
    told = {
        name: {"dtype": str(example.dtype).removeprefix("torch."), "shape": [*example.shape]}
        for name, example in loaded.inputs.items()
    }
    (made / "inputs.json").write_text(json.dumps(told), encoding="utf-8")
    return str(made)


def translate(trace: Path, shapes: str) -> None:
    """By the program itself: the package that wraps it adds nothing."""
    package = importlib.util.find_spec("pnnx")
    assert package is not None and package.submodule_search_locations
    program = Path(package.submodule_search_locations[0]) / "pnnx"
    command = [str(program), trace.name, f"inputshape={shapes}", "fp16=0"]
    ended = subprocess.run(command, cwd=trace.parent, capture_output=True, text=True)
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or [f"code {ended.returncode}"]
        raise ValueError(f"pnnx ended: {last[0]}")


def refuse_foreign_layers(param: Path) -> None:
    """What pnnx cannot translate it leaves under torch's name, and ends well."""
    kinds = [line.split()[0] for line in param.read_text(encoding="utf-8").splitlines()[2:]]
    foreign = sorted({kind for kind in kinds if not re.fullmatch(r"[A-Za-z0-9]+", kind)})
    if foreign:
        raise NotImplementedError(f"lacks {', '.join(foreign)}")
