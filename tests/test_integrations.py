"""CI templates: valid by their makers' schemas, their shell steps run as they are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from edgeprune.ship.bundle import write_bundle

TEMPLATES = Path(__file__).parent.parent / "integrations"
ACTION = TEMPLATES / "github" / "action.yml"
GITLAB = TEMPLATES / "gitlab" / "edgeprune.gitlab-ci.yml"
JENKINS = TEMPLATES / "jenkins" / "Jenkinsfile"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A checkout with a bundle that meets 5 ms on the null target."""
    weights = {
        "words": np.zeros((32, 8), np.float32),
        "out": np.ones((8, 8), np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "input_ids"], ["h"]),
            helper.make_node("MatMul", ["h", "out"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "tokenizer").mkdir()
    facts = {"target": "null", "runs": "rapid", "budget": {"ms": 5.0, "percentile": 90.0}}
    write_bundle(tmp_path / "bundle", tmp_path / "model.onnx", tmp_path / "tokenizer", {}, facts)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "edgeprune"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeprune_cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def shell(script: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return data


@pytest.mark.parametrize(
    ("path", "schema"), [(ACTION, "vendor.github-actions"), (GITLAB, "vendor.gitlab-ci")]
)
def test_a_template_is_valid_by_its_maker_s_schema(path: Path, schema: str) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    if schema == "vendor.gitlab-ci":
        command += ["--data-transform", "gitlab-ci"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("budget", "code"), [("", 0), ("1 us", 1)])
def test_the_github_action_runs_as_it_is_written(workplace: Path, budget: str, code: int) -> None:
    action = read(ACTION)
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "check")
    inputs = {name: row.get("default", "") for name, row in action["inputs"].items()}
    inputs |= {"path": "bundle", "budget": budget}
    known = {f"inputs.{name}": value for name, value in inputs.items()}
    known |= {"github.run_attempt": "1", "runner.temp": str(workplace)}
    environment = {
        name: re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known[found[1]], value)
        for name, value in step["env"].items()
    }
    files = {name: str(workplace / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    done = shell(step["run"], workplace, **environment, **files)
    assert done.returncode == code, done.stderr
    outputs = dict(line.split("=") for line in Path(files["GITHUB_OUTPUT"]).read_text().split())
    assert outputs.keys() == action["outputs"].keys()
    assert all(Path(path).is_file() for path in outputs.values())
    assert json.loads(Path(outputs["result"]).read_text())["exit_code"] == code
    assert "edgeprune check" in Path(files["GITHUB_STEP_SUMMARY"]).read_text()
    assert done.stderr.startswith("::error") == (code == 1)


@pytest.mark.parametrize(("budget", "code"), [("", 0), ("1 us", 1)])
def test_the_gitlab_job_runs_as_it_is_written(workplace: Path, budget: str, code: int) -> None:
    job = read(GITLAB)[".edgeprune-check"]
    variables = {**job["variables"], "EDGEPRUNE_BUDGET": budget, "EDGEPRUNE_INSTALL": ""}
    done = shell("\n".join([*job["before_script"], *job["script"]]), workplace, **variables)
    assert done.returncode == code, done.stderr
    artifacts = [*job["artifacts"]["paths"], *job["artifacts"]["reports"].values()]
    assert all((workplace / name).is_file() for name in artifacts)


def test_the_jenkins_line_runs_as_it_is_written(workplace: Path) -> None:
    text = JENKINS.read_text(encoding="utf-8")
    [line] = re.findall(r"sh '(.*)'", text)
    done = shell(line, workplace)
    assert done.returncode == 0, done.stderr
    [junit] = re.findall(r"junit '(.*)'", text)
    suites = ElementTree.parse(workplace / junit).getroot()
    assert suites.tag == "testsuites"
    [kept] = re.findall(r"archiveArtifacts '(.*)'", text)
    assert json.loads((workplace / kept).read_text())["outcome"] == "met"
