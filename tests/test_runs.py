"""Run folders from outside: found with their states, and cleaned of what nothing rests on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import InputError, ResourceError
from edgeprune.progress import SILENT
from edgeprune.recipe import Recipe
from edgeprune.report.folder import budget_folder, write_reports
from edgeprune.report.report import Report
from edgeprune.run import open_run
from edgeprune.runs import clean, disk_mb, list_runs
from edgeprune.status import read_status, recording
from edgeprune_cli.app import main

MakeReport = Callable[..., Report]
Captured = pytest.CaptureFixture[str]
RECIPE: dict[str, Any] = {"model": "demo", "task": "rows", "target": "null"}


def run(folder: Path, make_report: MakeReport, budget: str, *, fails: bool = False) -> None:
    """A call that shares a teacher with those before it, and has a student of its own."""
    recipe = Recipe(out=folder, budget=[budget], **RECIPE)

    def build(stage: Path) -> None:
        (stage / "weights.bin").write_bytes(bytes(1_000_000))

    def student(stage: Path) -> None:
        build(stage)
        if fails:
            raise KeyboardInterrupt

    with open_run(folder, SILENT) as opened, recording(opened, recipe, {}) as run:
        run.stage("teacher", {}, build)
        made = run.stage("student", {"budget": budget}, student)
        own = budget_folder(folder, budget)
        (own / "bundle").mkdir(parents=True, exist_ok=True)
        (own / "bundle" / "model.onnx").write_bytes(bytes(1_000_000))
        if not (own / "model").exists():
            (own / "model").symlink_to(os.path.relpath(made.folder, own))
        told = {"budget": [budget]}
        write_reports(folder, [make_report(budget=budget, recipe=told)])


@pytest.fixture
def twice(tmp_path: Path, make_report: MakeReport) -> Path:
    """A run folder whose last call asked for another budget than the first."""
    folder = tmp_path / "runs" / "twice"
    run(folder, make_report, "50%")
    run(folder, make_report, "30%")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# --- list -----------------------------------------------------------------------------------


def test_every_run_folder_below_is_listed(
    twice: Path, make_report: MakeReport, capsys: Captured
) -> None:
    below = twice.parent.parent
    run(below / "deep" / "er" / "done", make_report, "50%")
    with pytest.raises(KeyboardInterrupt):
        run(below / "deep" / "half", make_report, "50%", fails=True)
    (below / "deep" / "stages").mkdir()  # somebody else's
    (below / "deep" / ".hidden").mkdir()
    shutil.copytree(twice, below / "deep" / ".hidden" / "run", symlinks=True)
    found = {one.path.relative_to(below).as_posix(): one for one in list_runs(below)}
    assert list(found) == ["deep/er/done", "deep/half", "runs/twice"]
    assert [one.state for one in found.values()] == ["finished", "interrupted", "finished"]
    assert found["runs/twice"].verdicts == (("30%", "met"),)
    assert found["deep/half"].verdicts == ()
    assert found["runs/twice"].size_mb > 5 > found["deep/er/done"].size_mb > 3
    assert main(["runs", "list", str(below)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "interrupted" in table[3]
    assert main(["runs", "list", str(below), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in told] == [str(one.path) for one in found.values()]


def test_a_run_folder_is_found_by_its_own_name(twice: Path) -> None:
    assert [one.path for one in list_runs(twice)] == [twice]


def test_a_run_that_works_is_listed_as_running(tmp_path: Path) -> None:
    recipe = Recipe(out=tmp_path / "run", **RECIPE)
    with open_run(recipe.out, SILENT) as opened, recording(opened, recipe, {}):
        (one,) = list_runs(tmp_path)
        assert one.state == "running"


def test_a_run_folder_without_a_status_is_listed_too(twice: Path, make_report: MakeReport) -> None:
    (twice / "status.json").unlink()
    (one,) = list_runs(twice.parent)
    assert (one.state, one.age_s, one.verdicts) == ("unknown", None, (("30%", "met"),))


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_cannot_be_listed(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        list_runs(tmp_path / name)


# --- clean ----------------------------------------------------------------------------------


def test_what_the_last_recipe_does_not_use_goes(twice: Path, capsys: Captured) -> None:
    (twice / "stages" / ".teacher-0123.99").mkdir()  # of a killed process
    before = everything(twice)
    assert main(["runs", "clean", str(twice)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[-1]).name.split("-")[0] for line in lines[:-1]] == [
        "50pct",
        ".teacher",
        "student",
    ]
    assert lines[-1].split()[-1] == "freed"
    assert float(lines[-1].split()[0]) == pytest.approx(2, abs=0.1)
    left = everything(twice)
    assert left < before
    assert names(twice / "budgets") == ["30pct"]
    assert names(twice / "stages") == ["student", "teacher"]
    assert not [path for path in left if not path.exists()]  # no link leads nowhere
    assert read_status(twice).state == "finished"
    assert clean(twice) == []


def test_what_is_left_is_what_a_second_call_finds(twice: Path, make_report: MakeReport) -> None:
    clean(twice)
    stages = everything(twice / "stages")
    run(twice, make_report, "30%")
    assert everything(twice / "stages") == stages


def test_bundles_can_be_kept(twice: Path) -> None:
    found = clean(twice, keep_bundles=True)
    assert [one.path.name.split("-")[0] for one in found] == ["model", "student"]
    old = twice / "budgets" / "50pct"
    assert (old / "bundle" / "model.onnx").is_file()
    assert (old / "report.json").is_file()
    assert not (old / "model").is_symlink()  # it would lead nowhere


@pytest.mark.parametrize("keep_bundles", [False, True])
def test_a_dry_run_tells_the_same_and_removes_nothing(twice: Path, keep_bundles: bool) -> None:
    before = everything(twice)
    told = clean(twice, keep_bundles=keep_bundles, dry_run=True)
    assert everything(twice) == before
    assert clean(twice, keep_bundles=keep_bundles) == told


def test_a_dry_run_says_would(twice: Path, capsys: Captured) -> None:
    assert main(["runs", "clean", str(twice), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("would be freed")


def test_a_run_that_did_not_end_is_not_cleaned(
    twice: Path, make_report: MakeReport, capsys: Captured
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(twice, make_report, "20%", fails=True)
    before = everything(twice)
    assert main(["runs", "clean", str(twice)]) == 2
    assert f"`edgeprune resume {twice}` ends it" in capsys.readouterr().err
    assert everything(twice) == before


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_run_that_works_is_not_cleaned(twice: Path, dry_run: bool) -> None:
    recipe = read_status(twice).recipe
    with (
        open_run(twice, SILENT) as opened,
        recording(opened, recipe, {}),
        pytest.raises(InputError, match="is running"),
    ):
        clean(twice, dry_run=dry_run)


def test_a_run_that_begins_meanwhile_is_not_cleaned(twice: Path) -> None:
    before = everything(twice)
    with open_run(twice, SILENT), pytest.raises(InputError, match="in use by process"):
        clean(twice)
    assert everything(twice) == before


def test_links_are_not_followed(twice: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_bytes(bytes(1_000_000))
    (twice / "stages" / "link").symlink_to(tmp_path / "precious")
    assert disk_mb(twice / "stages" / "link") < 0.1
    assert twice / "stages" / "link" in {one.path for one in clean(twice)}
    assert (tmp_path / "precious" / "thesis.txt").is_file()


@pytest.mark.parametrize("name", ["stages", "snapshots", "budgets"])
def test_what_lies_behind_a_link_is_not_a_runs_own(twice: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if (twice / name).is_dir():
        (twice / name).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("precious")
    (twice / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"its {name} are a link to elsewhere"):
        clean(twice)
    assert (elsewhere / "thesis.txt").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_what_cannot_be_removed_is_told(twice: Path) -> None:
    (twice / "stages").chmod(0o500)
    try:
        with pytest.raises(ResourceError) as caught:
            clean(twice)
    finally:
        (twice / "stages").chmod(0o700)
    assert caught.value.exit_code == 5
