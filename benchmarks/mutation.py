"""Do the tests notice a wrong line? Mutants of the modules that must not be wrong, by mutmut.

    pip install mutmut && python benchmarks/mutation.py [--only NAME …]

Each module is mutated in a copy of the sources, and each mutant is run against the tests that are
named with it. Writes benchmarks/results/mutation.json: how many were killed, those that were not,
by their names, and the share of those that were. `mutmut show NAME` in the folder that is printed
shows a mutant.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "mutation.json"
COMMAND = "python benchmarks/mutation.py"
COPIED = ("edgeprune", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Subject:
    """A module, and the tests that must notice what is wrong in it."""

    module: str
    tests: tuple[str, ...]


SUBJECTS = {
    "verdict": Subject("edgeprune/measure/verdict.py", ("tests/test_verdict.py",)),
    "run": Subject("edgeprune/run.py", ("tests/test_run.py",)),
}
SETTINGS = """
[tool.mutmut]
source_paths = ["edgeprune"]
only_mutate = [{module!r}]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = [{tests}]
use_git_change_detection = false
# Of the processor time that a test takes: a machine that is busy makes no mutant loop for ever.
timeout_multiplier = 30.0
"""


def mutate(subject: Subject, room: Path) -> dict[str, Any]:
    """The tally of one module's mutants."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, room / name, ignore=ignored)
        else:
            shutil.copyfile(source, room / name)
    tests = ", ".join(map(repr, subject.tests))
    with (room / "pyproject.toml").open("a") as file:
        file.write(SETTINGS.format(module=subject.module, tests=tests))
    mutmut = str(Path(sys.executable).with_name("mutmut"))  # `-m` would import what is not mutated
    subprocess.run([mutmut, "run"], cwd=room, check=True)
    told = subprocess.run(
        [mutmut, "results", "--all", "true"], cwd=room, check=True, capture_output=True, text=True
    )
    rows = [line.strip().rpartition(": ") for line in told.stdout.splitlines() if ": " in line]
    outcomes = Counter(outcome for _, _, outcome in rows)
    killed = outcomes["killed"] + outcomes["timeout"]
    return {
        "module": subject.module,
        "tests": list(subject.tests),
        "mutants": outcomes.total(),
        "outcomes": dict(sorted(outcomes.items())),
        "score": round(killed / outcomes.total(), 4),
        "not_killed": [name for name, _, outcome in rows if outcome not in ("killed", "timeout")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=[*SUBJECTS])
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name in parser.parse_args().only:
        room = Path(tempfile.mkdtemp(prefix=f"mutants-of-{name}-"))
        print(f"{name} in {room}", flush=True)
        found[name] = mutate(SUBJECTS[name], room)
        found |= {"command": COMMAND, "mutmut": metadata.version("mutmut")}
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
        print(f"{name}: {found[name]['score']:.1%} of {found[name]['mutants']}", flush=True)


if __name__ == "__main__":
    main()
