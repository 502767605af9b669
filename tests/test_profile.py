"""Fresh processes that time real ONNX files, and what happens when they break."""

import gzip
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.errors import EdgepruneError, OnnxError, ResourceError, TargetError
from edgeprune.measure.launch import Blocks, prepare, sha256
from edgeprune.measure.profile import RUN_PLANS, Profile, Rounds, Settings, measure_table, profile
from edgeprune.measure.samples import Sampled, read_samples, write_samples
from edgeprune.measure.target import Check, Program, Runtime, Target
from edgeprune.measure.verdict import LEAST_LAUNCHES
from edgeprune.progress import Silent
from edgeprune.shape import LayerShape, Shape
from edgeprune_targets import BENCH
from edgeprune_targets.local import Local
from edgeprune_targets.null import MS_PER_MB_AT_128_TOKENS, Null
from edgeprune_targets.ort import OnnxRuntime

FEW = Settings(sequence=8, launches=2, iterations=5, warmup_s=0.01, limit_s=60)
NULL = Target("null", Null(), Local())
ORT = Target("ort", OnnxRuntime(), Local())
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a model of one embedding and matrices of these widths, and returns its path."""

    def save(
        name: str = "model", widths: tuple[int, ...] = (16,), scale: float = 1.0, vocab: int = 32
    ) -> Path:
        random = np.random.default_rng(0)
        weights = {"words": random.normal(size=(vocab, 8)) * scale}
        nodes = [helper.make_node("Gather", ["words", "input_ids"], ["h0"])]
        for i, width in enumerate(widths):
            weights[f"up{i}"] = random.normal(size=(8, width))
            weights[f"down{i}"] = random.normal(size=(width, 8))
            nodes.append(helper.make_node("MatMul", [f"h{i}", f"up{i}"], [f"u{i}"]))
            nodes.append(helper.make_node("MatMul", [f"u{i}", f"down{i}"], [f"h{i + 1}"]))
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
            [helper.make_tensor_value_info(f"h{len(widths)}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, path)
        return path

    return save


class Odd(Runtime):
    """A runtime whose session is given as source: how a launch breaks is written in it."""

    reference = True  # not asked for its answers first

    def __init__(self, session: Path, start: Path = BENCH) -> None:
        self.session, self.start = session, start

    def check(self) -> Check:
        return Check(True)

    def convert(self, onnx: Path, folder: Path, *, batch: int, sequence: int) -> Path:
        return onnx

    def program(self) -> Program:
        return Program(self.start, self.session)


def broken(tmp_path: Path, opening: str = "pass", running: str = "return []") -> Target:
    session = tmp_path / "session.py"
    session.write_text(
        "import ctypes, os, signal, sys, time\n"
        "class Session:\n"
        "    inputs = {'input_ids': 'int64'}\n"
        f"    def run(self, feeds): {running}\n"
        "    def facts(self): return {}\n"
        "def open_session(path, *, threads, seed):\n"
        f"    {opening}\n"
        "    return Session()\n"
    )
    return Target("odd", Odd(session), Local())


def test_every_sample_of_every_launch_is_kept(save: Save) -> None:
    taken = profile({"model": save()}, ORT, FEW)["model"]
    assert [len(launch) for launch in taken.latency.launches_ms] == [5, 5]
    assert all(ms > 0 for ms in taken.latency.samples_ms)
    assert taken.cold_ms > 0
    assert taken.undisturbed_ms > 0
    assert not taken.proxy


def test_what_another_model_should_take_follows_from_its_undisturbed_milliseconds(
    save: Save,
) -> None:
    dense = profile({"model": save()}, NULL, FEW)["model"]
    assert dense.expected_ms(dense.undisturbed_ms, 90) == pytest.approx(dense.latency.p90_ms)
    quarter_ms = dense.undisturbed_ms / 4
    assert dense.expected_ms(quarter_ms, 90) == pytest.approx(dense.latency.p90_ms / 4)
    assert dense.undisturbed_at(dense.expected_ms(quarter_ms, 90), 90) == pytest.approx(quarter_ms)


def test_the_facts_travel_with_the_numbers(save: Save) -> None:
    path = save()
    taken = profile({"model": path}, ORT, replace(FEW, threads=2))["model"]
    facts = taken.facts
    assert facts["settings"]["threads"] == facts["runtime"]["intra_op_threads"] == 2
    assert facts["runtime"]["config"]["session.intra_op.allow_spinning"] == "0"
    assert facts["device"]["cpu"]
    assert len(facts["launches"]) == 2
    assert facts["launches"][0]["before"]["load"]
    assert facts["launches"][0]["outputs_finite"]
    assert taken.sha256 == facts["onnx_sha256"] == sha256(path)
    assert taken.size_mb == path.stat().st_size / 1e6


def test_peak_memory_is_the_worker_s_own(save: Save) -> None:
    ballast = bytearray(400_000_000)  # of this process, which the worker must not be charged with
    ballast[::4096] = b"x" * len(ballast[::4096])
    taken = profile({"model": save()}, NULL, replace(FEW, launches=1))["model"]
    assert 5 < taken.peak_mb < 200


def test_a_profile_survives_json(save: Save) -> None:
    taken = profile({"model": save()}, NULL, FEW)["model"]
    again = Profile.from_dict(json.loads(json.dumps(taken.to_dict(), allow_nan=False)))
    assert again == taken


def test_samples_are_written_a_line_for_each_launch(save: Save, tmp_path: Path) -> None:
    taken = profile({"model": save()}, NULL, FEW)["model"]
    write_samples(tmp_path / "a.jsonl.gz", [Sampled(taken)])
    write_samples(tmp_path / "b.jsonl.gz", [Sampled(taken)])
    with gzip.open(tmp_path / "a.jsonl.gz", "rt") as file:
        head, *rows = [json.loads(line) for line in file]
    assert head["format"] == "edgeprune-samples/1"
    assert [tuple(row["samples_ms"]) for row in rows] == list(taken.latency.launches_ms)
    assert read_samples(tmp_path / "a.jsonl.gz") == [Sampled(taken)]
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_the_null_runtime_is_synthetic_says_so_and_repeats_itself(save: Save) -> None:
    models = {"small": save("small", (16,)), "large": save("large", (16, 16, 32))}
    first, second = profile(models, NULL, FEW), profile(models, NULL, FEW)
    assert first["small"].latency == second["small"].latency
    assert first["small"].proxy
    assert "synthetic" in first["small"].notes[0]


def test_the_null_runtime_is_additive_in_width_and_blind_to_the_vocabulary(save: Save) -> None:
    def ms(path: Path) -> float:
        return profile({"model": path}, NULL, FEW)["model"].undisturbed_ms

    narrow, wide = ms(save("narrow", (16,))), ms(save("wide", (1600,)))
    assert ms(save("words", (16,), vocab=3200)) == narrow
    price_ms = MS_PER_MB_AT_128_TOKENS * (1584 * 8 * 2 * 4 / 1e6) * 8 / 128
    assert wide - narrow == pytest.approx(price_ms, rel=0.02)


def test_outputs_that_are_not_numbers_are_a_doubt(save: Save) -> None:
    taken = profile({"ok": save("ok"), "nan": save("nan", scale=float("nan"))}, ORT, FEW)
    # A busy machine may give other doubts to both.
    codes = {name: {reason.code for reason in one.doubts} for name, one in taken.items()}
    assert "outputs_not_finite" not in codes["ok"]
    assert "outputs_not_finite" in codes["nan"]


def test_all_models_are_measured_in_every_round(save: Save, tmp_path: Path) -> None:
    heard: list[str] = []

    class Ear(Silent):
        def step(self, done: int, total: int, note: str = "") -> None:
            heard.append(note)

    models = {name: save(name) for name in ("a", "b", "c")}
    profile(models, NULL, replace(FEW, launches=4), Ear())
    rounds = [heard[i : i + 3] for i in range(0, 12, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1


@pytest.mark.parametrize(
    ("opening", "running", "why", "kind"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "return []", "SIGSEGV", TargetError),
        ("pass", "os.kill(os.getpid(), signal.SIGABRT)", "SIGABRT", TargetError),
        ("pass", "os.kill(os.getpid(), signal.SIGKILL)", "without memory", ResourceError),
        ("os._exit(3)", "return []", "with code 3", TargetError),
        ("raise NotImplementedError('no operator Foo')", "return []", "Foo", TargetError),
        ("raise MemoryError", "return []", "MemoryError", ResourceError),
        ("raise ValueError('not a model')", "return []", "load: not a model", OnnxError),
        ("import no_such_library", "return []", "no_such_library", TargetError),
    ],
)
def test_a_worker_that_breaks_is_told_with_model_and_stage(
    save: Save, tmp_path: Path, opening: str, running: str, why: str, kind: type[EdgepruneError]
) -> None:
    with pytest.raises(kind, match=why) as error:
        profile({"dense": save()}, broken(tmp_path, opening, running), FEW)
    assert "dense" in str(error.value)
    assert ("load" if running == "return []" else "first inference") in str(error.value)


@pytest.mark.parametrize(
    "hang",
    ["while True: time.sleep(1)", "ctypes.PyDLL(None).sleep(600)"],
    ids=["in Python", "in native code that holds the interpreter"],
)
def test_a_hung_worker_is_ended_and_told(save: Save, tmp_path: Path, hang: str) -> None:
    with pytest.raises(TargetError, match=r"'load' within 1 s"):
        profile({"dense": save()}, broken(tmp_path, hang), replace(FEW, limit_s=1))


def test_a_runtime_that_cannot_be_imported_is_a_target_s_fault(save: Save, tmp_path: Path) -> None:
    session = tmp_path / "session.py"
    session.write_text("import no_such_runtime\n")
    with pytest.raises(TargetError, match="no_such_runtime"):
        profile({"dense": save()}, Target("odd", Odd(session), Local()), FEW)


HUNGRY = """
import resource

