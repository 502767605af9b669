"""A device reached by adb: a real adbd and the real client, in a network of their own.

Debian's adbd serves a Linux machine, so what only Android has (getprop, dumpsys, cmd) is played by
small programs there. It lets anybody in, so it must not be reached from outside: it runs where
there is no network but the loopback, and adb's server is reached by a socket in a folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from bundles import another, digits, hung, python_that_hangs_while_copying
from processes import processes, running, until

from edgeprune.errors import ResourceError, TargetError
from edgeprune.measure.doctor import diagnose
from edgeprune.measure.profile import Settings, profile
from edgeprune.measure.target import Device, Target
from edgeprune.ship.bundle import verify_bundle
from edgeprune.testing import DeviceContract, save_tiny_onnx
from edgeprune_cli.app import main
from edgeprune_targets import adb
from edgeprune_targets.adb import Adb, choose

FEW = Settings(sequence=8, launches=2, iterations=5, warmup_s=0.01, limit_s=60)
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SERIAL = "127.0.0.1:5599"  # no port of those that adb looks for emulators on
WORLD = """
import fcntl, os, signal, socket, struct, subprocess, sys
with socket.socket() as opened:  # the loopback up, as `ip link set lo up` does
    fcntl.ioctl(opened, 0x8914, struct.pack("16sh22x", b"lo", 1))
