"""Size budgets as people write them, and files that are predicted by their shape."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import BudgetError
from edgeprune.recipe import Recipe
from edgeprune.shape import LayerShape, Shape
from edgeprune.size import ByteTable, Size

WAYS = ("8MB", "8 mb", " 8e6B ", "8000kB", "0.008 GB", "8.0MB")


@pytest.mark.parametrize("text", WAYS)
def test_a_size_may_be_written_in_many_ways(text: str) -> None:
    assert Size.parse(text) == Size(8_000_000)


@pytest.mark.parametrize(
    ("text", "why", "remedy"),
    [
        ("8", "no unit", 'write it as "8MB"'),
        ("8,5MB", "decimals take a point", 'write it as "8MB"'),
        ("8M", "unknown unit 'M'", 'did you mean "8MB"?'),
        ("0.5 G", "unknown unit 'G'", 'did you mean "0.5GB"?'),
        ("8 MiB", "unknown unit 'MiB'", 'did you mean "8.388608MB"?'),
        ("8parsecs", "unknown unit 'parsecs'", 'write it as "8MB"'),
        ("-8MB", "must be above zero", "8MB"),
        ("0MB", "must be above zero", "8MB"),
        ("nan MB", "must be above zero", "8MB"),
        ("inf MB", "must be above zero", "8MB"),
        ("0.1B", "less than a byte", "8MB"),
        ("1.2.3MB", "not a number", "8MB"),
        ("", "not a number and a unit", "8MB"),
        ("small", "not a number and a unit", "8MB"),
    ],
)
def test_what_is_no_size_is_told_with_the_remedy(text: str, why: str, remedy: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Size.parse(text)
    assert why in caught.value.why
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 2


@given(st.integers(1, 10**12 - 1))
def test_a_size_is_read_back_to_the_byte(size: int) -> None:
    assert Size.parse(str(Size(size))) == Size(size)


@pytest.mark.parametrize(("given", "kept"), [("8000 kB", "8MB"), (None, None)])
def test_a_recipe_keeps_a_size_as_it_is_read(given: str | None, kept: str | None) -> None:
    assert Recipe(model="demo", task="t", size=given).size == kept


@pytest.mark.parametrize("size", ["8", 8, 8.5])
def test_a_recipe_refuses_a_size_without_a_unit(size: object) -> None:
    with pytest.raises(BudgetError, match="no unit"):
        Recipe.model_validate({"model": "demo", "task": "t", "size": size})


def test_a_recipe_refuses_a_size_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="valid string"):
        Recipe.model_validate({"model": "demo", "task": "t", "size": ["8MB"]})


TABLE = ByteTable({0: 0.0, 1: 100.0, 4: 340.0}, {0: 0.0, 8: 50.0, 64: 330.0}, 32, 1000.5)


def test_sub_layers_tokens_and_the_rest_add_up() -> None:
    shape = Shape((LayerShape(1, 8), LayerShape(2, 36), LayerShape(0, 0)), 32, 8, 60)
    assert TABLE.predict(shape, 10) == 1001 + 100 + 50 + 180 + 190 + 320


def test_a_fitted_table_foresees_what_it_was_fitted_to() -> None:
    dense = Shape.uniform(3, 4, 64, hidden=32, head_dim=8, vocab=60)
    fitted = TABLE.fitted_to(dense, 60, TABLE.predict(dense, 60) + 600)
    assert fitted.predict(dense, 60) == TABLE.predict(dense, 60) + 600
    assert fitted.predict(dense.emptied(), 60) == TABLE.predict(dense.emptied(), 60)
    half = dense.with_layers([LayerShape(1, 0), LayerShape(0, 8), LayerShape(0, 0)])
    assert fitted.predict(half, 60) == TABLE.predict(half, 60) + 200


def test_a_byte_table_is_read_back_as_it_was() -> None:
    assert ByteTable.from_dict(TABLE.to_dict()) == TABLE
