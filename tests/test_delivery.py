"""Verifying a bundle and putting it to work: what counts, what is refused, what stays current."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bundles import another, digits, other_answers, rewritten

import edgeprune
from edgeprune.confined import MARK
from edgeprune.delivery import Outcome, exit_code, find_place, rollback, ship
from edgeprune.errors import InputError, OnnxError, ParityError, RefusedError, TargetError
from edgeprune.hashing import file_digest
from edgeprune.ship import golden, prove, release
from edgeprune.ship.bundle import MODEL, verify_bundle
from edgeprune.ship.deploy import Place, deploy, roll_back
from edgeprune_cli.app import main

Captured = pytest.CaptureFixture[str]
Spoil = Callable[[Path], None]

targets_installed = pytest.mark.skipif(
    not entry_points(group="edgeprune.devices", name="local"),
    reason="devices are found by the entry points of an installed package",
)


# --- verify ------------------------------------------------------------------------------------


def test_a_bundle_is_verified_as_it_was_written(small_bundle: Path) -> None:
    verified = edgeprune.verify(small_bundle)
    assert verified.agrees
    assert verified.files == len(list(small_bundle.iterdir())) - 1
    assert verified.signature == "none"
    assert verified.golden is not None
    assert verified.golden["rows"] == 8
    assert verified.golden["max_abs"] <= 1e-6
    assert verified.golden["agreement"] == 1


def test_the_command_exits_0_and_tells_programs_on_stdout(
    small_bundle: Path, capsys: Captured
) -> None:
    assert main(["verify", str(small_bundle), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    assert (told["schema"], told["agrees"]) == ("edgeprune-verify/1", True)


def test_other_answers_exit_1(small_bundle: Path, capsys: Captured) -> None:
    other_answers(small_bundle)
    assert main(["verify", str(small_bundle)]) == 1
    assert "8 golden answers differ" in capsys.readouterr().err


def test_a_changed_file_exits_6_before_its_model_is_opened(
    small_bundle: Path, capsys: Captured
) -> None:
    (small_bundle / MODEL).write_bytes(b"not a model at all")
    assert main(["verify", str(small_bundle)]) == 6
    assert "its hash differs" in capsys.readouterr().err


def test_what_is_no_bundle_exits_2(tmp_path: Path, capsys: Captured) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error[EP150]: ")


def test_a_bundle_of_an_earlier_format_has_its_files_compared(small_bundle: Path) -> None:
    (small_bundle / "golden.json").unlink()
    rewritten(small_bundle, lambda m: (m.pop("golden"), m["files"].pop("golden.json")))
    verified = edgeprune.verify(small_bundle)
    assert verified.golden is None
    assert verified.agrees


def test_a_model_that_does_not_run_here_is_a_matter_of_the_runtime(small_bundle: Path) -> None:
    def feeds_lacking(manifest: dict[str, Any]) -> None:
        path = small_bundle / "golden.json"
        told = json.loads(path.read_text())
        del told["inputs"]["attention_mask"]
        path.write_text(json.dumps(told))
        manifest["files"]["golden.json"] = {
            "size": path.stat().st_size,
            "sha256": file_digest(path),
        }

    rewritten(small_bundle, feeds_lacking)
    with pytest.raises(TargetError, match="does not run here"):
        edgeprune.verify(small_bundle)


def test_a_model_that_needs_more_than_there_is_for_it_is_told(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "MEMORY_MB", 30.0)
    with pytest.raises(TargetError, match=f"bundle {small_bundle} — asking its model"):
        edgeprune.verify(small_bundle)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"inputs": {}, "outputs": {"logits": []}}', '{"inputs": 1}']
)
def test_golden_answers_that_cannot_be_read_are_told(small_bundle: Path, text: str) -> None:
    path = small_bundle / "golden.json"
    path.write_text(text)
    said = {"size": path.stat().st_size, "sha256": file_digest(path)}
    rewritten(small_bundle, lambda manifest: manifest["files"].update({"golden.json": said}))
    with pytest.raises(OnnxError, match=r"golden\.json"):
        edgeprune.verify(small_bundle)


def test_the_file_that_is_shipped_must_be_the_one_that_was_measured(small_bundle: Path) -> None:
    rewritten(small_bundle, lambda manifest: manifest.update(measured={"sha256": "0" * 64}))
    with pytest.raises(RefusedError, match="not the file that was measured"):
        verify_bundle(small_bundle)


EXACT = {"max_abs": 1e-3, "cosine": 0.9999, "agreement": 1.0}
LOOSE = {"max_abs": None, "cosine": 0.99, "agreement": 0.9}
TEN = np.eye(10) * 5


def one_row_wrong(answers: Any) -> Any:
    answers[0] = answers[0][::-1]
    return answers


@pytest.mark.parametrize(
    ("got", "tolerance", "agrees"),
    [
        (TEN, EXACT, True),
        (TEN + 9e-4, EXACT, True),
        (TEN + 2e-3, EXACT, False),
        (TEN * 1.05, EXACT, False),
        (TEN * 1.05, LOOSE, True),
        (one_row_wrong(TEN.copy()), EXACT, False),
        (one_row_wrong(TEN.copy()), LOOSE, False),  # the cosine falls to 0.9
        (TEN + np.random.default_rng(0).normal(0, 0.1, (10, 10)), LOOSE, True),
        (-TEN, LOOSE, False),
        (TEN * np.nan, LOOSE, False),
        (TEN[:5], EXACT, False),
    ],
)
def test_answers_are_compared_within_what_the_manifest_allows(
    got: Any, tolerance: dict[str, Any], agrees: bool
) -> None:
    assert prove.compare(TEN, got, tolerance)["agrees"] is agrees


def test_a_tie_within_the_tolerance_may_fall_either_way() -> None:
    expected, got = [[1.0, 1.0005]], [[1.0003, 1.0001]]
    assert prove.compare(expected, got, EXACT)["agrees"]
    assert not prove.compare([[1.0, 1.1]], [[1.1, 1.0]], EXACT)["agrees"]


def test_scores_have_no_label_to_agree_on() -> None:
    told = prove.compare([[0.5], [4.5]], [[0.5004], [4.4998]], EXACT)
    assert (told["agreement"], told["agrees"]) == (1.0, True)


# --- ship --------------------------------------------------------------------------------------


@targets_installed
def test_a_bundle_becomes_current_and_the_one_before_is_kept(
    small_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    place = tmp_path / "with space" / "models"
    second = another(small_bundle, "second")
    assert main(["ship", str(small_bundle), str(place)]) == 0
    assert (place / "current").resolve().name == digits(small_bundle)
    assert not (place / "previous").is_symlink()
    assert main(["ship", str(second), str(place)]) == 0
    assert str((place / "current").readlink()) == f"releases/{digits(second)}"
    assert (place / "previous").resolve().name == digits(small_bundle)
    assert verify_bundle(place / "current")["task"] == "second"
    third = another(small_bundle, "third")
    assert main(["ship", str(third), str(place)]) == 0
    kept = {path.name for path in (place / "releases").iterdir()}
    assert kept == {digits(second), digits(third)}
    assert "8 golden answers agree" in capsys.readouterr().err


@targets_installed
def test_rolling_back_goes_to_and_fro(small_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "models"
    second = another(small_bundle, "second")
    ship(small_bundle, [str(place)])
    ship(second, [str(place)])
    assert main(["ship", "--rollback", str(place)]) == 0
    assert verify_bundle(place / "current")["task"] == "letters"
    (back,) = rollback([str(place)])
    assert back.release is not None
    assert (back.release.release, back.release.previous) == (digits(second), digits(small_bundle))


@targets_installed
def test_there_is_nothing_to_roll_back_to_at_first(small_bundle: Path, tmp_path: Path) -> None:
    ship(small_bundle, [str(tmp_path / "models")])
    (told,) = rollback([str(tmp_path / "models")])
    assert isinstance(told.error, InputError)
    assert "has no previous release" in str(told.error)


@targets_installed
def test_a_previous_release_that_was_spoiled_is_not_rolled_back_to(
    small_bundle: Path, tmp_path: Path
) -> None:
    place = tmp_path / "models"
    second = another(small_bundle, "second")
    ship(small_bundle, [str(place)])
    ship(second, [str(place)])
    (place / "previous" / "config.json").write_text("{}")
    (told,) = rollback([str(place)])
    assert told.exit_code == 6
    assert verify_bundle(place / "current")["task"] == "second"


@targets_installed
def test_shipping_the_same_again_changes_nothing_and_mends_what_is_broken(
    small_bundle: Path, tmp_path: Path
) -> None:
    place = tmp_path / "models"
    ship(small_bundle, [str(place)])
    (place / "current" / "config.json").write_text("{}")
    (told,) = ship(small_bundle, [str(place)])
    assert told.release is not None
    assert told.release.state == "current already"
    verify_bundle(place / "current")


@targets_installed
def test_a_bundle_that_answers_unlike_it_did_never_becomes_current(
    small_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    place = tmp_path / "models"
    ship(small_bundle, [str(place)])
    second = another(small_bundle, "second")
    other_answers(second)
    assert main(["ship", str(second), str(place)]) == 1
    assert "error[EP220]" in capsys.readouterr().err
    assert verify_bundle(place / "current")["task"] == "letters"
    assert [path.name for path in (place / "releases").iterdir()] == [digits(small_bundle)]


@targets_installed
def test_each_place_has_an_outcome_of_its_own(
    small_bundle: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "something else").mkdir()
    (tmp_path / "something else" / "thesis.tex").write_text("")
    names = ["new", "a file", "something else", "new too"]
    places = [str(tmp_path / name) for name in names]
    assert main(["ship", str(small_bundle), *places, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in told] == ["released", "failed", "failed", "released"]
    assert main(["ship", str(small_bundle), *places]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 6
    assert len([line for line in lines if line.startswith("error[EP100]: ")]) == 2
    assert (tmp_path / "something else" / "thesis.tex").exists()
    assert sorted(path.name for path in (tmp_path / "something else").iterdir()) == ["thesis.tex"]


@targets_installed
def test_a_spoiled_bundle_is_sent_nowhere(small_bundle: Path, tmp_path: Path) -> None:
    (small_bundle / "extra").write_text("")
    with pytest.raises(RefusedError, match="extra — does not belong to it"):
        ship(small_bundle, [str(tmp_path / "models")])
    assert not (tmp_path / "models").exists()


def test_a_folder_to_ship_to_is_asked_for(small_bundle: Path, capsys: Captured) -> None:
    assert main(["ship", str(small_bundle)]) == 2
    assert "no place to ship to" in capsys.readouterr().err


@targets_installed
@pytest.mark.parametrize("name", ["current", "previous"])
def test_what_is_no_link_to_a_release_is_left_alone(
    small_bundle: Path, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "models"
    (place / "releases").mkdir(parents=True)
    (place / ".lock").touch()
    (place / name).mkdir()
    (told,) = ship(small_bundle, [str(place)])
    assert isinstance(told.error, InputError)
    assert "not a link to a release" in str(told.error)
    assert not (place / name).is_symlink()


@targets_installed
def test_two_at_once_on_one_place_come_one_after_the_other(
    small_bundle: Path, tmp_path: Path
) -> None:
    place, second = str(tmp_path / "models"), another(small_bundle, "second")
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda bundle: ship(bundle, [place]), [small_bundle, second]))
    assert [one.exit_code for outcomes in done for one in outcomes] == [0, 0]
    current, before = (Path(place, name).resolve().name for name in ("current", "previous"))
    assert {current, before} == {digits(small_bundle), digits(second)}


def test_the_gravest_exit_code_is_that_of_all() -> None:
    errors = [None, InputError("a"), RefusedError("b"), ParityError("c")]
    assert exit_code([Outcome("place", error=error) for error in errors]) == 6


@targets_installed
@pytest.mark.parametrize("text", ["models", "/srv/models", "a:b", "./ssh:pi4:/y", "x y:/z"])
def test_what_names_no_device_is_a_folder_here(text: str) -> None:
    assert find_place(text).folder == str(Path(text).absolute())


@targets_installed
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nossh:pi4:/srv", "unknown device"),
        ("local:-oProxyCommand=x:/srv", "not a plain host"),
        ("ssh:/srv", "needs a host"),
        ("ssh:pi4", "names no folder"),
        ("ssh:pi4:models", "names no folder"),
        ("adb:", "names no folder"),
    ],
)
def test_a_device_must_be_known_and_plain(text: str, error: str) -> None:
    with pytest.raises((InputError, RefusedError), match=error):
        find_place(text)


# --- a device that is not here -----------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    code: int | None
    output: str
    errors: str


@dataclass(frozen=True)
class Elsewhere:
    """A device with a disk of its own, which may lose what is sent or die on the way."""

    disk: Path
    spoil: Spoil = lambda path: None
    python_words: tuple[str, ...] = (sys.executable,)

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        scratch = self.disk / "scratch"
        scratch.mkdir(parents=True)
        yield str(scratch)
        shutil.rmtree(scratch)

    def push(self, path: Path, folder: str) -> str:
        there = Path(folder) / f"{len(list(Path(folder).iterdir())):08x}"
        if path.is_dir():
            shutil.copytree(path, there)
            self.spoil(there)
        else:
            shutil.copyfile(path, there := there.with_suffix(path.suffix))
        return str(there)

    def python(self) -> Sequence[str]:
        return self.python_words

    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Ended:
        # Isolated: nothing of edgeprune can be imported there.
        words = [command[0], "-I", *command[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)


def test_a_device_proves_the_bundle_with_nothing_of_ours(
    small_bundle: Path, tmp_path: Path
) -> None:
    place = Place("far", Elsewhere(tmp_path / "disk"), str(tmp_path / "disk" / "models"))
    done = deploy(small_bundle, verify_bundle(small_bundle), place)
    assert (done.state, done.release, done.previous) == ("released", digits(small_bundle), None)
    assert done.golden is not None
    assert done.golden["agrees"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["models"]
    with pytest.raises(InputError, match="no previous release"):
        roll_back(place)


def cut(bundle: Path) -> None:
    data = (bundle / MODEL).read_bytes()
    (bundle / MODEL).write_bytes(data[: len(data) // 2])


def lost(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()


def exchanged(bundle: Path) -> None:
    rewritten(bundle, lambda manifest: manifest.update(task="another"))


@pytest.mark.parametrize("spoil", [cut, lost, exchanged])
def test_what_arrives_otherwise_never_becomes_current(
    small_bundle: Path, tmp_path: Path, spoil: Spoil
) -> None:
    folder = tmp_path / "disk" / "models"
    good = Place("far", Elsewhere(tmp_path / "disk"), str(folder))
    deploy(small_bundle, verify_bundle(small_bundle), good)
    second = another(small_bundle, "second")
    bad = Place("far", Elsewhere(tmp_path / "disk", spoil), str(folder))
    with pytest.raises(RefusedError):
        deploy(second, verify_bundle(second), bad)
    assert verify_bundle(folder / "current")["task"] == "letters"
    assert [path.name for path in (folder / "releases").iterdir()] == [digits(small_bundle)]


@pytest.mark.parametrize(
    "said",
    ["{}", '{"fault": {}}', '{"fault": {"kind": "x"}}', '{"state": 1, "more": 2}', "[" * 9999],
)
def test_a_device_that_answers_in_no_known_form_is_told(
    small_bundle: Path, tmp_path: Path, said: str
) -> None:
    odd = Elsewhere(
        tmp_path / "disk", python_words=(sys.executable, "-c", f"print({MARK!r}, {said!r})")
    )
    with pytest.raises(TargetError, match="far"):
        deploy(
            small_bundle, verify_bundle(small_bundle), Place("far", odd, str(tmp_path / "models"))
        )


def test_a_device_that_says_nothing_is_told(small_bundle: Path, tmp_path: Path) -> None:
    silent = Elsewhere(tmp_path / "disk", python_words=("/bin/echo",))
    place = Place("far", silent, str(tmp_path / "models"))
    with pytest.raises(TargetError, match="what was current there still is"):
        deploy(small_bundle, verify_bundle(small_bundle), place)


# --- killed on the way -------------------------------------------------------------------------

# Runs release.py, and ends without a word at the n-th step that changes the disk.
KILLED = """
import importlib.util, os, shutil, sys
left = int(sys.argv[1])

