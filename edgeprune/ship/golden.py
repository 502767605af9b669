"""Whether a bundle's files are as they were written, and its model answers as it did then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeprune.confined import confined
from edgeprune.errors import TargetError
from edgeprune.ship import prove
from edgeprune.ship.bundle import MODEL, error_of

PROVE = Path(prove.__file__)
MEMORY_MB, CPU_S, WALL_S = 4_000.0, 600, 900.0  # and eight times the model


@contextmanager
def proving(bundle: Path) -> Iterator[Callable[[], Mapping[str, Any]]]:
    """A confined process of this machine that proves a bundle, and what waits for its answer.

    That is what ship/prove.py tells; `golden` is None for a bundle without golden answers. Waiting
    raises RefusedError, OnnxError, TargetError.
    """
    with confined(
        PROVE,
        [str(bundle.resolve())],
        memory_mb=MEMORY_MB + 8 * (bundle / MODEL).stat().st_size / 1e6,
        cpu_s=CPU_S,
        wall_s=WALL_S,
    ) as wait:

        def answer() -> Mapping[str, Any]:
            ended = wait()
            if ended.answer is None:
                raise TargetError(f"bundle {bundle}", why=f"asking its model {ended.why}")
            if "fault" in ended.answer:
                raise error_of(ended.answer["fault"], bundle)
            return ended.answer

        yield answer


def told(golden: Mapping[str, Any] | None) -> str:
    """How its golden answers came out, in a few words."""
    if golden is None:
        return "no golden answers"
    found = "nothing finite" if golden["max_abs"] is None else f"max-abs {golden['max_abs']:.1e}"
    verb = "agree" if golden["agrees"] else "differ"
    return f"{golden['rows']} golden answers {verb} ({found}, cosine {golden['cosine']:.6f})"
