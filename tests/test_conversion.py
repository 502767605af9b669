"""Converters run apart, what they say is one line, and what they made must answer alike."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime import InferenceSession

import edgeprune
from edgeprune.errors import (
    EdgepruneError,
    OnnxError,
    ParityError,
    RecipeError,
    ResourceError,
    TargetError,
)
from edgeprune.export.quantize import to_int8
from edgeprune.hashing import file_digest
from edgeprune.measure.launch import Load, prepare
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.target import Check, Program, Runtime, Target
from edgeprune.onnx_file import load_onnx
from edgeprune.parity import compare
from edgeprune.testing import save_tiny_onnx
from edgeprune_cli.app import main
from edgeprune_targets import BENCH, SESSIONS
from edgeprune_targets.conversion import convert
from edgeprune_targets.int8_weights import with_float_products

PYTHON = (sys.executable, "-P")
HEAD = "def convert(onnx, folder, *, batch, sequence):\n    "
BRIEF = Settings(launches=1, iterations=2, warmup_s=0.0, sequence=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_onnx(tmp_path / "model.onnx")


@pytest.fixture
def converted(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Converts the model by a converter with this body; nothing of it may be left."""
    scratch, folder = tmp_path / "scratch", tmp_path / "folder"
    scratch.mkdir()
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def run(body: str, limit_s: float = 60.0, onnx: Path = model) -> Path:
        converter = tmp_path / "mine.py"
        converter.write_text(HEAD + body)
        try:
            return convert(
                *("mine", PYTHON, onnx, folder),
                batch=2,
                sequence=8,
                converter=converter,
                limit_s=limit_s,
            )
        finally:
            assert [*scratch.iterdir()] == []

    return run


def test_what_it_makes_is_where_it_says_whatever_else_it_prints(
    converted: Callable[[str], Path],
) -> None:
    body = "import os, tempfile; print('chat'); os.system('echo more'); open('left', 'w')\n"
    body += "    open(os.path.join(tempfile.gettempdir(), 'left too'), 'w')\n"
    body += "    path = folder + f'/{batch}x{sequence}.mine'; open(path, 'w').write(onnx)\n"
    path = converted(body + "    return path")
    assert path.name == "2x8.mine"
    assert Path(path.read_text()).name == "model.onnx"


FAULTS = {
    "an operator": ("raise NotImplementedError('lacks Gelu')", TargetError, "lacks Gelu"),
    "a model": ("raise ValueError('odd\\n  graph')", OnnxError, "does not convert it: odd graph"),
    "no words": ("assert False", OnnxError, "AssertionError"),
    "a package": ("import no_such_engine", OnnxError, "no_such_engine"),
    "a crash": ("import os; os.kill(os.getpid(), 11)", TargetError, "ended with SIGSEGV"),
    "its memory": ("import os; os.kill(os.getpid(), 9)", ResourceError, "without memory"),
    "its end": ("import os; os._exit(3)", TargetError, "ended with code 3"),
}


