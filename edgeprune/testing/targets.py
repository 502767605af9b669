"""The contracts of a runtime and of a device, as test classes; see docs/adding-a-target.md.

    class TestMine(RuntimeContract):
        @classmethod
        def runtime(cls) -> Runtime:
            return Mine()

A runtime or a device that is not usable where the tests run fails them, with what repairs it.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from edgeprune.errors import OnnxError
from edgeprune.hashing import file_digest
from edgeprune.measure.launch import Blocks, Load, prepare
from edgeprune.measure.target import Device, Finished, Runtime, Target
from edgeprune.onnx_session import open_session

VOCABULARY, HIDDEN = 32, 8
FEW = Blocks(iterations=6, block=2, settle=1, warmup_s=0.01)
# What a shell or an option parser would read as something else.
ODD_NAMES = ("a b.onnx", "$(id).onnx", 'it\'s "so".onnx', "-rf.onnx", "a;id\n#.onnx", "ünï.onnx")
ODD_WORDS = (
    *("", " ", "a b", "a\nb", "\t", "$HOME", "`id`", "$(id)", "it's", "'\\''", '"', "\\", "*", "~"),
    *("a=b", "!", "-n", "--", "&", ";", "|", ">x", "#", "{a,b}", "%s", "ünïcödé"),
)


class RuntimeContract(ABC):
    """What a runtime promises; every test runs it on this machine."""

    tolerance: ClassVar[float] = 1e-4
    """The most that its answers may differ from ONNX Runtime's; fp32 needs no more."""

    @classmethod
    @abstractmethod
    def runtime(cls) -> Runtime: ...

    def test_it_can_be_used_here(self) -> None:
        check = self.runtime().check()
        assert check.usable, f"{check.why} — {check.remedy}"
        assert check.version

    def test_it_takes_no_arguments_and_holds_no_state(self) -> None:
        assert vars(type(self.runtime())()) == {}

    def test_converting_makes_something_new_or_takes_the_file_as_it_is(
        self, tmp_path: Path
    ) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        before, folder = file_digest(onnx), tmp_path / "folder"
        folder.mkdir()
        converted = self.runtime().convert(onnx, folder, batch=1, sequence=8)
        assert converted.exists()
        assert converted == onnx or converted.is_relative_to(folder)
        assert file_digest(onnx) == before
        assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "folder"}

    def test_what_is_no_model_is_bad_input(self, tmp_path: Path) -> None:
        onnx = tmp_path / "model.onnx"
        onnx.write_text("not a model")
        with (
            pytest.raises(OnnxError, match=r"model\.onnx"),
            prepare({"model": onnx}, self._target(), Load(sequence=8)) as bench,
        ):
            bench.launch(["model"], FEW, seed=0)  # for runtimes that find out when they load it

    def test_every_sample_of_every_model_comes_back(self, tmp_path: Path) -> None:
        models = {
            "narrow": save_tiny_onnx(tmp_path / "narrow.onnx", width=4),
            "wide": save_tiny_onnx(tmp_path / "wide.onnx", width=64),
        }
        with prepare(models, self._target(), Load(sequence=8)) as bench:
            run = bench.launch(["narrow", "wide"], FEW, seed=0)
        for name in models:
            assert len(run.samples_ms(name)) == len(run.cpu_samples_ms(name)) == FEW.iterations
            assert all(ms > 0 for ms in run.samples_ms(name))
            assert run.conditions(name)["outputs_finite"]
        assert run.result["runtime"]["name"]
        assert run.result["runtime"]["version"]

    @pytest.mark.parametrize("lengths", [(8,), (1,), (8, 5)], ids=["whole", "one token", "padded"])
    def test_it_answers_as_onnx_runtime(self, tmp_path: Path, lengths: tuple[int, ...]) -> None:
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        ids = np.random.default_rng(0).integers(2, VOCABULARY, (len(lengths), max(lengths)))
        mask = (np.arange(max(lengths))[None] < np.array(lengths)[:, None]).astype(np.int64)
        inputs = {"input_ids": ids * mask, "attention_mask": mask}
        load = Load(batch=len(lengths), sequence=max(lengths))
        with prepare({"model": onnx}, self._target(), load) as bench:
            (answers,) = bench.answer("model", [inputs])
        if self.runtime().proxy and not answers:
            pytest.skip("a proxy that infers nothing")
        wanted = open_session(onnx).run(None, inputs)
        assert len(answers) == len(wanted)
        for ours, theirs in zip(answers, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=self.tolerance, rtol=self.tolerance)

    def _target(self) -> Target:
        return Target("contract", self.runtime(), Target.parse("null").device)


