"""What `edgeprune targets doctor` says of targets that are whole, and of those that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.measure.doctor import check_packages, diagnose
from edgeprune.measure.target import Check, Program, Runtime, Target
from edgeprune_cli.app import main
from edgeprune_targets import BENCH
from edgeprune_targets.local import Local

THIRD_PARTY = """
from edgeprune.measure.target import Check, Device, Runtime
from edgeprune_targets.null import Null

class Broken(Runtime):
    def check(self): return Check(False, why="its library is missing", remedy="pip install it")
    def convert(self, onnx, folder, *, batch, sequence): return onnx
    def program(self): return Null().program()
"""
ENTRY_POINTS = """
[edgeprune.runtimes]
broken = broken_adapters:Broken
absent = adapters_that_are_not_there:Runtime
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with a runtime that lacks something, and one that does not load."""
    (tmp_path / "broken_adapters.py").write_text(THIRD_PARTY)
    metadata = tmp_path / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


class Needy(Runtime):
    """A runtime whose session imports what no machine has."""

    def check(self) -> Check:
        return Check(True, "1")

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return onnx

    def program(self) -> Program:
        return Program(BENCH, BENCH, packages=("json", "no_such_engine", "nor_this"))


def test_a_target_that_can_be_used_is_told_with_its_versions() -> None:
    found = diagnose("ort")
    assert found.usable
    assert found.there == Check(True, "numpy, onnxruntime")
    assert found.runtime.version[0].isdigit()


@pytest.mark.usefixtures("third_party")
def test_one_missing_part_does_not_hide_the_others() -> None:
    found = diagnose("broken")
    assert not found.usable
    assert found.runtime == Check(False, why="its library is missing", remedy="pip install it")
    assert found.device.usable
    assert found.there.usable


@pytest.mark.usefixtures("third_party")
def test_an_adapter_that_cannot_be_loaded_is_told_with_its_package() -> None:
    found = diagnose("absent@ssh:pi4")
    assert "reinstall third-party" in found.runtime.remedy
    assert "not asked" in found.device.why


def test_what_the_device_s_python_lacks_is_told_with_the_line_that_installs_it() -> None:
    device = Local()
    with device.folder() as folder:
        check = check_packages(Target("needy", Needy(), device), folder)
    assert check.why == "its Python has no no_such_engine, no nor_this"
    assert check.remedy.endswith("-m pip install no_such_engine nor_this")


@pytest.mark.usefixtures("third_party")
def test_the_command_exits_4_unless_all_that_were_named_are_usable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["targets", "doctor", "ort", "null"]) == 0
    assert main(["targets", "doctor", "ort", "broken"]) == 4
    rows = [row for row in capsys.readouterr().out.splitlines() if "broken" in row]
    assert ["its library is missing - pip install it" in row for row in rows] == [
        True,
        False,
        False,
    ]


@pytest.mark.usefixtures("third_party")
def test_without_names_it_tells_of_every_runtime_and_exits_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["targets", "doctor", "--json"]) == 0
    told = {row["target"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"ort", "null", "broken", "absent"} <= told.keys()
    assert not told["absent"]["runtime"]["usable"]


def test_an_unknown_target_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "doctor", "otr"]) == 2
    assert "did you mean 'ort'?" in capsys.readouterr().err


def test_onnx_runtime_sends_nothing_from_a_device_or_from_here(tmp_path: Path) -> None:
    """Its wheels keep a device's identifier in the home folder, and send usage data, by default."""
    words = "import edgeprune, onnxruntime"
    session = Path(BENCH).with_name("sessions") / "ort.py"
    run = f"import runpy; runpy.run_path({str(session)!r})"
    quiet = {"ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS", "TF_BUILD"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    for program in (words, run):
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
        assert [*tmp_path.iterdir()] == []
