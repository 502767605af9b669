"""The process in which files of strangers are read: what it cannot do, and how its end is told."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from edgeprune.confined import ENVIRONMENT, MARK, Ended, confined, said

SAY = f"import json, os, sys\ndef say(told): print({MARK!r}, json.dumps(told))\n"


def run(
    folder: Path, code: str, *words: str, memory_mb: float = 1_000, wall_s: float = 60
) -> Ended:
    program = folder / "program.py"
    program.write_text(SAY + code)
    with confined(program, words, memory_mb=memory_mb, cpu_s=1, wall_s=wall_s) as wait:
        return wait()


def test_a_program_answers_with_its_last_line(tmp_path: Path) -> None:
    code = "say({'no': 1})\nprint('chatter')\nsay({'words': sys.argv[1:], 'at': os.getcwd()})"
    ended = run(tmp_path, code, "a b", "$(c)", "")
    assert ended == Ended({"words": ["a b", "$(c)", ""], "at": "/"})


def test_nothing_of_the_environment_goes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    ended = run(tmp_path, "say(dict(os.environ))")
    assert ended.answer is not None
    # Python itself sets LC_CTYPE.
    assert {name: ended.answer[name] for name in ended.answer if name != "LC_CTYPE"} == ENVIRONMENT


def test_the_packages_of_this_process_are_there_and_the_folder_it_is_in_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger").mkdir()
    monkeypatch.chdir(tmp_path / "stranger")
    monkeypatch.syspath_prepend("")
    ended = run(tmp_path, "import numpy\nsay({'numpy': numpy.__version__, 'path': sys.path})")
    assert ended.answer is not None
    assert str(tmp_path / "stranger") not in ended.answer["path"]


def test_no_byte_can_be_written(tmp_path: Path) -> None:
    code = """
try:
    with open(sys.argv[1], "wb") as file:
        file.write(b"x")
except OSError as error:
    say({"error": error.strerror})
"""
    assert run(tmp_path, code, str(tmp_path / "new")).answer == {"error": "File too large"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may always start processes")
def test_no_process_can_be_started(tmp_path: Path) -> None:
    code = "try:\n    os.fork()\nexcept OSError as error:\n    say({'error': error.errno})"
    ended = run(tmp_path, code)
    assert ended.answer is not None
    assert "error" in ended.answer


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("bytearray(10**10)", "needed over 1000 MB of memory"),
        ("while True: pass", "took over 1 s of processor time"),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed what reads it: SIGSEGV"),
        ("raise ValueError('odd')", "ended with code 1: ValueError: odd"),
        ("pass", "ended with code 0: no message"),
        ("print('edgeprune-said {')", "ended with code 0: no message"),
    ],
)
def test_an_end_without_an_answer_is_told(tmp_path: Path, code: str, why: str) -> None:
    assert run(tmp_path, code) == Ended(None, why)


def test_what_sleeps_is_ended_and_nothing_of_it_lives_on(tmp_path: Path) -> None:
    assert run(tmp_path, "import time; time.sleep(60)", wall_s=0.5) == Ended(
        None, "took over 0.5 s"
    )
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert os.fsencode(tmp_path) not in process.read_bytes()


@pytest.mark.parametrize("output", ["", "edgeprune-said", "edgeprune-said []", "edgeprune-said 1"])
def test_only_an_object_counts_as_an_answer(output: str) -> None:
    assert said(output) is None