@pytest.mark.parametrize(("body", "kind", "why"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line_of_its_kind(
    converted: Callable[[str], Path], body: str, kind: type[EdgepruneError], why: str
) -> None:
    with pytest.raises(kind, match=why) as caught:
        converted(body)
    assert "\n" not in str(caught.value)


def test_a_converter_that_cannot_be_imported_asks_for_the_doctor(
    converted: Callable[[str], Path],
) -> None:
    with pytest.raises(TargetError, match="targets doctor mine"):
        converted("return onnx\nimport no_such_engine")


def test_past_the_limit_it_is_ended_with_what_it_started(
    converted: Callable[..., Path], tmp_path: Path
) -> None:
    body = "import subprocess; child = subprocess.Popen(['sleep', '600'])\n"
    body += f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); child.wait()"
    with pytest.raises(TargetError, match="within 3 s"):
        converted(body, limit_s=3.0)
    pid = (tmp_path / "pid").read_text()
    deadline_s = time.monotonic() + 20  # a killed process takes a moment to be gone
    while is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_converter_never_meets_what_is_no_model(
    converted: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("text")
    with pytest.raises(OnnxError, match=r"text\.onnx"):
        converted("raise AssertionError('asked')", onnx=tmp_path / "text.onnx")


# --- what is converted must answer alike -------------------------------------------------------


class Engine(Runtime):
    """ONNX Runtime in disguise: its converter copies the file."""

    def check(self) -> Check:
        return Check(True, "1")

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return Path(shutil.copy(onnx, folder / "copy.onnx"))

    def program(self) -> Program:
        return Program(BENCH, SESSIONS / "ort.py", packages=("onnxruntime",))


class Mask(Engine):
    """Its converter loses the mask, which only padded rows can show."""

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        model = load(onnx)
        cast = next(node for node in model.graph.node if node.op_type == "Cast")
        cast.input[0] = "ones"
        source = next(node for node in model.graph.node if node.op_type == "Unsqueeze")
        model.graph.node.remove(source)
        ones = np.ones((batch, sequence, 1), np.int64)
        model.graph.initializer.append(numpy_helper.from_array(ones, "ones"))
        path = folder / "maskless.onnx"
        save(model, path)
        return path


class Rounding(Engine):
    """Its converter rounds the weights a little; `tolerance` says that it may."""

    tolerance = 0.5

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        model = load(onnx)
        for tensor in model.graph.initializer:
            if tensor.name == "down":
                weights = numpy_helper.to_array(tensor) * np.float32(1.002)
                tensor.CopyFrom(numpy_helper.from_array(weights, "down"))
        path = folder / "rounded.onnx"
        save(model, path)
        return path


class Strict(Rounding):
    tolerance = 1e-4


def load(path: Path) -> onnx.ModelProto:
    return onnx.load(str(path))


def save(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, str(path))


def on(runtime: Runtime) -> Target:
    return Target("mine", runtime, Target.parse("null").device)


def test_a_copy_answers_alike_and_the_profile_tells(model: Path) -> None:
    parity = profile({"model": model}, on(Engine()), BRIEF)["model"].facts["parity"]
    assert (parity["max_abs"], parity["agreement"]) == (0, 1)
    assert (parity["rows"], parity["shape"], parity["real"]) == (32, (1, 8), False)


class Direct(Engine):
    """It takes the file as it is."""

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return onnx


class Old(Engine):
    """What runs on the device is too old for what was converted here."""

    def __init__(self, session: Path) -> None:
        self.session = session

    def program(self) -> Program:
        return Program(BENCH, self.session)


def test_a_runtime_that_takes_the_file_as_it_is_is_asked_too(model: Path) -> None:
    parity = profile({"model": model}, on(Direct()), BRIEF)["model"].facts["parity"]
    assert (parity["rows"], parity["agreement"]) == (32, 1)


def test_what_was_converted_and_does_not_load_is_the_runtime_s_fault(
    model: Path, tmp_path: Path
) -> None:
    session = tmp_path / "session.py"
    session.write_text("def open_session(path, *, threads, seed): raise ValueError('schema 9')\n")
    with pytest.raises(TargetError, match="schema 9 — install 1 there") as caught:
        profile({"model": model}, on(Old(session)), BRIEF)
    assert caught.value.exit_code == 4


def test_onnx_runtime_is_not_compared_with_itself(model: Path) -> None:
    assert profile({"model": model}, Target.parse("ort"), BRIEF)["model"].facts["parity"] is None


def test_a_lost_mask_is_found_before_anything_is_timed(model: Path) -> None:
    with pytest.raises(
        ParityError, match="answers unlike ONNX Runtime on 32 padded rows"
    ) as caught:
        profile({"model": model}, on(Mask()), BRIEF)
    assert caught.value.exit_code == 1


def test_whole_rows_do_not_show_it(model: Path) -> None:
    """Which is why the gate pads."""
    whole = {
        "input_ids": np.full((4, 8), 5),
        "attention_mask": np.ones((4, 8), dtype=np.int64),
    }
    taken = profile({"model": model}, on(Mask()), BRIEF, rows={"model": whole})
    parity = taken["model"].facts["parity"]
    assert parity["real"]
    assert parity["rows"] == 4


def test_a_runtime_may_allow_more_than_others(model: Path) -> None:
    parity = profile({"model": model}, on(Rounding()), BRIEF)["model"].facts["parity"]
    assert 1e-4 < parity["max_abs"] < parity["limits"]["max_abs"]
    with pytest.raises(ParityError, match="max-abs"):
        profile({"model": model}, on(Strict()), BRIEF)


@pytest.mark.parametrize("length", [5, 8, 20])
def test_rows_of_other_lengths_are_cut_or_padded_and_batches_filled(
    model: Path, length: int
) -> None:
    rows = {
        "input_ids": np.random.default_rng(0).integers(2, 16, (5, length)),
        "attention_mask": np.ones((5, length), dtype=np.int64),
    }
    settings = Settings(launches=1, iterations=2, warmup_s=0.0, sequence=8, batch=2)
    taken = profile({"model": model}, on(Engine()), settings, rows={"model": rows})
    parity = taken["model"].facts["parity"]
    assert (parity["rows"], parity["shape"], parity["max_abs"]) == (6, (2, 8), 0)


class Narrow(Engine):
    precisions = ("fp32",)


def test_int8_is_refused_where_it_is_not_taken(model: Path) -> None:
    quantised = load(model)
    weights = numpy_helper.from_array(np.zeros((4, 4), np.int8), "words_quantized")
    quantised.graph.initializer.append(weights)
    save(quantised, model)
    with (
        pytest.raises(TargetError, match="int8"),
        prepare({"model": model}, on(Narrow()), Load(sequence=8)),
    ):
        pass


# --- `edgeprune convert` -----------------------------------------------------------------------


def test_a_converted_model_is_kept_with_what_belongs_to_it(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "mobile"
    made = edgeprune.convert(model, out, target="ort-mobile", sequence=8)
    names = {"model.ort", "model.required_operators_and_types.config", "usability.txt"}
    assert {path.name for path in out.iterdir()} == {*names, "converted.json"}
    assert json.loads((out / "converted.json").read_text()) == made.facts
    assert made.facts["files"] == {name: file_digest(out / name) for name in names}
    assert made.facts["sha256"] == file_digest(made.model)
    assert made.facts["parity"]["max_abs"] < 1e-5
    assert [path.name for path in out.parent.iterdir()] == ["mobile"]


@pytest.mark.parametrize(
    ("target", "out", "why"),
    [("ort", "new", "takes the ONNX file as it is"), ("ort-mobile", "", "exists already")],
)
def test_what_cannot_be_converted_is_told_and_leaves_nothing(
    model: Path, tmp_path: Path, target: str, out: str, why: str
) -> None:
    with pytest.raises(RecipeError, match=why):
        edgeprune.convert(model, tmp_path / out, target=target, sequence=8)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_answers_otherwise_is_not_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = on(Mask())
    monkeypatch.setattr(Target, "parse", lambda _: mine)
    with pytest.raises(ParityError):
        edgeprune.convert(model, tmp_path / "new", target="mine", sequence=8)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_several_lengths_get_a_folder_each(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mobile"
    words = ["convert", str(model), "--target", "ort-mobile", "--out", str(out), "--json"]
    assert main([*words, "--sequence", "8", "--sequence", "4"]) == 0
    assert [told["sequence"] for told in json.loads(capsys.readouterr().out)] == [4, 8]
    for length in (4, 8):
        facts = json.loads((out / str(length) / "converted.json").read_text())
        assert facts["parity"]["shape"] == [1, length]
        assert facts["sha256"] == file_digest(out / str(length) / "model.ort")
    assert {path.name for path in out.iterdir()} == {"4", "8"}


def test_of_several_lengths_all_are_kept_or_none(model: Path, tmp_path: Path) -> None:
    words = ["convert", str(model), "--target", "ort-mobile", "--out", str(tmp_path / "new")]
    assert main([*words, "--sequence", "8", "--sequence", "0"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_int8_weights_stay_where_activations_are_another_s_matter(
    model: Path, tmp_path: Path
) -> None:
    quantized = load_onnx(to_int8(model, tmp_path / "int8.onnx"))
    changed = with_float_products(quantized)
    onnx.checker.check_model(changed)
    operators = Counter(node.op_type for node in changed.graph.node)
    assert operators["DynamicQuantizeLinear"] == 0
    assert operators["MatMul"] == 2
    assert operators["MatMulInteger"] == 1  # of the embedding, which is int8 already
    (tmp_path / "floats.onnx").write_bytes(changed.SerializeToString())
    ids = np.arange(8, dtype=np.int64)[None] % 6
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    wanted, *found = (
        np.asarray(InferenceSession(path).run(None, feeds)[0])
        for path in (model, tmp_path / "int8.onnx", tmp_path / "floats.onnx")
    )
    for answers in found:
        assert compare(wanted.shape, answers, wanted).cosine > 0.99
