"""What a target lacks, part by part: here, on the way to its device, and there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeprune.errors import EdgepruneError, TargetError
from edgeprune.measure.target import Check, Target

# Prints those of its arguments that can be imported; nothing is, as that may take seconds.
FIND = """
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)), "found")
"""
# Whether a session file's runtime has an option; what it says of one that it lacks is the reason.
TRY = """
import importlib.util, sys
specification = importlib.util.spec_from_file_location("edgeprune_session", sys.argv[1])
session = importlib.util.module_from_spec(specification)
specification.loader.exec_module(session)
try:
    getattr(session, "check_option", lambda option: None)(sys.argv[2])
    print("\\nhas")
except NotImplementedError as error:
    print(f"\\nlacks {error}")
"""


@dataclass(frozen=True)
class Diagnosis:
    """One target: its runtime here, its device, and what the runtime needs there."""

    target: str
    runtime: Check
    device: Check
    there: Check

    @property
    def usable(self) -> bool:
        return self.runtime.usable and self.device.usable and self.there.usable


def diagnose(text: str) -> Diagnosis:
    """Looks at every part of a target, whatever another one lacks. Raises RecipeError."""
    unasked = Check(False, why="not asked, as the one above is not usable")
    try:
        target = Target.parse(text)
    except TargetError as error:  # an adapter that cannot be loaded
        return Diagnosis(text, _failed(error), unasked, unasked)
    device = _asked(target.device.check)
    there = _asked(lambda: _look_there(target)) if device.usable else unasked
    return Diagnosis(target.name, _asked(target.runtime.check), device, there)


def require_packages(target: Target, folder: str) -> None:
    """Raises TargetError unless the device's Python finds what the program imports."""
    check = check_packages(target, folder)
    if not check.usable:
        raise TargetError(f"target {target.name}", why=check.why, remedy=check.remedy)


def check_packages(target: Target, folder: str) -> Check:
    """Whether the device's Python finds what the program imports, and the line that installs it."""
    program, environment = target.runtime.program(), target.runtime.environment
    words = target.device.starts(program)
    if not program.portable:  # no Python's: the runtime's own check has told
        return Check(True, words[0])
    own = environment if environment is not None and words == program.local else None
    wanted = ("numpy", *program.packages)
    command = [*words, "-c", FIND, *wanted]
    finished = target.device.run(command, folder, limit_s=60.0)
    found = finished.output.split()
    if finished.code or found[-1:] != ["found"]:
        last = finished.errors.strip().splitlines()[-1:] or ["no message"]
        why = f"its Python does not work: {last[0]}"
        return Check(False, why=why, remedy=own.repair if own else "")
    missing = [name for name in wanted if name not in found]
    if missing:
        why = f"its Python has no {', no '.join(missing)}"
        line = own.repair if own else target.device.install_line(missing)
        return Check(False, why=why, remedy=line)
    return Check(True, ", ".join(wanted))


def _look_there(target: Target) -> Check:
    with target.device.folder() as folder:
        found = check_packages(target, folder)
        asked = target.option and target.runtime.program().portable
        return check_option(target, folder, found) if asked and found.usable else found


def check_option(target: Target, folder: str, found: Check) -> Check:
    """What was found, unless the runtime there does not have what stands behind its colon."""
    program, device = target.runtime.program(), target.device
    words = [*device.starts(program), "-c", TRY, device.push(program.session, folder)]
    finished = device.run([*words, target.option], folder, limit_s=60.0)
    last = (finished.output.splitlines() or [""])[-1]
    if last == "has":
        return found
    why = last.removeprefix("lacks ") or (finished.errors.splitlines() or ["no message"])[-1]
    return Check(
        False, why=why, remedy=f"write another, or {target.name.partition(':')[0]!r} alone"
    )


def _asked(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except EdgepruneError as error:
        return _failed(error)


def _failed(error: EdgepruneError) -> Check:
    return Check(False, why=error.why or error.what, remedy=error.remedy)
