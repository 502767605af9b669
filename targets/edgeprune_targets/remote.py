"""What ssh and adb share: asking a device's shell, a folder there, files that arrive whole, runs.

Never trusted is a client's exit code: ssh says 255 for all that can go wrong and for a command's
own 255, adb says 0 when its server dies. What ends well ends with a line of ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeprune.child import child_process
from edgeprune.errors import EdgepruneError, RefusedError, ResourceError, TargetError
from edgeprune.hashing import file_digest
from edgeprune.measure.launch import files
from edgeprune.measure.target import Check, Finished
from edgeprune_targets.facts import android_facts, machine_facts
from edgeprune_targets.shell import quoted

LEASE = Path(__file__).with_name("lease.py")
MARK, LEASE_MARK = "edgeprune-end", "edgeprune-lease"
BEAT_S, SILENCE_S = 5.0, 30.0
"""How often a running command hears from us, and how long it waits for that."""
LEAVE_S = 10.0  # for what is held there to end and say so
PYTHON = [3, 9]  # what bench.py and lease.py do with
PUSHES = 3  # a push that arrives unlike what was sent is done again twice
# What a runtime's own folder may hold, for its names are kept; a single file gets one of ours.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUFFIX = re.compile(r"\.[a-z0-9_]{1,16}")

# Lives as long as its stdin, and takes the folder with it. `mkdir` fails on a name that is taken.
HOLD = """
trap "" HUP INT TERM PIPE; umask 077
name=$1; after=$2; shift 2
for place in "$@" "${TMPDIR:-/tmp}" /tmp; do [ -d "$place" ] && [ -w "$place" ] && break; done
mkdir "$place/$name" || { echo "edgeprune-folder "; exit 1; }
echo "edgeprune-folder $place/$name"
cat >/dev/null
sh -c "$after"
rm -rf "$place/$name" 2>/dev/null || { sleep 2; rm -rf "$place/$name"; }
"""
SURVEY = """
fact() { echo; echo "edgeprune-fact $1"; shift; "$@" 2>/dev/null </dev/null; }
fact system uname -s
fact machine uname -m
fact kernel uname -r
fact cpuinfo cat /proc/cpuinfo
fact meminfo head -n 1 /proc/meminfo
fact affinity grep Cpus_allowed_list /proc/self/status
fact governor cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor
fact celsius cat /sys/class/thermal/thermal_zone*/temp
fact board cat /proc/device-tree/model
if command -v getprop >/dev/null; then
  fact android getprop ro.build.version.release
  fact phone getprop ro.product.model
  fact battery dumpsys battery
  fact thermal dumpsys thermalservice
fi
for home in "$HOME" /data/local/tmp; do
  python="$home/.edgeprune/venv/bin/python"
  command -v "$python" >/dev/null && break
  python=python3
