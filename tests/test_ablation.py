"""A grid of recipes: which cells there are, what is run once, and what is told of them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edgeprune import ablation
from edgeprune.ablation import Cell, Effect, ablate, cells, effects, figure, to_markdown
from edgeprune.errors import InputError, RecipeError, ResourceError
from edgeprune.measure.tails import t_quantile
from edgeprune.recipe import Recipe
from edgeprune.report.drawing import standalone

RECIPE = Recipe(model="demo", task="somewhere/mrpc", budget=["50%", "25%"])


def test_each_cell_differs_from_the_recipe_in_one_thing() -> None:
    names = [cell.name for cell in cells(RECIPE, ["method=fisher|magnitude", "when"])]
    assert names == [
        "as it is",
        "method fisher",
        "method magnitude",
        "when teacher",
        "when prune",
        "when recover",
    ]
    for cell in cells(RECIPE, ["method", "how", "what", "when", "frozen=0|3|auto", "order"])[1:]:
        keys, mine = RECIPE.model_dump(), cell.recipe.model_dump()
        assert sum(keys[key] != mine[key] for key in keys) == 1


def test_layers_are_frozen_by_number_too() -> None:
    found = [cell.recipe.frozen_layers for cell in cells(RECIPE, ["frozen=0|2|auto"])]
    assert found == [0, 2, "auto"]  # the recipe's own is not run twice


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("colour", "no such axis — one of method, how"),
        ("method=guess", "method has no 'guess' — one of obs, fisher"),
        ("frozen=-1", "frozen has no '-1'"),
    ],
)
def test_a_grid_that_there_is_not(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        cells(RECIPE, [text])


def rows(scores: Mapping[str, list[float]], budget: str = "50%") -> list[dict[str, Any]]:
    told = {"outcome": "met", "p90_ms": 9.0, "budget_ms": 10.0}
    return [
        {"cell": cell, "seed": seed, "budget": budget, "score": score} | told
        for cell, found in scores.items()
        for seed, score in enumerate(found)
    ]


def test_differences_are_taken_seed_by_seed() -> None:
    found = effects(rows({"a": [0.8, 0.9], "b": [0.81, 0.93]}), ["a", "b"], ["50%"])
    assert [one.points for one in found] == pytest.approx([85, 87])
    assert found[0].change is None
    assert found[1].change == pytest.approx(2)
    assert found[1].plus_minus == pytest.approx(t_quantile(0.975, 1) * 1.0)
    assert [one.share_of_budget for one in found] == pytest.approx([0.9, 0.9])
    assert [one.met for one in found] == [2, 2]


def test_what_cannot_be_reached_is_told_and_counts_for_nothing() -> None:
    some = [*rows({"a": [0.8]}), {"cell": "b", "seed": 0, "budget": "50%", "error": "too little"}]
    found = effects(some, ["a", "b"], ["50%"])
    assert (found[1].points, found[1].change, found[1].error) == (None, None, "too little")
    assert "| b | 0 | too little |" in to_markdown(RECIPE, found)


def test_markdown_and_picture_say_the_same() -> None:
    found = effects(rows({"a": [0.8, 0.9], "b": [0.81, 0.93]}), ["a", "b"], ["50%"])
    assert "| b | 2 | 87.0 | +2.0 ± 12.7 | 90% | 2 of 2 |" in to_markdown(RECIPE, found)
    svg = standalone(figure(found, "50%"))
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "b comes to +2.0 points" in svg


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """Runs of a cell, which are recorded in place of being made."""
    made: list[tuple[str, int, str]] = []

    def run(cell: Cell, _: object) -> list[dict[str, Any]]:
        recipe = cell.recipe
        made.extend((cell.name, recipe.seed, budget) for budget in recipe.budget)
        told = {"outcome": "met", "p90_ms": 9.0, "budget_ms": 10.0, "score": 0.9}
        keys = {"cell": cell.name, "seed": recipe.seed}
        return [keys | {"budget": budget} | told for budget in recipe.budget]

    monkeypatch.setattr(ablation, "_run", run)
    return made


def test_cells_that_are_there_are_not_run_again(
    counted: list[tuple[str, int, str]], tmp_path: Path
) -> None:
    found = ablate(cells(RECIPE, ["method=fisher"]), seeds=2, jobs=1, out=tmp_path)
    assert len(counted) == len(set(counted)) == 2 * 2 * 2
    assert all(isinstance(one, Effect) and one.seeds == 2 for one in found)
    ablate(cells(RECIPE, ["method=fisher|l0"]), seeds=2, jobs=1, out=tmp_path)
    assert [name for name, _, _ in counted[8:]] == ["method l0"] * 4
    assert len(json.loads((tmp_path / "ablation.json").read_text())["rows"]) == 12
    assert {path.name for path in tmp_path.iterdir()} == {
        "ablation.json",
        "ablation.md",
        "ablation.svg",
    }


def in_a_process(cell: Cell, _: object = None) -> list[dict[str, Any]]:
    """In place of a run; fails beside another one of its seed."""
    folder = cell.recipe.out / "used"
    folder.mkdir(parents=True)
    time.sleep(0.1)
    folder.rmdir()
    told = {"outcome": "met", "p90_ms": 9.0, "budget_ms": 10.0, "score": 0.9, "pid": os.getpid()}
    keys = {"cell": cell.name, "seed": cell.recipe.seed}
    return [keys | {"budget": budget} | told for budget in cell.recipe.budget]


def killed(cell: Cell) -> list[dict[str, Any]]:
    os.kill(os.getpid(), signal.SIGKILL)
    return in_a_process(cell)


def test_seeds_are_run_at_a_time_and_their_cells_in_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ablation, "_run", in_a_process)
    found = ablate(cells(RECIPE, ["method=fisher|l0"]), seeds=3, jobs=2, out=tmp_path)
    assert [one.seeds for one in found] == [3] * 6
    stored = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert len({row["pid"] for row in stored} - {os.getpid()}) == 2


def test_a_process_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ablation, "_run", killed)
    with pytest.raises(ResourceError, match="killed, most likely for want of memory"):
        ablate(cells(RECIPE, ["method=fisher"]), seeds=2, jobs=2, out=tmp_path)


def test_another_recipe_wants_another_folder(
    counted: list[tuple[str, int, str]], tmp_path: Path
) -> None:
    ablate(cells(RECIPE, ["method=fisher"]), seeds=1, jobs=1, out=tmp_path)
    other = RECIPE.model_copy(update={"train_size": 100})
    with pytest.raises(RecipeError, match="is of another recipe — choose another --out"):
        ablate(cells(other, ["method=fisher"]), seeds=1, jobs=1, out=tmp_path)
