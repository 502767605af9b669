"""Commands whose `compress` is the small run."""

from __future__ import annotations

import sys

import small


def prepare() -> None:
    # All that a command would import, so that a fork need not.
    from edgeprune import compression, runs
    from edgeprune.report import markdown

    assert compression and runs and markdown
    sys.modules["edgeprune.pipeline"] = small
