"""The command: what it takes, what it says where, and the code it exits with."""

from __future__ import annotations

import errno
import gzip
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeprune
from edgeprune.course import StageRow
from edgeprune.errors import InputError, TargetError
from edgeprune.gate.subject import Conditions, Subject
from edgeprune.progress import Progress
from edgeprune.recipe import Recipe
from edgeprune.report.folder import write_reports
from edgeprune.report.report import Report
from edgeprune.ship.bundle import write_bundle
from edgeprune_cli import app, show
from edgeprune_cli.app import main

MakeReport = Callable[..., Report]
Captured = pytest.CaptureFixture[str]
jsonschema = pytest.importorskip("jsonschema")
DOCS = Path(__file__).parent.parent / "docs"
NULL_MS = 2.64  # what the null target says of `model`: 512 x 512 weights, 128 tokens

targets_installed = pytest.mark.skipif(
    not entry_points(group="edgeprune.runtimes", name="null"),
    reason="runtimes are found by the entry points of an installed package",
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file that looks tokens up and multiplies by one matrix."""
    path = tmp_path / "model.onnx"
    tables = {"words": np.ones((8, 512), np.float32), "weights": np.ones((512, 512), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "input_ids"], ["states"]),
            helper.make_node("MatMul", ["states", "weights"], ["logits"]),
        ],
        "small",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 512])],
        [numpy_helper.from_array(values, name) for name, values in tables.items()],
    )
    onnx.save(helper.make_model(graph), path)
    return path


@pytest.fixture
def run(tmp_path: Path, model: Path, make_report: MakeReport) -> Path:
    """A run folder on the null target, with a bundle and its dense model."""
    folder = tmp_path / "run"
    (folder / "dense").mkdir(parents=True)
    (folder / "dense" / "model.onnx").write_bytes(model.read_bytes())
    (tmp_path / "tokenizer").mkdir()
    bundle = folder / "budgets" / "50pct" / "bundle"
    measured = {"target": "null", "runs": "rapid", "sequence": 32, "threads": 2, "batch": 1}
    facts = {**measured, "budget": {"ms": 16.4, "percentile": 90}}
    write_bundle(bundle, model, tmp_path / "tokenizer", {}, facts)
    write_reports(folder, [make_report(recipe={"budget": ["50%"], **measured})])
    return folder


def one_line(captured: Captured) -> str:
    """The only line on stderr."""
    lines = captured.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


# --- what it takes ---------------------------------------------------------------------------


def recipe_options() -> dict[str, Any]:
    parameters = inspect.signature(app.compress, eval_str=True).parameters
    return {name: parameter.annotation for name, parameter in parameters.items()}


def test_options_and_recipe_keys_mirror_each_other() -> None:
    of_the_call = {"context", "recipe", "save_recipe", "dry_run", "restart"}
    of_the_call |= {"watch", "json", "quiet", "debug"}
    assert set(recipe_options()) - of_the_call == set(Recipe.model_fields)


@pytest.mark.parametrize("key", Recipe.model_fields)
def test_an_option_says_what_its_recipe_key_says(key: str) -> None:
    field = Recipe.model_fields[key]
    help_text = recipe_options()[key].__metadata__[0].help
    assert help_text.startswith(field.description)
    if get_origin(field.annotation) is Literal:
        assert f" One of: {', '.join(get_args(field.annotation))}." in help_text
    default = field.get_default()
    if field.is_required() or default in (None, []):
        assert "Default:" not in help_text
    else:
        shown = default[0] if isinstance(default, list) else default
        assert help_text.endswith(f" Default: {shown}.")


@pytest.mark.parametrize("key", Recipe.model_fields)
def test_an_option_takes_what_its_recipe_key_takes(key: str) -> None:
    annotation = Recipe.model_fields[key].annotation
    if isinstance(annotation, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    # Also of a number or a word.
    words = get_origin(annotation) in (Literal, Union)
    expected: Any = str if words else annotation
    assert recipe_options()[key].__origin__ == expected | None
    assert inspect.signature(app.compress).parameters[key].default is None


def test_options_override_the_recipe_and_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Recipe] = []

    def compress_all(recipe: Recipe, *, progress: Progress, restart: bool) -> list[Report]:
        asked.append(recipe)
        raise InputError("as far as this test goes")

    monkeypatch.setitem(vars(edgeprune), "compress_all", compress_all)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("model: demo\ntask: rows\nseed: 3\nbudget: 50%\n")
    words = ["compress", "recipe.yaml", "--seed", "0", "--budget", "12 ms", "--budget", "8ms"]
    assert main([*words, "--allow-leakage", "--save-recipe", "saved.yaml"]) == 2
    assert asked == [
        Recipe(model="demo", task="rows", budget=["12ms", "8ms"], allow_leakage=True, seed=0)
    ]
    assert Recipe.read(tmp_path / "saved.yaml") == asked[0]


# --- what it says where ----------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["compress", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "numpy", "yaml"}
    program = (
        "import sys; from edgeprune_cli.app import main; code = main(sys.argv[1:]); "
        f"sys.exit(code or ' '.join({heavy!r} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "edgeprune" in done.stdout


@pytest.mark.parametrize("stderr", ["closed", "full"])
def test_where_nobody_can_be_told_the_exit_code_still_tells(tmp_path: Path, stderr: str) -> None:
    redirected = "2>&-" if stderr == "closed" else "2>/dev/full"
    program = f'"$0" -m edgeprune_cli runs list "$1" {redirected}'
    words = ["/bin/sh", "-c", program, sys.executable, str(tmp_path / "nowhere")]
    assert subprocess.run(words, check=False).returncode == 2


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("a\x1b[2Jb\u202e", "utf-8", "a\\x1b[2Jb\\u202e"),
        ("p90 ≤ 12 ms", "ascii", "p90 \\u2264 12 ms"),
        ("two\nlines\tand ≤ \udcff", "utf-8", "two\nlines\tand ≤ \\udcff"),
    ],
)
def test_a_terminal_gets_what_it_can_show_and_does_not_obey(
    text: str, encoding: str, shown: str
) -> None:
    assert show._shown(text, encoding) == shown


def test_without_words_it_shows_its_help_and_exits_2(capsys: Captured) -> None:
    assert main([]) == 2
    assert "edgeprune demo" in capsys.readouterr().out


def test_a_report_goes_to_stdout_as_text_markdown_or_json(run: Path, capsys: Captured) -> None:
    assert main(["report", str(run)]) == 0
    text = capsys.readouterr()
    assert "| p90 latency | 32.1 ms | 16.1 ms |" in text.out
    assert text.err == ""
    assert main(["report", str(run), "--markdown"]) == 0
    assert capsys.readouterr().out == (run / "report.md").read_text("utf-8")
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "report.json").read_text())


def test_several_reports_are_a_json_array(run: Path, capsys: Captured) -> None:
    assert main(["report", str(run), str(run), "--json"]) == 0
    assert [one["budget"]["text"] for one in json.loads(capsys.readouterr().out)] == ["50%", "50%"]


def test_the_summary_of_several_budgets_compares_them(make_report: MakeReport) -> None:
    text = show.summary([make_report(), make_report(budget="8ms", outcome="missed")])
    assert "| unpruned" in text
    assert "| 50% (16.4 ms)" in text
    assert "| 8ms" in text
    assert text.count("bundle    ") == 2


def test_a_reader_who_leaves_changes_nothing(run: Path) -> None:
    command = [sys.executable, "-m", "edgeprune_cli", "report", str(run), "--markdown"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stderr
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 0


def test_progress_away_from_a_terminal_is_one_line_a_stage(capsys: Captured) -> None:
    with show.progress(quiet=False) as progress:
        progress.stage("teacher", cached=True)
        progress.done("teacher", 41.0)
        progress.stage("curves", cached=False)
        progress.step(1, 100)
        progress.note("half the heads matter")
        progress.done("curves", 65.0)
    assert capsys.readouterr().err.splitlines() == [
        "teacher: cached",
        "curves ...",
        "  half the heads matter",
        "curves: 1 min 05 s",
    ]


def test_progress_that_takes_long_tells_what_is_left(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    with show.progress(quiet=False) as progress:
        progress.stage("teacher", cached=False)
        for done, after_s in ((1, 20.0), (2, 1.0), (4, 19.0)):
            now_s += after_s
            progress.step(done, 5, "loss 0.3")
    assert capsys.readouterr().err.splitlines() == [
        "teacher ...",
        "  1/5, 1 min 20 s left · loss 0.3",
        "  4/5, 10.0 s left · loss 0.3",
    ]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on stderr is taken for a terminal of 20 rows and 60 columns."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name, value in {"TERM": "xterm", "LINES": "20", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_progress_is_the_list_of_all_stages_where_that_is_asked_for(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with show.progress(quiet=False, live=True) as progress:
        progress.outline(["teacher", "curves"])
        progress.stage("teacher", cached=True)
        progress.done("teacher", 1.0)
    assert re.search(r"✓ teacher +cached *\r?\n +curves", capsys.readouterr().err)


def test_progress_on_a_terminal_is_the_list_of_all_stages(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    with show.progress(quiet=False) as progress:
        progress.outline(["teacher", "curves [of 6]", "dense"])
        progress.stage("teacher", cached=True)
        progress.done("teacher", 41.0)
        progress.stage("curves [of 6]", cached=False)
        progress.step(3, 6, "layer 3")
        progress.note("half the [heads] matter")
        progress.done("curves [of 6]", 65.0)
    told = capsys.readouterr().err
    assert "  half the [heads] matter" in told
    last = told[told.rindex("✓ teacher") :].split("\x1b")[0].splitlines()
    assert last == ["✓ teacher        cached", "✓ curves [of 6]  1 min 05 s", "  dense"]


def test_an_error_leaves_the_list_of_stages_as_it_was(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), show.progress(quiet=False) as progress:
        progress.stage("teacher", cached=False)
        progress.step(3, 6, "loss 0.3")
        raise KeyboardInterrupt
    assert "3/6" in capsys.readouterr().err


def test_a_running_stage_has_a_bar_and_what_is_left() -> None:
    done = StageRow("table", "done", seconds=41.0)
    row = StageRow("teacher", "running", False, 12.3, 30, 60, "loss 0.312", left_s=12.0)
    assert show.stages([done, row, StageRow("curves")]) == [
        "✓ table    41.0 s",
        "▸ teacher  12.3 s  ████████░░░░░░░░ 30/60, 12.0 s left · loss 0.312",
        "  curves",
    ]


@pytest.mark.parametrize("at", [0, 4, 20, 39])
def test_more_stages_than_the_terminal_has_rows_are_shown_around_the_running_one(at: int) -> None:
    rows = [StageRow(f"stage {i}", "done" if i < at else "to come") for i in range(40)]
    rows[at] = StageRow(f"stage {at}", "running", seconds=1.0)
    lines = show.stages(rows, height=20)
    assert len(lines) <= 18
    assert f"▸ stage {at}" in "\n".join(lines)
    hidden = [int(line.split()[-2]) for line in lines if line.endswith(" more")]
    assert sum(hidden) + len([line for line in lines if "stage" in line]) == 40
    finished = [StageRow(row.name, "done") for row in rows]
    assert len(show.stages(finished, height=20)) == 40  # nothing is drawn over it any more


def test_quiet_progress_says_nothing(capsys: Captured) -> None:
    with show.progress(quiet=True) as progress:
        progress.stage("teacher", cached=False)
        progress.step(1, 1)
        progress.note("x")
        progress.done("teacher", 41.0)
    assert capsys.readouterr() == ("", "")


# --- what it exits with ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compres"], "No such command"),
        (["compress", "--bugdet", "12ms"], "--budget"),
        (["compress", "--seed", "abc"], "--seed"),
        (["report"], "RUN"),
        (["targets"], "Missing command"),
    ],
)
def test_a_usage_error_is_one_line_that_exits_2(
    capsys: Captured, words: list[str], says: str
) -> None:
    assert main(words) == 2
    line = one_line(capsys)
    assert line.startswith("error[EP100]: ")
    assert says in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compress"], "error[EP110]: recipe key 'model'"),
        (["compress", "--model", "m", "--task", "t", "--budget", "5"], "error[EP120]: budget '5'"),
        (["compress", "--model", "m", "--task", "t", "--effort", "huge"], "--effort"),
        (["compress", "nowhere.yaml"], "`edgeprune init` writes one"),
        (["report", "nowhere"], "no such folder"),
        (["check", "nowhere", "--budget", "0ms"], "above zero"),
        (["check", "nowhere"], '--budget "12ms"'),
        (["profile", "nowhere", "--threads", "0"], "at least 1"),
        (["profile", "nowhere", "--runs", "many"], "rapid, quick, standard, mlperf"),
        (["profile", "."], "holds neither"),
        (["status", "nowhere"], "no such folder"),
        (["status", "."], "holds no status.json"),
        (["resume", "nowhere"], "no such folder"),
        (["pareto", "nowhere"], "no such folder"),
        (["runs", "list", "nowhere"], "no such folder"),
        (["runs", "clean", "nowhere"], "no such folder"),
    ],
)
def test_bad_input_is_one_line_that_exits_2(
    capsys: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert says in one_line(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ZeroDivisionError("division by zero"), 70, "this is a bug in edgeprune"),
        (ModuleNotFoundError("no edgeprune.x", name="edgeprune.x"), 70, "this is a bug"),
        (ModuleNotFoundError("no torch", name="torch"), 4, "pip install 'edgeprune[train]'"),
        (TargetError("target pi4", why="unplugged"), 4, "unplugged"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 5, "/data/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 5, "give permission"),
        (MemoryError(), 5, "smaller batch"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, says: str
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr("edgeprune.template.write_template", fail)
    assert main(["init"]) == code
    assert says in one_line(capsys)
    assert main(["init", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeprune.template.write_template", interrupted)
    assert main(["init"]) == 130


@pytest.mark.skipif(bool(find_spec("torch")), reason="torch is installed")
def test_without_torch_compress_says_what_to_install(capsys: Captured) -> None:
    assert main(["compress", "--model", "demo", "--task", "rows"]) == 4
    assert "pip install 'edgeprune[train]'" in one_line(capsys)


@pytest.mark.parametrize(
    ("outcomes", "code"), [(["met"], 0), (["met", "missed"], 1), (["met", "inconclusive"], 3)]
)
def test_compress_exits_with_its_verdicts(
    make_report: MakeReport, monkeypatch: pytest.MonkeyPatch, outcomes: list[str], code: int
) -> None:
    reports = [make_report(outcome=outcome) for outcome in outcomes]
    monkeypatch.setitem(vars(edgeprune), "compress_all", lambda *_, **__: reports)
    assert main(["compress", "--model", "demo", "--task", "rows", "--quiet"]) == code


def test_init_writes_a_recipe_once(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "mine.yaml"
    assert main(["init", str(path)]) == 0
    assert f"edgeprune compress {path}" in capsys.readouterr().err
    assert Recipe.read(path).model == "demo"
    assert main(["init", str(path)]) == 2
    assert "exists already" in one_line(capsys)


# --- profile and check -----------------------------------------------------------------------


def test_a_run_is_measured_as_it_was_unless_told_otherwise(run: Path) -> None:
    conditions = Subject.find(run).conditions
    assert conditions == Conditions("null", threads=2, batch=1, sequence=32, runs="rapid")
    asked = {"threads": 1, "runs": None, "path": "x"}
    assert conditions.but(asked) == Conditions("null", 1, 1, 32, "rapid")
    assert Subject.find(run / "bundle").conditions == conditions


def test_a_bundle_on_its_own_is_measured_as_in_its_run(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    (run / "bundle").resolve().rename(alone)
    assert Subject.find(alone).conditions == Conditions("null", 2, 1, 32, "rapid")


def test_a_bundle_with_a_changed_file_is_refused(run: Path, capsys: Captured) -> None:
    with (run / "bundle" / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert main(["check", str(run)]) == 6
    assert "its hash differs" in one_line(capsys)


def test_a_share_needs_the_unpruned_model(run: Path, tmp_path: Path, capsys: Captured) -> None:
    (run / "bundle").resolve().rename(tmp_path / "alone")
    assert main(["check", str(tmp_path / "alone"), "--budget", "50%"]) == 2
    assert "not stored with this one" in one_line(capsys)


@targets_installed
@pytest.mark.parametrize(("budget", "code"), [("5ms", 0), ("0.5ms", 1), ("50%", 1), (None, 0)])
def test_check_exits_with_its_verdict(
    run: Path, capsys: Captured, budget: str | None, code: int
) -> None:
    words = ["check", str(run)] + (["--budget", budget] if budget else [])
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith(("met" if code == 0 else "missed") + "  null")


@targets_installed
def test_check_tells_programs_all_it_knows_on_stdout(model: Path, capsys: Captured) -> None:
    words = ["check", str(model), "--budget", "5ms", "--target", "null", "--runs", "rapid"]
    assert main([*words, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    told = json.loads(captured.out)
    assert (told["outcome"], told["exit_code"]) == ("met", 0)
    [one] = told["targets"]
    assert one["verdict"]["budget_ms"] == 5
    assert one["profile"]["proxy"] is True
    assert sum(len(launch) for launch in one["profile"]["latency"]) == one["verdict"]["n"]
    schema = json.loads((DOCS / "check.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(told, schema, jsonschema.Draft202012Validator)


@targets_installed
def test_files_that_cannot_be_written_cost_no_answer(
    model: Path, tmp_path: Path, capsys: Captured
) -> None:
    words = ["check", str(model), "--budget", "1us", "--target", "null", "--runs", "rapid"]
    nowhere = tmp_path / "nowhere" / "samples.jsonl.gz"
    assert main([*words, "--samples", str(nowhere), "--junit", "/dev/full"]) == 1
    said = capsys.readouterr().err
    assert "missed  null" in said
    assert said.count("error[EP500]") == 2


@targets_installed
def test_profile_measures_and_keeps_every_sample(
    model: Path, tmp_path: Path, capsys: Captured
) -> None:
    samples = tmp_path / "samples.jsonl.gz"
    words = ["profile", str(model), "--target", "null", "--runs", "rapid", "--json"]
    assert main([*words, "--samples", str(samples)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["p50_ms"] == pytest.approx(NULL_MS, rel=0.02)
    _, *rows = [json.loads(line) for line in gzip.decompress(samples.read_bytes()).splitlines()]
    assert [row["samples_ms"] for row in rows] == told["latency"]


@targets_installed
def test_profile_tells_people_on_stderr(model: Path, capsys: Captured) -> None:
    assert main(["profile", str(model), "--target", "null", "--runs", "rapid"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "null (proxy)" in captured.err
    assert "in 7 launches" in captured.err


@targets_installed
def test_the_python_functions_are_the_commands(model: Path) -> None:
    verdict = edgeprune.check(model, "5ms", target="null", runs="rapid")
    assert (verdict.outcome, verdict.exit_code) == ("met", 0)
    result = edgeprune.profile(model, target="null", runs="rapid", sequence=64)
    assert result.latency.p50_ms == pytest.approx(NULL_MS / 2, rel=0.02)


@targets_installed
def test_targets_are_listed(capsys: Captured) -> None:
    assert main(["targets", "list"]) == 0
    assert "| null" in capsys.readouterr().out
    assert main(["targets", "list", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["null"]["proxy"] is True
    assert listed["ort"]["check"]["usable"] is True
    assert listed["local"]["kind"] == "device"


@targets_installed
def test_a_misspelt_target_is_told_its_like(model: Path, capsys: Captured) -> None:
    assert main(["profile", str(model), "--target", "nul", "--quiet"]) == 2
    assert "did you mean 'null'" in one_line(capsys)


@targets_installed
def test_being_terminated_exits_143(model: Path) -> None:
    command = [sys.executable, "-m", "edgeprune_cli", "profile", str(model)]
    command += ["--target", "null", "--runs", "mlperf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        assert "measuring on null" in child.stderr.readline()
        os.kill(child.pid, signal.SIGTERM)
        assert child.stderr.read() == ""
    assert child.returncode == 143
