"""The `qai` device: a phone at the Qualcomm AI Hub, by the hub's own client.

Written against the interface of qai-hub 0.56, and never run on the service.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from onnx.helper import tensor_dtype_to_np_dtype

from edgeprune.errors import RecipeError, TargetError
from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune.measure.target import Check, Device, Finished, Program, Target
from edgeprune.onnx_file import load_onnx

FARM = Path(__file__).with_name("farm.py")
QUEUE_S = 3_600.0  # jobs wait for a phone
ANSWER_S = 120.0  # of the hub to a question


class Qai(Device):
    environment = PythonEnvironment("qai", (Package("qai-hub", tested="0.56.0", least="0.56"),))

    def __init__(self, address: str = "") -> None:
        if not address:
            raise RecipeError(
                "device qai",
                why="needs the name of a phone",
                remedy='write "qai:samsung-galaxy-s24", as `qai-hub list-devices` has it',
            )
        self._phone = address.lower()
        self._here = Target.parse("ort").device

    def check(self) -> Check:
        found = self.environment.check()
        if not found.usable:
            return found
        try:
            self.facts()
        except TargetError as error:
            return Check(False, why=error.why, remedy=error.remedy)
        return Check(True, f"qai-hub {found.version}")

    def facts(self) -> dict[str, Any]:
        """The hub tells a phone's name, system and chipset; not its cores, memory or kernel."""
        with self.folder() as folder:
            finished = self._start(["phone", self._phone], folder, ANSWER_S)
        lines = finished.output.splitlines()
        if finished.code != 0 or not lines:
            said = finished.errors.strip().splitlines()[-1:] or ["no answer"]
            raise TargetError(
                f"device qai:{self._phone}",
                why=said[0][:300],
                remedy="`qai-hub configure` keeps your token, `qai-hub list-devices` names phones",
            )
        told: dict[str, Any] = json.loads(lines[-1])
        return {"device": f"qai:{self._phone}", "machine": told["name"], "cores": None, **told}

    def folder(self) -> AbstractContextManager[str]:
        return self._here.folder()

    def push(self, path: Path, folder: str) -> str:
        """The path itself: the client uploads what a job needs."""
        return self._here.push(path, folder)

    def python(self) -> Sequence[str]:
        return self.environment.python()

    def starts(self, program: Program) -> Sequence[str]:
        if program.session.stem != "ort":
            raise self._takes_no(program.session.stem)
        return self.python()

    def install_line(self, packages: Sequence[str]) -> str:
        return self.environment.remedy

    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Finished:
        """A job for each model of the timing program's specification, by the program's protocol."""
        if "-c" in command:  # what the Python there finds: the hub brings ONNX Runtime along
            return Finished(0, " ".join([*command[command.index("-c") + 2 :], "found"]), "")
        bench, path = command[-2:]
        specification = json.loads(Path(path).read_text(encoding="utf-8"))
        if specification["option"]:
            raise self._takes_no(specification["option"])
        takes = {name: _inputs(Path(file)) for name, file in specification["models"].items()}
        asked = Path(folder) / "farm.json"
        asked.write_text(json.dumps(specification | {"phone": self._phone, "takes": takes}))
        return self._start(["time", bench, str(asked)], folder, max(limit_s, QUEUE_S))

    def _takes_no(self, word: str) -> TargetError:
        return TargetError(
            f"device qai:{self._phone}",
            why=f"the hub does not run {word}",
            remedy=f'measure "ort@qai:{self._phone}"',
        )

    def _start(self, words: Sequence[str], folder: str, limit_s: float) -> Finished:
        return self._here.run([*self.python(), str(FARM), *words], folder, limit_s=limit_s)


def _inputs(path: Path) -> dict[str, str]:
    """What a model takes: the client's Python has no onnx to find it out."""
    graph = load_onnx(path, weights=False).graph
    types = {one.name: one.type.tensor_type.elem_type for one in graph.input}
    return {name: tensor_dtype_to_np_dtype(kind).name for name, kind in types.items()}
