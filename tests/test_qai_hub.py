"""integrations/qai-hub against a stand-in of the hub's client, which answers by ONNX Runtime.

The stand-in has the parts of the client's interface that are used, under its names. Where the real
client is installed (`edgeprune targets install qai`), its signatures are looked at too; nobody has
run it on the service.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import EdgepruneError, RecipeError, TargetError
from edgeprune.measure.launch import Load, prepare
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.target import Device, Target, load_runtime
from edgeprune.onnx_session import open_session
from edgeprune.testing import save_tiny_onnx

PACKAGE = Path(__file__).parent.parent / "integrations" / "qai-hub"
PHONE = "samsung-galaxy-s24-family"
ONCE = Settings(launches=1, iterations=2, warmup_s=0.0, sequence=8)
STAND_IN = """
import os, pathlib
from dataclasses import dataclass

__version__ = "0.56.0"


@dataclass
class Device:
    name: str = ""
    os: str = ""
    attributes: object = ()


class Status:
    success = "refused" not in os.environ.get("LANG", "")
    message = None if success else "the phone fell down"


class Job:
    url = "https://hub/jobs/j1"

    def __init__(self, model, rows):
        self.model, self.rows = model, rows

    def wait(self, timeout=None):
        return Status

    def get_target_model(self):
        return self.model

    def download_profile(self):
        times = [4000, 4100, 4050, 4020]
        rest = {"first_load_time": 90_000, "estimated_inference_peak_memory": 50_000_000}
        return {"execution_summary": {"all_inference_times": times, **rest}}

    def download_output_data(self):
        import onnxruntime
        session = onnxruntime.InferenceSession(self.model)
        wide = [{k: v[i].astype("int64") for k, v in self.rows.items()} for i in range(COUNT(self))]
        answers = [session.run(None, feeds) for feeds in wide]
        names = [one.name for one in session.get_outputs()]
        return {name: [row[i] for row in answers] for i, name in enumerate(names)}


def COUNT(job):
    return len(next(iter(job.rows.values())))


def get_devices(name="", os="", attributes=None):
    chip = ["vendor:samsung", "chipset:qualcomm-snapdragon-8gen3"]
    phones = [Device("Samsung Galaxy S24 (Family)", system, chip) for system in ("13", "14")]
    return [*phones, Device("B", "1")]


def submit_compile_job(model, device, name=None, input_specs=None, options="", retry=True):
    assert pathlib.Path(model).is_file() and device.os == "14"
    assert input_specs["input_ids"] == ((1, 8), "int32"), input_specs
    return Job(model, {})


def submit_inference_job(
    model, device, inputs=None, name=None, options="", retry=True, profile=True
):
    assert profile and inputs["input_ids"][0].dtype == "int32"
    return Job(model, inputs)
