"""A process that has everything imported, and forks one command after another on request.

    python forks.py PREPARATION [ARGUMENT...]

PREPARATION is a module here whose `prepare` is called once. Each line on stdin is one request as
JSON: `words` of the command, files for its `out` and `err`, `set` for constants by their full
names, and what the shim is to do: `arm` = [folder, n, what] or `log` = [folder, file]. The answers
are a line with the child's number, and one with its exit code and how many changes the shim
counted.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from edgeprune_cli.app import main

shim = ctypes.CDLL(None)


def serve(preparation: str, arguments: list[str]) -> None:
    importlib.import_module(preparation).prepare(*arguments)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                run(json.loads(line), writing)
            finally:
                os._exit(70)  # whatever happens, it is no second server
        os.close(writing)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        counted = os.read(reading, 32).decode() or "0"
        os.close(reading)
        told = {"code": os.waitstatus_to_exitcode(status), "changes": int(counted)}
        print(json.dumps(told), flush=True)


def run(asked: dict[str, Any], counts: int) -> None:
    os.setsid()
    # Whoever was started in the background of a shell ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    files = [os.devnull, asked["out"], asked["err"]]
    for number, name in enumerate(files):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o644), number)
    os.environ.update(asked.get("environment", {}))
    for name, value in asked.get("set", {}).items():
        module, _, constant = name.rpartition(".")
        setattr(importlib.import_module(module), constant, value)
    if "arm" in asked:
        folder, n, what = asked["arm"]
        shim.fault_arm(folder.encode(), ctypes.c_long(n), what)
    if "log" in asked:
        folder, file = asked["log"]
        shim.fault_log(folder.encode(), file.encode())
    code: object = 1
    try:
        code = main(asked["words"])
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if hasattr(shim, "fault_count"):
            os.write(counts, str(shim.fault_count()).encode())
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    serve(sys.argv[1], sys.argv[2:])
