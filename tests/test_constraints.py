"""constraints.txt and requirements/*.lock: what is installed is what was tested."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
tomllib: Any = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def _requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    return [Requirement(text) for text in texts if not text.startswith("edgeprune[")]


@pytest.mark.parametrize("requirement", _requirements(), ids=str)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pinned = _pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned)


def test_a_commit_is_looked_at_by_the_ruff_that_lint_uses() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["rev"] for repo in config["repos"]] == [f"v{_pins()['ruff']}"]


# --- floors: below them are published vulnerabilities -------------------------------------------

FLOORS = {"torch": "2.10", "transformers": "5.3", "onnx": "1.21", "onnxruntime": "1.28.1"}


@pytest.mark.parametrize("name", FLOORS)
def test_no_release_with_a_known_vulnerability_is_let_in(name: str) -> None:
    (asked,) = {r.specifier for r in _requirements() if canonicalize_name(r.name) == name}
    floor = Version(FLOORS[name])
    just_below = Version(f"{floor.major}.{floor.minor - 1}.99")
    assert asked.contains(floor)
    assert not asked.contains(just_below)
    assert not any(asked.contains(f"{floor}{part}") for part in (".dev1", "a1", "rc1"))
    assert floor <= Version(_pins()[name])


# --- locks --------------------------------------------------------------------------------------

LOCKS = {"base": (), "train": ("train",)}


def _locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """The version and the hashes of each package of a lock."""
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    found: dict[str, tuple[str, list[str]]] = {}
    for line in lines:
        pin, *hashes = line.split(" --hash=")
        package, version = pin.partition(";")[0].split("==")
        found[canonicalize_name(package)] = (version.strip(), [one.strip() for one in hashes])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_every_dependency_as_it_is_pinned(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][extra] for extra in LOCKS[lock]]
    asked = [Requirement(text) for part in (project["dependencies"], *extras) for text in part]
    locked, pins = _locked(lock), _pins()
    assert {canonicalize_name(one.name) for one in asked} <= locked.keys()
    for package, (version, _) in locked.items():
        assert version.partition("+")[0] == pins[package], f"{package}: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_hashes_of_every_release(lock: str) -> None:
    for package, (_, hashes) in _locked(lock).items():
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), package


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_place_that_packages_come_from(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^(-|--)[a-z]", text, re.MULTILINE)


def test_the_lock_for_training_brings_no_libraries_for_gpus() -> None:
    assert _locked("train")["torch"][0].endswith("+cpu")
    assert not [name for name in _locked("train") if name.startswith(("nvidia-", "triton"))]


def test_the_lock_without_torch_has_none() -> None:
    assert not {"torch", "transformers"} & _locked("base").keys()
