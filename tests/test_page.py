"""The page of a run: its figures, what is escaped, what is left out, and how a browser sees it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import InputError, ResourceError
from edgeprune.latency import LatencyTable
from edgeprune.report.figures import Figure, Figures
from edgeprune.report.folder import read_reports, slug
from edgeprune.report.page import figures_of, read_runs, write_page, write_run_figures
from edgeprune.report.report import Report
from edgeprune.shape import LayerShape, Shape
from edgeprune_cli.app import main

MakeRun = Callable[..., Path]
Captured = pytest.CaptureFixture[str]


def figures(run: Path) -> Figures:
    return figures_of(read_runs([run]))


def named(run: Path, name: str) -> Figure:
    (figure,) = figures(run).of(name)
    return figure


# --- figures -----------------------------------------------------------------------------------


def test_a_whole_run_leaves_no_figure_out(make_run: MakeRun) -> None:
    found = figures(make_run())
    assert found.left_out == {}
    assert {figure.kind for figure in found.made} == {
        "architecture",
        "distribution",
        "launches",
        "training",
        "pareto",
        "time",
        "prediction",
        "curves",
        "transfer",
    }


def test_the_architecture_is_the_report_s(make_run: MakeRun) -> None:
    run = make_run()
    (report, _) = read_reports(run)
    figure = named(run, "architecture-50pct")
    assert figure.column("heads") == [layer.heads for layer in report.plan.layers]
    assert figure.column("ffn_before") == [layer.ffn_before for layer in report.plan.layers]
    assert (figure.facts["heads"], figure.facts["heads_before"]) == (2, 8)


def test_the_distribution_holds_every_inference_and_the_verdict(make_run: MakeRun) -> None:
    run = make_run()
    verdict = read_reports(run)[0].verdict
    figure = named(run, "latency-50pct")
    shown = sum(figure.numbers("inferences"))
    assert shown + float(figure.facts["beyond"] or 0) == verdict.n
    assert figure.facts["observed_ms"] == verdict.observed_ms
    assert figure.facts["interval_low_ms"] == verdict.interval_ms[0]
    assert figure.facts["budget_ms"] == verdict.budget_ms
    # The bar that holds the percentile ends after it.
    before = [row["inferences"] for row in figure.dicts() if row["to_ms"] < verdict.observed_ms]
    assert sum(before) < 0.9 * verdict.n


def test_launches_are_told_one_by_one(make_run: MakeRun) -> None:
    run = make_run()
    verdict = read_reports(run)[0].verdict
    figure = named(run, "launches-50pct")
    assert len(figure.rows) == verdict.launches
    assert sum(figure.numbers("inferences")) == verdict.n
    assert sum(figure.numbers("over_budget")) == verdict.exceeded


def test_time_goes_where_the_latency_table_says(make_run: MakeRun) -> None:
    run = make_run()
    (report, _) = read_reports(run)
    table = LatencyTable.from_dict(report.table)
    layers = report.plan.layers
    before = Shape(tuple(LayerShape(x.heads_before, x.ffn_before) for x in layers), 32, 8, 100)
    after = before.with_layers([LayerShape(layer.heads, layer.ffn) for layer in layers])
    totals = named(run, "time").numbers("total_ms")
    assert totals[:2] == pytest.approx([table.predict(before), table.predict(after)])


def test_all_budgets_stand_beside_the_unpruned_model(make_run: MakeRun) -> None:
    run = make_run()
    reports = read_reports(run)
    figure = named(run, "pareto")
    assert figure.column("model") == ["unpruned", "50%", "25%"]
    assert figure.column("p90_ms")[1:] == [report.after.p90_ms for report in reports]
    assert figure.column("score")[0] == reports[0].before.score
    assert figure.facts["chosen"] == "50%"
    assert figure.facts["floor_score"] == reports[0].floor * reports[0].before.score


def test_the_plan_is_marked_on_the_error_curves(make_run: MakeRun) -> None:
    rows = named(make_run(), "errors").dicts()
    chosen = {(row["sub_layer"], row["layer"]): row["width"] for row in rows if row["chosen"]}
    assert chosen == {
        ("attention", 1): 2,
        ("attention", 2): 0,
        ("ffn", 1): 32,
        ("ffn", 2): 64,
    }


def test_both_tasks_have_their_training_curves(make_run: MakeRun) -> None:
    rows = named(make_run(), "teaching").dicts()
    told = {(row["training"], row["curve"]) for row in rows}
    assert ("alone", "loss, target task") in told
    assert ("coupled", "loss, auxiliary task") in told
    assert ("alone", "loss, auxiliary task") not in told
    assert ("coupled", "validation score") in told


def test_the_auxiliary_task_is_compared_where_both_were_tried(make_run: MakeRun) -> None:
    teacher, *recoveries = named(make_run(), "transfer").dicts()
    assert (teacher["alone"], teacher["coupled"]) == (pytest.approx(0.78), pytest.approx(0.8))
    assert teacher["kept"] == "yes"
    for row in recoveries:  # kept without it: the score is that of the recovery alone
        assert (row["alone"], row["coupled"]) == (pytest.approx(0.8), pytest.approx(0.79))
        assert row["kept"] == "no"


def test_without_an_auxiliary_task_nothing_is_missed(make_run: MakeRun) -> None:
    found = figures(make_run(auxiliary=None))
    assert not found.of("transfer")
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("stage", "lost"),
    [
        ("latency-*", {"Latency at 50%", "Latency by launch at 50%"}),
        ("curves-*", {"Error curves"}),
        ("teacher-*", {"Teaching", "What the auxiliary task brought"}),
        ("teacher-*/history.json", {"Teaching"}),
        ("student-*/history.json", {"Recovery at 50%"}),
    ],
)
def test_what_is_not_there_is_left_out_and_named(
    make_run: MakeRun, stage: str, lost: set[str]
) -> None:
    run = make_run("50%")
    (path,) = (run / "stages").glob(stage)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = figures(run)
    assert set(found.left_out) == lost
    assert all("does not hold" in why for why in found.left_out.values())
    assert found.of("architecture-50pct", "pareto", "time", "prediction")


@pytest.mark.parametrize("text", ["", "[]", '{"latency": [["fast"]]}', '{"latency": []}', "\x00"])
def test_a_broken_file_is_left_out_and_named(make_run: MakeRun, text: str) -> None:
    run = make_run("50%")
    for path in (run / "stages").glob("*/*.json"):
        path.write_text(text)
    for path in (run / "stages").glob("*/*.safetensors"):
        path.write_text(text)
    found = figures(run)
    assert len(found.left_out) == 6
    assert all("another form" in why or "empty" in why for why in found.left_out.values())


def test_a_report_on_its_own_still_has_its_own_figures(make_run: MakeRun, tmp_path: Path) -> None:
    path = shutil.copy(make_run("50%") / "report.json", tmp_path / "alone.json")
    found = figures(Path(path))
    assert {figure.kind for figure in found.made} == {
        "architecture",
        "pareto",
        "time",
        "prediction",
    }
    assert "only the report is here, without its run folder" in found.left_out.values()


def test_a_report_that_names_no_stages_finds_those_that_are_the_only_ones(
    make_run: MakeRun,
) -> None:
    run = make_run("50%", stages={})
    assert figures(run).left_out == {}
    (teacher,) = (run / "stages").glob("teacher-*")
    shutil.copytree(teacher, teacher.with_name("teacher-0123456789ab"))
    assert "several stages teacher" in figures(run).left_out["Teaching"]


def test_a_stage_of_another_recipe_is_not_taken(make_run: MakeRun) -> None:
    run = make_run("50%")
    (teacher,) = (run / "stages").glob("teacher-*")
    teacher.rename(teacher.with_name("teacher-0123456789ab"))
    assert "does not hold the stage teacher" in figures(run).left_out["Teaching"]


def test_a_budget_s_folder_finds_the_stages_of_its_run(make_run: MakeRun) -> None:
    run = make_run()
    found = figures(run / "budgets" / "25pct")
    assert found.left_out == {}
    assert found.of("latency-25pct")
    assert not found.of("latency-50pct")


def test_every_figure_is_also_csv_and_json(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    written = write_run_figures([run], tmp_path / "figures")
    made = figures(run).made
    assert {path.name for path in written} == {
        f"{figure.name}{suffix}" for figure in made for suffix in (".csv", ".json")
    }
    for figure in made:
        with (tmp_path / "figures" / f"{figure.name}.csv").open(newline="") as file:
            head, *rows = csv.reader(file)
        assert tuple(head) == figure.columns
        told = [["" if cell is None else str(cell) for cell in row] for row in figure.rows]
        assert rows == told
        stored = json.loads((tmp_path / "figures" / f"{figure.name}.json").read_text())
        assert stored["rows"] == figure.dicts()
        assert stored["facts"] == figure.facts
        assert stored["format"] == "edgeprune-figure/1"


def test_figures_that_cannot_be_written_are_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="choose another folder"):
        write_run_figures([make_run()], tmp_path / "file")


# --- the page ----------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """What stands on a page: its elements, ids, references, and values with their fields."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.references: set[str] = set()
        self.links: set[str] = set()
        self.fields: dict[str, dict[str, tuple[str, str]]] = {}
        self.text = ""
        self._open: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= found.keys()
        self.ids += [found["id"]] if "id" in found else []
        self.references |= set(found.get("aria-labelledby", "").split())
        self.links |= {found[name] for name in ("href", "src", "action", "data") if name in found}
        self.links |= {
            url for value in found.values() for url in re.findall(r"url\(([^)]*)", value)
        }
        if tag not in self.VOID:
            self._open.append((tag, found))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        tag, found = self._open[-1] if self._open else ("", {})
        if tag == "data":
            keys = ("data-budget", "data-label")
            of = next((a[key] for _, a in self._open for key in keys if key in a), "")
            self.fields.setdefault(of, {})[found["data-field"]] = found["value"], data


