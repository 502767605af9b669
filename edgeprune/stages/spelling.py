"""The stage that cuts the vocabulary to what a size budget leaves, and rewrites the tokenizer."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from edgeprune.errors import ModelError, Unreachable
from edgeprune.latency import Budget
from edgeprune.report.folder import slug
from edgeprune.run import Run, Stage, digest, write_json
from edgeprune.size import Size
from edgeprune.stages.materials import Materials, spec_of, tokenized, versions
from edgeprune.vocabulary import differences, rewritten

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Spelled:
    """What a budget's student reads: every split as the tokenizer has it that ships with it.

    `learning` has the rows in the encoder's own ids, which the teacher knows too; `shipping` has
    them, and the tokenizer, in those of the student. Without a size budget both are what they were.
    """

    learning: Materials
    shipping: Materials
    kept: tuple[int, ...] | None
    """The old ids of the student's tokens, by their new ones; None for all."""
    stage: Stage | None


def spell_rows(
    run: Run, materials: Materials, plan: Stage, file_bytes: int, budget: Budget
) -> Spelled:
    """Keep as many tokens as fit beside all else that is in the plan's file of so many bytes.

    Raises ModelError where fewer tokens read a row otherwise than they may.
    """
    size, vocabulary = materials.recipe.size_budget, materials.vocabulary
    if size is None or vocabulary is None:
        return Spelled(materials, materials, None, None)

    def build(folder: Path) -> None:
        token = materials.token_bytes(materials.probe_precision)
        others = file_bytes - token * materials.encoder.shape.vocab
        room = (size.bytes - others) // token
        if room < vocabulary.needed:
            raise Unreachable(
                f"size {size}",
                why=f"leaves room for {max(room, 0):,} of {vocabulary.needed:,} tokens",
                remedy=f"give at least {Size(others + token * vocabulary.needed)}",
            )
        kept = vocabulary.first(room)
        run.progress.note(f"{len(kept):,} of {len(vocabulary.order):,} tokens are kept")
        write_json(folder / "vocabulary.json", {"kept": kept})
        spec = rewritten(spec_of(materials.tokenizer), kept)
        (folder / TOKENIZER).write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        _check(materials, _learning(_shipping(materials, folder), kept), kept)

    made_from = {
        "plan": plan.key,
        "size": size.bytes,
        "order": digest(vocabulary.order),
        "sequence": materials.recipe.sequence,
        "versions": versions("tokenizers", "transformers"),
    }
    stage = run.stage(f"vocabulary-{slug(str(budget))}", made_from, build)
    kept = tuple(stage.read("vocabulary.json")["kept"])
    shipping = _shipping(materials, stage.folder)
    return Spelled(_learning(shipping, kept), shipping, kept, stage)


def _shipping(materials: Materials, folder: Path) -> Materials:
    """With the tokenizer of the folder, and every split by it."""
    tokenizer = _with_backend(materials.tokenizer, Tokenizer.from_file(str(folder / TOKENIZER)))
    return replace(materials, tokenizer=tokenizer, tokens=tokenized(materials.inputs, tokenizer))


def _with_backend(tokenizer: Any, backend: Tokenizer) -> Any:
    """A Hugging Face tokenizer, its special tokens by the same names, over another one."""
    found = copy.copy(tokenizer)
    found._tokenizer = backend
    return found


def _learning(shipping: Materials, kept: Sequence[int]) -> Materials:
    """The same rows in the encoder's own ids."""
    old = np.asarray(kept, dtype=np.int64)
    tokens = {
        name: replace(rows, ids=tuple(old[row] for row in rows.ids), pad=int(old[rows.pad]))
        for name, rows in shipping.tokens.items()
    }
    return replace(shipping, tokens=tokens)


def _check(before: Materials, after: Materials, kept: Sequence[int]) -> None:
    """Raises ModelError."""
    unknown = before.tokenizer.unk_token_id
    for split, rows in before.tokens.items():
        length = before.recipe.sequence
        wrong = differences(rows, after.tokens[split], kept, unknown, length)
        if wrong.any():
            raise ModelError(
                f"tokenizer of {before.recipe.model}",
                why=f"with {len(kept):,} tokens it reads {wrong.sum()} {split} rows in another way "
                "than it may",
                remedy="give a larger --size, or leave it out, and report the tokenizer",
            )
