"""A bundle that was tampered with at one place, at random: refused each time.

The long loop is `python benchmarks/tamper.py` (`make torture`); this is its first cases.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from edgeprune.ship.bundle import verify_bundle

TAMPER = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "tamper.py"))
TIMES = 70


@pytest.fixture
def other(small_bundle: Path, tmp_path: Path) -> Path:
    made: Path = TAMPER["another"](small_bundle, tmp_path)
    return made


def test_every_flipped_bit_and_every_exchanged_file_is_refused(
    small_bundle: Path, other: Path
) -> None:
    told: dict[str, Any] = TAMPER["tamper"](small_bundle, other, TIMES, TIMES, 0)
    assert told["taken"] == []
    assert told["refused"] == 2 * TIMES
    assert {f"flip in {path.name}" for path in small_bundle.iterdir()} <= told["by_kind"].keys()


def test_what_was_not_changed_is_taken(small_bundle: Path, other: Path) -> None:
    """The cases above are refused for what was done to them."""
    assert {p.name for p in small_bundle.iterdir()} == {p.name for p in other.iterdir()}
    verify_bundle(small_bundle)
    verify_bundle(other)
