"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

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
)

# Before torch is imported, and in every process that a test starts: one thread, so that the same
# seed gives the same weights and tests do not fight for cores; and no network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# No test talks to the adb server of whoever runs it, and so to their phone.
os.environ["ADB_SERVER_SOCKET"] = "localfilesystem:/dev/null/adb"

# The same examples each time, however long they take on a busy machine.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(f"{letter}{i}" for letter in "pqr" for i in range(20))


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
    """The folder of a random BERT of two layers, as Hugging Face saves it; copy it to change it.

    Its words are p0 to p19, q0 to q19 and r0 to r19; those of one letter look alike to it.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(SPECIAL + WORDS)}
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
        letters = torch.randn(3, config.hidden_size).repeat_interleave(20, 0)
        model.embeddings.word_embeddings.weight.data[len(SPECIAL) :] += 0.04 * letters
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": word for name, word in names.items()}
    ).save_pretrained(folder)
    return folder


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
                "rule": "plain",
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
        "environment": {"python": "3.11.2"},
        "recipe": {"model": "demo", "task": "mrpc", "budget": [budget]},
        "command": "edgeprune compress --model demo --task mrpc --auxiliary qqp",
        "peak_mb": 2100.0,
        "bundle": "bundle",
        "run": "runs/mrpc",
    }
    return Report(**(parts | changes))


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
