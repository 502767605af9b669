"""Verify a bundle, or put it to work: the doors to `edgeprune verify` and `edgeprune ship`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import EdgepruneError
from edgeprune.measure.target import Target
from edgeprune.onnx_file import check_onnx
from edgeprune.ship import prove
from edgeprune.ship.bundle import MODEL, verify_bundle
from edgeprune.ship.deploy import Place, Release, deploy, roll_back
from edgeprune.ship.golden import proving
from edgeprune.ship.signature import check_signature

AT_ONCE = 8

# A device by its kind and address, then a path: "ssh:pi4:/srv/models".
_ELSEWHERE = re.compile(r"(?P<device>[a-z][a-z0-9_-]*:[^/~]*):(?P<folder>[/~].*)", re.DOTALL)


@dataclass(frozen=True)
class Verified:
    """A bundle whose every file is as it was written, and how it answers here.

    `golden` is as ship/prove.py tells it, None for a bundle without golden answers; `signature` is
    "valid", "not checked" for want of a key, or "none".
    """

    bundle: str
    sha256: str
    files: int
    signature: str
    golden: Mapping[str, Any] | None

    @property
    def agrees(self) -> bool:
        return self.golden is None or bool(self.golden["agrees"])

    @property
    def exit_code(self) -> int:
        return 0 if self.agrees else 1

    def to_dict(self) -> dict[str, Any]:
        return {"schema": "edgeprune-verify/1", "agrees": self.agrees, **asdict(self)}


def verify(bundle: Path | str, *, key: Path | str | None = None) -> Verified:
    """Compare a bundle's files with its manifest, and its answers with the golden ones.

    `key` is the public key of whoever must have signed it. Raises OnnxError for what is no bundle,
    RefusedError for one that is not as it was written or signed, InputError, TargetError.
    """
    folder = Path(bundle)
    verify_bundle(folder)
    signature = "none"
    if key is not None:
        check_signature(folder, Path(key))
        signature = "valid"
    elif (folder / prove.SIGNATURE).is_file():
        signature = "not checked"
    check_onnx(folder / MODEL)
    with proving(folder) as answer:
        return Verified(str(bundle), signature=signature, **answer())


@dataclass(frozen=True)
class Outcome:
    """What came of one place: a release, or an error."""

    place: str
    release: Release | None = None
    error: EdgepruneError | None = None

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0

    def to_dict(self) -> dict[str, Any]:
        if self.release is not None:
            return self.release.to_dict()
        code = self.error.code if self.error else ""
        return {"place": self.place, "state": "failed", "code": code, "error": str(self.error)}


def ship(bundle: Path | str, places: Sequence[str]) -> list[Outcome]:
    """Make a bundle the current one at several places at once; an outcome each, in their order.

    A place is a folder, or DEVICE:ADDRESS:FOLDER. Raises OnnxError, RefusedError before anything
    is sent where the bundle itself is not as it was written, RecipeError for an unknown device.
    """
    folder = Path(bundle)
    manifest = verify_bundle(folder)
    check_onnx(folder / MODEL)
    return _at_each(places, lambda place: deploy(folder, manifest, place))


def rollback(places: Sequence[str]) -> list[Outcome]:
    """Make the previous release the current one again at each place."""
    return _at_each(places, roll_back)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The highest of them, which is the gravest."""
    return max(outcome.exit_code for outcome in outcomes)


def _at_each(places: Sequence[str], work: Callable[[Place], Release]) -> list[Outcome]:
    found = [find_place(text) for text in places]

    def outcome(place: Place) -> Outcome:
        try:
            return Outcome(place.name, work(place))
        except EdgepruneError as error:
            return Outcome(place.name, error=error)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(outcome, found))


def find_place(text: str) -> Place:
    """A folder here, or DEVICE:ADDRESS:FOLDER. Raises RecipeError, RefusedError."""
    match = _ELSEWHERE.fullmatch(text)
    if match is None:
        return Place(text, Target.parse("ort").device, str(Path(text).expanduser().absolute()))
    # ONNX Runtime is what asks for the golden answers there.
    return Place(text, Target.parse(f"ort@{match['device']}").device, match["folder"])
