"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import hypothesis
import numpy as np
import pytest
from bundles import SPECIAL, WORDS, make_small_bundle, make_small_onnx

from edgeprune.latency import Budget, Latency
from edgeprune.measure.verdict import judge
from edgeprune.report.folder import slug, write_reports
from edgeprune.report.report import (
    ExportPart,
    Feasibility,
    Figures,
    Fusion,
    Judgement,
    LayerRow,
    Limit,
    ParityRow,
    PlanPart,
    Reason,
    Report,
    Round,
    Rows,
    TaskPart,
    Transfer,
    layer_rows,
)
from edgeprune.shape import LayerShape, Shape

# Before torch is imported, and in every process that a test starts: one thread, so that the same
# seed gives the same weights and tests do not fight for cores; and no network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# No test talks to the adb server of whoever runs it, and so to their phone.
os.environ["ADB_SERVER_SOCKET"] = "localfilesystem:/dev/null/adb"

# The same examples each time, however long they take on a busy machine.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def server_missing() -> Callable[[str], NoReturn]:
    """Says that a test's server cannot be had: it is skipped, or fails where servers must be."""

    def missing(why: str) -> NoReturn:
        if os.environ.get("EDGEPRUNE_REQUIRE_SERVERS") == "1":
            pytest.fail(why)
        pytest.skip(why)

    return missing


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `save_tiny_model`; copy it to change it."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def save_tiny_model(folder: Path, letters: Sequence[str] = ()) -> Path:
    """A random BERT of two layers, as Hugging Face saves it.

    Its words are p0 to p19, q0 to q19 and r0 to r19; those of one letter look alike to it. With
    `letters` it can spell others.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate((*SPECIAL, *WORDS, *letters))}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
    config = BertConfig(
        vocab_size=len(ids),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = BertModel(config, add_pooling_layer=False)
        alike = torch.randn(3, config.hidden_size).repeat_interleave(20, 0)
        words = slice(len(SPECIAL), len(SPECIAL) + len(WORDS))
        model.embeddings.word_embeddings.weight.data[words] += 0.04 * alike
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": word for name, word in names.items()}
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shim(
    tmp_path_factory: pytest.TempPathFactory, server_missing: Callable[[str], NoReturn]
) -> Path:
    """A disk that fails when it is told to, for processes that preload it."""
    from faults import build_shim

    built = build_shim(tmp_path_factory.mktemp("shim"))
    if isinstance(built, str):
        server_missing(built)
    return built


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """Makes a Report of a met budget; keywords change it."""
    return _report


def _report(
    budget: str = "50%", outcome: str = "met", floor_met: bool = True, **changes: Any
) -> Report:
    parts: dict[str, Any] = {
        "verdict": Judgement.model_validate(
            {
                "outcome": outcome,
                "reasons": [Reason(code="enough_samples", text="Enough samples.")],
                "percentile": 90.0,
                "observed_ms": 16.1,
                "budget_ms": 16.4,
                "interval_ms": (15.9, 16.3),
                "confidence": 0.99,
                "n": 1000,
                "n_effective": 410.5,
                "exceeded": 41,
                "launches": 10,
                "target": "ort",
                "look": 1,
                "looks": 3,
                "targets": 1,
                "exit_code": {"met": 0, "missed": 1, "inconclusive": 3}[outcome],
                "line": f"{outcome}  ort  p90 16.1 ms [15.9, 16.3] at 99 % < budget 16.4 ms",
            }
        ),
        "budget": Limit(text=budget, ms=16.4, percentile=90),
        "before": _figures(score=0.82, p50_ms=31.0, p90_ms=32.1, size_mb=90.4, size=22_700_000),
        "after": _figures(score=0.812, p50_ms=15.5, p90_ms=16.1, size_mb=60.2, size=15_100_000),
        "score_ratio": 0.99,
        "floor": 0.98,
        "floor_met": floor_met,
        "plan": PlanPart(
            layers=(
                LayerRow(
                    heads=5,
                    ffn=613,
                    heads_before=12,
                    ffn_before=1536,
                    parameters_before=1_774_464,
                    parameters_after=718_000,
                    bytes_before=7_097_856,
                    bytes_after=2_872_000,
                ),
            ),
            predicted_ms=16.0,
            measured_untrained_ms=16.05,
            rounds=(Round(aim_ms=16.1, predicted_ms=16.0, measured_ms=16.05),),
        ),
        "transfer": Transfer(how="joint", what="both", when="all", gain=0.012, used=True),
        "task": _task("mrpc", train=500),
        "auxiliary": _task("qqp", train=8000),
        "parity": (ParityRow(shape=(1, 8), max_abs=3e-6, cosine=1.0, agreement=1.0),),
        "export": ExportPart(
            operators={"MatMul": 36, "Gelu": 6},
            fusions={"Attention": Fusion(expected=6, found=0)},
            opset=20,
            inputs=("input_ids", "attention_mask"),
            sha256="0" * 64,
            initializer_bytes=60_000_000,
            parameters=15_100_000,
        ),
        "table": {"attention_ms": {"0": 0.0, "12": 2.1}, "ffn_ms": {"0": 0.0}, "rest_ms": 0.8},
        "feasibility": Feasibility(dense_ms=31.0, minimum_ms=0.9, budget_ms=16.4),
        "seconds": {"teacher": 41.2, "curves": 63.0},
        "cached": ("teacher",),
        "environment": {"python": "3.11.2", "target": "ort"},
        "recipe": {"model": "demo", "task": "mrpc", "budget": [budget]},
        "command": "edgeprune compress --model demo --task mrpc --auxiliary qqp",
        "peak_mb": 2100.0,
        "bundle": "bundle",
        "run": "runs/mrpc",
    }
    return Report(**(parts | changes))


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a finished run: its reports, and of its stages what a page is made from.

    Keywords change its reports.
    """

    def make(*budgets: str, name: str = "run", **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("runs") / name
        return _run(folder, budgets or ("50%", "25%"), changes)

    return make


TABLE: dict[str, Any] = {
    "attention_ms": {"0": 0.0, "2": 1.1, "4": 2.0},
    "ffn_ms": {"0": 0.0, "32": 1.5, "64": 3.0},
    "rest_ms": 0.8,
    "slope": 1.1,
    "fit_error": 0.012,
    "spread": 0.03,
    "notes": [],
}
LAYERS = (  # heads, FFN width, each before and after
    ((4, 2), (64, 32)),
    ((4, 0), (64, 64)),
)


def _run(folder: Path, budgets: tuple[str, ...], changes: dict[str, Any]) -> Path:
    latencies = {
        budget: Latency.of(_samples_ms(12.0 / (at + 1))) for at, budget in enumerate(budgets)
    }
    keys = {"latency": "a" * 64, "teacher": "b" * 64, "curves": "c" * 64}
    keys |= {f"student-{slug(budget)}": "d" * 64 for budget in budgets}
    reports = []
    for budget, latency in latencies.items():
        limit = Budget(ms=1.02 * latency.p90_ms)
        parts: dict[str, Any] = {
            "verdict": Judgement.model_validate(judge(latency, limit, target="ort").to_dict()),
            "after": _figures(
                score=0.8, p50_ms=latency.p50_ms, p90_ms=latency.p90_ms, size_mb=9.5, size=2_400_000
            ),
            "plan": PlanPart(
                layers=layer_rows(
                    Shape(tuple(LayerShape(h[0], f[0]) for h, f in LAYERS), 32, 8, 100),
                    Shape(tuple(LayerShape(h[1], f[1]) for h, f in LAYERS), 32, 8, 100),
                ),
                predicted_ms=latency.p50_ms,
                measured_untrained_ms=1.02 * latency.p50_ms,
                rounds=(
                    Round(
                        aim_ms=latency.p50_ms,
                        predicted_ms=latency.p50_ms,
                        measured_ms=1.02 * latency.p50_ms,
                    ),
                ),
            ),
            "table": TABLE,
            "stages": keys,
            "recipe": {"model": "demo", "task": "mrpc", "budget": list(budgets)},
        }
        of_verdict = {"budget": Limit(text=budget, ms=cast(float, limit.ms), percentile=90)}
        reports.append(_report(**(parts | changes)).model_copy(update=of_verdict))
    write_reports(folder, reports)
    _stages(folder / "stages", latencies, keys)
    return folder


def _samples_ms(middle_ms: float) -> list[list[float]]:
    """Ten launches of a hundred, each a little apart from the others."""
    random = np.random.default_rng(0)
    shifts = random.normal(0, 0.01, 10)
    return [(middle_ms * (1 + s + random.gamma(2, 0.01, 100))).tolist() for s in shifts]


def _stages(stages: Path, latencies: dict[str, Latency], keys: dict[str, str]) -> None:
    curves = {
        f"{layer}.{kind}.{width}.error": np.array(0.01 * (most - width))
        for layer in range(2)
        for kind, most in (("attention", 4), ("ffn", 64))
        for width in range(0, most + 1, most // 4)
    }
    steps = [{"target": 1 / (step + 1), "auxiliary": 2 / (step + 1)} for step in range(40)]
    checkpoints = [{"step": step, "score": 0.6 + step / 100, "loss": 0.5} for step in (20, 30, 40)]
    alone = {"steps": [{"target": row["target"]} for row in steps], "checkpoints": checkpoints}
    history = {"alone": alone, "coupled": {"steps": steps, "checkpoints": checkpoints}}
    for name, key in keys.items():
        folder = stages / f"{name}-{key[:12]}"
        folder.mkdir(parents=True)
        scores = {"score": 0.8, "gain": 0.02 if name == "teacher" else -0.01}
        scores |= {"taught": True} if name == "teacher" else {"recovered": False}
        if name == "latency":
            dense = {"latency": [[20.0, 21.0]] * 10, "undisturbed_ms": 19.5}
            (folder / "ort.dense.json").write_text(json.dumps(dense))
            for budget, latency in latencies.items():
                told = {"latency": latency.launches_ms, "undisturbed_ms": latency.percentile(5)}
                (folder / f"ort.fp32-{slug(budget)}.json").write_text(json.dumps(told))
        elif name == "curves":
            numpy = pytest.importorskip("safetensors.numpy")
            numpy.save_file(curves, folder / "curves.safetensors")
        else:
            (folder / "history.json").write_text(json.dumps(history))
            (folder / "scores.json").write_text(json.dumps(scores))


def _figures(*, score: float, p50_ms: float, p90_ms: float, size_mb: float, size: int) -> Figures:
    return Figures(
        score=score,
        metric="accuracy",
        p50_ms=p50_ms,
        p90_ms=p90_ms,
        size_mb=size_mb,
        parameters=size,
        precision="fp32",
    )


def _task(name: str, *, train: int) -> TaskPart:
    return TaskPart(
        name=name,
        kind="pair",
        metric="accuracy",
        labels=2,
        rows=Rows(train=train, validation=200, test=1000),
        digest="1" * 64,
    )


# --- a bundle that needs no torch to be made ----------------------------------------------------


@pytest.fixture
def small_onnx(tmp_path: Path) -> Path:
    """A classifier by ONNX alone: a token votes for the letter that it begins with."""
    return make_small_onnx(tmp_path / "small.onnx")


@pytest.fixture
def small_bundle(small_onnx: Path, tmp_path: Path) -> Path:
    """The bundle of `small_onnx`, with all that the bundle of a run has; it may be spoiled."""
    return make_small_bundle(tmp_path / "run" / "bundle", small_onnx)
