"""Runs a command on a device for as long as somebody there holds its stdin and is heard on it.

    python lease.py FOLDER LIMIT_S SILENCE_S COMMAND...

Runs on the device, imports nothing of ours, and does with Python 3.9. The command and all that it
started are killed when stdin is closed, as it is when the client or the server of the link dies;
when nothing was heard for SILENCE_S, as with a frozen peer; or at the limit. But for the limit,
the folder is removed too, since nobody is left to do it. The last line on stdout is MARK with the
command's exit code, negative for a signal, or with the word for what ended it.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time

MARK = "edgeprune-lease"


def main(folder: str, limit_s: float, silence_s: float, command: list[str]) -> None:
    os.chdir(folder)
    os.environ["TMPDIR"] = folder  # Android has no /tmp; and what is left there goes with the rest
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        print(error, file=sys.stderr)
        return tell("127")
    watch = Watch(child.pid, limit_s, silence_s)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: watch.end("gone"))
    threading.Thread(target=watch, daemon=True).start()
    # Waits without collecting it: until its grandchildren are gone its number must stay its own.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    end(child.pid)
    code = child.wait()
    tell(watch.reason or str(code))
    if watch.reason in ("gone", "silence"):
        shutil.rmtree(folder, ignore_errors=True)


class Watch:
    """Listens to stdin, and ends the command's group when there is a reason to."""

    def __init__(self, group: int, limit_s: float, silence_s: float) -> None:
        self.group, self.silence_s = group, silence_s
        self.deadline = time.monotonic() + limit_s
        self.reason = ""

    def __call__(self) -> None:
        reason = ""
        while not reason:
            reason = self.listen()
        self.end(reason)

    def end(self, reason: str) -> None:
        self.reason = reason
        end(self.group)

    def listen(self) -> str:
        """Why to end, once there is a sign of life or none."""
        left_s = max(0.0, self.deadline - time.monotonic())
        heard = select.select([0], [], [], min(left_s, self.silence_s))[0]
        if time.monotonic() >= self.deadline:
            return "limit"
        if not heard:
            return "silence"
        return "" if os.read(0, 4096) else "gone"


def end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def tell(word: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        os.write(1, f"\n{MARK} {word}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