done
fact python command -v "$python"
fact version "$python" -c "import platform; print(platform.python_version(), platform.machine())"
exit 0
"""


@dataclass(frozen=True)
class Link:
    """A client that hands a line to a shell there, and the error for one that did not get through.

    `lost` is given what the client wrote on stderr, or what else is known of its failure.
    """

    client: tuple[str, ...]
    lost: Callable[[str], EdgepruneError]

    def ask(
        self, script: str, *words: str, stdin: IO[bytes] | None = None, limit_s: float = 60.0
    ) -> Finished:
        """Runs a script there with `words` as $1, $2, …; raises what `lost` makes of a failure."""
        line = _line(f"({script})", *words)
        with self._client(line, stdin or subprocess.DEVNULL) as client:
            try:
                output, errors = client.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                raise self.lost(f"no answer within {limit_s:g} s") from None
        said, mark, code = output.rpartition(f"\n{MARK} ")
        if not mark:
            raise self.lost(errors)
        return Finished(int(code), said, errors)

    def run(self, command: Sequence[str], *, limit_s: float) -> Finished:
        """Runs lease.py with its arguments, and lets it hear from us until it ends."""
        deadline_s = time.monotonic() + limit_s + SILENCE_S
        with self.held(_line('"$@"', *command)) as (client, stdin):
            while True:
                try:
                    output, errors = client.communicate(timeout=BEAT_S)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline_s:
                        raise self.lost(f"no answer within {limit_s:g} s") from None
                    with contextlib.suppress(BrokenPipeError):
                        stdin.write(b"\n")
        said, whole, _ = output.rpartition(f"\n{MARK} ")
        said, mark, word = said.rpartition(f"\n{LEASE_MARK} ")
        if not whole or not mark:
            raise self.lost(errors)
        word = word.strip()
        if word in ("gone", "silence"):
            raise self.lost(f"nothing came through for {SILENCE_S:g} s")
        return Finished(None if word == "limit" else int(word), said, errors)

    @contextlib.contextmanager
    def held(self, line: str) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
        """A client and its stdin, which what runs there lives by; ends it there, then here."""
        theirs, ours = os.pipe()
        with (
            os.fdopen(theirs, "rb") as read_end,
            os.fdopen(ours, "wb", buffering=0) as stdin,
            self._client(line, read_end) as client,
        ):
            read_end.close()
            try:
                yield client, stdin
            finally:
                stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.communicate(timeout=LEAVE_S)

    def _client(
        self, line: str, stdin: IO[bytes] | int
    ) -> AbstractContextManager[subprocess.Popen[str]]:
        """The client with a line; it and the clients that reach its jump hosts end with this."""
        # Those of jump hosts get none of our options; without a terminal they would open a window.
        silent = os.environ | {"SSH_ASKPASS_REQUIRE": "never"}
        return child_process([*self.client, line], stdin=stdin, environment=silent)


def _line(script: str, *words: str) -> str:
    """A script with its arguments, for whatever shell it reaches; MARK and its code come last."""
    return quoted(["sh", "-c", f"{script}\nr=$?; echo; echo {MARK} $r", "sh", *words])


Copy = Callable[[Path, str], str]
"""Sends a file to a path there; returns the sha256 of what arrived."""


@contextlib.contextmanager
def folder(link: Link, copy: Copy, *places: str, after: str = "") -> Iterator[str]:
    """A private folder with lease.py in it, in the first of the places that can be written to.

    `after` is a script that is run there at the end, however that comes.
    """
    name = f"edgeprune-{secrets.token_hex(8)}"
    with link.held(_line(HOLD, name, after, *places)) as (client, _):
        path = _first_line(client, "edgeprune-folder ")
        if path is None:
            raise link.lost(_errors(client))
        if not path:
            raise refused("a folder there", _errors(client))
        _deliver(copy, LEASE, f"{path}/{LEASE.name}")
        yield path
    if client.returncode:  # the link that held the folder broke; another may do
        with contextlib.suppress(EdgepruneError):
            link.ask('rm -rf "$1"', path)


def push(link: Link, copy: Copy, path: Path, folder: str) -> str:
    """A file or a folder of files, verified there by hash; its own path there, a name of ours."""
    there = f"{folder}/{secrets.token_hex(8)}"
    if path.is_file():
        there += path.suffix if _SUFFIX.fullmatch(path.suffix) else ""
        _deliver(copy, path, there)
        return there
    names = [file.relative_to(path) for file in files(path)]
    for part in {part for name in names for part in name.parts}:
        if not _PLAIN.fullmatch(part):
            raise RefusedError(f"the name {part!r} in {path}", why="not plain enough for a device")
    rooms = sorted({f"{there}/{name.parent.as_posix()}" for name in names} | {there})
    done("a folder there", link.ask('mkdir -p "$@"', *rooms))
    for name in names:
        _deliver(copy, path / name, f"{there}/{name.as_posix()}")
    return there


def push_limit_s(path: Path) -> float:
    """How long a push may take: a tenth of a MB a second, which is slow for any link."""
    return 60 + path.stat().st_size / 1e5


def install_line(packages: Sequence[str]) -> str:
    """The line that makes a Python with these packages there, where SURVEY looks first."""
    venv = "~/.edgeprune/venv"
    return f"python3 -m venv {venv} && {venv}/bin/pip install {' '.join(packages)}"


def digest(finished: Finished) -> str:
    """What `sha256sum` said, after what a profile may have. Raises TargetError, ResourceError."""
    done("a file there", finished)
    found: list[str] = re.findall(r"\b[0-9a-f]{64}\b", finished.output)
    return found[-1] if found else ""


def run(
    link: Link, python: Sequence[str], command: Sequence[str], folder: str, limit_s: float
) -> Finished:
    lease = [*python, f"{folder}/{LEASE.name}", folder, str(limit_s), str(SILENCE_S)]
    return link.run([*lease, *command], limit_s=limit_s)


@dataclass(frozen=True)
class Survey:
    """What a device said of itself: raw texts by name."""

    told: Mapping[str, str]

    @classmethod
    def of(cls, link: Link) -> Survey:
        parts = link.ask(SURVEY).output.split("\nedgeprune-fact ")[1:]
        return cls({name: text for name, _, text in (part.partition("\n") for part in parts)})

    @property
    def python(self) -> str:
        """Its path there. Raises TargetError when there is none."""
        if not self._python:
            raise TargetError("the device", why="has no Python", remedy="see docs/devices.md")
        return self._python

    @property
    def android(self) -> bool:
        return "android" in self.told

    def check(self, install: str) -> Check:
        """Whether models can be timed there; `install` is the line that brings a Python."""
        system = self._said("system")
        if system != "Linux":
            why = f"runs {system or 'an unknown system'}, not Linux or Android"
            return Check(False, why=why, remedy="measure on a device that does")
        if not self._python:
            return Check(False, why="has no Python that starts", remedy=install)
        version = self._said("version").partition(" ")[0]
        if [int(part) for part in version.split(".")[:2]] < PYTHON:
            why = f"has Python {version}, needs {'.'.join(map(str, PYTHON))} or newer"
            return Check(False, why=why, remedy="install a newer one there: docs/devices.md")
        return Check(
            True, f"Linux {self._said('kernel')} {self._said('machine')}, Python {version}"
        )

    def facts(self, device: str) -> dict[str, Any]:
        version, _, runs = self._said("version").partition(" ")
        facts = {"device": device} | machine_facts({**self.told, "runs": runs})
        facts["python"] = version or None
        return facts | (android_facts(self.told) if self.android else {})

    @property
    def _python(self) -> str:
        return self._said("python") if self._said("version") else ""

    def _said(self, name: str) -> str:
        return self.told.get(name, "").strip()


def _first_line(client: subprocess.Popen[str], mark: str) -> str | None:
    """The rest of the line on its stdout that begins so; a profile may print others before it."""
    assert client.stdout is not None
    heard, deadline_s = b"", time.monotonic() + 60
    while not (found := re.search(rb"^" + mark.encode() + rb"(.*)\n", heard, re.MULTILINE)):
        left_s = max(0.0, deadline_s - time.monotonic())
        if not select.select([client.stdout], [], [], left_s)[0]:
            return None
        part = os.read(client.stdout.fileno(), 4096)
        if not part:
            return None
        heard += part
    return found[1].decode(errors="replace")


def _errors(client: subprocess.Popen[str]) -> str:
    try:
        return client.communicate(timeout=LEAVE_S)[1]
    except subprocess.TimeoutExpired:
        return "no answer"


def _deliver(copy: Copy, path: Path, there: str) -> None:
    sent = file_digest(path)
    if not any(copy(path, there) == sent for _ in range(PUSHES)):
        raise TargetError(
            f"file {path}",
            why=f"arrived there unlike it was sent, {PUSHES} times",
            remedy="look after the device's storage and its cable",
        )


def done(what: str, finished: Finished) -> None:
    """Raises TargetError or ResourceError unless it ended well."""
    if finished.code:
        raise refused(what, finished.errors)


def refused(what: str, errors: str) -> EdgepruneError:
    """What the device itself would not do, by what it wrote on stderr."""
    why = (errors.strip().splitlines() or ["no message"])[-1]
    if re.search("No space left|Disk quota|Read-only|Permission denied", why):
        remedy = "make room or give permission on the device"
        return ResourceError(what, why=why, remedy=remedy)
    return TargetError(what, why=why, remedy="`edgeprune targets doctor` looks at the device")
