"""What is wrong with rows, as errors, and what a report must say of them, as notes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import DataError
from edgeprune.task.labels import Coding
from edgeprune.task.table import shown
from edgeprune.task.task import Rows, leaked

MAX_LEAKED = 0.01  # of the evaluation rows
FEW_CLASSES = 10  # up to here, classes may have a row each


def refuse_unlearnable(train: Rows, coding: Coding, where: str) -> None:
    """DataError where all rows answer alike, or most have a class of their own."""
    distinct = len(np.unique(train.targets))
    if distinct < 2:
        raise DataError(
            where,
            why=f"all {len(train)} rows have the same {_answer(coding)}",
            remedy="add rows of another, or name another column with --label",
        )
    if coding.kind == "classification" and distinct > max(FEW_CLASSES, len(train) / 2):
        raise DataError(
            where,
            why=f"{distinct} classes in {len(train)} rows",
            remedy="name the column of the classes with --label, or add rows of each class",
        )


def training_notes(train: Rows, coding: Coding) -> Iterator[str]:
    repeated = len(train) - len(set(train.normalised()))
    if repeated:
        yield f"train: rows that repeat the text of another: {repeated}"
    if coding.kind == "classification":
        counts = np.bincount(train.targets, minlength=len(coding.names))
        if (counts == 0).any():
            yield f"train: no row of {_listed(coding, counts == 0)}"
        if (counts == 1).any():
            yield f"train: a single row of {_listed(coding, counts == 1)}"


def evaluation_notes(rows: Rows, coding: Coding, what: str) -> Iterator[str]:
    """What the rows cannot show; DataError where they cannot tell one model from another."""
    distinct = len(np.unique(rows.targets))
    if distinct < 2:
        answer = _answer(coding)
        raise DataError(
            what,
            why=f"{len(rows)} rows with {distinct} different {answer}: they can show nothing",
            remedy=f"add rows of another {answer}",
        )
    if coding.kind == "classification":
        counts = np.bincount(rows.targets, minlength=len(coding.names))
        if (counts == 0).any():
            yield f"{what}: no row of {_listed(coding, counts == 0)}"


def leakage_notes(
    train: Rows, validation: Rows, test: Rows, name: str, *, allowed: bool
) -> Iterator[str]:
    """How many evaluation rows stand in `train`; DataError over 1 % unless `allowed`."""
    count, rows = leaked(train, validation) + leaked(train, test), len(validation) + len(test)
    if not count:
        return
    share = f"{count} of {rows} evaluation rows ({count / rows:.1%})"
    if count > MAX_LEAKED * rows and not allowed:
        raise DataError(
            f"data {name}",
            why=f"{share} stand in its training rows",
            remedy="leave those rows out of training, or go on with --allow-leakage",
        )
    yield f"{share} stand in the training rows of {name}"


def _answer(coding: Coding) -> str:
    return "class" if coding.kind == "classification" else "score"


def _listed(coding: Coding, chosen: NDArray[np.bool_]) -> str:
    names = [coding.names[i] for i in np.flatnonzero(chosen)]
    rest = f" and {len(names) - 5} more classes" if len(names) > 5 else ""
    return ", ".join(shown(name) for name in names[:5]) + rest
