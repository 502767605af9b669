"""The lint that keeps code of strangers out: every ban fires, whatever else ruff is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A line that is banned, and the rule that says so.
BANNED = {
    "import pickle": "TID251",
    "from pickle import loads": "TID251",
    "import joblib": "TID251",
    "import torch; torch.load('x')": "TID251",
    "import yaml; yaml.load('x', yaml.SafeLoader)": "TID251",
    "import yaml; yaml.load('x', yaml.Loader)": "S506",
    "import os; os.system('x')": "TID251",
    "import tempfile; tempfile.mktemp()": "TID251",
    "import marshal; marshal.loads(b'')": "S302",
    "eval('1')": "S307",
    "exec('1')": "S102",
    "import subprocess; subprocess.run('ls *', shell=True)": "S602",
    "import subprocess; subprocess.run('ls', shell=True)": "S602",
    "import tarfile; tarfile.open('x').extractall()": "S202",
}


@pytest.fixture(scope="module")
def found() -> list[set[str]]:
    """The rules that each line offends, as if it stood in the library."""
    code = "\n".join(BANNED)
    place = str(ROOT / "edgeprune" / "stranger.py")
    command = [sys.executable, "-m", "ruff", "check", "--output-format=json", "--no-cache"]
    done = subprocess.run(
        [*command, f"--stdin-filename={place}", "-"],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    rows = json.loads(done.stdout)
    return [
        {row["code"] for row in rows if row["location"]["row"] == number}
        for number in range(1, len(BANNED) + 1)
    ]


@pytest.mark.parametrize("line", BANNED)
def test_what_is_banned_is_found(found: list[set[str]], line: str) -> None:
    assert BANNED[line] in found[[*BANNED].index(line)]


def test_numpy_is_never_told_to_unpickle() -> None:
    """What ruff cannot see: an argument, of a function that does not unpickle without it."""
    for folder in ("edgeprune", "cli", "targets"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search("allow_pickle(?!=False)", path.read_text()), path


def test_no_line_of_ours_is_let_off_a_ban() -> None:
    rules = {*BANNED.values(), "S301", "S604", "S605", "S609"}
    for folder in ("edgeprune", "cli", "targets"):
        for path in (ROOT / folder).rglob("*.py"):
            told = [line for line in path.read_text().splitlines() if "noqa" in line]
            assert not [line for line in told if any(rule in line for rule in rules)], path
