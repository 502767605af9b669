"""Canaries over every output: nothing that is told holds the user's home, name, host or secrets.

What a run folder keeps for itself (status.json, stages) holds real paths, as a run is resumed by
them; nothing of it is shipped.
"""

from __future__ import annotations

import gzip
import json
import platform
import shutil
import socket
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from edgeprune.report.bom import bill_of_materials
from edgeprune.report.card import ModelFacts, model_card
from edgeprune.report.markdown import to_markdown
from edgeprune.report.report import Report
from edgeprune_cli.app import main

Captured = pytest.CaptureFixture[str]

targets_installed = pytest.mark.skipif(
    not entry_points(group="edgeprune.runtimes", name="null"),
    reason="runtimes are found by the entry points of an installed package",
)

HOME = "home-of-canary"
TOKEN = "hf_" + "c4N4rY" * 5
LOGIN = "canary:s3cr3t"
ENVIRONMENT = {
    "HF_TOKEN": "hf_" + "eNv1r0n" * 5,
    "AWS_SECRET_ACCESS_KEY": "canary-aws",
    "USER": "canary-user",
    "LOGNAME": "canary-user",
    "HOSTNAME": "canary-host",
}
CANARIES = (HOME, TOKEN, LOGIN, "s3cr3t", "canary-host", *ENVIRONMENT.values())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything lies that the commands are given, on a machine full of secrets."""
    home = tmp_path / HOME
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(platform, "node", lambda: "canary-host")
    monkeypatch.setattr(socket, "gethostname", lambda: "canary-host")
    return home


def found(text: str) -> list[str]:
    return [canary for canary in CANARIES if canary in text]


def leaks(folder: Path, *names: str) -> dict[str, list[str]]:
    """The canaries in files, by their names; what is gzipped is opened."""
    told = {}
    for name in names:
        data = (folder / name).read_bytes()
        text = gzip.decompress(data) if name.endswith(".gz") else data
        told[name] = found(text.decode(errors="replace"))
    return {name: canaries for name, canaries in told.items() if canaries}


def silent(capsys: Captured) -> bool:
    """Whether neither stdout nor stderr holds a canary; both hold something."""
    captured = capsys.readouterr()
    assert captured.out + captured.err
    return not found(captured.out + captured.err)


@pytest.fixture
def model(home: Path, small_onnx: Path) -> str:
    """A file in a folder that bears a token's name."""
    folder = home / TOKEN
    folder.mkdir()
    return str(shutil.copy(small_onnx, folder / "model.onnx"))


NULL = ("--target", "null", "--runs", "rapid")


@targets_installed
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_profile_and_its_samples_tell_no_secret(
    home: Path, model: str, capsys: Captured, form: tuple[str, ...]
) -> None:
    samples = home / "samples.jsonl.gz"
    assert main(["profile", model, *NULL, *form, "--samples", str(samples)]) == 0
    assert silent(capsys)
    assert leaks(home, "samples.jsonl.gz") == {}


@targets_installed
@pytest.mark.parametrize("form", [(), ("--json",), ("--annotations", "github")])
def test_a_check_tells_no_secret_in_any_form(
    home: Path, model: str, capsys: Captured, form: tuple[str, ...]
) -> None:
    files = {"samples": "s.jsonl.gz", "junit": "j.xml", "summary": "s.md", "openmetrics": "m.txt"}
    words = [word for key, name in files.items() for word in (f"--{key}", str(home / name))]
    assert main(["check", model, "--budget", "900ms", *NULL, *words, *form]) in (0, 3)
    assert silent(capsys)
    assert leaks(home, *files.values()) == {}
    main(["verdict", str(home / "s.jsonl.gz"), "--json"])
    assert silent(capsys)


@targets_installed
def test_a_comparison_tells_no_secret(home: Path, model: str, capsys: Captured) -> None:
    assert main(["compare", model, model, "--target", "null", "--json"]) in (0, 3)
    assert silent(capsys)