def open_session(path, *, threads, seed):
    got = {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))[0] for name in NAMES}
    raise RuntimeError(f"limits {got}")

NAMES = ("CORE", "FSIZE", "NOFILE")
"""


def test_what_a_model_may_take_of_the_machine_is_limited(save: Save, tmp_path: Path) -> None:
    session = tmp_path / "session.py"
    session.write_text(HUNGRY)
    with pytest.raises(OnnxError) as caught:
        profile({"dense": save()}, Target("odd", Odd(session), Local()), FEW)
    told = "limits {'CORE': 0, 'FSIZE': 1000000000, 'NOFILE': 1024}"
    assert told in str(caught.value)


def test_processor_time_is_told_of_each_inference(save: Save) -> None:
    """Not by the ticks of the system, as where a process has a limit on it."""
    with prepare({"dense": save(widths=(512,) * 4)}, ORT, FEW.load) as bench:
        run = bench.launch(["dense"], Blocks(200, 50, 0, 0.0), seed=0)
    assert all(ms > 0 for ms in run.cpu_samples_ms("dense"))
    assert len(set(run.cpu_samples_ms("dense"))) > 20


@pytest.mark.parametrize(
    "output",
    [
        "",
        "half a li",
        'edgeprune-bench result {"schema": 1}',
        'edgeprune-bench result {"schema": 1}\nedgeprune-bench end 0000',
        "edgeprune-bench end ",
    ],
)
def test_an_answer_that_did_not_arrive_whole_is_never_used(
    save: Save, tmp_path: Path, output: str
) -> None:
    start = tmp_path / "start.py"
    start.write_text(f"print({output!r}, end='')\n")
    target = Target("odd", Odd(tmp_path / "session.py", start), Local())
    with pytest.raises(TargetError, match="no message"):
        profile({"dense": save()}, target, FEW)


def test_what_a_runtime_prints_does_not_disturb_the_answer(save: Save, tmp_path: Path) -> None:
    target = broken(tmp_path, "print('loading', end='')", "print('edgeprune'); return []")
    assert profile({"dense": save()}, target, FEW)["dense"].latency.samples_ms.size == 10


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x08\x09" * 50], ids=["empty", "text", "other protobuf"]
)
@pytest.mark.parametrize("target", [ORT, NULL], ids=["ort", "null"])
def test_a_file_that_is_no_model_is_bad_input(
    tmp_path: Path, content: bytes, target: Target
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(OnnxError, match=r"bad\.onnx") as error:
        profile({"model": path}, target, FEW)
    assert error.value.exit_code == 2


def test_a_missing_file_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(OnnxError, match="missing"):
        profile({"model": tmp_path / "missing.onnx"}, ORT, FEW)


def test_an_input_that_is_not_known_is_bad_input(save: Save, tmp_path: Path) -> None:
    model = onnx.load(save())
    model.graph.input[0].name = model.graph.node[0].input[1] = "pixels"
    onnx.save(model, tmp_path / "pixels.onnx")
    with pytest.raises(OnnxError, match="'pixels'"):
        profile({"model": tmp_path / "pixels.onnx"}, ORT, FEW)


def test_nothing_of_a_run_is_left_behind(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scratch = save(), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    profile({"model": model}, NULL, FEW)
    with pytest.raises(TargetError):
        profile({"model": model}, broken(tmp_path, "os._exit(1)"), FEW)
    assert list(scratch.iterdir()) == []


def test_the_worker_sees_no_environment_but_what_it_needs(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    told = (
        "raise ValueError(os.environ.get('SECRET_TOKEN', 'unset'), os.environ['OMP_NUM_THREADS'])"
    )
    with pytest.raises(OnnxError, match=r"'unset', '1'"):
        profile({"model": save()}, broken(tmp_path, told), FEW)


def test_a_command_past_its_limit_is_ended_with_its_children(tmp_path: Path) -> None:
    device, pid = Local(), tmp_path / "pid"
    child = f"import os,time; open({str(pid)!r},'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess,sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with device.folder() as folder:
        finished = device.run([*device.python(), "-c", parent], folder, limit_s=1.5)
    assert finished.code is None
    assert dies(int(pid.read_text()))


def dies(pid: int) -> bool:
    """Whether a process ends soon; one that its new parent did not collect yet has ended."""
    status = Path(f"/proc/{pid}/status")
    for _ in range(500):
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.01)
    return False


def test_run_plans_follow_the_number_of_inferences_they_promise() -> None:
    counts = {name: plan.launches * plan.iterations for name, plan in RUN_PLANS.items()}
    assert counts["rapid"] >= 64
    assert counts["quick"] >= 128
    assert counts["standard"] == 1024
    assert counts["mlperf"] >= 1024
    assert RUN_PLANS["mlperf"].least_s == 60
    assert all(plan.launches >= LEAST_LAUNCHES for plan in RUN_PLANS.values())


WIDTHS = (0, 8, 32, 64)


def table_files(save: Save, stack: int) -> dict[int, Path]:
    return {w: save(f"stack{w}", (w,) * stack) for w in WIDTHS if w}


def whole(save: Save, *widths: int) -> tuple[Shape, Path]:
    layers = tuple(LayerShape(0, width) for width in widths)
    name = "whole" + "-".join(map(str, widths))
    path = save(name, tuple(w for w in widths if w))
    return Shape(layers, hidden=8, head_dim=2, vocab=32), path


def timed(whole: tuple[Shape, Path], target: Target) -> tuple[Shape, float]:
    shape, path = whole
    return shape, profile({"model": path}, target, FEW)["model"].undisturbed_ms


def test_a_table_on_an_additive_target_predicts_other_models(save: Save) -> None:
    table = measure_table(
        {},
        table_files(save, 2),
        save("empty", ()),
        [timed(whole(save, *widths), NULL) for widths in ((64, 64, 64), (0, 0, 0))],
        stack=2,
        target=NULL,
        settings=FEW,
        rounds=Rounds(processes=2, rounds=3),
    )
    shape, path = whole(save, 8, 64, 20)
    measured_ms = profile({"model": path}, NULL, FEW)["model"].undisturbed_ms
    assert table.predict(shape) == pytest.approx(measured_ms, rel=0.02)
    assert table.fit_error < 0.02
    assert table.ffn_ms[0] == 0.0
    assert "synthetic" in table.notes[0]


def test_a_table_is_measured_in_a_real_runtime(save: Save) -> None:
    table = measure_table(
        {1: save("attention", (4, 4))},
        table_files(save, 2),
        save("empty", ()),
        [timed(whole(save, 64, 64), ORT)],
        stack=2,
        target=ORT,
        settings=FEW,
        rounds=Rounds(processes=2, rounds=2, block=3),
    )
    assert list(table.ffn_ms) == list(WIDTHS)
    assert list(table.attention_ms) == [0, 1]
    assert list(table.ffn_ms.values()) == sorted(table.ffn_ms.values())
    assert table.rest_ms >= 0
