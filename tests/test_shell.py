"""The one funnel for words that a device's shell will read, tried on real shells."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import RefusedError
from edgeprune_targets.shell import quoted

# Any text that a command can carry; what a shell minds comes more often than by chance.
MINDED = st.sampled_from([*" \t\n'\"\\$`!*?[]{}()<>|&;#~=%^-", "if", "time", "$(id)", "a=b", "\r"])
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
WORD = st.lists(MINDED | ANY, max_size=12).map("".join)
SHELLS = [name for name in ("sh", "bash", "dash", "zsh", "mksh") if shutil.which(name)]


def read_back(line: str, shell: str = "sh") -> list[str]:
    """What a shell makes of a line that prints its words."""
    said = subprocess.run([shell, "-c", line], capture_output=True, check=True, timeout=60).stdout
    return said.decode().split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=150)
@given(words=st.lists(WORD, min_size=1, max_size=5))
def test_a_shell_reads_the_very_words(shell: str, words: list[str]) -> None:
    assert read_back(quoted(["printf", "%s\\0", *words]), shell) == words


@settings(max_examples=100)
@given(words=st.lists(WORD, min_size=1, max_size=5))
def test_a_shell_within_a_shell_reads_the_very_words(words: list[str]) -> None:
    within = quoted(["printf", "%s\\0", *words])
    assert read_back(quoted(["sh", "-c", within])) == words


@pytest.mark.parametrize("first", ["if", "a=b", "{", "!", "-n", "~"])
def test_the_first_word_is_a_command_whatever_it_looks_like(first: str) -> None:
    said = subprocess.run(
        ["sh", "-c", quoted([first, "x"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 127
    assert "not found" in said.stderr


def test_no_word_can_carry_a_nul() -> None:
    with pytest.raises(RefusedError):
        quoted(["a", "b\0c"])