class DeviceContract(ABC):
    """What a device promises; every test runs something there."""

    @classmethod
    @abstractmethod
    def device(cls) -> Device: ...

    @pytest.fixture
    def there(self) -> Iterator[There]:
        device = self.device()
        with device.folder() as folder:
            yield There(device, folder)

    def test_it_can_be_used_now(self) -> None:
        check = self.device().check()
        assert check.usable, f"{check.why} — {check.remedy}"
        assert check.version

    def test_its_facts_are_plain_and_it_is_known_again_by_them(self) -> None:
        facts, again = self.device().facts(), self.device().facts()
        assert json.loads(json.dumps(facts)) == facts
        assert facts["cores"] > 0
        for name in ("machine", "cpu", "cores"):
            assert facts[name] == again[name]
        assert facts["memory_mb"] > 0
        assert facts["kernel"]

    def test_its_python_has_numpy(self, there: There) -> None:
        assert there.says("import numpy; print(numpy.arange(3).sum())") == "3"

    def test_the_line_that_installs_is_one_line_and_names_the_packages(self) -> None:
        line = self.device().install_line(["numpy", "onnxruntime"])
        assert "numpy" in line
        assert "onnxruntime" in line
        assert "\n" not in line

    def test_its_folder_is_private_and_each_time_another(self, there: There) -> None:
        mode = there.says("import os; print(os.stat('.').st_mode)")
        assert stat.S_IMODE(int(mode)) == stat.S_IRWXU
        with self.device().folder() as other:
            assert other != there.folder

    def test_its_folder_goes_with_all_that_is_in_it(self, tmp_path: Path, there: There) -> None:
        (tmp_path / "file").write_text("x")
        with suppress(ZeroDivisionError), self.device().folder() as folder:
            self.device().push(tmp_path / "file", folder)
            There(self.device(), folder).says("open('left behind', 'w').write('x')")
            raise ZeroDivisionError
        assert there.says("import os, sys; print(os.path.exists(sys.argv[1]))", folder) == "False"

    @pytest.mark.parametrize("name", ["model.onnx", *ODD_NAMES])
    def test_a_file_arrives_as_it_is_whatever_its_name(
        self, tmp_path: Path, there: There, name: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(bytes(range(256)) * 1000 + b"\r\n\x1a")
        arrived = there.device.push(path, there.folder)
        assert arrived.endswith(".onnx")
        assert there.digest(arrived) == file_digest(path)

    def test_an_empty_file_arrives_too(self, tmp_path: Path, there: There) -> None:
        path = tmp_path / "empty"
        path.write_bytes(b"")
        assert there.digest(there.device.push(path, there.folder)) == file_digest(path)

    def test_a_folder_of_files_keeps_its_names(self, tmp_path: Path, there: There) -> None:
        model = tmp_path / "model"
        for name in ("net.param", "net.bin", "more/weights-0.bin"):
            (model / name).parent.mkdir(parents=True, exist_ok=True)
            (model / name).write_text(name)
        arrived = there.device.push(model, there.folder)
        for name in ("net.param", "net.bin", "more/weights-0.bin"):
            assert there.digest(f"{arrived}/{name}") == file_digest(model / name)

    def test_words_arrive_as_they_are(self, there: There) -> None:
        program = "import json, sys; print(json.dumps(sys.argv[1:]))"
        assert json.loads(there.says(program, *ODD_WORDS)) == list(ODD_WORDS)

    def test_output_and_errors_come_apart_and_whole(self, there: There) -> None:
        program = "import sys; print('é' * 1_000_000 + '!'); print('oh', file=sys.stderr)"
        finished = there.runs(program)
        assert finished.output.strip() == "é" * 1_000_000 + "!"
        assert finished.errors.strip() == "oh"

    @pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
    def test_the_exit_code_is_the_command_s_own(self, there: There, code: int) -> None:
        assert there.runs(f"import os; os._exit({code})").code == code

    def test_a_signal_is_told_as_a_negative_number(self, there: There) -> None:
        finished = there.runs("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
        assert finished.code == -signal.SIGSEGV

    def test_a_command_that_is_not_there_is_told_as_127(self, there: There) -> None:
        finished = there.device.run(["no-such-command"], there.folder, limit_s=60)
        assert finished.code == 127
        assert "no-such-command" in finished.errors

    def test_it_runs_in_the_folder_and_leaves_its_temporary_files_there(self, there: There) -> None:
        program = "import os, sys, tempfile\nfor path in '.', tempfile.gettempdir():"
        program += " print(os.path.samefile(path, sys.argv[1]))"
        assert there.says(program, there.folder).split() == ["True", "True"]

    def test_it_has_nothing_to_read(self, there: There) -> None:
        assert there.says("import sys; print(len(sys.stdin.read()))") == "0"

    def test_past_the_limit_nothing_lives_on(self, there: There) -> None:
        finished = there.device.run(there.hanging(), there.folder, limit_s=5)
        assert finished.code is None
        assert there.living(there.started()) == 0

    def test_what_an_ended_command_left_behind_does_not_live_on(self, there: There) -> None:
        finished = there.device.run(there.hanging("os._exit(0)"), there.folder, limit_s=60)
        assert finished.code == 0
        assert there.living(there.started()) == 0

    def test_interrupted_it_leaves_nothing_behind(self, there: There) -> None:
        with self.device().folder() as folder, interrupted_once() as interrupt:
            other = There(self.device(), folder)
            thread = threading.Thread(target=lambda: interrupt(other.started()))
            thread.start()
            with pytest.raises(Interruption) as caught:
                other.device.run(there.hanging(), folder, limit_s=120)
            thread.join()
        assert there.living(str(caught.value)) == 0

    def test_the_timing_program_runs_there(self, tmp_path: Path) -> None:
        target = Target("contract", Target.parse("null").runtime, self.device())
        onnx = save_tiny_onnx(tmp_path / "model.onnx")
        with prepare({"model": onnx}, target, Load(sequence=8)) as bench:
            run = bench.launch(["model"], FEW, seed=0)
        assert len(run.samples_ms("model")) == FEW.iterations


@dataclass(frozen=True)
class There:
    """A device with an open folder, and small Python programs that are run in it."""

    device: Device
    folder: str

    def runs(self, program: str, *words: str) -> Finished:
        command = [*self.device.python(), "-c", program, *words]
        return self.device.run(command, self.folder, limit_s=60)

    def says(self, program: str, *words: str) -> str:
        finished = self.runs(program, *words)
        assert finished.code == 0, finished.errors
        return finished.output.strip()

    def digest(self, path: str) -> str:
        program = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read())"
        return self.says(f"{program}.hexdigest())", path)

    def hanging(self, then: str = "time.sleep(600)") -> list[str]:
        """A command that starts a child which heeds no SIGTERM, tells both, and hangs."""
        return [*self.device.python(), "-c", f"{_HANG}{then}\n"]

    def started(self) -> str:
        """The process numbers of a hanging command, once it runs."""
        return self.says(_STARTED)

    def living(self, processes: str) -> int:
        """How many of them are still there, after as long as it takes to end them."""
        return int(self.says(_LIVING, *processes.split()))


_HANG = """
import os, signal, subprocess, sys, time
sleep = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", sleep])
with open("starting", "w") as file:
    print(os.getpid(), child.pid, file=file)
os.rename("starting", "started")
"""
_STARTED = """
import os, time
while not os.path.exists("started"):
    time.sleep(0.05)
print(open("started").read())
"""
_LIVING = """
import sys, time
def lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
deadline = time.monotonic() + 20
while any(map(lives, sys.argv[1:])) and time.monotonic() < deadline:
    time.sleep(0.05)
print(sum(map(lives, sys.argv[1:])))
"""


class Interruption(Exception):  # noqa: N818 - no fault
    """What a signal raises in the midst of a call, as SIGTERM does in the command."""


@contextmanager
def interrupted_once() -> Iterator[Callable[[str], None]]:
    """Gives a function that, from another thread, raises Interruption with a text in this one."""
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        os.kill(os.getpid(), signal.SIGUSR1)

    def interrupted(*_: object) -> None:
        raise Interruption(said[0])

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGUSR1, before)


