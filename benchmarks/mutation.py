"""How many mistakes would the tests notice? Mutation scores by mutmut.

    python benchmarks/mutation.py edgeprune/run.py tests/test_run.py
    python benchmarks/mutation.py edgeprune/measure/verdict.py tests/test_verdict.py

mutates one file, runs the tests that are named against each mutant, and adds the counts to
benchmarks/results/mutation.json. It needs `pip install mutmut`, and works on a copy of the clone.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
COPIED = ("edgeprune", "cli", "targets", "tests", "pyproject.toml")
SETTINGS = """[mutmut]
source_paths = edgeprune
only_mutate = {source}
also_copy =
    cli
    targets
pytest_add_cli_args_test_selection =
    {tests}
pytest_add_cli_args =
    -p
    no:cacheprovider
use_git_change_detection = false
"""


def main(source: str, tests: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        for name in COPIED:
            whole = ROOT / name
            (shutil.copytree if whole.is_dir() else shutil.copyfile)(whole, room / name)
        settings = SETTINGS.format(source=source, tests="\n    ".join(tests))
        (room / "setup.cfg").write_text(settings)
        # The command, and neither `-m` nor PYTHONPATH: both would import what is not mutated.
        mutmut = str(Path(sys.executable).with_name("mutmut"))
        subprocess.run([mutmut, "run"], cwd=room, check=True)
        shown = subprocess.run(
            [mutmut, "results", "--all", "true"],
            cwd=room,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    found = re.findall(r"^\s*(\S+): (.+)$", shown, re.MULTILINE)
    fates = [fate for _, fate in found]
    noticed = sum(fate in ("killed", "timeout", "caught by type check") for fate in fates)
    told = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    told[source] = {
        "tests": tests,
        "mutants": len(fates),
        "noticed": noticed,
        "score": round(noticed / len(fates), 3),
        "left": [name for name, fate in found if fate not in ("killed", "timeout")],
        "mutmut": version("mutmut"),
    }
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(source, json.dumps(told[source]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
