"""A device reached by ssh: a real sshd on loopback with its own keys, and the real client."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pytest
from bundles import another, digits, hung, other_answers, python_that_hangs_while_copying
from processes import below, free_port, processes, running, until

from edgeprune.errors import RecipeError, RefusedError, ResourceError, TargetError
from edgeprune.measure.doctor import diagnose
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.target import Device, Target
from edgeprune.ship.bundle import verify_bundle
from edgeprune.testing import DeviceContract, save_tiny_onnx
from edgeprune_cli.app import main
from edgeprune_targets import remote, ssh
from edgeprune_targets.ssh import Ssh

TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": 120}
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
FEW = Settings(sequence=8, launches=2, iterations=5, warmup_s=0.01, limit_s=60)


@dataclass(frozen=True)
class Server:
    """An sshd, and what a session finds there: its home, and programs before the system's own."""

    port: int
    pid: int
    home: Path
    bin: Path
    tmp: Path

    def program(self, name: str, *lines: str) -> Path:
        path = self.bin / name
        path.write_text("\n".join(("#!/bin/sh", *lines, "")))
        path.chmod(0o755)
        return path

    def sessions(self) -> set[int]:
        return below(self.pid, "sshd")


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, server_missing: Callable[[str], NoReturn]
) -> Iterator[Server]:
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        server_missing("no sshd or no ssh here: apt install openssh-server openssh-client")
    room = tmp_path_factory.mktemp("ssh")
    for name in ("home", "bin", "client", "tmp"):
        (room / name).mkdir()
    for key in ("host", "user", "other"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(room / key)]
        subprocess.run(make, check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    path = f"{room}/bin:/usr/local/bin:/usr/bin:/bin"
    (room / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\n"
        f"HostKey {room}/host\n"
        f"AuthorizedKeysFile {room}/user.pub\n"
        f"PidFile {room}/pid\n"
        f"SetEnv HOME={room}/home PATH={path} TMPDIR={room}/tmp\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nMaxStartups 100\n"
    )
    write_client_config(room, port)
    command = [str(sshd), "-D", "-e", "-f", str(room / "sshd_config")]
    with open(room / "log", "w") as log, subprocess.Popen(command, stderr=log) as process:  # noqa: PTH123
        until(lambda: can_connect(port) or process.poll() is not None)
        if process.poll() is not None:
            server_missing(f"sshd does not start: {(room / 'log').read_text()}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{room}/client:{os.environ['PATH']}")
            yield Server(port, process.pid, room / "home", room / "bin", room / "tmp")
        process.terminate()


def write_client_config(room: Path, port: int) -> None:
    """Hosts of several kinds, and an `ssh` that reads this in place of the user's own config."""
    host, other = ((room / f"{name}.pub").read_text() for name in ("host", "other"))
    (room / "known_hosts").write_text(
        f"[127.0.0.1]:{port} {host}changed {other}@revoked revoked {host}"
    )
    (room / "config").write_text(
        f"Host changed\n  HostKeyAlias changed\n"
        f"Host revoked\n  HostKeyAlias revoked\n"
        f"Host stranger\n  HostKeyAlias stranger\n"
        f"Host locked\n  PubkeyAuthentication no\n"
        f"Host off\n  Port {free_port()}\n"
        f"Host nowhere\n  HostName nowhere.invalid\n"
        f"Host behind\n  ProxyJump pi4\n"
        f"Host hidden\n  ProxyJump stranger\n"
        f"Host waylaid\n  ProxyJump changed\n"
        # What would break a command if it were heeded.
        f"Host busy\n  RemoteCommand false\n  RequestTTY force\n  StrictHostKeyChecking no\n"
        f"Host *\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {room}/user\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {room}/known_hosts\n  GlobalKnownHostsFile none\n"
    )
    wrapper = room / "client" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {room}/config "$@"\n')
    wrapper.chmod(0o755)


def can_connect(port: int) -> bool:
    with socket.socket() as opened:
        return opened.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(served: Server) -> Iterator[Server]:
    """The server as a usable device; what a test puts there is gone for the next one."""
    python = served.home / ".edgeprune/venv/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    served.program(str(python), f'exec {sys.executable} "$@"')
    yield served
    for program in served.bin.iterdir():
        program.unlink()


@pytest.mark.usefixtures("server")
class TestSsh(DeviceContract):
    @classmethod
    def device(cls) -> Device:
        return Ssh("pi4")


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return save_tiny_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("target", ["ort@ssh:pi4", "null@ssh:behind", "null@ssh:busy"])
def test_a_model_is_profiled_there(server: Server, onnx: Path, target: str) -> None:
    taken = profile({"model": onnx}, Target.parse(target), FEW)["model"]
    assert taken.target == target
    assert [len(launch) for launch in taken.latency.launches_ms] == [5, 5]
    assert taken.facts["device"]["device"] == target.partition("@")[2]
    assert taken.facts["device"]["python"]
    assert taken.facts["device"]["affinity"]
    assert taken.facts["launches"][0]["before"]["load"]
    assert [*server.tmp.iterdir()] == []


def test_a_port_may_be_part_of_the_address(server: Server) -> None:
    assert Ssh(f"127.0.0.1:{server.port}").check().usable
    assert Ssh("::1").install_line(["numpy"]).startswith("ssh ::1 ")


@pytest.mark.parametrize("address", ["", "pi4:", "pi4:x", ":22"])
def test_an_address_without_a_host_is_bad_input(address: str) -> None:
    with pytest.raises(RecipeError, match="ssh:pi4"):
        Ssh(address)


def test_nobody_is_asked_about_the_key_of_a_jump_host(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh hands none of its options on to the client that reaches it."""
    asked = tmp_path / "asked"
    window = server.program("askpass", f"touch {asked}", "echo yes")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SSH_ASKPASS", str(window))
    check = Ssh("hidden").check()
    assert (check.usable, check.why) == (False, "its host key is not known here")
    assert not asked.exists()


@pytest.mark.parametrize("host", ["changed", "revoked", "waylaid"])
def test_a_host_with_another_key_than_is_known_is_refused(
    server: Server, onnx: Path, host: str
) -> None:
    target = Target.parse(f"null@ssh:{host}")
    with pytest.raises(RefusedError, match="another than the one that is known") as error:
        profile({"model": onnx}, target, FEW)
    assert error.value.exit_code == 6
    assert f"ssh-keygen -R {host}" in error.value.remedy
    assert not diagnose(target.name).usable
    with pytest.raises(RefusedError), target.device.folder():
        pass


@pytest.mark.parametrize(
    ("host", "why", "remedy"),
    [
        ("stranger", "key is not known", "run `ssh stranger` once"),
        ("locked", "nobody in without a password", "ssh-copy-id locked"),
        ("off", "cannot be reached", "`ssh off`"),
        ("nowhere", "name is not known", "~/.ssh/config"),
    ],
)
def test_a_host_that_cannot_be_had_says_why(
    server: Server, onnx: Path, host: str, why: str, remedy: str
) -> None:
    with pytest.raises(TargetError, match=why) as error:
        profile({"model": onnx}, Target.parse(f"null@ssh:{host}"), FEW)
    assert error.value.exit_code == 4
    assert remedy in str(error.value)


def test_without_a_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "openssh-client" in Ssh("pi4").check().remedy


def test_without_a_python_it_says_what_to_install(server: Server) -> None:
    (server.home / ".edgeprune/venv/bin/python").unlink()
    server.program("python3", "exit 1")
    check = Ssh("pi4").check()
    assert check.why == "has no Python that starts"
    assert check.remedy.startswith("ssh pi4 'python3 -m venv ~/.edgeprune/venv && ")


def test_a_python_that_is_too_old_is_told(server: Server, onnx: Path) -> None:
    server.program(str(server.home / ".edgeprune/venv/bin/python"), "echo 3.8.20 x86_64")
    with pytest.raises(TargetError, match=r"has Python 3\.8\.20, needs 3\.9 or newer"):
        profile({"model": onnx}, Target.parse("null@ssh:pi4"), FEW)


def test_without_the_runtime_s_package_it_says_what_to_install(server: Server, onnx: Path) -> None:
    (server.home / ".edgeprune/venv/bin/python").unlink()
    server.program("python3", f'exec {sys.executable} -I -S "$@"')  # of the same, no packages
    with pytest.raises(TargetError, match="has no numpy, no onnxruntime") as error:
        profile({"model": onnx}, Target.parse("ort@ssh:pi4"), FEW)
    assert error.value.remedy.endswith("pip install numpy onnxruntime'")
    found = diagnose("ort@ssh:pi4")
    assert (found.runtime.usable, found.device.usable, found.there.usable) == (True, True, False)


def test_the_line_that_installs_is_one_that_a_shell_here_reads_right() -> None:
    line = Ssh("pi4:2222").install_line(["numpy", "onnxruntime"])
    said = subprocess.run(["sh", "-c", f"ssh() {{ printf '%s\\n' \"$@\"; }}; {line}"], **TEXT)
    assert said.stdout.splitlines()[:3] == ["-p", "2222", "pi4"]
    assert said.stdout.splitlines()[3].endswith("/bin/pip install numpy onnxruntime")


def test_a_runtime_there_that_is_too_old_is_told_as_such(server: Server, onnx: Path) -> None:
    """And not as a fault of the file; the library is one that says what an old one does."""
    old = server.tmp.parent / "old" / "onnxruntime"
    for name, source in OLD.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(source)
    python = server.home / ".edgeprune/venv/bin/python"
    server.program(str(python), f'PYTHONPATH={old.parent} exec {sys.executable} "$@"')
    with pytest.raises(TargetError, match=r"onnxruntime 1\.16\.3 is too old: Opset 20") as e:
        profile({"model": onnx}, Target.parse("ort@ssh:pi4"), FEW)
    assert e.value.exit_code == 4
    assert [*server.tmp.iterdir()] == []


def test_a_profile_that_prints_does_no_harm(server: Server, onnx: Path) -> None:
    server.program("sh", "echo 'welcome to the edge'", 'exec /bin/sh "$@"')
    taken = profile({"model": onnx}, Target.parse("null@ssh:pi4"), FEW)["model"]
    assert taken.latency.samples_ms.size == 10


OLD = {
    "__init__.py": """
__version__ = "1.16.3"
class SessionOptions:
    def add_session_config_entry(self, name, value): pass
def get_available_providers(): return ["CPUExecutionProvider"]
def InferenceSession(*words, **options):
    raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Load model from x failed: "
        "Opset 20 is under development and support for this is limited.")
""",
    "capi/onnxruntime_pybind11_state.py": "class NotImplemented(Exception): pass\n",
    "capi/__init__.py": "",
}


def cat_that_loses(server: Server, times: int) -> Path:
    """A device whose storage keeps but the first bytes of the next files that are written."""
    left = server.bin / "left"
    server.program(
        "cat",
        f"left=$(/bin/cat {left} 2>/dev/null || echo {times})",
        '[ "$left" -gt 0 ] || exec /bin/cat "$@"',
        f"echo $((left - 1)) >{left}",
        "head -c 100; /bin/cat >/dev/null",
    )
    return left


def test_a_push_that_arrived_cut_short_is_done_again(server: Server, onnx: Path) -> None:
    device = Ssh("pi4")
    with device.folder() as folder:
        left = cat_that_loses(server, times=2)
        arrived = device.push(onnx, folder)
        assert left.read_text() == "0\n"
        assert Path(arrived).read_bytes() == onnx.read_bytes()


def test_a_push_that_never_arrives_whole_is_told(server: Server, onnx: Path) -> None:
    device = Ssh("pi4")
    with device.folder() as folder:
        cat_that_loses(server, times=100)
        with pytest.raises(TargetError, match=r"model\.onnx.*unlike it was sent, 3 times"):
            device.push(onnx, folder)


def test_a_full_device_is_told_as_such(server: Server, onnx: Path) -> None:
    device = Ssh("pi4")
    with device.folder() as folder:
        server.program("cat", "echo 'cat: write error: No space left on device' >&2; exit 1")
        with pytest.raises(ResourceError, match="No space left") as error:
            device.push(onnx, folder)
    assert error.value.exit_code == 5


def test_a_name_in_a_pushed_folder_that_is_not_plain_is_refused(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "$(id)").write_text("x")
    device = Ssh("pi4")
    with device.folder() as folder, pytest.raises(RefusedError, match="not plain"):
        device.push(tmp_path / "net", folder)


def hang(pid: Path, then: Callable[[], None]) -> None:
    """Runs something there that tells its number in a file and hangs, and does `then` meanwhile."""
    program = (
        f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(600)"
    )

    def watch() -> None:
        until(lambda: pid.exists() and pid.read_text().endswith(" "))
        then()

    device, thread = Ssh("pi4"), threading.Thread(target=watch)
    with device.folder() as folder:
        thread.start()
        try:
            device.run([*device.python(), "-c", program], folder, limit_s=120)
        finally:
            thread.join()


def gone(pid: Path) -> bool:
    return int(pid.read_text()) not in processes()


def launched(server: Server) -> bool:
    """Whether the timing program runs there: `python PROGRAM.py SPEC.json`."""
    rows = [row.words for row in running(str(server.tmp))]
    return any(
        words[1:2] != ()
        and words[1].endswith(".py")
        and "lease" not in words[1]
        and words[2].endswith(".json")
        for words in rows
        if len(words) > 2
    )


@pytest.mark.parametrize("victim", ["client", "server"])
def test_a_connection_that_is_killed_leaves_nothing_behind(
    server: Server, tmp_path: Path, victim: str
) -> None:
    def kill() -> None:
        for pid in below(os.getpid(), "ssh") if victim == "client" else server.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(TargetError, match="the link broke") as error:
        hang(tmp_path / "pid", kill)
    assert error.value.exit_code == 4
    until(lambda: not [*server.tmp.iterdir()])
    until(lambda: gone(tmp_path / "pid"))


@pytest.mark.parametrize("frozen", ["client", "server"])
def test_a_link_that_freezes_leaves_nothing_running(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    monkeypatch.setattr(remote, "SILENCE_S", 2.0)
    monkeypatch.setattr(remote, "BEAT_S", 0.5)
    monkeypatch.setitem(ssh.OPTIONS, "ServerAliveInterval", "1")
    pid, stopped = tmp_path / "pid", set[int]()

    def freeze() -> None:
        ours = below(os.getpid(), "ssh")
        stopped.update(ours if frozen == "client" else server.sessions())
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        until(lambda: gone(pid))  # without any help from this side
        for process in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    with pytest.raises(TargetError, match="the link broke"):
        hang(pid, freeze)
    until(lambda: gone(pid))


@pytest.fixture
def _sigint() -> Iterator[None]:
    """Is heard by children; whoever starts the tests may ignore it, and they would too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ending_the_command_ends_what_runs_there(
    server: Server, onnx: Path, number: signal.Signals
) -> None:
    words = ["profile", str(onnx), "--target", "ort@ssh:pi4", "--runs", "mlperf"]
    with subprocess.Popen([sys.executable, "-m", "edgeprune_cli", *words], **QUIET) as command:
        until(lambda: launched(server))
        os.kill(command.pid, number)
        assert command.wait(60) == 128 + number
    until(lambda: not running(str(server.tmp)))
    until(lambda: not [*server.tmp.iterdir()])


def test_a_killed_command_leaves_nothing_behind(server: Server, onnx: Path) -> None:
    words = ["profile", str(onnx), "--target", "ort@ssh:pi4", "--runs", "mlperf"]
    with subprocess.Popen([sys.executable, "-m", "edgeprune_cli", *words], **QUIET) as command:
        until(lambda: launched(server))
        command.kill()
    until(lambda: not running(str(server.tmp)))
    until(lambda: not [*server.tmp.iterdir()])


def test_the_command_profiles_there(server: Server, onnx: Path) -> None:
    words = ["profile", str(onnx), "--target", "ort@ssh:pi4", "--runs", "rapid", "--json"]
    said = subprocess.run([sys.executable, "-m", "edgeprune_cli", *words], **TEXT)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["target"] == "ort@ssh:pi4"


LITTLE = """
import sys
import with_torch
with_torch.prepare()
from edgeprune_cli.app import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def little(tiny_model: Path, tmp_path: Path) -> list[str]:
    """The words that compress a little model for the device, into tmp_path / "run"."""
    task = tmp_path / "task"
    task.mkdir()
    random = Random(0)
    for split, count in (("train", 60), ("validation", 20), ("test", 20)):
        lines = []
        for letter in random.choices("pq", k=count):
            text = " ".join(f"{letter}{random.randrange(20)}" for _ in range(4))
            lines.append(json.dumps({"text": text, "label": f"mostly {letter}"}))
        (task / f"{split}.jsonl").write_text("\n".join(lines))
    words = ["compress", "--model", str(tiny_model), "--task", str(task), "--budget", "50%"]
    return [*words, "--target", "null@ssh:pi4", "--effort", "quick", "--out", str(tmp_path / "run")]


def edgeprune(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).with_name("faults"))}
    command = [sys.executable, "-c", LITTLE, *words]
    return subprocess.run(command, **{**TEXT, "timeout": 1800}, env=environment)


def check_met(said: subprocess.CompletedProcess[str], run: Path) -> None:
    assert said.returncode in (0, 1), said.stderr  # 1: so little training may cost the floor
    report = json.loads((run / "report.json").read_text())
    assert report["verdict"]["outcome"] == "met"
    assert report["environment"]["device"] == "ssh:pi4"
    assert "null@ssh:pi4" in report["verdict"]["line"]


def test_a_model_is_compressed_for_it(server: Server, little: list[str], tmp_path: Path) -> None:
    """Table, candidates and verdict are all measured there."""
    check_met(edgeprune(*little), tmp_path / "run")
    assert [*server.tmp.iterdir()] == []


def test_a_run_whose_link_breaks_is_resumed(
    server: Server, little: list[str], tmp_path: Path
) -> None:
    """While its latency table is measured; what it had until then it keeps."""

    def kill() -> None:
        until(lambda: launched(server), limit_s=300)
        for pid in server.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    said = edgeprune(*little)
    thread.join()
    assert said.returncode == 4, said.stderr
    assert "the link broke" in said.stderr
    until(lambda: not [*server.tmp.iterdir()])
    check_met(edgeprune("resume", str(tmp_path / "run")), tmp_path / "run")


def test_the_command_exits_6_for_another_host_key(server: Server, onnx: Path) -> None:
    words = ["profile", str(onnx), "--target", "null@ssh:changed"]
    said = subprocess.run([sys.executable, "-m", "edgeprune_cli", *words], **TEXT)
    assert said.returncode == 6
    assert len(said.stderr.strip().splitlines()) == 2  # what it does, and the one line


# --- a bundle that is put to work there ---------------------------------------------------------

PLACE = "ssh:pi4:~/models"


@pytest.fixture
def models(server: Server) -> Iterator[Path]:
    """The folder of PLACE."""
    yield server.home / "models"
    shutil.rmtree(server.home / "models", ignore_errors=True)


def hang_while_copying(server: Server, mark: Path) -> None:
    python = server.home / ".edgeprune/venv/bin/python"
    server.program(str(python), *python_that_hangs_while_copying(mark))


def test_a_bundle_is_put_to_work_there_and_taken_back(
    server: Server, small_bundle: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = another(small_bundle, "second")
    assert main(["ship", str(small_bundle), PLACE]) == 0
    assert "8 golden answers agree" in capsys.readouterr().err
    assert main(["ship", str(second), PLACE]) == 0
    assert verify_bundle(models / "current")["task"] == "second"
    assert (models / "previous").resolve().name == digits(small_bundle)
    assert main(["ship", "--rollback", PLACE]) == 0
    assert verify_bundle(models / "current")["task"] == "letters"
    assert (models / "previous").resolve().name == digits(second)
    assert [*server.tmp.iterdir()] == []


def test_half_a_push_never_becomes_current(
    server: Server, small_bundle: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ship", str(small_bundle), PLACE]) == 0
    cat_that_loses(server, times=1000)
    assert main(["ship", str(another(small_bundle, "second")), PLACE]) == 4
    assert "unlike it was sent" in capsys.readouterr().err
    assert verify_bundle(models / "current")["task"] == "letters"
    assert [path.name for path in (models / "releases").iterdir()] == [digits(small_bundle)]


def test_what_answers_otherwise_there_never_becomes_current(
    server: Server, small_bundle: Path, models: Path
) -> None:
    assert main(["ship", str(small_bundle), PLACE]) == 0
    second = another(small_bundle, "second")
    other_answers(second)
    assert main(["ship", str(second), PLACE]) == 1
    assert verify_bundle(models / "current")["task"] == "letters"


def test_a_device_that_cannot_ask_says_what_to_install(
    server: Server, small_bundle: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (server.home / ".edgeprune/venv/bin/python").unlink()
    server.program("python3", f'exec {sys.executable} -I -S "$@"')
    assert main(["ship", str(small_bundle), PLACE]) == 4
    assert "pip install numpy onnxruntime" in capsys.readouterr().err
    assert not (models / "current").is_symlink()


def test_a_name_there_is_just_a_name(server: Server, small_bundle: Path, models: Path) -> None:
    name = 'it\'s $(touch x); `touch x` "&" ü'
    assert main(["ship", str(small_bundle), f"{PLACE}/{name}"]) == 0
    assert verify_bundle(models / name / "current")["task"] == "letters"
    assert [path.name for path in models.iterdir()] == [name]


def test_each_of_several_devices_has_an_outcome_of_its_own(
    server: Server,
    small_bundle: Path,
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hosts = ["pi4", "changed", "behind", "off"]
    places = [f"ssh:{host}:~/models/{host}" for host in hosts]
    assert main(["ship", str(small_bundle), *places, str(tmp_path / "here")]) == 6
    lines = capsys.readouterr().err.splitlines()
    rows = [line.split("|") for line in lines if line.startswith("|")][2:]
    failed = "failed, as it was before"
    told = [(row[1].strip(), row[2].strip()) for row in rows]
    states = ["released", failed, "released", failed, "released"]
    assert told == [*zip([*places, str(tmp_path / "here")], states, strict=True)]
    assert [line[:13] for line in lines if line.startswith("error")] == [
        "error[EP600]:",
        "error[EP400]:",
    ]
    assert sorted(path.name for path in models.iterdir()) == ["behind", "pi4"]


@pytest.mark.parametrize("victim", ["client", "server"])
def test_a_link_that_breaks_in_the_middle_changes_nothing(
    server: Server, small_bundle: Path, models: Path, tmp_path: Path, victim: str
) -> None:
    assert main(["ship", str(small_bundle), PLACE]) == 0
    second, mark = another(small_bundle, "second"), tmp_path / "hangs"
    hang_while_copying(server, mark)

    def kill() -> None:
        until(lambda: hung(mark))
        for pid in below(os.getpid(), "ssh") if victim == "client" else server.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert main(["ship", str(second), PLACE]) == 4
    thread.join()
    until(lambda: not running(str(server.tmp)) and not [*server.tmp.iterdir()])
    assert (models / "releases" / ".new").is_dir()  # it was in the middle of it
    assert verify_bundle(models / "current")["task"] == "letters"
    server.program(str(server.home / ".edgeprune/venv/bin/python"), f'exec {sys.executable} "$@"')
    assert main(["ship", str(second), PLACE]) == 0
    assert verify_bundle(models / "current")["task"] == "second"
    assert not (models / "releases" / ".new").exists()


def test_ending_the_command_ends_it_at_every_device(
    server: Server, small_bundle: Path, models: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "hangs"
    hang_while_copying(server, mark)
    words = ["ship", str(small_bundle), f"{PLACE}/one", "ssh:behind:~/models/two"]
    with subprocess.Popen([sys.executable, "-m", "edgeprune_cli", *words], **QUIET) as command:
        until(lambda: hung(mark) == 2)
        command.terminate()
        assert command.wait(60) == 128 + signal.SIGTERM
    until(lambda: not running(str(server.tmp)) and not [*server.tmp.iterdir()])
    assert not [*models.glob("*/current")]