@targets_installed
def test_a_bundle_that_is_verified_and_shipped_tells_no_secret(
    home: Path, small_bundle: Path, capsys: Captured
) -> None:
    bundle = shutil.copytree(small_bundle, home / TOKEN / "bundle")
    assert main(["verify", str(bundle), "--json"]) == 0
    assert silent(capsys)
    assert main(["ship", str(bundle), str(home / TOKEN / "models"), "--json"]) == 0
    assert silent(capsys)


SECRETS = {
    "model": f"https://{LOGIN}@hub.example/{TOKEN}",
    "task": "mrpc",
    "budget": ["50%", "25%"],
    "sequence": 128,
    "batch": 1,
    "threads": 1,
}


@pytest.fixture
def run(home: Path, make_run: Callable[..., Path]) -> Path:
    """A finished run whose every free text holds a canary."""
    here = str(home / "runs")
    return make_run(
        recipe=SECRETS | {"task": f"{here}/mrpc", "out": here},
        command=f"edgeprune compress --model {SECRETS['model']} --out {here}",
        environment={"python": "3.11.2", "cache": f"{here}/.cache", "target": "ort"},
        notes=(f"downloaded with {TOKEN}", f"read from {here}"),
        run=here,
        bundle="bundle",
    )


def test_a_report_tells_no_secret_in_any_form(run: Path, capsys: Captured) -> None:
    for form in ((), ("--json",), ("--markdown",)):
        assert main(["report", str(run), *form]) == 0
        assert silent(capsys)
    budgets = [f"budgets/{name}/report" for name in ("50pct", "25pct")]
    kept = [f"{name}.{suffix}" for name in ("report", *budgets) for suffix in ("json", "md")]
    assert leaks(run, *kept) == {}


def test_a_page_and_its_figures_tell_no_secret(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    assert main(["report", str(run), "--html", "--figures", str(tmp_path / "figures")]) == 0
    assert leaks(run, "report.html") == {}
    names = [path.name for path in (tmp_path / "figures").iterdir()]
    assert names
    assert leaks(tmp_path / "figures", *names) == {}


def test_a_card_and_a_bill_of_materials_tell_no_secret(
    home: Path, make_report: Callable[..., Report]
) -> None:
    facts = ModelFacts("MiniLM-L6", "bert", "apache-2.0", ("no", "yes"), True)
    environment = {"python": "3.11.2", "target": "ort", "cache": str(home), "runtime": {}}
    report = make_report(recipe=SECRETS | {"out": str(home)}, environment=environment)
    assert found(model_card(report, facts)) == []
    assert found(bill_of_materials(report, facts)) == []
    assert found(to_markdown([report])) == []


@pytest.mark.parametrize(
    "words",
    [
        ("profile", f"https://{LOGIN}@hub.example/model.onnx"),
        ("verify", f"nowhere/{TOKEN}"),
        ("check", "model.onnx", "--budget", TOKEN),
        ("compress", "--model", f"https://{LOGIN}@hub.example/m", "--task", "t"),
        ("report", f"runs/{TOKEN}"),
        ("ship", "--rollback", f"ssh:{TOKEN}"),
        ("explain", TOKEN),
    ],
)
def test_an_error_tells_no_secret(home: Path, capsys: Captured, words: tuple[str, ...]) -> None:
    assert main([*words]) != 0
    captured = capsys.readouterr()
    assert captured.err.startswith("error[")
    assert "[redacted]" in captured.err
    assert found(captured.err + captured.out) == []


def test_the_canaries_sing(home: Path) -> None:
    """What stands in an output as it is, is found."""
    path = home / "x.gz"
    path.write_bytes(gzip.compress(json.dumps({"token": TOKEN, "at": str(home)}).encode()))
    assert leaks(home, "x.gz") == {"x.gz": [HOME, TOKEN]}
