"""What error codes mean and what to do: `python -m edgeprune.explain docs` writes errors.md."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import EdgepruneError, InputError

HEAD = """# Errors

<!-- Written by `python -m edgeprune.explain docs` from edgeprune/errors.py. -->

An error is one line on stderr: `error[CODE]: what — why — remedy`. The code is stable; the exit
code of the command stands beside it below. `edgeprune explain CODE` prints the same, and `--debug`
adds the traceback to an error.
"""


@dataclass(frozen=True)
class Explanation:
    """One class of errors: what it means, and its usual causes with what to do about each."""

    code: str
    name: str
    exit_code: int
    meaning: str
    cases: tuple[tuple[str, str], ...]

    def lines(self) -> list[str]:
        """As the command prints it."""
        head = [f"{self.code}  {self.name}, exit code {self.exit_code}", self.meaning, ""]
        return head + [f"- {cause}\n  -> {remedy}" for cause, remedy in self.cases]


def explanations() -> list[Explanation]:
    """Of every error, in the order of their codes."""
    return sorted(map(_read, _tree(EdgepruneError)), key=lambda one: one.code)


def explain(code: str) -> Explanation:
    """Of one code, with or without its letters. Raises InputError."""
    known = {one.code: one for one in explanations()}
    wanted = f"EP{code.strip().upper().removeprefix('EP')}"
    if wanted not in known:
        remedy = f"one of {', '.join(known)}"
        raise InputError(f"error code {code!r}", why="unknown", remedy=remedy)
    return known[wanted]


def to_markdown() -> str:
    parts = [HEAD]
    for one in explanations():
        rows = [f"| {cause} | {remedy} |" for cause, remedy in one.cases]
        head = f"## {one.code} {one.name} (exit {one.exit_code})\n\n{one.meaning}\n"
        parts.append("\n".join([head, "| usual cause | what to do |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _tree(root: type[EdgepruneError]) -> Iterator[type[EdgepruneError]]:
    yield root
    for branch in root.__subclasses__():
        if branch.__module__ == root.__module__:
            yield from _tree(branch)


def _read(error: type[EdgepruneError]) -> Explanation:
    meaning, _, rest = (inspect.getdoc(error) or "").partition("\n\n")
    cases = [" ".join(text.split()) for text in f"\n{rest}".split("\n- ")[1:]]
    pairs = [case.partition(": ")[::2] for case in cases]
    return Explanation(error.code, error.__name__, error.exit_code, meaning, tuple(pairs))


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    (folder / "errors.md").write_text(to_markdown(), encoding="utf-8")
