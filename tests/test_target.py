"""How a target is named, found and refused."""

from pathlib import Path

import pytest

from edgeprune.errors import RecipeError, RefusedError, TargetError
from edgeprune.measure.target import Check, Device, Listed, Runtime, Target, targets
from edgeprune_targets.local import Local
from edgeprune_targets.null import Null
from edgeprune_targets.ort import OnnxRuntime

ADAPTERS = """
from pathlib import Path
from edgeprune.measure.target import Check, Device, Runtime
from edgeprune_targets.null import Null

class Broken(Runtime):
    def check(self): return Check(False, why="its library is missing", remedy="pip install it")
    def convert(self, onnx, folder, *, batch, sequence): return onnx
    def program(self): return Null().program()

class Far(Device):
    def __init__(self, address): self.address = address
    def check(self): return Check(True)
    def facts(self): return {}
    def folder(self): raise NotImplementedError
    def push(self, path, folder): return str(path)
    def python(self): return ["python3"]
    def install_line(self, packages): return "pip install there"
    def run(self, command, folder, *, limit_s): raise NotImplementedError

def not_a_class(): ...
"""
ENTRY_POINTS = """
[edgeprune.runtimes]
broken = third_party:Broken
absent = third_party_that_is_not_there:Runtime
function = third_party:not_a_class
[edgeprune.devices]
far = third_party:Far
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that brings adapters."""
    (tmp_path / "third_party.py").write_text(ADAPTERS)
    metadata = tmp_path / "third_party-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("text", ["ort", "ort@local", " ort "])
def test_a_runtime_alone_runs_on_this_machine(text: str) -> None:
    target = Target.parse(text)
    assert target.name == "ort"
    assert isinstance(target.runtime, OnnxRuntime)
    assert isinstance(target.device, Local)


@pytest.mark.usefixtures("third_party")
def test_a_device_of_another_package_gets_its_address() -> None:
    target = Target.parse("null@far:pi4.local:2222")
    assert target.name == "null@far:pi4.local:2222"
    assert isinstance(target.runtime, Null)
    assert vars(target.device) == {"address": "pi4.local:2222"}


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("otr", "did you mean 'ort'?"),
        ("ORT", "did you mean 'ort'?"),
        ("tensorflow", "null, openvino, ort"),
        ("ort@shh:pi4", "did you mean 'ssh'?"),
        ("ort@locl", "did you mean 'local'?"),
        ("", "ort@ssh:host"),
        ("ort@local:", None),
        ("ssh:pi4", "ort@ssh:host"),
        ("@local", "ort@ssh:host"),
    ],
)
def test_a_misspelled_target_is_told_what_there_is(text: str, remedy: str | None) -> None:
    if remedy is None:
        assert Target.parse(text).name == "ort@local:"
        return
    with pytest.raises(RecipeError) as error:
        Target.parse(text)
    assert remedy in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=touch${IFS}x",
        "ort@far:-oProxyCommand=x",
        "ort@far:a b",
        "ort@far:$(id)",
        "ort@far:a;id",
        "ort@far:a\nb",
        "ort@far:user@host",
        "ort@far:a\n",
        "-oProxyCommand",
        "ort@-far:x",
        "ort:-x",
        "ort:$(id)",
        "$(id)@local",
        "../ort",
    ],
)
@pytest.mark.usefixtures("third_party")
def test_what_a_shell_could_misread_is_refused(text: str) -> None:
    with pytest.raises(RefusedError) as error:
        Target.parse(text + "x" if text.endswith("\n") else text)
    assert error.value.exit_code == 6


def test_an_option_of_the_runtime_is_part_of_the_name() -> None:
    target = Target.parse("ort:xnnpack@ssh:pi4")
    assert (target.name, target.option) == ("ort:xnnpack@ssh:pi4", "xnnpack")
    assert isinstance(target.runtime, OnnxRuntime)
    assert Target.parse("ort:xnnpack@local").name == "ort:xnnpack"
    assert Target.parse("ort").option == ""


@pytest.mark.parametrize("text", ["null:fast", "null:fast@local"])
def test_a_runtime_without_options_takes_none(text: str) -> None:
    with pytest.raises(RecipeError, match="null takes no option"):
        Target.parse(text)


@pytest.mark.parametrize("text", ["ort:", "ort:a b", "ort:a.b"])
def test_an_option_is_a_plain_name(text: str) -> None:
    with pytest.raises(RecipeError, match="not a runtime"):
        Target.parse(text)


def test_this_machine_has_no_address() -> None:
    with pytest.raises(RecipeError, match="takes no address"):
        Target.parse("ort@local:pi4")


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize("name", ["absent", "function"])
def test_an_adapter_that_cannot_be_loaded_is_told_by_name(name: str) -> None:
    with pytest.raises(TargetError, match=name) as error:
        Target.parse(name)
    assert error.value.exit_code == 4


@pytest.mark.usefixtures("third_party")
def test_a_runtime_that_is_not_usable_says_what_repairs_it() -> None:
    with pytest.raises(TargetError, match="its library is missing — pip install it"):
        Target.parse("broken").require()
    Target.parse("ort").require()


def test_the_list_has_our_own_runtimes_and_devices() -> None:
    listed = {(row.kind, row.name): row for row in targets()}
    assert listed["runtime", "ort"].check.usable
    assert listed["runtime", "ort"].check.version
    assert not listed["runtime", "ort"].proxy
    assert listed["runtime", "null"].proxy
    assert listed["device", "local"].check.usable
    assert listed["device", "ssh"].check.why == "needs a host"
    assert ("device", "adb") in listed


@pytest.mark.usefixtures("third_party")
def test_the_list_shows_adapters_that_are_broken() -> None:
    listed = {row.name: row for row in targets()}
    assert listed["broken"] == Listed(
        "broken", "runtime", Check(False, why="its library is missing", remedy="pip install it")
    )
    assert "cannot be loaded" in listed["absent"].check.why
    assert "third-party" in listed["absent"].check.remedy
    assert not listed["function"].check.usable
    assert listed["far"].check.usable


def test_abstract_classes_cannot_be_used_as_they_are() -> None:
    with pytest.raises(TypeError):
        Runtime()  # type: ignore[abstract]
    with pytest.raises(TypeError):
        Device("")  # type: ignore[abstract]
