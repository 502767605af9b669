"""Recipes: read, refused with one line, written, and told as a command."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from edgeprune.errors import BudgetError, EdgepruneError, RecipeError, ResourceError
from edgeprune.recipe import Recipe
from edgeprune.template import command_line, commented, write_template


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_gives_the_keys_and_an_option_overrides_them(tmp_path: Path) -> None:
    path = written(tmp_path, "model: demo\ntask: rows\nseed: 3\nbudget: 12 ms\nthreads: 2\n")
    recipe = Recipe.read(path, {"seed": 0, "budget": ["50%", "8ms@p95"], "threads": None})
    assert (recipe.seed, recipe.threads) == (0, 2)
    assert recipe.budget == ["50%", "8ms@p95"]
    assert [budget.percentile for budget in recipe.budgets] == [90, 95]


def test_one_budget_needs_no_list(tmp_path: Path) -> None:
    assert Recipe.read(written(tmp_path, "model: m\ntask: t\nbudget: 12 ms\n")).budget == ["12ms"]


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    recipe = Recipe.read(written(tmp_path, "model: demo\ntask: rows\nout: run\n"))
    assert recipe.task == str(tmp_path / "rows")
    assert recipe.out == tmp_path / "run"
    assert recipe.model == "demo"


def test_runs_that_vote_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    recipe = Recipe.read(written(tmp_path, "model: demo\ntask: rows\nvotes: old\n"))
    assert recipe.votes == [str(tmp_path / "old")]
    monkeypatch.chdir(tmp_path)
    assert Recipe(model="m", task="t", votes=["old"]).from_anywhere().votes == recipe.votes


def test_paths_in_options_are_relative_to_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    path = written(tmp_path, "model: demo\ntask: elsewhere\n")
    assert Recipe.read(path, {"task": "rows", "out": Path("run")}).task == "rows"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a mapping"),
        ("- model", "not a mapping"),
        ("just words", "not a mapping"),
        ("model: [", "line 1"),
        ("model: demo\n\ttask: rows", "line 2"),
        ("model: demo\ntask: rows\nbugdet: 12ms", "did you mean 'budget'"),
        ("model: demo\ntask: rows\nwhatever: 1", "lists all keys"),
        ("model: demo", "give --task"),
        ("task: rows", "give --model"),
        ("model: demo\ntask: rows\nseed: -1", "seed"),
        ("model: demo\ntask: rows\nseed: 4294967296", "seed"),
        ("model: demo\ntask: rows\nthreads: 0", "threads"),
        ("model: demo\ntask: rows\nbatch: 100000", "batch"),
        ("model: demo\ntask: rows\nsequence: 4", "sequence"),
        ("model: demo\ntask: rows\nfloor: 1.01", "floor"),
        ("model: demo\ntask: rows\nfloor: .nan", "floor"),
        ("model: demo\ntask: rows\ntransfer_how: jointly", "joint"),
        ("model: demo\ntask: rows\nfrozen_layers: -1", "greater than or equal to 0, got -1"),
        (
            "model: demo\ntask: rows\nfrozen_layers: most",
            "valid integer.*got 'most'.*--frozen-layers",
        ),
        ("model: demo\ntask: rows\nfrozen_layers: 1.5", "valid integer"),
        ("model: demo\ntask: rows\nbudget: []", "budget"),
        ("model: demo\ntask: {a: b}", "task"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nmodel: *b", "aliases"),
        ("model: !!python/object/apply:os.system [ls]", "line 1"),
        ("? [model]\n: demo", "unhashable"),
        (b"model: d\xe9mo", "not UTF-8 at byte 8"),
        ("model: demo".encode("utf-16"), "not UTF-8"),
        (b"model: demo\x00", "YAML"),
        (b"x" * 2_000_000, "over"),
    ],
)
def test_a_bad_recipe_is_one_line_that_exits_2(
    tmp_path: Path, text: str | bytes, says: str
) -> None:
    with pytest.raises(EdgepruneError, match=says) as caught:
        Recipe.read(written(tmp_path, text))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", ["5", 5, 5.5, "0ms", "-1ms", "nan", "abc", "0,5ms", "100%"])
def test_a_bad_budget_is_told_as_one(tmp_path: Path, budget: object) -> None:
    path = written(tmp_path, yaml.safe_dump({"model": "m", "task": "t", "budget": budget}))
    with pytest.raises(BudgetError, match="budget"):
        Recipe.read(path)


@pytest.mark.parametrize("budget", ["12ms@p0", "12ms@p100", "12ms@p0.5"])
def test_a_bad_percentile_is_told_as_one(budget: str) -> None:
    with pytest.raises(BudgetError, match="percentile"):
        Recipe.read(None, {"model": "m", "task": "t", "budget": [budget]})


def test_a_byte_order_mark_is_taken(tmp_path: Path) -> None:
    recipe = Recipe.read(written(tmp_path, b"\xef\xbb\xbfmodel: demo\ntask: rows\n"))
    assert recipe.model == "demo"


def test_a_missing_file_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="`edgeprune init` writes one"):
        Recipe.read(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError):
        Recipe.read(tmp_path)


def test_a_saved_recipe_asks_for_the_same_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    recipe = Recipe(model="demo", task="rows", budget=["50%", "12ms@p95"], out=Path("runs/a"))
    recipe.save(tmp_path / "conf" / "saved.yaml")
    again = Recipe.read(tmp_path / "conf" / "saved.yaml")
    assert Path(again.task).resolve() == tmp_path / "rows"
    assert again.out.resolve() == tmp_path / "runs" / "a"
    assert (again.model, again.budget) == (recipe.model, recipe.budget)


def test_the_encoder_called_demo_is_never_a_folder(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert Recipe.read(written(tmp_path, "model: demo\ntask: demo\n")).model == "demo"


def test_a_recipe_that_cannot_be_saved_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        Recipe(model="demo", task="rows").save(tmp_path / "file" / "saved.yaml")


def test_the_template_reads_back_as_the_defaults() -> None:
    keys = yaml.safe_load(commented({"model": "demo", "task": "rows"}))
    assert Recipe.model_validate(keys) == Recipe(model="demo", task="rows")


def test_every_commented_key_of_the_template_stands_at_its_default() -> None:
    lines = commented({}).splitlines()
    names = tuple(f"# {key}: " for key in Recipe.model_fields)
    active = [line.removeprefix("# ") if line.startswith(names) else line for line in lines]
    keys = yaml.safe_load("\n".join(active))
    assert set(keys) == set(Recipe.model_fields)
    assert Recipe.model_validate(keys) == Recipe(model="demo", task="path/to/task")


def test_every_key_of_the_template_is_described() -> None:
    text = " ".join(commented({}).replace("\n# ", " ").split())
    for field in Recipe.model_fields.values():
        assert field.description
        assert field.description in text
    assert "One of: teacher, prune, recover, all." in text


def test_the_template_is_never_written_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "recipe.yaml"
    write_template(path)
    before = path.read_bytes()
    with pytest.raises(RecipeError, match="exists already"):
        write_template(path)
    assert path.read_bytes() == before


def test_a_template_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="choose another folder"):
        write_template(tmp_path / "file" / "recipe.yaml")


def test_the_command_line_says_what_the_recipe_says() -> None:
    recipe = Recipe(model="my model", task="-rf", budget=["50%", "8ms"], allow_leakage=True)
    words = shlex.split(command_line(recipe))
    assert words[:4] == ["edgeprune", "compress", "--model", "my model"]
    assert "--task=-rf" in words
    assert [words[at + 1] for at, word in enumerate(words) if word == "--budget"] == ["50%", "8ms"]
    assert "--allow-leakage" in words
    assert "--seed" not in words
