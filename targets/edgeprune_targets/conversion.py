"""Conversion in a process of its own, by the Python that has the runtime's converter."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from edgeprune.child import child_process
from edgeprune.confined import said
from edgeprune.errors import EdgepruneError, OnnxError, ResourceError, TargetError
from edgeprune.measure.environment import PythonEnvironment
from edgeprune.measure.target import Check, Program, Runtime
from edgeprune.onnx_file import load_onnx
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.local import ENVIRONMENT

PROGRAM = Path(__file__).with_name("convert.py")
CONVERTERS = Path(__file__).with_name("converters")


class Converted(Runtime):
    """A runtime with packages, a converter and a session of its own, all by its environment's name.

    A subclass gives `environment`, and the package that its session imports on a device.
    """

    environment: ClassVar[PythonEnvironment]
    package: ClassVar[str]

    def check(self) -> Check:
        return self.environment.check()

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        own = self.environment
        return convert(own.name, own.python(), onnx, folder, batch=batch, sequence=sequence)

    def program(self) -> Program:
        session = SESSIONS / f"{self.environment.name}.py"
        local = self.environment.python()
        return Program(BENCH, session, packages=(self.package,), local=local)


def convert(
    runtime: str,
    python: Sequence[str],
    onnx: Path,
    folder: Path,
    *,
    batch: int,
    sequence: int,
    converter: Path | None = None,
    limit_s: float = 900.0,
) -> Path:
    """What `converter` (by default ours of that runtime) makes of an ONNX file, in `folder`.

    Raises OnnxError for a model that it does not take, TargetError for an operator that the runtime
    lacks and for a converter that crashed or is not there, ResourceError where memory ran out.
    Nothing of the process lives on, and nothing but its answer is left.
    """
    load_onnx(onnx)  # so that no converter meets what is no model
    path = converter or converter_of(runtime)
    words = [str(path), str(onnx.resolve()), str(folder.resolve()), str(batch), str(sequence)]
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
        code, output, errors = _run([*python, str(PROGRAM), *words], scratch, limit_s)
    told = said(output)
    if told is not None and "path" in told:
        return Path(told["path"])
    what = f"ONNX file {onnx}"
    if told is None:
        raise _ended(what, runtime, code, errors, limit_s)
    why = " ".join(str(told["why"]).split())[:300]
    if told["fault"] == "import":
        remedy = f"`edgeprune targets doctor {runtime}` tells the remedy"
        raise TargetError(f"runtime {runtime}", why=f"its converter: {why}", remedy=remedy)
    if told["fault"] == "lacking":
        remedy = "try another target or a newer runtime"
        raise TargetError(f"{what} on {runtime}", why=why, remedy=remedy)
    raise OnnxError(what, why=f"{runtime} does not convert it: {why}")


def converter_of(runtime: str) -> Path:
    """Ours. It does not bear the very name of a package, which it would hide from itself."""
    return CONVERTERS / f"to_{runtime.replace('-', '_')}.py"


def _run(command: Sequence[str], scratch: str, limit_s: float) -> tuple[int | None, str, str]:
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"TMPDIR": scratch, "ORT_DISABLE_TELEMETRY": "1"}
    with child_process(command, folder=scratch, environment=environment) as child:
        try:
            output, errors = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None, "", ""
    return child.returncode, output, errors


def _ended(
    what: str, runtime: str, code: int | None, errors: str, limit_s: float
) -> EdgepruneError:
    if code is None:
        why = f"{runtime} did not convert it within {limit_s:g} s"
        return TargetError(what, why=why, remedy="convert a smaller model, or on a faster machine")
    if code == -signal.SIGKILL:
        why = f"{runtime}'s converter was killed, as the system does without memory"
        return ResourceError(what, why=why, remedy="free memory")
    last = errors.strip().splitlines()[-1:] or ["no message"]
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    why = f"{runtime}'s converter ended with {how}: {last[0][:300]}"
    return TargetError(
        what, why=why, remedy="try another version of the runtime, or another target"
    )
