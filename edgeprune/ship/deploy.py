"""To a folder on a device: push, prove there, switch over, keep the one before; and take it back.

What is done there is done by release.py, which stands by itself. A device is whatever can hold a
private folder, take files into it and run a Python there: a Device of edgeprune.measure.target.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from edgeprune.confined import said
from edgeprune.errors import EdgepruneError, InputError, ParityError, TargetError
from edgeprune.ship import prove
from edgeprune.ship.bundle import ERRORS

HERE = Path(__file__).parent
LIMIT_S = 900.0


class Ended(Protocol):
    """A command that ended there; `code` is None past its limit."""

    @property
    def code(self) -> int | None: ...
    @property
    def output(self) -> str: ...
    @property
    def errors(self) -> str: ...


class Machine(Protocol):
    def folder(self) -> AbstractContextManager[str]: ...
    def push(self, path: Path, folder: str) -> str: ...
    def python(self) -> Sequence[str]: ...
    def run(self, command: Sequence[str], folder: str, *, limit_s: float) -> Ended: ...


@dataclass(frozen=True)
class Place:
    """A folder of releases on a machine; `name` is how the user writes it."""

    name: str
    machine: Machine
    folder: str


@dataclass(frozen=True)
class Release:
    """What is current at a place now, and what was before.

    `state` is "released", "current already" or "rolled back"; `golden` how the golden answers
    came out there, as prove.py tells, None for a bundle without.
    """

    place: str
    state: str
    release: str
    previous: str | None
    golden: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def deploy(bundle: Path, manifest: Mapping[str, Any], place: Place) -> Release:
    """Make a bundle, whose manifest this is, the current one at a place.

    Until it is proved there, what was current stays so. Raises InputError for a place that holds
    something else, ParityError where it answers unlike it should, RefusedError where it arrived
    unlike it was sent, TargetError, ResourceError.
    """
    with place.machine.folder() as folder:
        asked = {
            "do": "ship",
            "bundle": place.machine.push(bundle.resolve(), folder),
            "sha256": prove.digest(dict(manifest)),
        }
        return _done(place, folder, asked)


def roll_back(place: Place) -> Release:
    """Make the release before the current one, and this the one before. Raises as `deploy`."""
    with place.machine.folder() as folder:
        return _done(place, folder, {"do": "rollback"})


def _done(place: Place, folder: str, asked: Mapping[str, str]) -> Release:
    machine = place.machine
    asked = {**asked, "folder": place.folder, "prove": machine.push(HERE / "prove.py", folder)}
    program = machine.push(HERE / "release.py", folder)
    command = [*machine.python(), program, json.dumps(asked)]
    ended = machine.run(command, folder, limit_s=LIMIT_S)
    told = said(ended.output)
    if told is None:
        last = ended.errors.strip().splitlines()[-1:] or ["no message"]
        why = f"no answer within {LIMIT_S:g} s" if ended.code is None else last[0]
        raise TargetError(place.name, why=why, remedy="what was current there still is")
    try:
        if "fault" in told:
            raise _error_of(told["fault"], place)
        return Release(place.name, **told)
    except (LookupError, TypeError) as error:
        why, remedy = "answered in an unknown form", "look at what is current there"
        raise TargetError(place.name, why=why, remedy=remedy) from error


def _error_of(fault: Mapping[str, str], place: Place) -> EdgepruneError:
    kinds: Mapping[str, type[EdgepruneError]]
    kinds = {**ERRORS, "input": InputError, "parity": ParityError}
    what = place.name + (f": {fault['what']}" if fault["what"] else "")
    return kinds[fault["kind"]](what, why=fault["why"], remedy=fault["remedy"])
