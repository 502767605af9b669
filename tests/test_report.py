"""What a report tells, how it is stored, and what it keeps to itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

from edgeprune.errors import InputError, ResourceError
from edgeprune.latency import Budget, Latency
from edgeprune.measure.verdict import judge
from edgeprune.recipe import Recipe
from edgeprune.report.environment import environment
from edgeprune.report.folder import read_reports, slug, write_reports
from edgeprune.report.markdown import to_markdown
from edgeprune.report.report import Judgement, Report, SizePart, exit_code, held_to, layer_rows
from edgeprune.schema import schemas
from edgeprune.shape import LayerShape, Shape
from edgeprune.template import commented

MakeReport = Callable[..., Report]
jsonschema = pytest.importorskip("jsonschema")

DOCS = Path(__file__).parent.parent / "docs"


def test_a_report_survives_writing_and_reading(make_report: MakeReport, tmp_path: Path) -> None:
    report = make_report()
    write_reports(tmp_path, [report])
    assert read_reports(tmp_path) == [report]


def test_json_has_the_fields_that_scripts_read(make_report: MakeReport) -> None:
    told = json.loads(make_report().to_json())
    assert told["schema"] == "edgeprune-report/1"
    assert told["verdict"]["outcome"] == "met"
    assert {"ms", "percentile"} <= told["budget"].keys()
    figures = {"score", "metric", "p50_ms", "p90_ms", "size_mb", "parameters"}
    assert figures <= told["before"].keys() & told["after"].keys()
    assert {"heads", "ffn"} <= told["plan"]["layers"][0].keys()
    assert {"how", "what", "when", "gain", "used"} <= told["transfer"].keys()
    assert {"predicted_ms"} <= told["plan"].keys()
    assert {"bundle", "seconds"} <= told.keys()


def test_json_follows_the_published_schema(make_report: MakeReport) -> None:
    schema = json.loads((DOCS / "report.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads(make_report().to_json()), schema)


@pytest.mark.skipif(
    pydantic.VERSION.split(".")[:2] < ["2", "11"], reason="words the same schemas differently"
)
@pytest.mark.parametrize("name", ["recipe.schema.json", "report.schema.json"])
def test_published_schemas_are_current(name: str) -> None:
    stored = (DOCS / name).read_text("utf-8")
    assert stored == schemas()[name], "write them anew: python -m edgeprune.schema docs"


@pytest.mark.parametrize(
    ("outcome", "floor_met", "code"),
    [
        ("met", True, 0),
        ("met", False, 1),
        ("missed", True, 1),
        ("inconclusive", True, 3),
        ("inconclusive", False, 1),
    ],
)
def test_the_exit_code_is_the_verdict(
    make_report: MakeReport, outcome: str, floor_met: bool, code: int
) -> None:
    assert make_report(outcome=outcome, floor_met=floor_met).exit_code == code


def test_the_worst_budget_decides_the_exit_code_of_several(make_report: MakeReport) -> None:
    met, missed, unsure = (make_report(outcome=o) for o in ("met", "missed", "inconclusive"))
    assert exit_code([met, met]) == 0
    assert exit_code([met, unsure]) == 3
    assert exit_code([unsure, missed, met]) == 1


def test_the_home_folder_and_secrets_are_not_told(
    make_report: MakeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/jane.doe")
    token = "hf_" + "a1B2" * 8
    report = make_report(
        run="/home/jane.doe/runs/a",
        recipe={"model": "/home/jane.doe/m", "task": f"https://me:{token}@hub.example/x"},
        environment={"cache": Path("/home/jane.doe/.cache"), "other": "/mnt/home/jane.doe/x"},
        notes=(f"downloaded with {token}", "see '/home/jane.doe'", "/home/jane.doesnt stays"),
    )
    for told in (report.to_json(), to_markdown([report])):
        assert token not in told
        assert "/home/jane.doe/" not in told.replace("/mnt/home/jane.doe/", "")
    assert report.run == "~/runs/a"
    assert report.recipe["model"] == "~/m"
    assert report.notes == ("downloaded with [redacted]", "see '~'", "/home/jane.doesnt stays")


def test_the_environment_is_an_allow_list() -> None:
    device = {"cpu": "Zen", "hostname": "janes-laptop", "env": {"TOKEN": "x"}}
    told = environment("ort", {"device": device, "runtime": {"name": "ort", "user": "jane"}})
    assert told["cpu"] == "Zen"
    assert told["target"] == "ort"
    assert told["onnxruntime"]
    assert told["runtime"] == {"name": "ort"}
    assert not {"hostname", "env", "governor"} & told.keys()


def test_a_verdict_stands_in_the_report_as_it_was_judged() -> None:
    latency = Latency.of([[10.0 + i % 7 / 10 for i in range(100)]] * 10)
    verdict = judge(latency, Budget.parse("12ms"), target="ort")
    assert Judgement.model_validate(verdict.to_dict()).model_dump(mode="json") == verdict.to_dict()


def test_a_verdict_without_samples_can_be_reported() -> None:
    verdict = judge(Latency.of([]), Budget.parse("12ms"))
    assert Judgement.model_validate(verdict.to_dict()).observed_ms is None


def test_each_budget_of_a_run_has_its_folder_and_the_first_is_the_run_s(
    make_report: MakeReport, tmp_path: Path
) -> None:
    recipe = {"budget": ["50%", "12ms@p95"]}
    reports = [make_report(budget=text, recipe=recipe) for text in recipe["budget"]]
    for text in recipe["budget"]:
        (tmp_path / "budgets" / slug(text) / "bundle").mkdir(parents=True)
    write_reports(tmp_path, reports)
    assert read_reports(tmp_path) == reports
    assert Report.read(tmp_path / "report.json") == reports[0]
    assert read_reports(tmp_path / "budgets" / "12ms-p95") == [reports[1]]
    assert (tmp_path / "bundle").resolve() == tmp_path.resolve() / "budgets" / "50pct" / "bundle"
    assert not (tmp_path / "bundle").readlink().is_absolute()
    together = (tmp_path / "report.md").read_text("utf-8")
    assert "| 50%" in together
    assert "| 12ms@p95" in together


def test_writing_again_replaces_and_leaves_no_rubbish(
    make_report: MakeReport, tmp_path: Path
) -> None:
    write_reports(tmp_path, [make_report(budget="50%")])
    write_reports(tmp_path, [make_report(budget="25%", recipe={"budget": ["25%"]})])
    assert [report.budget.text for report in read_reports(tmp_path)] == ["25%"]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_report_of_an_earlier_recipe_is_not_taken_for_this_run_s(
    make_report: MakeReport, tmp_path: Path
) -> None:
    write_reports(tmp_path, [make_report(budget="25%", recipe={"budget": ["25%"], "seed": 1})])
    write_reports(tmp_path, [make_report(budget="50%", recipe={"budget": ["50%", "25%"]})])
    assert [report.budget.text for report in read_reports(tmp_path)] == ["50%"]


def test_a_run_folder_that_cannot_be_written_is_one_line(
    make_report: MakeReport, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ResourceError, match="choose another --out"):
        write_reports(tmp_path / "run", [make_report()])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "json"),
        ("[]", "object"),
        ("{}", "verdict: field required"),
        ('{"schema": "edgeprune-report/9"}', "'edgeprune-report/9'"),
        ("\udcff", "json"),
    ],
)
def test_a_file_that_is_no_report_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=says) as caught:
        read_reports(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_report_without_its_format_is_refused(make_report: MakeReport, tmp_path: Path) -> None:
    told = json.loads(make_report().to_json())
    del told["schema"]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="format is not named"):
        Report.read(path)


def test_a_folder_without_a_report_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no report"):
        read_reports(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_reports(tmp_path / "nowhere")


def test_markdown_answers_at_a_glance(make_report: MakeReport) -> None:
    told = to_markdown([make_report()])
    assert told.startswith("# 50% (16.4 ms): met\n")
    assert "| p90 latency | 32.1 ms | 16.1 ms | 1.99x faster |" in told
    assert "| accuracy | 0.820 | 0.812 | 99.0% kept, floor 98% |" in told
    assert "| 1 | 12 → 5 | 1536 → 613 |" in told
    assert "edgeprune compress --model" in told


def test_markdown_says_when_quality_fell_below_the_floor(make_report: MakeReport) -> None:
    told = to_markdown([make_report(floor_met=False)])
    assert told.startswith("# 50% (16.4 ms): met, under the quality floor\n")
    assert "floor 98% not met" in told


def test_markdown_takes_no_markup_from_names(make_report: MakeReport) -> None:
    told = to_markdown([make_report(notes=("<script>|a|\n# not a head `x` [l](u)",))])
    assert "<script>" not in told.replace("\\<script\\>", "")
    assert "\n# not a head" not in told
    assert "\\[l\\](u)" in told


def test_markdown_fits_a_comment_on_github_and_says_where_it_was_cut(
    make_report: MakeReport,
) -> None:
    notes = tuple(f"note {number} " + "x" * 500 for number in range(300))
    told = to_markdown([make_report(notes=notes)])
    assert 60_000 < len(told) <= 65_536
    *_, last, nothing, cut = told.rstrip("\n").split("\n")
    assert last.startswith("- note ")
    assert last.endswith("x" * 500)
    assert (nothing, cut[:9]) == ("", "*Cut here")
    assert "Cut here" not in to_markdown([make_report()])


def test_layer_rows_count_what_surgery_removes() -> None:
    before = Shape.uniform(2, 4, 32, hidden=16, head_dim=4, vocab=10)
    after = before.with_layers([LayerShape(1, 8), LayerShape(0, 0)])
    rows = layer_rows(before, after)
    assert sum(row.parameters_before for row in rows) == before.encoder_parameters
    assert sum(row.parameters_after for row in rows) == after.encoder_parameters
    assert [(row.heads, row.ffn) for row in rows] == [(1, 8), (0, 0)]


def test_the_recipe_schema_takes_what_the_template_says() -> None:
    import yaml

    schema = json.loads((DOCS / "recipe.schema.json").read_text("utf-8"))
    jsonschema.validate(yaml.safe_load(commented({})), schema)
    assert set(schema["properties"]) == set(Recipe.model_fields)


# --- a size budget ------------------------------------------------------------------------------


def size_part(file_bytes: int) -> SizePart:
    return SizePart(
        text="6MB",
        limit_bytes=6_000_000,
        file_bytes=file_bytes,
        met=file_bytes <= 6_000_000,
        tokens=4711,
        tokens_before=30522,
        tokens_needed=3000,
        vocabulary_bytes=1_809_024,
        weight_bytes=4_000_000,
        graph_bytes=100_000,
    )


def test_a_verdict_is_met_only_if_latency_and_size_both_are(make_report: MakeReport) -> None:
    verdict = make_report().verdict
    assert held_to(None, verdict) == verdict
    within = held_to(size_part(5_900_000), verdict)
    assert (within.outcome, within.line) == ("met", verdict.line)
    assert within.reasons[-1].code == "within_size"
    over = held_to(size_part(6_200_000), verdict)
    assert (over.outcome, over.exit_code) == ("missed", 1)
    assert over.reasons[-1].code == "over_size"
    assert over.line.startswith("missed  size 6.2 MB of 6MB, which is too much, 4,711 of 30,522")
    assert verdict.line in over.line
    assert make_report(verdict=over).exit_code == 1


@pytest.mark.parametrize("outcome", ["missed", "inconclusive"])
def test_a_size_that_is_met_does_not_mend_a_latency(make_report: MakeReport, outcome: str) -> None:
    verdict = make_report(outcome=outcome).verdict
    assert held_to(size_part(5_900_000), verdict).outcome == outcome


def test_a_report_tells_the_size_budget_and_its_parts(make_report: MakeReport) -> None:
    report = make_report(size=size_part(5_900_000))
    told = to_markdown([report])
    assert "size      5.9 MB of 6MB, 4,711 of 30,522 tokens" in told
    assert "| vocabulary | 30,522 | 4,711 | -85% |" in told
    assert "| other weights | 4.0 MB |" in told
    assert "vocabulary" not in to_markdown([make_report()])
    assert Report.model_validate_json(report.to_json()) == report