def save_tiny_onnx(path: Path, width: int = 16) -> Path:
    """A classifier of tokens in miniature: embedding, FFN of a width, masked mean, two logits."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    sizes = {"words": (VOCABULARY, HIDDEN), "up": (HIDDEN, width), "down": (width, HIDDEN)}
    weights = {name: random.normal(size=size) for name, size in sizes.items()}
    weights |= {"head": random.normal(size=(HIDDEN, 2)), "bias": random.normal(size=2)}
    tensors = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    tensors += [numpy_helper.from_array(np.array([axis]), f"axis{axis}") for axis in (1, 2)]
    steps = (
        ("Gather", "words input_ids", "embedded"),
        ("MatMul", "embedded up", "wide"),
        ("Relu", "wide", "active"),
        ("MatMul", "active down", "narrow"),
        ("Add", "embedded narrow", "states"),
        ("Unsqueeze", "attention_mask axis2", "columns"),
        ("Cast", "columns", "mask"),
        ("Mul", "states mask", "masked"),
        ("ReduceSum", "masked axis1", "sum"),
        ("ReduceSum", "mask axis1", "count"),
        ("Div", "sum count", "mean"),
        ("MatMul", "mean head", "scores"),
        ("Add", "scores bias", "logits"),
    )
    options: dict[str, dict[str, Any]] = {
        "Cast": {"to": TensorProto.FLOAT},
        "ReduceSum": {"keepdims": 0},
    }
    nodes = [
        helper.make_node(kind, inputs.split(), [output], **options.get(kind, {}))
        for kind, inputs, output in steps
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "tiny", ids, [logits], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
