"""Which of several bundles to take: rules, the front, and a path that `cp` understands."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import InputError
from edgeprune.report.folder import budget_folder, write_reports
from edgeprune.report.pareto import Condition, Rule, choose
from edgeprune.report.report import Report
from edgeprune_cli.app import main

MakeReport = Callable[..., Report]
Captured = pytest.CaptureFixture[str]

# p90 in ms, share of the score, MB, parameters; nobody would take "slow" or "worst".
BUDGETS = {
    "75%": (24.0, 1.00, 80.0, 20_000_000),
    "50%": (16.0, 0.99, 60.0, 15_000_000),
    "25%": (8.0, 0.95, 40.0, 10_000_000),
    "slow": (25.0, 0.97, 20.0, 5_000_000),
    "worst": (26.0, 0.96, 90.0, 25_000_000),
}


@pytest.fixture
def make(tmp_path: Path, make_report: MakeReport) -> Callable[..., Path]:
    """Makes a run folder of some of these budgets."""

    def make(name: str, *budgets: str, **changes: Any) -> Path:
        recipe = {"budget": list(budgets), "threads": 1, "batch": 1, "sequence": 128}
        environment = {"target": "ort", "machine": "x86_64", "cpu": "Zen"}
        reports = []
        for budget in budgets:
            p90_ms, ratio, size_mb, parameters = BUDGETS[budget]
            report = make_report(budget=budget)
            figures = {
                "p50_ms": p90_ms - 1,
                "p90_ms": p90_ms,
                "size_mb": size_mb,
                "parameters": parameters,
            }
            bundle = budget_folder(Path(), budget) / "bundle"
            (tmp_path / name / bundle).mkdir(parents=True)
            (tmp_path / name / bundle / "model.onnx").write_text(budget)
            update = {
                "after": report.after.model_copy(update=figures),
                "score_ratio": ratio,
                "recipe": recipe,
                "environment": environment,
                "bundle": str(bundle),
            }
            reports.append(report.model_copy(update=update | changes))
        write_reports(tmp_path / name, reports)
        return tmp_path / name

    return make


@pytest.fixture
def run(make: Callable[..., Path]) -> Path:
    return make("run", *BUDGETS)


# --- rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ("min ms with score >= 0.98", "50%"),
        ("min ms with score ≥ 98%", "50%"),
        ("min ms", "25%"),
        ("min p50 with score > 0.99", "75%"),
        ("max score with ms < 20", "50%"),
        ("max score with ms <= 16ms and size <= 60 MB", "50%"),
        ("max score with p50 ≤ 7", "25%"),
        ("min size", "slow"),
        ("min parameters with score>=0.96 and ms<25", "50%"),
        ("max score with parameters < 12M", "slow"),
        ("max parameters with parameters <= 15000k", "50%"),
        (" MIN  ms  WITH  score >= 9.9e-1 ", "50%"),
        ("min ms with score > 1", None),
        ("max score with ms < 10 and score > 0.96", None),
    ],
)
def test_a_rule_chooses(run: Path, rule: str, chosen: str | None) -> None:
    choice = choose([run], Rule.parse(rule))
    assert (choice.chosen.report.budget.text if choice.chosen else None) == chosen


def test_a_rule_is_read_in_parts() -> None:
    rule = Rule.parse("max score with size <= 30MB and ms < 12")
    assert (rule.goal, rule.quantity) == ("max", "score")
    assert rule.conditions == (Condition("size", "<=", 30), Condition("ms", "<", 12))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("", 'write it as "min ms with score >= 0.98'),
        ("fast", "not `min` or `max`"),
        ("min", "not `min` or `max`"),
        ("min ms with", "not `min` or `max`"),
        ("min ms score > 1", "not `min` or `max`"),
        ("least ms", "not `min` or `max`"),
        ("min latency", "one of ms, p50, score, size, parameters"),
        ("min parameter", "did you mean 'parameters'?"),
        ("min ms with scor >= 1", "did you mean 'score'?"),
        ("min ms with score", "'score' is not a quantity, one of >= <= > <, and a number"),
        ("min ms with score >= 0,98", "'score >= 0,98' is not"),
        ("min ms with score == 1", "'score == 1' is not"),
        ("min ms with score >= 1 and", "score is not told in 'and'"),
        ("min ms with score >= 1 or ms < 2", "is not a quantity"),
        ("min ms with score >= 1.2.3", "'1.2.3' is not a number"),
        ("min ms with ms < 12s", "ms is not told in 's' — give a number alone or with ms"),
        ("min ms with size < 12%", "size is not told in '%'"),
        ("min ms\nwith; rm -rf", "rule"),
    ],
)
def test_a_rule_that_cannot_be_read_is_one_line(
    run: Path, capsys: Captured, rule: str, says: str
) -> None:
    assert main(["pareto", str(run), "--rule", rule]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error[EP100]: rule ")
    assert says in line
    assert captured.out == ""


def test_a_score_that_has_no_share_fulfils_nothing_and_is_never_chosen_by_it(
    make: Callable[..., Path],
) -> None:
    run = make("run", "50%", score_ratio=None)
    assert choose([run], Rule.parse("min ms with score >= 0")).chosen is None
    assert choose([run], Rule.parse("max score")).chosen is None
    assert choose([run], Rule.parse("min ms")).chosen is not None


def test_equals_are_told_apart_by_score_and_then_by_time(make: Callable[..., Path]) -> None:
    runs = [make("a", "25%"), make("b", "75%"), make("c", "50%")]
    alike = Rule.parse("min parameters")
    reports = {"parameters": 7}
    for run in runs:
        path = run / "report.json"
        told = json.loads(path.read_text())
        told["after"] |= reports
        path.write_text(json.dumps(told))
    choice = choose(runs, alike)
    assert choice.chosen is not None
    assert choice.chosen.run == runs[1]


# --- the front ------------------------------------------------------------------------------


def test_the_front_is_what_no_other_beats(run: Path) -> None:
    choice = choose([run], Rule.parse("min ms"))
    front = [one.report.budget.text for one in choice.candidates if one.on_front]
    assert front == ["75%", "50%", "25%"]


def test_equals_are_both_on_the_front(make: Callable[..., Path]) -> None:
    choice = choose([make("a", "50%"), make("b", "50%")], Rule.parse("min ms"))
    assert [one.on_front for one in choice.candidates] == [True, True]
    assert [one.chosen for one in choice.candidates] == [True, False]


# --- several runs ---------------------------------------------------------------------------


def test_all_budgets_of_all_runs_are_candidates(make: Callable[..., Path]) -> None:
    runs = [make("a", "75%", "25%"), make("b", "50%")]
    choice = choose(runs, Rule.parse("min ms with score >= 0.98"))
    assert [one.run for one in choice.candidates] == [runs[0], runs[0], runs[1]]
    assert choice.chosen is not None
    assert choice.chosen.bundle == runs[1] / "budgets" / "50pct" / "bundle"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"environment": {"target": "null", "machine": "x86_64", "cpu": "Zen"}}, "target ort"),
        ({"environment": {"target": "ort", "machine": "x86_64", "cpu": "Xeon"}}, "cpu Zen and"),
        ({"recipe": {"budget": ["50%"], "threads": 4}}, "threads 1 and 4"),
        ({"recipe": {"budget": ["50%"], "threads": 1, "batch": 1, "sequence": 64}}, "sequence"),
    ],
)
def test_what_was_measured_unlike_does_not_compare(
    make: Callable[..., Path], changes: dict[str, Any], says: str
) -> None:
    runs = [make("a", "75%"), make("b", "50%", **changes)]
    with pytest.raises(InputError, match=says):
        choose(runs, Rule.parse("min ms"))


def test_scores_of_different_tasks_do_not_compare(
    make: Callable[..., Path], make_report: MakeReport
) -> None:
    task = make_report().task.model_copy(update={"name": "qqp"})
    with pytest.raises(InputError, match="task mrpc and qqp"):
        choose([make("a", "75%"), make("b", "50%", task=task)], Rule.parse("min ms"))


def test_a_run_without_a_report_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no report"):
        choose([tmp_path], Rule.parse("min ms"))


def test_a_bundle_that_is_gone_is_not_named(run: Path) -> None:
    (run / "budgets" / "50pct" / "bundle" / "model.onnx").unlink()
    (run / "budgets" / "50pct" / "bundle").rmdir()
    with pytest.raises(InputError, match="50pct/bundle — no such folder"):
        choose([run], Rule.parse("min ms with score >= 0.98"))


# --- the command ----------------------------------------------------------------------------


def test_the_path_alone_is_on_stdout_and_the_table_beside_it(run: Path, capsys: Captured) -> None:
    assert main(["pareto", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{run / 'budgets' / '50pct' / 'bundle'}\n"
    rows = {line.split("|")[1].strip(): line for line in captured.err.splitlines()[2:]}
    marks = {name.split()[-1]: row.split("|")[-2].strip() for name, row in rows.items()}
    assert marks == {
        "75%": "front",
        "50%": "chosen, front",
        "25%": "front",
        "slow": "not fulfilled",
        "worst": "not fulfilled",
    }
    assert "| 16.0 ms | 15.0 ms |" in rows[f"{run} 50%"]


def test_quiet_leaves_the_path(run: Path, capsys: Captured) -> None:
    assert main(["pareto", str(run), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith("bundle\n")


def test_a_shell_can_copy_what_was_chosen(run: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "edgeprune_cli", "pareto", str(run), "--rule", "max score"]
    goal = tmp_path / "model"
    line = f"cp -r $({shlex.join(words)}) {shlex.quote(str(goal))}"
    subprocess.run(["sh", "-c", line], check=True, capture_output=True)
    assert (goal / "model.onnx").read_text() == "75%"


def test_nothing_that_fulfils_the_rule_exits_1_and_names_no_path(
    run: Path, capsys: Captured
) -> None:
    assert main(["pareto", str(run), "--rule", "min ms with score > 1"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == "none of 5 bundles fulfils: min ms with score > 1"


@pytest.mark.parametrize(("rule", "code"), [("min ms", 0), ("min ms with ms < 1", 1)])
def test_programs_get_all_of_it(run: Path, capsys: Captured, rule: str, code: int) -> None:
    assert main(["pareto", str(run), "--rule", rule, "--json"]) == code
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.err == ""
    assert told["schema"] == "edgeprune-pareto/1"
    assert told["rule"] == rule
    chosen = [one["bundle"] for one in told["candidates"] if one["chosen"]]
    assert chosen == ([told["bundle"]] if code == 0 else [])
    first = told["candidates"][0]
    assert (first["ms"], first["score"], first["size"]) == (24.0, 1.0, 80.0)
