"""A task as a value: labelled rows in three splits, and the metric that judges answers to them."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["classification", "regression", "text"]  # the last without labels: an auxiliary

# The first of each is what `auto` stands for.
UNJUDGED = "none"
METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "f1_macro", "matthews"),
    "regression": ("spearman", "pearson"),
}


@dataclass(frozen=True, eq=False)  # an array has no truth value; compare digests
class Rows:
    """Labelled text: `targets` are int64 class indices or float32 scores."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None  # the second texts, where a row is a pair
    targets: NDArray[Any]  # [rows]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | NDArray[Any]) -> Rows:
        chosen = np.asarray(indices, dtype=np.int64)
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in chosen)
        return Rows(tuple(self.texts[i] for i in chosen), pairs, self.targets[chosen])

    def normalised(self) -> list[tuple[str, ...]]:
        """What makes two rows the same: their texts without regard to case and white space.

        All white space goes, as tokenised copies of a corpus have it before each comma.
        """
        texts = [self.texts] if self.pairs is None else [self.texts, self.pairs]
        return list(zip(*([_normalised(text) for text in side] for side in texts), strict=True))


def _normalised(text: str) -> str:
    return "".join(text.casefold().split())


def leaked(train: Rows, evaluation: Rows) -> int:
    """How many evaluation rows stand in `train`, case and white space apart."""
    seen = set(train.normalised())
    return sum(key in seen for key in evaluation.normalised())


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned, chosen on (`validation`) and reported on (`test`)."""

    name: str
    kind: Kind
    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...]  # class names by index; () for scores
    metric: str
    notes: tuple[str, ...]  # what a report of this task must say
    digest: str  # sha256 of what was asked: `digest_of`

    @property
    def outputs(self) -> int:
        """The width of a head: a logit a class, or one score."""
        return len(self.labels) or 1

    def score(self, outputs: NDArray[Any], rows: Rows) -> float:
        """The metric of `outputs` [rows, self.outputs]: logits of the classes, or scores.

        A correlation that does not exist, as with constant outputs, counts as 0.
        """
        answers = np.asarray(outputs, dtype=np.float64).reshape(len(rows), self.outputs)
        if self.kind == "regression":
            return _correlation(self.metric, rows.targets, answers[:, 0])
        return _agreement(self.metric, rows.targets, answers.argmax(axis=1))

    def unlearnt(self, score: float) -> str | None:
        """What a report must say of a test score that a constant answer would reach as well.

        The constant is the commonest label of training, or any score; "as well" allows for two
        standard errors of a share of the test rows, 1 / sqrt(rows) at most.
        """
        constant = np.zeros((len(self.test), self.outputs))
        if self.kind == "classification":
            constant[:, np.bincount(self.train.targets).argmax()] = 1.0
        reached = self.score(constant, self.test)
        if score > reached + 1 / math.sqrt(len(self.test)):
            return None
        return (
            f"the dense model scores {score:.4f}, where one and the same answer to every row scores"
            f" {reached:.4f}: it learned too little for its ratio to the pruned one to mean much;"
            " give it more rows, more time (--effort), or an encoder nearer to the task"
        )


def _agreement(metric: str, targets: NDArray[Any], classes: NDArray[Any]) -> float:
    from sklearn import metrics  # type: ignore[import-untyped]

    if metric == "accuracy":
        return float(metrics.accuracy_score(targets, classes))
    if metric == "matthews":
        return float(metrics.matthews_corrcoef(targets, classes))
    average = "binary" if metric == "f1" else "macro"
    return float(metrics.f1_score(targets, classes, average=average, zero_division=0.0))


def _correlation(metric: str, targets: NDArray[Any], scores: NDArray[Any]) -> float:
    from scipy import stats  # type: ignore[import-untyped]

    correlate = stats.spearmanr if metric == "spearman" else stats.pearsonr
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of constant input, whose NaN is answered below
        value = float(correlate(targets, scores).statistic)
    return value if math.isfinite(value) else 0.0


def digest_of(splits: Sequence[Rows], labels: tuple[str, ...], metric: str) -> str:
    """sha256 over the rows in use, their labels and the metric; the same on every machine."""
    digest = hashlib.sha256(json.dumps([labels, metric]).encode())
    for rows in splits:
        digest.update(json.dumps([rows.texts, rows.pairs, rows.targets.tolist()]).encode())
    return digest.hexdigest()
