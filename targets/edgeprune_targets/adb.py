"""A device that is reached by Android's debug bridge: `ort@adb`, or `ort@adb:SERIAL` of several.

platform-tools' `adb` does it; no root is needed. The device may be a phone or a Linux board that
runs adbd. docs/devices.md tells what each needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError, TargetError
from edgeprune.measure.target import Check, Device, Finished
from edgeprune_targets import remote
from edgeprune_targets.remote import Link, Survey
from edgeprune_targets.shell import quoted

HOME = "/data/local/tmp"  # where adb's user may write and execute, on any Android
LIMIT_S = 30.0  # for adb's own server, which the first call starts
# The states of a device that cannot be used, what they mean, and what helps.
STATES = {
    "unauthorized": (
        "has not allowed this computer to debug it",
        "unlock its screen and accept the question about USB debugging",
    ),
    "authorizing": ("is asking for permission", "unlock its screen and accept"),
    "offline": ("does not answer", "plug it in again, or run `adb reconnect offline`"),
    "no permissions": (
        "may not be opened by this user",
        "add the udev rules for it (Debian: apt install android-sdk-platform-tools-common)",
    ),
    "recovery": ("is in recovery mode", "start it normally: `adb reboot`"),
    "sideload": ("is in recovery mode", "start it normally: `adb reboot`"),
    "bootloader": ("is in its bootloader", "start it normally: `fastboot reboot`"),
}
FIXED = "EDGEPRUNE_FIXED_PERFORMANCE"
FIX = "cmd power set-fixed-performance-mode-enabled"


class Adb(Device):
    def __init__(self, address: str = "") -> None:
        self._address = address
        self._known: Survey | None = None

    def check(self) -> Check:
        try:
            self._known = self._survey()
        except TargetError as error:
            return Check(False, why=error.why, remedy=error.remedy)
        return self._known.check(self.install_line(["numpy"]))

    def facts(self) -> dict[str, Any]:
        fixed = {"fixed_performance": True} if _asked_for_fixed() else {}
        # As it was written: a serial number that nobody typed does not belong into a report.
        return self._survey().facts(f"adb:{self._address}".rstrip(":")) | fixed

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """In fixed-performance mode meanwhile, where that is asked for."""
        link, fixed = self._link(), _asked_for_fixed()
        after = f"{FIX} false" if fixed else ""
        with remote.folder(link, self._copy, HOME, after=after) as folder:
            if fixed:
                remote.done("fixed-performance mode", link.ask(f"{FIX} true"))
            yield folder

    def push(self, path: Path, folder: str) -> str:
        return remote.push(self._link(), self._copy, path, folder)

    def python(self) -> Sequence[str]:
        self._known = self._known or self._survey()
        return (self._known.python,)

    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Finished:
        return remote.run(self._link(), self.python(), command, folder, limit_s)

    def install_line(self, packages: Sequence[str]) -> str:
        if self._known is not None and self._known.android:
            return f"put a Python with {', '.join(packages)} there: docs/devices.md, “A phone”"
        return f"adb -s {self._serial()} shell {quoted([remote.install_line(packages)])}"

    def _link(self) -> Link:
        return Link(("adb", "-s", self._serial(), "shell"), self._lost)

    def _serial(self) -> str:
        return choose(connected(), self._address)

    def _survey(self) -> Survey:
        return Survey.of(self._link())

    def _copy(self, path: Path, there: str) -> str:
        command = ["adb", "-s", self._serial(), "push", str(path.resolve()), there]
        try:
            pushed = _client(command, limit_s=remote.push_limit_s(path))
        except subprocess.TimeoutExpired:
            raise self._lost(f"no answer while {path.name} was pushed") from None
        if pushed.returncode:
            raise remote.refused(f"{path} on adb:{self._serial()}", pushed.stderr)
        return remote.digest(self._link().ask('sha256sum < "$1"', there))

    def _lost(self, errors: str) -> EdgepruneError:
        try:
            serial = self._serial()
        except TargetError as error:  # its state says more than the client did
            return error
        last = (errors.strip().splitlines() or ["it ended without a word"])[-1].strip()
        return TargetError(
            f"device adb:{serial}",
            why=f"the link broke: {last}",
            remedy=f"look whether `adb -s {serial} shell` works, then run it again",
        )


def connected() -> dict[str, str]:
    """The state of each device by its serial. Raises TargetError without adb."""
    if shutil.which("adb") is None:
        raise TargetError(
            "adb",
            why="not installed here",
            remedy="install Android's platform-tools (Debian: apt install adb)",
        )
    try:
        listed = _client(["adb", "devices"], limit_s=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise TargetError("adb", why="its server hangs", remedy="`adb kill-server`") from None
    if listed.returncode:
        why = listed.stderr.strip().splitlines()[-1:] or ["no message"]
        raise TargetError("adb", why=why[0], remedy="`adb kill-server`, then try again")
    rows = [line.partition("\t") for line in listed.stdout.splitlines() if "\t" in line]
    # As in "no permissions (missing udev rules?); see [http://...]", or without the parenthesis.
    return {serial: re.split(r" \(|;", state)[0].strip() for serial, _, state in rows}


def choose(states: Mapping[str, str], address: str) -> str:
    """The serial that is meant, of a device that can be used. Raises TargetError."""
    known = ", ".join(
        serial if state == "device" else f"{serial} ({state})" for serial, state in states.items()
    )
    if address and address not in states:
        raise TargetError(
            f"device adb:{address}",
            why=f"not connected; connected: {known or 'none'}",
            remedy="plug it in, or `adb connect` it; `adb devices` lists all",
        )
    if not states:
        raise TargetError(
            "device adb",
            why="no device is connected",
            remedy="plug one in with USB debugging switched on; `adb devices` must list it",
        )
    if not address and len(states) > 1:
        raise TargetError(
            "device adb",
            why=f"several are connected: {known}",
            remedy=f"say which: adb:{max(states, key=lambda serial: states[serial] == 'device')}",
        )
    serial = address or next(iter(states))
    if states[serial] != "device":
        unknown = (f"is in the state {states[serial]!r}", "plug it in again")
        why, remedy = STATES.get(states[serial], unknown)
        raise TargetError(f"device adb:{serial}", why=why, remedy=remedy)
    return serial


def _client(command: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=limit_s,
        check=False,
    )


def _asked_for_fixed() -> bool:
    return os.environ.get(FIXED, "") not in ("", "0")
