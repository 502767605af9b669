"""Text without labels as a task: some of its tokens are hidden, and told from their neighbours.

Masked-language modelling as of BERT (Devlin et al. 2019, arXiv 1810.04805), all hidden tokens being
replaced by the mask. The head turns a token's last state into an embedding, which is compared with
those of all tokens: the embeddings are frozen, so that only the turn is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.encoder import Classifier, Encoder

HIDDEN = 0.15  # of the tokens
TOLD = -1  # the target of a token that is not hidden

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Blanks:
    """How a tokenizer hides tokens; its special ones it never does."""

    mask: int
    special: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Blanks | None:
        """None for a tokenizer without a mask."""
        if tokenizer.mask_token_id is None:
            return None
        return cls(int(tokenizer.mask_token_id), tuple(sorted(map(int, tokenizer.all_special_ids))))

    def hide(self, ids: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
        """`ids` [rows, tokens] with some hidden; and what those were, TOLD for the others."""
        hidden = ~np.isin(ids, self.special) & (random.random(ids.shape) < HIDDEN)
        return np.where(hidden, self.mask, ids), np.where(hidden, ids, TOLD)


def embedding_width(encoder: Encoder) -> int:
    """The outputs of a head that fills blanks."""
    return int(_words(encoder).weight.shape[1])


def filling_loss(
    model: Classifier, inputs: Mapping[str, Tensor], targets: Tensor, head: str
) -> Tensor:
    """Cross entropy over all tokens, at those that are hidden; 0 where none is."""
    targets = targets.to(inputs["input_ids"].device)
    states = model.encoder(**inputs)[-1]
    hidden = targets != TOLD
    turned = model.heads[head](model.dropout(states[hidden]))
    logits = F.linear(turned, _words(model.encoder).weight).float()
    losses = F.cross_entropy(logits, targets[hidden], reduction="sum")
    return losses / hidden.sum().clamp(min=1)


def _words(encoder: Encoder) -> nn.Embedding:
    return cast(nn.Embedding, encoder.embeddings.word_embeddings)
