"""What a bundle tells people and programs of its model: the card and the bill of materials."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeprune.model_folder import licence_of
from edgeprune.report.bom import bill_of_materials
from edgeprune.report.card import ModelFacts, model_card
from edgeprune.report.report import Report

MakeReport = Callable[..., Report]

FACTS = ModelFacts("MiniLM-L6", "bert", "apache-2.0", ("not_equivalent", "equivalent"), True)
SCORES = ModelFacts("MiniLM-L6", "bert", None, (), False)
MEASURED: dict[str, Any] = {
    "recipe": {"model": "/home/me/x", "sequence": 128, "batch": 1, "threads": 1, "budget": ["50%"]},
    "environment": {
        "python": "3.11.2",
        "edgeprune": "0.1.0",
        "torch": "2.13.0+cpu",
        "onnxruntime": "1.32.0",
        "cpu": "Some CPU",
        "machine": "x86_64",
        "target": "ort",
        "runtime": {"name": "onnxruntime", "version": "1.32.0"},
    },
}


def test_the_card_tells_task_score_latency_and_licence(make_report: MakeReport) -> None:
    card = model_card(make_report(**MEASURED), FACTS)
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    for said in (
        "not\\_equivalent, equivalent",
        "| accuracy | 0.820 | 0.812 |",
        "[15.9 ms, 16.3 ms] at 99% confidence",
        "Some CPU",
        "1000 test rows",
        "qqp used",
        "5 of 12 heads and 613 of 1536 FFN units",
    ):
        assert said in text


def test_what_was_not_reached_is_among_the_limits(make_report: MakeReport) -> None:
    card = model_card(make_report(outcome="missed", floor_met=False, **MEASURED), SCORES)
    assert "It is under its quality floor of 98%." in card
    assert "Its latency budget is missed." in card
    assert "does not tell its licence" in card
    assert "license:" not in card
    assert "A score of texts" in card


def test_neither_names_a_folder_of_the_machine(make_report: MakeReport) -> None:
    report = make_report(**MEASURED)
    assert "/home/me" not in model_card(report, FACTS)
    assert "/home/me" not in bill_of_materials(report, FACTS)


def test_text_of_others_is_no_markup(make_report: MakeReport) -> None:
    facts = ModelFacts("<b>x</b>\n# y", "bert", "a: [b] # --- {", ("<script>", "|a|"), False)
    card = model_card(make_report(**MEASURED), facts)
    assert "<script>" not in card
    assert "<b>" not in card
    assert "\n# y" not in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "a: [b] # --- {"


@pytest.mark.parametrize("facts", [FACTS, SCORES])
@pytest.mark.parametrize("outcome", ["met", "missed", "inconclusive"])
def test_the_bill_of_materials_keeps_to_the_schema_of_cyclonedx(
    make_report: MakeReport, facts: ModelFacts, outcome: str
) -> None:
    with warnings.catch_warnings():  # a library beside it warns when it is imported
        warnings.simplefilter("ignore")
        schema = pytest.importorskip("cyclonedx.schema")
        validation = pytest.importorskip("cyclonedx.validation.json")
    text = bill_of_materials(make_report(outcome=outcome, **MEASURED), facts)
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"supervised"', '"by magic"')) is not None


def test_the_bill_names_the_model_its_base_and_what_made_it(make_report: MakeReport) -> None:
    report = make_report(**MEASURED)
    told = json.loads(bill_of_materials(report, FACTS))
    model = told["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": report.export.sha256}]
    assert model["licenses"][0]["license"]["name"] == "apache-2.0"
    latency = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][1]
    assert latency["confidenceInterval"] == {"lowerBound": "15.9", "upperBound": "16.3"}
    purls = [one["purl"] for one in told["components"] if "purl" in one]
    assert "pkg:pypi/torch@2.13.0%2Bcpu" in purls
    assert told["dependencies"][0]["dependsOn"] == ["base", *purls]


def test_an_interval_without_an_end_is_left_out_of_the_bill(make_report: MakeReport) -> None:
    report = make_report(**MEASURED)
    verdict = report.verdict.model_copy(update={"interval_ms": (15.9, None)})
    changed = report.model_copy(update={"verdict": verdict})
    told = json.loads(bill_of_materials(changed, FACTS))
    card = told["metadata"]["component"]["modelCard"]
    assert "confidenceInterval" not in card["quantitativeAnalysis"]["performanceMetrics"][1]
    assert "no upper end" in model_card(changed, FACTS)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# x\n", "apache-2.0"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\ntags: [a]\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
        ('---\nlicense: "mit\\n---\\n# x"\n---\n', "mit --- # x"),
        ("---\n[1, 2]\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.system [id]\n---\n", None),
        ("# no head\n", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_models_own_card_says(
    tmp_path: Path, text: str, licence: str | None
) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licence_of(tmp_path) == licence


def test_a_folder_without_a_card_tells_no_licence(tmp_path: Path) -> None:
    assert licence_of(tmp_path) is None
    assert licence_of(tmp_path / "OWNER" / "NAME") is None
