"""A check in the words of others: JUnit XML, Markdown, GitHub annotations, OpenMetrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from edgeprune.errors import ResourceError
from edgeprune.gate.check import Checked
from edgeprune.gate.static import Anatomy
from edgeprune.units import count, megabytes, ms

MAX_SUMMARY_BYTES = 1_000_000  # GitHub takes 1 MiB a step
MAX_ANNOTATIONS = 10  # of each kind and step, GitHub shows no more
# XML 1.0 has no place for these, however they are escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One thing that was checked, as a test runner tells it."""

    name: str
    result: Literal["passed", "failure", "error"]
    text: str
    seconds: float = 0.0


def cases(checked: Checked) -> Iterator[Case]:
    """Every gate and every target's verdict; inconclusive is an error, missed a failure."""
    for gate in checked.gates:
        yield Case(gate.name, "passed" if gate.passed else "failure", gate.text)
    results: dict[str, Literal["passed", "failure", "error"]]
    results = {"met": "passed", "missed": "failure", "inconclusive": "error"}
    for one in checked.targets:
        seconds = sum(launch["wall_s"] for launch in one.profile.facts["launches"])
        result = results[one.verdict["outcome"]]
        yield Case(f"latency on {one.profile.target}", result, one.verdict["line"], seconds)


def to_junit(checked: Checked) -> str:
    """One suite with one case for each gate and each target."""
    found = list(cases(checked))
    counts = {
        "tests": str(len(found)),
        "failures": str(sum(case.result == "failure" for case in found)),
        "errors": str(sum(case.result == "error" for case in found)),
        "time": f"{checked.total_s:.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "edgeprune check", **counts})
    for case in found:
        facts = {"classname": "edgeprune", "name": _xml(case.name), "time": f"{case.seconds:.3f}"}
        element = ElementTree.SubElement(suite, "testcase", facts)
        if case.result == "passed":
            ElementTree.SubElement(element, "system-out").text = _xml(case.text)
        else:
            told = ElementTree.SubElement(element, case.result, {"message": _xml(case.text)})
            told.text = _xml(checked.command)
    ElementTree.indent(root)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        + ElementTree.tostring(root, encoding="unicode")
        + "\n"
    )


def to_summary(checked: Checked) -> str:
    """Markdown for a step summary or a comment."""
    parts = [f"### edgeprune check: {checked.outcome}", _block(checked.lines())]
    head = "| target | verdict | p50 | p90 | inferences | launches | look |"
    rows = [head, "| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for one in checked.targets:
        latency, said = one.profile.latency, one.verdict
        rows.append(
            f"| {one.profile.target} | {said['outcome']} | {ms(latency.p50_ms)} | "
            f"{ms(latency.p90_ms)} | {said['n']} | {said['launches']} | "
            f"{said['look']} of {said['looks']} |"
        )
        more = f"To decide: {said['more']}. " if said["more"] else ""
        parts.append(more + "; ".join(f"{r['text']} (`{r['code']}`)" for r in said["reasons"]))
    parts.append("\n".join(rows) if len(rows) > 2 else "Nothing was measured.")
    gates = [
        f"- {'passed' if g.passed else '**failed**'} {g.name}: {g.text}" for g in checked.gates
    ]
    parts += ["\n".join(gates), _anatomy(checked.model), "Again:", _block([checked.command])]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.encode()[:MAX_SUMMARY_BYTES].decode(errors="ignore")


def to_annotations(checked: Checked) -> list[str]:
    """GitHub workflow commands: an error for what failed, a warning for what is open."""
    levels = {"failure": "error", "error": "warning" if checked.exit_code == 0 else "error"}
    found = [
        f"::{levels[case.result]} title={_property(f'edgeprune: {case.name}')}::{_data(case.text)}"
        for case in cases(checked)
        if case.result != "passed"
    ]
    return found[:MAX_ANNOTATIONS]


def to_openmetrics(checked: Checked) -> str:
    """Gauges for a time series of what a repository ships."""
    outcomes = ("met", "missed", "inconclusive")
    lines = ["# TYPE edgeprune_latency_seconds gauge", "# UNIT edgeprune_latency_seconds seconds"]
    for one in checked.targets:
        said = one.verdict
        quantiles = {
            "0.5": one.profile.latency.p50_ms,
            f"{said['percentile'] / 100:g}": said["observed_ms"],
        }
        for quantile, value_ms in quantiles.items():
            if value_ms is not None and math.isfinite(value_ms):
                labels = f'target="{_label(one.profile.target)}",quantile="{quantile}"'
                lines.append(f"edgeprune_latency_seconds{{{labels}}} {value_ms / 1e3:.9g}")
    lines += ["# TYPE edgeprune_budget_seconds gauge", "# UNIT edgeprune_budget_seconds seconds"]
    for one in checked.targets:
        label = f'target="{_label(one.profile.target)}"'
        lines.append(f"edgeprune_budget_seconds{{{label}}} {one.verdict['budget_ms'] / 1e3:.9g}")
    lines.append("# TYPE edgeprune_outcome stateset")
    lines += [
        f'edgeprune_outcome{{edgeprune_outcome="{name}"}} {int(checked.outcome == name)}'
        for name in outcomes
    ]
    model = checked.model
    sizes = {"model_bytes": model.size_bytes, "model_parameters": model.parameters}
    if model.multiply_adds is not None:
        sizes["model_multiply_adds"] = model.multiply_adds
    for name, value in sizes.items():
        lines += [f"# TYPE edgeprune_{name} gauge", f"edgeprune_{name} {value}"]
    return "\n".join([*lines, "# EOF"]) + "\n"


def write(path: Path, text: str, *, append: bool = False) -> None:
    """Raises ResourceError."""
    try:
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(f"file {path}", why=why, remedy="choose another file") from None


def _anatomy(model: Anatomy) -> str:
    facts = [megabytes(model.size_bytes / 1e6), f"{count(model.parameters)} parameters"]
    if model.multiply_adds is not None:
        facts.append(f"{count(model.multiply_adds)} multiply-adds")
    return f"{', '.join(facts)}, sha256 `{model.sha256}`"


def _block(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
