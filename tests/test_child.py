"""Child processes: what they say is read as text, and nothing of their group lives on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from processes import processes, until

from edgeprune.child import child_process

# It has a child of its own, tells its number, and waits.
FAMILY = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
input()
"""


def test_what_it_writes_is_text_whatever_it_is() -> None:
    program = r"import sys; sys.stdout.buffer.write(b'\xc3\xbc \xff'); sys.exit('no')"
    with child_process([sys.executable, "-c", program]) as child:
        assert child.communicate() == ("ü \ufffd", "no\n")
    assert child.returncode == 1


def test_its_own_children_end_with_it_when_its_user_is_interrupted() -> None:
    grandchild = 0

    def interrupted() -> None:
        nonlocal grandchild
        with child_process([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE) as child:
            assert child.stdout is not None
            grandchild = int(child.stdout.readline())
            assert grandchild in processes()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    until(lambda: grandchild not in processes())


def test_it_has_the_folder_and_the_environment_that_are_given(tmp_path: Path) -> None:
    program = "import os; print(os.getcwd(), os.environ['WORD'], 'HOME' in os.environ)"
    command = [sys.executable, "-c", program]
    with child_process(command, folder=tmp_path, environment={"WORD": "yes"}) as child:
        said, _ = child.communicate()
    assert said == f"{tmp_path} yes False\n"


def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(FileNotFoundError), child_process(["no-such-program"]):
        pass
