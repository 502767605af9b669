"""Error curves and a plan for an encoder of BERT-base's shape: seconds and peak memory.

    python benchmarks/bert_base.py

Random weights, random tokens: what is timed does not depend on them. Writes
benchmarks/results/bert_base.json.
"""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import torch
from transformers import BertConfig

from edgeprune.effort import EFFORTS
from edgeprune.encoder import Classifier, Encoder
from edgeprune.latency import LatencyTable
from edgeprune.prune.curves import error_curves
from edgeprune.prune.moments import collect_moments
from edgeprune.prune.obs import obs
from edgeprune.prune.search import search
from edgeprune.shape import Shape

RESULT = Path(__file__).parent / "results" / "bert_base.json"
TOKENS = 64  # a row


def main() -> None:
    torch.manual_seed(0)
    config = BertConfig()
    dense = Shape.uniform(12, 12, 3072, hidden=768, head_dim=64, vocab=config.vocab_size)
    model = Classifier(Encoder(config, dense), {"target": 2}).eval()
    rows = EFFORTS["standard"].statistics_tokens // TOKENS
    ids = torch.randint(1000, config.vocab_size, (rows, TOKENS))
    batches = [
        {"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(32)
    ]
    started = time.monotonic()
    moments = collect_moments(model, batches)
    collected = time.monotonic()
    curves = error_curves(
        model, moments, obs, lambda done, total: print(f"{done}/{total}", flush=True)
    )
    priced = time.monotonic()
    table = LatencyTable({0: 0.0, 12: 12.0}, {0: 0.0, 3072: 24.0}, 2.0)  # any table will do
    plan = search(curves.errors(), table, dense, 0.5 * table.predict(dense))
    planned = time.monotonic()
    result = {
        "what": "moments, error curves and a plan at BERT-base's shape (random weights)",
        "command": "python benchmarks/bert_base.py",
        "tokens": rows * TOKENS,
        "moments_seconds": round(collected - started, 1),
        "curves_seconds": round(priced - collected, 1),
        "plan_seconds": round(planned - priced, 2),
        "total_seconds": round(planned - started, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
        "plan": str(plan.shape),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
