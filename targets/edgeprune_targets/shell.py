"""The one funnel for words that a shell on a device will read.

ssh and adb join the words of a command with spaces and hand the line to a shell there, which
parses it once more. So nothing reaches a device but through `quoted`.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.errors import RefusedError


def quoted(words: Sequence[str]) -> str:
    """One line that a shell reads as exactly these words. Raises RefusedError for a NUL."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if "\0" in word:
        raise RefusedError(f"the word {word!r}", why="no command can carry a NUL character")
    # Every word, harmless as it looks: `a=b`, `if` and `=ls` mean something to some shell.
    return "'" + word.replace("'", "'\"'\"'") + "'"