def page_of(*runs: Path) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    return write_page(runs, runs[0] / "page.html").read_text("utf-8")


def field_of(report: Report, path: str) -> Any:
    found = json.loads(report.to_json())
    for name in path.split("."):
        found = found[name]
    return found


def test_the_figures_on_the_page_are_the_report_s(make_run: MakeRun) -> None:
    run = make_run()
    fields = Parsed(page_of(run)).fields
    for report in read_reports(run):
        told = fields[slug(report.budget.text)]
        assert {"verdict.outcome", "verdict.observed_ms", "score_ratio"} <= told.keys()
        assert {"after.p90_ms", "before.score", "after.parameters", "after.size_mb"} <= told.keys()
        for path, (value, _) in told.items():
            assert json.loads(value) == field_of(report, path)
        assert told["verdict.outcome"][1] == report.verdict.outcome
        assert told["after.score"][1] == f"{report.after.score:.3f}"


def test_every_reference_on_the_page_has_its_goal_and_every_id_is_one(make_run: MakeRun) -> None:
    page = Parsed(page_of(make_run()))
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    goals = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert goals <= set(page.ids)


def test_the_page_loads_nothing(make_run: MakeRun) -> None:
    html = page_of(make_run())
    assert {link for link in Parsed(html).links if not link.startswith("#")} == {"data:,"}
    assert "@import" not in html
    assert not re.search(r"https?://", html)


