"""A machine that is reached by ssh: `ort@ssh:pi4`, as `ssh pi4` reaches it.

The OpenSSH client does it, with the user's own config, agent and jump hosts. It never asks, and a
host whose key is not known, or is another than it was, is not talked to. docs/devices.md tells
what the machine needs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError, RecipeError, RefusedError, TargetError
from edgeprune.measure.target import Check, Device, Finished
from edgeprune_targets import remote
from edgeprune_targets.remote import Link, Survey
from edgeprune_targets.shell import quoted

OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    # A peer that is frozen or gone is seen within 15 s.
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    # A running master connection is used; ours never becomes one that others hang on.
    "ControlMaster": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
}
# What the client says, what that means, and what helps; HOST is the name it was given.
SAID = (
    (
        "host key is known|Host key verification failed",
        "its host key is not known here",
        "run `ssh HOST` once, and compare the fingerprint it shows with the machine's own",
    ),
    (
        r"Permission denied \(",
        "it lets nobody in without a password",
        "give it your key: `ssh-copy-id HOST`; if the key has a passphrase, `ssh-add` first",
    ),
    (
        "Could not resolve hostname",
        "its name is not known",
        "name it in ~/.ssh/config, or write its address",
    ),
    (
        "Connection refused|No route to host|Connection timed out|Network is unreachable",
        "it cannot be reached",
        "look whether it is on and runs an ssh server: `ssh HOST`",
    ),
)


class Ssh(Device):
    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        if ":" in port:  # an IPv6 address
            host, port = address, ""
        if not host or not (port.isdigit() or host == address):
            raise RecipeError(f"device ssh:{address}", why="needs a host", remedy='write "ssh:pi4"')
        self._address, self._host = address, host
        self._port = ("-p", port) if port else ()
        self._python = ""

    def check(self) -> Check:
        """Raises RefusedError when the host's key is not the one that is known."""
        try:
            return self._survey().check(self.install_line(["numpy"]))
        except TargetError as error:
            return Check(False, why=error.why, remedy=error.remedy)

    def facts(self) -> dict[str, Any]:
        return self._survey().facts(f"ssh:{self._address}")

    def folder(self) -> AbstractContextManager[str]:
        return remote.folder(self._link(), self._copy)

    def push(self, path: Path, folder: str) -> str:
        return remote.push(self._link(), self._copy, path, folder)

    def python(self) -> Sequence[str]:
        self._python = self._python or self._survey().python
        return (self._python,)

    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Finished:
        return remote.run(self._link(), self.python(), command, folder, limit_s)

    def install_line(self, packages: Sequence[str]) -> str:
        line = remote.install_line(packages)
        return " ".join(["ssh", *self._port, self._host, quoted([line])])

    def _link(self) -> Link:
        if shutil.which("ssh") is None:
            raise TargetError(
                f"device ssh:{self._address}",
                why="the OpenSSH client is not installed here",
                remedy="install it (Debian: apt install openssh-client)",
            )
        options = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
        return Link(("ssh", *options, *self._port, "--", self._host), self._lost)

    def _survey(self) -> Survey:
        return Survey.of(self._link())

    def _copy(self, path: Path, there: str) -> str:
        # Not scp: it needs a second program there, and this tells the hash in the same breath.
        with path.open("rb") as file:
            limit_s = remote.push_limit_s(path)
            script = 'cat > "$1" && sha256sum < "$1"'
            return remote.digest(self._link().ask(script, there, stdin=file, limit_s=limit_s))

    def _lost(self, errors: str) -> EdgepruneError:
        what = f"device ssh:{self._address}"
        if re.search("HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY", errors):
            return RefusedError(
                what,
                why="its host key is another than the one that is known",
                remedy="somebody may be between; if the machine was set up anew, remove the old "
                f"key (`ssh-keygen -R {self._host}`) and compare the new one (`ssh {self._host}`)",
            )
        for pattern, why, remedy in SAID:
            if re.search(pattern, errors):
                return TargetError(what, why=why, remedy=remedy.replace("HOST", self._host))
        last = (errors.strip().splitlines() or ["it ended without a word"])[-1].strip()
        return TargetError(
            what,
            why=f"the link broke: {last}",
            remedy=f"look whether `ssh {self._host}` works, then run it again; what ran there ends",
        )
