"""The package in docs/adding-a-target.md, installed as it stands there and used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeprune.measure.profile import GLANCE
from edgeprune.testing import save_tiny_onnx

PAGE = Path(__file__).parent.parent / "docs" / "adding-a-target.md"
FILES = dict(re.findall(r"^### `(.+?)`\n\n```\w*\n(.*?)^```", PAGE.read_text(), re.M | re.S))
TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": 300}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edgeprune-mine")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def environment(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One in which the package is installed, without a change to the one that tests run in."""
    site = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"]
    install += ["--no-build-isolation", "--target", str(site), str(package)]
    said = subprocess.run(install, **TEXT)
    assert said.returncode == 0, said.stderr
    paths = [str(site), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def edgeprune(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeprune_cli", *words], env=environment, **TEXT)


def test_the_example_is_whole_and_short() -> None:
    assert {"pyproject.toml", "edgeprune_mine/__init__.py", "tests/test_mine.py"} < FILES.keys()
    assert sum(len(text.splitlines()) for text in FILES.values()) <= 120


def test_it_is_listed_and_usable_once_it_is_installed(environment: dict[str, str]) -> None:
    listed = json.loads(edgeprune(environment, "targets", "list", "--json").stdout)
    assert [row["check"]["usable"] for row in listed if row["name"] == "mine"] == [True]
    doctor = edgeprune(environment, "targets", "doctor", "mine", "--json")
    assert doctor.returncode == 0
    assert json.loads(doctor.stdout)[0]["there"]["version"] == "numpy, onnx"


# A few launches: a measurement for a verdict takes ten seconds by the engine's own clock.
MEASURE = """
import json, sys
from pathlib import Path
from edgeprune.measure.profile import GLANCE, profile
from edgeprune.measure.target import Target
taken = profile({"model": Path(sys.argv[1])}, Target.parse("mine"), GLANCE)["model"]
print(json.dumps(taken.to_dict()))
"""


def test_a_model_is_measured_on_it(environment: dict[str, str], tmp_path: Path) -> None:
    model = str(save_tiny_onnx(tmp_path / "model.onnx"))
    said = subprocess.run([sys.executable, "-c", MEASURE, model], env=environment, **TEXT)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert told["target"] == "mine"
    assert told["facts"]["runtime"]["name"] == "mine"
    assert len(told["latency"]) == GLANCE.launches
    assert any("right, and slow" in note for note in told["notes"])


def test_it_keeps_the_contract(package: Path, environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    said = subprocess.run(words, cwd=package, env=environment, **TEXT)
    assert said.returncode == 0, said.stdout
    assert " passed" in said.stdout
    assert "skipped" not in said.stdout


def test_without_it_the_target_is_unknown(tmp_path: Path) -> None:
    model = str(save_tiny_onnx(tmp_path / "model.onnx"))
    said = edgeprune(dict(os.environ), "profile", model, "--target", "mine")
    assert said.returncode == 2
    assert "unknown runtime" in said.stderr