def test_the_page_is_light(make_run: MakeRun) -> None:
    assert len(page_of(make_run("50%", "25%", "12ms")).encode()) < 600_000


def test_the_same_run_makes_the_same_page(make_run: MakeRun) -> None:
    run = make_run()
    assert page_of(run) == page_of(run)


def test_the_user_s_own_plotting_style_changes_nothing(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl = pytest.importorskip("matplotlib")
    run = make_run()
    plain = page_of(run)
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert page_of(run) == plain
        assert mpl.rcParams["font.size"] == 30


EVIL = "<script>alert(1)</script>\"><img src=x onerror='alert(2)'>&$\\frac"


def test_what_a_user_chose_is_text_and_nothing_else(make_run: MakeRun) -> None:
    def poisoned(part: Any) -> Any:
        """Every string of a report's JSON, its keys and its format aside."""
        if isinstance(part, dict):
            return {k: v if k == "schema" else poisoned(v) for k, v in part.items()}
        if isinstance(part, list):
            return [poisoned(one) for one in part]
        return f"{part}{EVIL}" if isinstance(part, str) else part

    run = make_run("50%")
    told = json.loads((run / "report.json").read_text())
    told["environment"][EVIL] = told["recipe"][EVIL] = [EVIL]
    told["seconds"][EVIL] = 1.0
    told["stages"][EVIL] = EVIL
    outcome = told["verdict"]["outcome"]
    told = poisoned(told) | {"budget": told["budget"] | {"text": EVIL}}
    told["verdict"]["outcome"] = outcome
    (run / "report.json").write_text(json.dumps(told))
    for html in (page_of(run), page_of(run, run)):
        page = Parsed(html)
        assert not {"script", "img", "iframe", "object"} & page.tags
        assert not [name for name in page.attributes if name.startswith("on")]
        assert "<script>alert(1)</script>" in page.text
        assert {link for link in page.links if not link.startswith("#")} == {"data:,"}


def test_what_could_not_be_made_is_named_on_the_page(make_run: MakeRun) -> None:
    run = make_run("50%")
    (curves,) = (run / "stages").glob("curves-*")
    shutil.rmtree(curves)
    text = " ".join(Parsed(page_of(run)).text.split())
    assert "Error curves : the run folder does not hold the stage curves" in text.replace(
        "Error curves:", "Error curves :"
    )
    assert "Left out" not in Parsed(page_of(make_run("50%", name="whole"))).text


@pytest.mark.parametrize("outcome", ["met", "missed", "inconclusive"])
def test_an_outcome_is_a_word_and_not_a_colour_alone(make_run: MakeRun, outcome: str) -> None:
    run = make_run("50%")
    told = json.loads((run / "report.json").read_text())
    told["verdict"] |= {"outcome": outcome, "interval_ms": [None, None], "observed_ms": None}
    told |= {"score_ratio": None, "floor_met": False}
    (run / "report.json").write_text(json.dumps(told))
    fields = Parsed(page_of(run)).fields["50pct"]
    assert fields["verdict.outcome"][1] == outcome
    assert fields["verdict.observed_ms"][1] == "unknown"


def test_runs_are_compared_budget_by_budget(make_run: MakeRun) -> None:
    one, other = make_run(), make_run("50%", name="other")
    page = Parsed(page_of(one, other))
    told = {"A 50%": one, "A 25%": one / "budgets" / "25pct", "B": other}
    assert page.fields.keys() == {*told, ""} - ({""} if "" not in page.fields else set())
    for label, folder in told.items():
        report = read_reports(folder)[0]
        for path, (value, _) in page.fields[label].items():
            assert json.loads(value) == field_of(report, path)


def test_runs_of_unlike_machines_are_not_compared_silently(make_run: MakeRun) -> None:
    one = make_run("50%", environment={"cpu": "Zen", "target": "ort"})
    other = make_run("50%", name="other", environment={"cpu": "Cortex", "target": "ort"})
    assert "milliseconds do not compare" in page_of(one, other)
    assert "milliseconds do not compare" not in page_of(one, one)
    assert "Cortex" in Parsed(page_of(one, other)).text


def test_scores_of_unlike_tasks_are_not_drawn_together(make_run: MakeRun) -> None:
    task = read_reports(make_run("50%"))[0].task
    other = make_run("50%", name="other", task=task.model_copy(update={"digest": "2" * 64}))
    found = figures_of(read_runs([make_run("50%", name="one"), other]))
    assert "different tasks" in found.left_out["Score against latency"]
    assert found.of("verdicts", "time")


# --- the command -------------------------------------------------------------------------------


def test_the_command_writes_a_page_into_the_run(make_run: MakeRun, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    run = make_run()
    assert main(["report", str(run), "--html"]) == 0
    assert capsys.readouterr().err == f"wrote {run / 'report.html'}\n"
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_the_command_writes_a_comparison_into_a_file(
    make_run: MakeRun, tmp_path: Path, capsys: Captured
) -> None:
    pytest.importorskip("matplotlib")
    run, goal = make_run(), tmp_path / "new" / "both.html"
    assert main(["report", str(run), str(run), "--html", str(goal)]) == 0
    assert "2 runs compared" in goal.read_text()
    assert capsys.readouterr().out == ""


def test_the_command_writes_figures(make_run: MakeRun, tmp_path: Path, capsys: Captured) -> None:
    goal = tmp_path / "figures"
    assert main(["report", str(make_run()), "--figures", str(goal)]) == 0
    assert (goal / "pareto.csv").is_file()
    assert f"files into {goal}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["RUN", "RUN", "--html"], "name it: edgeprune report RUN1 RUN2"),
        (["a.html", "--html"], "takes runs and one file at most"),
        (["RUN", "a.html", "b.html", "--html"], "takes runs and one file at most"),
        (["nowhere", "--html"], "no such folder"),
        (["nowhere", "--figures", "out"], "no such folder"),
    ],
)
def test_a_page_that_cannot_be_asked_for_is_one_line_that_exits_2(
    make_run: MakeRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = str(make_run("50%"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *(run if word == "RUN" else word for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_the_extra_the_command_says_what_to_install(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: Captured, package: str
) -> None:
    run = make_run()
    for name in ("edgeprune.report.drawing", "edgeprune.report.typesetting"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["report", str(run), "--html"]) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'edgeprune[html]'" in line
    assert not (run / "report.html").exists()
    assert main(["report", str(run), "--figures", str(run / "figures")]) == 0


def test_a_page_that_cannot_be_written_is_one_line(make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="name another file"):
        write_page([make_run()], tmp_path / "file" / "page.html")
    with pytest.raises(InputError, match="holds no report"):
        write_page([tmp_path], tmp_path / "page.html")