def counted(step):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return step(*args, **kwargs)
    return wrapped

for module, name in [
    (os, "mkdir"), (os, "fsync"), (os, "rename"), (os, "replace"), (os, "symlink"),
    (os, "unlink"), (os, "rmdir"), (shutil, "copyfile"),
]:
    setattr(module, name, counted(getattr(module, name)))
spec = importlib.util.spec_from_file_location("release", sys.argv[2])
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)
release.main(sys.argv[3:])
os._exit(0)
"""


def killed(step: int, asked: dict[str, str]) -> int:
    command = [sys.executable, "-I", "-c", KILLED, str(step), str(release.__file__)]
    return subprocess.run(
        [*command, json.dumps(asked)], capture_output=True, check=False
    ).returncode


def test_wherever_it_is_killed_what_is_current_is_whole(small_bundle: Path, tmp_path: Path) -> None:
    second = another(small_bundle, "second")
    # Without the golden answers, which change no disk and take most of the time.
    for bundle in (small_bundle, second):
        rewritten(bundle, lambda manifest: manifest.pop("golden"))
    before = tmp_path / "before"
    asked = {"do": "ship", "prove": str(prove.__file__), "folder": str(before)}

    def of(bundle: Path) -> dict[str, str]:
        sha256 = prove.digest(verify_bundle(bundle))
        return asked | {"bundle": str(bundle), "sha256": sha256}

    assert killed(10**6, of(small_bundle)) == 0
    steps = 0
    while True:
        place = tmp_path / f"killed at {steps}"
        shutil.copytree(before, place, symlinks=True)
        code = killed(steps, of(second) | {"folder": str(place)})
        task = verify_bundle(place / "current")["task"]
        assert task in ("letters", "second")
        if code == 0:
            break
        assert code == 9
        # A later call takes up what is there.
        assert killed(10**6, of(second) | {"folder": str(place)}) == 0
        assert verify_bundle(place / "current")["task"] == "second"
        assert verify_bundle(place / "previous")["task"] == "letters"
        assert len(list((place / "releases").iterdir())) == 2
        steps += 1
    assert task == "second"
    assert steps > 20


@pytest.mark.parametrize("module", [prove, release])
def test_what_runs_on_a_device_stands_by_itself(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 9))
    names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    roots = {str(name).partition(".")[0] for name in names} - {"__future__"}
    assert roots <= sys.stdlib_module_names | {"numpy", "onnxruntime"}


def test_our_programs_and_their_callers_speak_the_same() -> None:
    from edgeprune import onnx_preflight

    assert prove.MARK == onnx_preflight.MARK == MARK
