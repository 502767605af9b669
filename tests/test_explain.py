"""What is told of each error code, by the command and in docs/errors.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune import errors
from edgeprune.errors import EdgepruneError, InputError
from edgeprune.explain import explain, explanations, to_markdown
from edgeprune_cli.app import EXIT_CODES, main

Captured = pytest.CaptureFixture[str]


def test_the_page_is_as_the_tree_of_errors_says() -> None:
    page = Path(__file__).parent.parent / "docs" / "errors.md"
    assert page.read_text(encoding="utf-8") == to_markdown(), "python -m edgeprune.explain docs"


def test_every_error_has_a_code_of_its_own_and_cases_with_remedies() -> None:
    found = explanations()
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert {one.name for one in found} == {error.__name__ for error in classes}
    assert len({one.code for one in found}) == len(found)
    for one in found:
        assert one.meaning.endswith(".")
        assert one.cases
        assert all(cause and remedy for cause, remedy in one.cases)


@pytest.mark.parametrize("one", explanations(), ids=lambda one: one.code)
def test_a_code_is_explained_as_the_errors_bear_it(one: object) -> None:
    told = explain(one.code)  # type: ignore[attr-defined]
    error = getattr(errors, told.name)
    assert issubclass(error, EdgepruneError)
    assert (error.code, error.exit_code) == (told.code, told.exit_code)
    assert f"{told.exit_code} " in EXIT_CODES


@pytest.mark.parametrize("word", ["EP120", "ep120", "120", " EP120 "])
def test_the_command_takes_a_code_as_people_write_it(word: str, capsys: Captured) -> None:
    assert main(["explain", word]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("EP120  BudgetError, exit code 2\n")
    assert '-> write "12ms", "12 ms@p95" or "50%"' in captured.out


def test_an_unknown_code_names_all(capsys: Captured) -> None:
    assert main(["explain", "EP999"]) == 2
    assert "EP600" in capsys.readouterr().err
    with pytest.raises(InputError, match="unknown"):
        explain("")
