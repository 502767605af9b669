"""The embedded example: what is written, and that its test asks what training never said."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import chain, combinations
from pathlib import Path

import pytest

from edgeprune.demo import TASK, write_demo
from edgeprune.errors import InputError, ResourceError
from edgeprune.recipe import Recipe
from edgeprune.task import load_auxiliary, load_task

FILES = ("task/train", "task/validation", "task/test", "auxiliary/train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo")).parent


def _rows(folder: Path, file: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / f"{file}.jsonl").read_text().splitlines()]


def _labels(folder: Path, task: str) -> list[str]:
    labels: list[str] = json.loads((folder / task / "labels.json").read_text())["labels"]
    return labels


def test_the_demo_holds_the_rows_that_it_promises(folder: Path) -> None:
    assert [len(_rows(folder, file)) for file in FILES] == [300, 200, 1000, 3000]


@pytest.mark.parametrize("file", FILES)
def test_every_intent_is_as_frequent_as_the_others(folder: Path, file: str) -> None:
    counts = Counter(row["label"] for row in _rows(folder, file))
    assert set(counts) == set(_labels(folder, file.partition("/")[0]))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_no_text_stands_in_two_places(folder: Path) -> None:
    texts = [row["text"] for file in FILES for row in _rows(folder, file)]
    assert len(set(texts)) == len(texts)


def test_no_split_says_what_another_one_says() -> None:
    wordings = [set(chain.from_iterable(wording.slots.values())) for wording in TASK.values()]
    for one, other in combinations(wordings, 2):
        assert not one & other


def test_every_slot_is_filled(folder: Path) -> None:
    texts = [row["text"] for file in FILES for row in _rows(folder, file)]
    assert not [text for text in texts if re.search(r"[*{}|:]", text)]


def test_the_same_seed_writes_the_same_bytes_and_another_one_others(
    folder: Path, tmp_path: Path
) -> None:
    write_demo(tmp_path / "again")
    write_demo(tmp_path / "other", seed=1)
    for file in FILES:
        written = (folder / f"{file}.jsonl").read_bytes()
        assert (tmp_path / "again" / f"{file}.jsonl").read_bytes() == written
        assert (tmp_path / "other" / f"{file}.jsonl").read_bytes() != written


def test_the_recipe_can_be_read_and_its_tasks_loaded(folder: Path) -> None:
    recipe = Recipe.read(folder / "recipe.yaml")
    assert recipe.model == "demo"
    assert recipe.out == folder / "run"
    task = load_task(recipe.task)
    assert (len(task.train), len(task.validation), len(task.test)) == (300, 200, 1000)
    assert task.labels == tuple(_labels(folder, "task"))
    assert not task.notes
    auxiliary = load_auxiliary(*recipe.auxiliary, size=5000, seed=0, target=task)
    assert len(auxiliary.train) == 3000
    assert not auxiliary.notes


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder — name a new one"):
        write_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    with pytest.raises(InputError):
        write_demo(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    with pytest.raises(ResourceError, match="Not a directory"):
        write_demo(tmp_path / "file" / "demo")
