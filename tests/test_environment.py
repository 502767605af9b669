"""A runtime's own packages: installed whole, found again, and repaired; never half of them."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import ResourceError, TargetError
from edgeprune.measure.environment import NodeEnvironment, Package, PythonEnvironment
from edgeprune.measure.target import Check
from edgeprune.progress import Silent
from edgeprune_cli.app import main

ENGINE = PythonEnvironment("engine", (Package("edgeprune-engine", tested="2.0"),))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and an index with one package in two versions."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        write_wheel(wheels, "edgeprune_engine", version)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return tmp_path / "cache" / "edgeprune" / "targets"


def write_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir() if path.is_dir())


def test_what_was_installed_starts_in_the_tested_version_and_takes_the_place_of_older_ones(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ENGINE.check() == Check(
        False, why="not installed", remedy="edgeprune targets install engine"
    )
    older = home / f"engine-{'0' * 12}"
    killed = home / f".{ENGINE.folder.name}"
    another = home / f"engine-two-{'0' * 12}"
    for folder in (older, killed, another):
        folder.mkdir(parents=True)
    ENGINE.install()
    assert ENGINE.check() == Check(True, "2.0")
    assert folders(home) == sorted([ENGINE.folder.name, another.name])
    monkeypatch.setenv("PYTHONPATH", str(home))  # of another Python
    ask = "import edgeprune_engine, sys; print(edgeprune_engine.VERSION, sys.path)"
    said = subprocess.run([*ENGINE.python(), "-c", ask], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("2.0 ")
    assert str(home) + "'" not in said.stdout
    assert ENGINE.size_mb > 1
    stamp = ENGINE.folder.stat().st_mtime_ns
    ENGINE.install()
    assert ENGINE.folder.stat().st_mtime_ns == stamp


def test_an_environment_is_known_by_what_it_was_asked_for() -> None:
    newer = PythonEnvironment("engine", (Package("edgeprune-engine", tested="2.1"),))
    assert newer.folder != ENGINE.folder
    assert newer.folder == PythonEnvironment("engine", newer.packages).folder


class Interrupting(Silent):
    def note(self, text: str) -> None:
        raise KeyboardInterrupt


def test_interrupted_it_leaves_nothing(home: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ENGINE.install(Interrupting())
    assert folders(home) == []
    assert not ENGINE.check().usable


def test_a_package_that_cannot_be_had_is_one_line_and_leaves_nothing(home: Path) -> None:
    absent = PythonEnvironment("absent", (Package("edgeprune-no-such-engine", tested="9"),))
    with pytest.raises(TargetError, match="No matching distribution found") as caught:
        absent.install()
    assert caught.value.exit_code == 4
    assert folders(home) == []


def test_a_cache_that_cannot_be_written_is_a_lack_of_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="XDG_CACHE_HOME"):
        ENGINE.install()


def test_edgeprune_s_own_python_is_used_where_its_packages_are_new_enough() -> None:
    own = PythonEnvironment("own", (Package("numpy", tested="99.0", least="1.26"),))
    assert own.check() == Check(True, np.__version__)
    assert own.python()[0].endswith("python") or "python3" in own.python()[0]
    assert own.python()[1:] == ("-P",)


@pytest.mark.parametrize(
    ("packages", "why"),
    [
        ((Package("numpy", "99.0", "98.0"),), f"numpy {np.__version__}, needs 98.0 or newer"),
        (
            (Package("numpy", "99.0", "1.0"), Package("edgeprune-no-such-engine", "9", "8")),
            "edgeprune-no-such-engine missing, needs 8 or newer",
        ),
    ],
)
@pytest.mark.usefixtures("home")
def test_one_that_is_too_old_or_lacks_a_part_is_told(
    packages: tuple[Package, ...], why: str
) -> None:
    check = PythonEnvironment("own", packages).check()
    assert check == Check(False, why=why, remedy="edgeprune targets install own")


@pytest.mark.usefixtures("home")
def test_the_command_installs_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "install", "null"]) == 0
    assert "needs nothing of its own" in capsys.readouterr().out
    assert main(["targets", "install", "nul"]) == 2
    assert "did you mean 'null'?" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["v16.20.2", ""])
def test_a_node_that_is_too_old_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = NodeEnvironment("web", (Package("engine", tested="1"),)).check()
    assert check.why == f"node {said or 'does not start'}, needs 18 or newer"
    assert "Node.js 18" in check.remedy


def test_one_that_was_damaged_has_a_line_that_repairs_it(home: Path) -> None:
    assert ENGINE.repair == ENGINE.remedy
    ENGINE.install()
    assert ENGINE.repair == f"rm -r {ENGINE.folder} && {ENGINE.remedy}"
