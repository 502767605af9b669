"""The public names: complete, lazy, and equal to what the command calls."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest

import edgeprune
from edgeprune import errors

PUBLIC = [
    "Budget",
    "BudgetError",
    "Checked",
    "Comparison",
    "Converted",
    "DataError",
    "Diverged",
    "EdgepruneError",
    "InputError",
    "Latency",
    "LatencyTable",
    "LayerShape",
    "Missed",
    "ModelError",
    "OnnxError",
    "ParityError",
    "Profile",
    "Progress",
    "Recipe",
    "RecipeError",
    "RefusedError",
    "Report",
    "ResourceError",
    "Shape",
    "TargetError",
    "Unreachable",
    "Verdict",
    "check",
    "compare",
    "compress",
    "compress_all",
    "convert",
    "dry_run",
    "load",
    "profile",
    "verify",
]

LEARNING = ["load"]


def test_the_public_names_are_these() -> None:
    assert edgeprune.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(edgeprune))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_had(name: str) -> None:
    if name in LEARNING:
        pytest.importorskip("torch")
    value = getattr(edgeprune, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


@pytest.mark.skipif(bool(find_spec("torch")), reason="torch is installed")
@pytest.mark.parametrize("name", LEARNING)
def test_without_torch_the_learning_half_says_what_to_install(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'edgeprune\[train\]'"):
        getattr(edgeprune, name)


@pytest.mark.skipif(bool(find_spec("torch")), reason="torch is installed")
@pytest.mark.parametrize("door", [edgeprune.compress, edgeprune.compress_all, edgeprune.dry_run])
def test_without_torch_compressing_says_what_to_install(door: Callable[..., object]) -> None:
    with pytest.raises(edgeprune.TargetError, match=r"pip install 'edgeprune\[train\]'"):
        door(edgeprune.Recipe(model="none", task="none"))


def test_every_error_is_public() -> None:
    ours = [name for name, value in vars(errors).items() if inspect.isclass(value)]
    assert set(ours) <= set(edgeprune.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compres'"):
        edgeprune.compres  # noqa: B018


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("import edgeprune", "numpy"),
        ("from edgeprune import Recipe, Report, Verdict, Profile, check, profile", "torch"),
        ("from edgeprune import Recipe, Report, check, profile", "transformers"),
        ("from edgeprune import verify", "torch"),
        ("from edgeprune import Recipe, Report, check, profile", "onnx"),
        ("import edgeprune.status, edgeprune.runs, edgeprune.report.pareto", "torch"),
        ("import edgeprune.status, edgeprune.runs, edgeprune.report.pareto", "onnx"),
        ("import edgeprune_cli.app", "numpy"),
        ("import edgeprune_cli.app", "pydantic"),
    ],
)
def test_importing_the_measuring_half_leaves_the_heavy_packages_alone(
    words: str, absent: str
) -> None:
    program = f"{words}; import sys; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