"""


@pytest.fixture
def qai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The plug-in's module, where the stand-in passes for the client."""
    site = tmp_path / "site"
    told = site / "qai_hub-0.56.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: qai-hub\nVersion: 0.56.0\n")
    (site / "qai_hub.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.setenv("PYTHONPATH", str(site))
    yield importlib.import_module("edgeprune_qai")
    sys.modules.pop("edgeprune_qai")


def target(phone: Device) -> Target:
    return Target("ort@qai", load_runtime("ort"), phone)


def test_a_phone_is_known_by_what_the_hub_tells(qai: Any) -> None:
    phone = qai.Qai(PHONE)
    assert phone.check().usable
    facts = phone.facts()
    assert facts["machine"] == "Samsung Galaxy S24 (Family)"
    assert (facts["cpu"], facts["os"]) == ("qualcomm-snapdragon-8gen3", "14")


def test_a_phone_that_the_hub_does_not_have_is_told(qai: Any) -> None:
    check = qai.Qai("nokia-3310").check()
    assert (check.usable, check.why) == (False, "LookupError: the hub has no nokia-3310")
    assert "list-devices" in check.remedy
    with pytest.raises(RecipeError, match="needs the name of a phone"):
        qai.Qai()


def test_samples_are_the_hub_s(qai: Any, tmp_path: Path) -> None:
    onnx = save_tiny_onnx(tmp_path / "model.onnx")
    taken = profile({"model": onnx}, target(qai.Qai(PHONE)), ONCE)["model"]
    assert taken.latency.launches_ms == ((4.0, 4.1, 4.05, 4.02),)
    assert (taken.cold_ms, taken.peak_mb) == (94.0, 50.0)
    assert taken.facts["device"]["device"] == f"qai:{PHONE}"
    assert taken.facts["launches"][0]["job"] == "https://hub/jobs/j1"


def test_answers_come_back_row_by_row(qai: Any, tmp_path: Path) -> None:
    onnx = save_tiny_onnx(tmp_path / "model.onnx")
    rows = [
        {name: np.full((1, 8), fill, np.int64) for name in ("input_ids", "attention_mask")}
        for fill in (1, 2)
    ]
    with prepare({"model": onnx}, target(qai.Qai(PHONE)), Load(sequence=8)) as bench:
        answers = bench.answer("model", rows)
    for ours, feeds in zip(answers, rows, strict=True):
        for one, wanted in zip(ours, open_session(onnx).run(None, feeds), strict=True):
            np.testing.assert_allclose(one, wanted, atol=1e-5)


def test_a_job_that_fails_is_one_line(
    qai: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "refused")
    onnx = save_tiny_onnx(tmp_path / "model.onnx")
    with pytest.raises(EdgepruneError, match=r"load: the phone fell down \(https://hub") as caught:
        profile({"model": onnx}, target(qai.Qai(PHONE)), ONCE)
    assert "\n" not in str(caught.value)


def test_the_hub_runs_no_other_runtime(qai: Any) -> None:
    with pytest.raises(TargetError, match="the hub does not run null"):
        qai.Qai(PHONE).starts(load_runtime("null").program())


def test_an_option_that_the_hub_would_not_heed_is_refused(qai: Any, tmp_path: Path) -> None:
    onnx = save_tiny_onnx(tmp_path / "model.onnx")
    asked = replace(target(qai.Qai(PHONE)), option="xnnpack")
    with pytest.raises(TargetError, match="the hub does not run xnnpack"):
        profile({"model": onnx}, asked, ONCE)


SIGNATURES = """
import inspect, json, qai_hub as hub
from qai_hub.client import InferenceJob, CompileJob, JobStatus, Device
used = [hub.get_devices, hub.submit_compile_job, hub.submit_inference_job, CompileJob.wait,
        CompileJob.get_target_model, InferenceJob.download_profile,
        InferenceJob.download_output_data]
told = {one.__name__: [*inspect.signature(one).parameters] for one in used}
told["Device"] = [*inspect.signature(Device).parameters]
told["JobStatus"] = [n for n in ("success", "message") if hasattr(JobStatus, n)]
print(json.dumps(told))
"""


def test_the_real_client_has_what_is_used_of_it(qai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = qai.Qai.environment._start
    if not start.exists():
        pytest.skip("edgeprune targets install qai")
    said = subprocess.run(
        [str(start), "-I", "-c", SIGNATURES], capture_output=True, text=True, check=True
    )
    told = json.loads(said.stdout.splitlines()[-1])
    assert told["Device"] == ["name", "os", "attributes"]
    assert told["JobStatus"] == ["success", "message"]
    calls = {
        one.func.attr: {word.arg for word in one.keywords}
        for one in ast.walk(ast.parse((PACKAGE / "edgeprune_qai" / "farm.py").read_text()))
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute)
    }
    for name in ("submit_compile_job", "submit_inference_job"):
        assert calls[name] <= {*told[name]}
    assert {"get_devices", "wait", "get_target_model", "download_profile"} <= told.keys()
