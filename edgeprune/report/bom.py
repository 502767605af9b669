"""The bill of materials of a bundle, as CycloneDX 1.6 JSON: the model, its base, what made it.

Written by hand, as cyclonedx-python-lib has no model cards; a test holds it against the schema
that comes with that package. It bears neither a date nor a random number: the same run makes the
same bytes.
"""

from __future__ import annotations

import json
from typing import Any

from edgeprune.report.card import ModelFacts, device, limits, versions
from edgeprune.report.report import Report, TaskPart

SPECIFICATION = "1.6"
NAMES_ON_PYPI = ("edgeprune", "torch", "transformers", "onnx", "onnxruntime", "numpy")


def bill_of_materials(report: Report, facts: ModelFacts) -> str:
    """The text of bom.cdx.json."""
    libraries = [_library(name, version) for name, version in versions(report).items()]
    libraries = [one for one in libraries if one["name"] in NAMES_ON_PYPI]
    base = {"type": "machine-learning-model", "bom-ref": "base", "name": facts.base}
    base |= _licences(facts)
    bill = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": _model(report, facts),
        },
        "components": [base, *libraries],
        "dependencies": [
            {"ref": "model", "dependsOn": ["base", *(one["bom-ref"] for one in libraries)]}
        ],
    }
    return json.dumps(bill, indent=2, ensure_ascii=False) + "\n"


def _model(report: Report, facts: ModelFacts) -> dict[str, Any]:
    tasks = [task for task in (report.task, report.auxiliary) if task is not None]
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": report.task.name,
        "version": report.export.sha256[:12],
        "description": f"{facts.base}, compressed to {report.budget.text}",
        "hashes": [{"alg": "SHA-256", "content": report.export.sha256}],
        **_licences(facts),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-classification" if facts.labels else "text-regression",
                "architectureFamily": "transformer encoder",
                "modelArchitecture": facts.family,
                "datasets": [_data(task) for task in tasks],
                "inputs": [{"format": f"{name}: int64"} for name in report.export.inputs],
                "outputs": [{"format": "logits: float32"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(report)},
            "considerations": {"technicalLimitations": limits(report)},
        },
    }


def _data(task: TaskPart) -> dict[str, Any]:
    rows = task.rows
    told = f"{rows.train} training, {rows.validation} validation and {rows.test} test rows"
    return {"type": "dataset", "name": task.name, "description": told}


def _metrics(report: Report) -> list[dict[str, Any]]:
    low, high = report.verdict.interval_ms
    interval = {"lowerBound": str(low), "upperBound": str(high)}
    bounds = {} if low is None or high is None else {"confidenceInterval": interval}
    return [
        {"type": report.after.metric, "value": str(report.after.score), "slice": "test"},
        {
            "type": f"latency p{report.verdict.percentile:g} in ms",
            "value": str(report.verdict.observed_ms),
            "slice": device(report),
            **bounds,
        },
    ]


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _licences(facts: ModelFacts) -> dict[str, Any]:
    return {"licenses": [{"license": {"name": facts.licence}}]} if facts.licence else {}