room, adbd, *stand_in = sys.argv[1:]
there = {"ADBD_PORT": "5599", "PATH": f"{room}/bin:/usr/local/bin:/usr/bin:/bin"}
log = open(f"{room}/log", "w")
subprocess.Popen(stand_in or [adbd], env=there, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
here = os.environ | {"HOME": f"{room}/here"}
server = ["adb", "-L", f"localfilesystem:{room}/adb", "server", "nodaemon"]
subprocess.Popen(server, env=here, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
sys.stdin.read()  # until the tests end, however they do
os.killpg(0, signal.SIGKILL)
"""

# A device as far as the handshake: "ask" wants its user's consent to whatever key, "mute" is mute.
LOCKED = """
import os, socket, struct, sys

def send(peer, name, first, data):
    command = struct.unpack("<I", name)[0]
    head = struct.pack("<6I", command, first, 0, len(data), sum(data), command ^ 0xFFFFFFFF)
    peer.sendall(head + data)

with socket.create_server(("127.0.0.1", 5599)) as listening:
    peer, _ = listening.accept()
    while head := peer.recv(24, socket.MSG_WAITALL):
        name, first, size = head[:4], *struct.unpack("<4xI4xI8x", head)
        peer.recv(size, socket.MSG_WAITALL)
        signed = name == b"AUTH" and first == 2
        if sys.argv[1] == "ask" and (name == b"CNXN" or signed):
            send(peer, b"AUTH", 1, os.urandom(20))
"""


@dataclass(frozen=True)
class World:
    """An adbd and an adb server; what a shell finds there, as in test_ssh."""

    room: Path
    pid: int

    @property
    def tmp(self) -> Path:
        return self.room / "tmp"

    def program(self, name: str, *lines: str) -> None:
        path = self.room / "bin" / name
        path.write_text("\n".join(("#!/bin/sh", *lines, "")))
        path.chmod(0o755)

    def furnish(self) -> None:
        """Makes it a usable device; adbd sets home and temporary folder of its shells anew."""
        for program in (self.room / "bin").iterdir():
            program.unlink()
        folders = f"export HOME={self.room}/home TMPDIR={self.tmp}"
        self.program("sh", folders, 'exec /bin/sh "$@"')
        self.program("python3", f'exec {sys.executable} "$@"')

    def parts(self) -> dict[str, set[int]]:
        """The processes of the link: clients of ours, adb's server, and adbd."""
        rows = processes().values()
        world = {row.pid for row in rows if row.parent == self.pid}
        adb = {row.pid for row in rows if row.name == "adb"}
        clients = {row.pid for row in rows if row.parent == os.getpid()} & adb
        return {"client": clients, "server": world & adb, "daemon": world - adb}


@contextlib.contextmanager
def opened(room: Path, missing: Callable[[str], NoReturn], *stand_in: str) -> Iterator[World]:
    """A world of its own, with the environment that leads to it."""
    adbd = os.environ.get("EDGEPRUNE_ADBD") or shutil.which("adbd")
    if adbd is None or shutil.which("adb") is None:
        missing("no adb or no adbd here: apt install adb, and tests/unpack_adbd.sh")
    for name in ("home", "bin", "tmp", "here"):
        (room / name).mkdir()
    alone = ["unshare", "-n"] if os.getuid() == 0 else ["unshare", "-r", "-n"]
    words = [*alone, sys.executable, "-c", WORLD, str(room), adbd, *stand_in]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(
            words, start_new_session=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        patch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{room}/adb")
        patch.setenv("HOME", str(room / "here"))
        try:
            until(lambda: (room / "adb").exists() or process.poll() is not None)
            if process.poll() is not None:
                assert process.stderr is not None
                missing(f"no network of its own can be had: {process.stderr.read().decode()}")
            world = World(room, process.pid)
            world.furnish()
            yield world
        finally:
            subprocess.run(["adb", "kill-server"], **QUIET, check=False)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def connect(*serials: str) -> None:
    """Until all are listed: adb answers `connect` with 0 whatever comes of it."""

    def listed() -> bool:
        for serial in serials:
            subprocess.run(["adb", "connect", serial], **QUIET, check=False, timeout=60)
        return set(serials) <= set(adb.connected())

    until(listed)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, server_missing: Callable[[str], NoReturn]
) -> Iterator[World]:
    with opened(tmp_path_factory.mktemp("adb"), server_missing) as world:
        connect(SERIAL)
        yield world


@pytest.fixture
def world(shared: World) -> World:
    """A usable device; what another test put there is gone."""
    shared.furnish()
    return shared


@pytest.fixture
def own_world(tmp_path: Path, server_missing: Callable[[str], NoReturn]) -> Iterator[World]:
    """One that a test may break."""
    with opened(tmp_path, server_missing) as world:
        connect(SERIAL)
        yield world


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return save_tiny_onnx(tmp_path / "model.onnx")


@pytest.mark.usefixtures("world")
class TestAdb(DeviceContract):
    @classmethod
    def device(cls) -> Device:
        return Adb()


@pytest.mark.parametrize("target", ["ort@adb", f"null@adb:{SERIAL}"])
def test_a_model_is_profiled_there(world: World, onnx: Path, target: str) -> None:
    taken = profile({"model": onnx}, Target.parse(target), FEW)["model"]
    assert taken.target == target
    assert [len(launch) for launch in taken.latency.launches_ms] == [5, 5]
    assert taken.facts["device"]["device"] == target.partition("@")[2]
    assert taken.facts["device"]["affinity"]
    assert "android" not in taken.facts["device"]
    assert [*world.tmp.iterdir()] == []


def test_without_adb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "apt install adb" in Adb().check().remedy


def test_without_the_runtime_s_package_it_says_what_to_install(world: World, onnx: Path) -> None:
    world.program("python3", f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(TargetError, match="has no numpy, no onnxruntime") as error:
        profile({"model": onnx}, Target.parse("ort@adb"), FEW)
    assert error.value.remedy.startswith(f"adb -s {SERIAL} shell 'python3 -m venv ")


def test_several_devices_must_be_told_apart(own_world: World) -> None:
    other = "localhost:5599"  # the same adbd, which adb takes for a second device
    connect(other)
    check = Adb().check()
    assert check.why == f"several are connected: {SERIAL}, {other}"
    assert check.remedy == f"say which: adb:{SERIAL}"
    assert Adb(other).check().usable


def test_a_device_that_is_not_there_is_told_with_those_that_are(world: World) -> None:
    check = Adb("R58M").check()
    assert check.why == f"not connected; connected: {SERIAL}"
    assert not diagnose("null@adb:R58M").usable


def test_with_no_device_it_says_what_to_do(own_world: World) -> None:
    subprocess.run(["adb", "disconnect"], check=True, **QUIET)
    until(lambda: not adb.connected())
    assert "USB debugging" in Adb().check().remedy


def test_an_adb_server_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("adb") is None:
        pytest.skip("no adb here")
    monkeypatch.setenv("ADB_SERVER_SOCKET", "localfilesystem:/dev/null/adb")
    check = Adb().check()
    assert "cannot connect to daemon" in check.why
    assert "kill-server" in check.remedy


@pytest.mark.parametrize(
    ("manner", "why"),
    [("ask", "has not allowed this computer to debug it"), ("mute", "does not answer")],
)
def test_a_device_that_lets_nobody_in_says_why(
    tmp_path: Path, server_missing: Callable[[str], NoReturn], manner: str, why: str
) -> None:
    with opened(tmp_path, server_missing, sys.executable, "-c", LOCKED, manner):

        def told() -> bool:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits long for a mute one
                subprocess.run(["adb", "connect", SERIAL], **QUIET, check=False, timeout=1)
            return Adb().check().why == why

        until(told)
        assert not diagnose(f"null@adb:{SERIAL}").usable


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("unauthorized", "accept the question"),
        ("offline", "adb reconnect"),
        ("no permissions", "udev"),
        ("recovery", "adb reboot"),
        ("something new", "plug it in again"),
    ],
)
def test_each_state_of_a_device_has_its_remedy(state: str, remedy: str) -> None:
    with pytest.raises(TargetError) as error:
        choose({"R58M": state}, "")
    assert error.value.exit_code == 4
    assert "adb:R58M" in str(error.value)
    assert remedy in str(error.value)


def test_the_device_to_take_of_several_is_one_that_can_be_used() -> None:
    with pytest.raises(TargetError, match=r"several are connected: A \(offline\), B") as error:
        choose({"A": "offline", "B": "device"}, "")
    assert error.value.remedy == "say which: adb:B"


@pytest.mark.parametrize("why", [" (missing udev rules?); see [http://x]", "; see [http://x]"])
def test_a_state_is_read_without_what_adb_adds_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    client = tmp_path / "adb"
    client.write_text(
        f"#!/bin/sh\nprintf 'List of devices attached\\nR58M\\tno permissions{why}\\n'"
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert adb.connected() == {"R58M": "no permissions"}
    assert "udev" in Adb().check().remedy


def test_a_push_that_arrived_cut_short_is_done_again(world: World, onnx: Path) -> None:
    device, left = Adb(), world.room / "left"
    left.write_text("2")
    with device.folder() as folder:
        # A device whose storage kept but the first bytes of the next two files.
        world.program(
            "sha256sum",
            f"left=$(cat {left})",
            'if [ "$left" -gt 0 ]; then',
            f"  echo $((left - 1)) >{left}; truncate -s 100 /proc/self/fd/0",
            "fi",
            "exec /usr/bin/sha256sum",
        )
        arrived = device.push(onnx, folder)
    assert left.read_text() == "0\n"
    assert arrived


def test_a_push_that_never_arrives_whole_is_told(world: World, onnx: Path) -> None:
    device = Adb()
    with device.folder() as folder:
        world.program("sha256sum", "truncate -s 100 /proc/self/fd/0", "exec /usr/bin/sha256sum")
        with pytest.raises(TargetError, match=r"model\.onnx.*unlike it was sent, 3 times"):
            device.push(onnx, folder)


def test_a_folder_that_cannot_be_made_is_told(world: World) -> None:
    world.program("mkdir", "echo 'mkdir: cannot create: No space left on device' >&2; exit 1")
    with pytest.raises(ResourceError, match="No space left"), Adb().folder():
        pass


@pytest.mark.parametrize("victim", ["client", "server", "daemon"])
def test_a_link_that_is_killed_leaves_nothing_behind(
    own_world: World, tmp_path: Path, victim: str
) -> None:
    pid = tmp_path / "pid"

    def kill() -> None:
        until(lambda: pid.exists() and pid.read_text().endswith(" "))
        victims = own_world.parts()[victim]
        assert victims
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    program = (
        f"import os, time; open({str(pid)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(600)"
    )
    device, thread = Adb(), threading.Thread(target=kill)
    with pytest.raises(TargetError) as error, device.folder() as folder:
        command = [*device.python(), "-c", program]
        thread.start()
        device.run(command, folder, limit_s=120)
    thread.join()
    assert error.value.exit_code == 4
    until(lambda: int(pid.read_text()) not in processes())
    until(lambda: [*own_world.tmp.iterdir()] == [])


def test_ending_the_command_ends_what_runs_there(world: World, onnx: Path) -> None:
    words = ["profile", str(onnx), "--target", "ort@adb", "--runs", "mlperf"]
    with subprocess.Popen([sys.executable, "-m", "edgeprune_cli", *words], **QUIET) as command:
        until(lambda: launched(world))
        command.terminate()
        assert command.wait(60) == 128 + signal.SIGTERM
    until(lambda: not running(str(world.tmp)))
    assert [*world.tmp.iterdir()] == []


def launched(world: World) -> bool:
    """Whether the timing program runs there: it alone is given a file of JSON."""
    return any(word.endswith(".json") for row in running(str(world.tmp)) for word in row.words)


def android(world: World) -> None:
    """What an Android has and this machine has not, as its programs answer."""
    world.program(
        "getprop",
        'case "$1" in ro.build.version.release) echo 15;; ro.product.model) echo Pixel 8;; esac',
    )
    battery = "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n"
    battery += "  Max charging current: 0\n  level: 85\n  scale: 100\n  temperature: 286\n"
    thermal = "IsStatusOverride: false\nThermal Status: 2\nCached temperatures:\n"
    world.program(
        "dumpsys",
        f'case "$1" in battery) echo "{battery}";; thermalservice) echo "{thermal}";; esac',
    )


def test_a_phone_tells_how_hot_and_how_powered_it_is(world: World) -> None:
    android(world)
    facts = Adb().facts()
    assert (facts["android"], facts["board"]) == ("15", "Pixel 8")
    assert (facts["battery_percent"], facts["battery_celsius"]) == (85, 28.6)
    assert (facts["powered"], facts["thermal_status"]) == (True, 2)


def test_a_phone_without_a_python_is_led_to_the_page(world: World) -> None:
    android(world)
    world.program("python3", "exit 1")
    assert "docs/devices.md" in Adb().check().remedy


def test_it_works_in_the_folder_that_android_lets_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb, "HOME", str(tmp_path))
    with Adb().folder() as folder:
        assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()


def test_fixed_performance_is_for_the_time_of_a_folder_and_only_when_asked_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    world.program("cmd", f'echo "$*" >>{told}')
    with Adb().folder():
        assert not told.exists()
    monkeypatch.setenv("EDGEPRUNE_FIXED_PERFORMANCE", "1")
    with Adb().folder():
        assert told.read_text() == "power set-fixed-performance-mode-enabled true\n"
        assert Adb().facts()["fixed_performance"]
    assert told.read_text().splitlines()[1:] == ["power set-fixed-performance-mode-enabled false"]


def test_fixed_performance_that_cannot_be_had_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.program("cmd", "echo 'Failed to set FIXED_PERFORMANCE mode' >&2; exit 255")
    monkeypatch.setenv("EDGEPRUNE_FIXED_PERFORMANCE", "1")
    with pytest.raises(TargetError, match="Failed to set FIXED_PERFORMANCE"), Adb().folder():
        pass


# --- a bundle that is put to work there ---------------------------------------------------------


def test_a_bundle_is_put_to_work_there_and_taken_back(
    world: World, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, second = tmp_path / "there", another(small_bundle, "second")
    assert main(["ship", str(small_bundle), f"adb:{models}"]) == 0
    assert "8 golden answers agree" in capsys.readouterr().err
    assert main(["ship", str(second), f"adb:{SERIAL}:{models}"]) == 0
    assert verify_bundle(models / "current")["task"] == "second"
    assert main(["ship", "--rollback", f"adb:{models}"]) == 0
    assert verify_bundle(models / "current")["task"] == "letters"
    assert (models / "previous").resolve().name == digits(second)
    assert [*world.tmp.iterdir()] == []


def test_half_a_push_never_becomes_current(
    world: World, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "there"
    assert main(["ship", str(small_bundle), f"adb:{models}"]) == 0
    world.program("sha256sum", "truncate -s 100 /proc/self/fd/0", "exec /usr/bin/sha256sum")
    assert main(["ship", str(another(small_bundle, "second")), f"adb:{models}"]) == 4
    assert "unlike it was sent" in capsys.readouterr().err
    assert verify_bundle(models / "current")["task"] == "letters"


def test_a_device_that_is_not_there_keeps_the_others_from_nothing(
    world: World, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "there"
    assert main(["ship", str(small_bundle), f"adb:R58M:{models}", f"adb:{SERIAL}:{models}"]) == 4
    assert "not connected; connected: " in capsys.readouterr().err
    assert verify_bundle(models / "current")["task"] == "letters"


@pytest.mark.parametrize("victim", ["client", "server", "daemon"])
def test_a_link_that_breaks_in_the_middle_changes_nothing(
    own_world: World, small_bundle: Path, tmp_path: Path, victim: str
) -> None:
    models, mark = tmp_path / "there", tmp_path / "hangs"
    assert main(["ship", str(small_bundle), f"adb:{models}"]) == 0
    own_world.program("python3", *python_that_hangs_while_copying(mark))

    def kill() -> None:
        until(lambda: hung(mark))
        for process in own_world.parts()[victim]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert main(["ship", str(another(small_bundle, "second")), f"adb:{models}"]) == 4
    thread.join()
    until(lambda: not running(str(own_world.tmp)) and not [*own_world.tmp.iterdir()])
    assert (models / "releases" / ".new").is_dir()  # it was in the middle of it
    assert verify_bundle(models / "current")["task"] == "letters"
