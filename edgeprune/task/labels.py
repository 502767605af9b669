"""From a label column to targets: what kind of task it is, the names of its classes, the codes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import DataError
from edgeprune.task.table import Table, has_surrogate, shown
from edgeprune.task.task import METRICS, Kind

UNLABELLED = -1  # the number that GLUE and SNLI write where nobody knows
MAX_SCORE = 1e18  # float32 holds it, and its square

_WHOLE = re.compile(r"[-+]?\d{1,18}")
_DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Label = int | float | str


@dataclass(frozen=True)
class Coding:
    """How the values of a label column are read, as the training rows have it."""

    kind: Kind
    names: tuple[str, ...]  # of the classes, by index; () for scores
    indices: Mapping[Label, int]  # of the values that occur in training
    numeric: bool  # the values are numbers, also where a format knows only strings

    @classmethod
    def of(
        cls, train: Table, column: str, names: tuple[str, ...] | None, *, metric: str = "auto"
    ) -> Coding:
        """Read off the training rows; `names` are those of the class indices, where known.

        Whole numbers and words are classes. A number with a fraction makes the column scores, and
        so does a correlation asked for by name where the numbers have no class names.
        """
        indices: dict[Label, int]
        written = _labels(train, column)
        present = {value for value in written if value is not None}
        if names is not None and present <= set(names):
            indices = {name: index for index, name in enumerate(names) if name in present}
            return cls("classification", names, indices, numeric=False)
        values = written if train.typed else [_number(value) for value in written]
        numeric = _are_numbers(values, train)
        numbers = {value for value in values if isinstance(value, int | float)}
        if names is not None:
            _check_named(values, names, train)
            indices = {index: index for index in range(len(names)) if index in numbers}
            return cls("classification", names, indices, numeric=True)
        by_metric = numeric and metric in METRICS["regression"]
        if by_metric or any(number != int(number) for number in numbers):
            return cls("regression", (), {}, numeric=True)
        classes = sorted(map(int, numbers)) if numeric else sorted(map(str, present))
        indices = dict(zip(classes, range(len(classes)), strict=True))
        return cls("classification", tuple(map(str, classes)), indices, numeric)

    def encode(self, table: Table, column: str) -> tuple[NDArray[Any], list[int]]:
        """(targets, the rows that have them): -1 that is no class marks a row without a label.

        No rows come back where no row has a label. Raises DataError at a value that training
        does not have, and where only some labels are missing.
        """
        labels = _labels(table, column)
        if self.numeric and not table.typed:
            labels = [_number(value) for value in labels]
        if all(value is None or self._is_unlabelled(value) for value in labels):
            return self._targets([]), []
        if self.kind == "regression":
            scores = [self._score(table, row, value) for row, value in enumerate(labels)]
            return self._targets(scores), list(range(len(labels)))
        rows = [row for row, value in enumerate(labels) if not self._is_unlabelled(value)]
        return self._targets([self._index(table, row, labels[row]) for row in rows]), rows

    def _is_unlabelled(self, value: Label | None) -> bool:
        return value == UNLABELLED and UNLABELLED not in self.indices

    def _targets(self, values: Sequence[float]) -> NDArray[Any]:
        return np.array(values, dtype=np.int64 if self.kind == "classification" else np.float32)

    def _index(self, table: Table, row: int, value: Label | None) -> int:
        if value is None:
            raise _missing(table, row)
        if value not in self.indices:
            raise DataError(
                table.place(row),
                why=f"label {shown(value)} never occurs in the training rows",
                remedy="correct it, or add training rows of that class",
            )
        return self.indices[value]

    def _score(self, table: Table, row: int, value: Label | None) -> float:
        if value is None:
            raise _missing(table, row)
        if isinstance(value, str) or not abs(value) <= MAX_SCORE:
            raise DataError(
                table.place(row),
                why=f"score {shown(value)} is not a number within ±{MAX_SCORE:g}",
                remedy="correct the row or leave it out",
            )
        return float(value)


def _labels(table: Table, column: str) -> list[Label | None]:
    return [_label(table, row, value) for row, value in enumerate(table.columns[column])]


def _label(table: Table, row: int, value: object) -> Label | None:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    if isinstance(value, str) and not has_surrogate(value):
        return value.strip() or None
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float) and not math.isinf(value):
        return None if math.isnan(value) else value
    raise DataError(
        table.place(row),
        why=f"label {shown(value)} is no word or finite number",
        remedy="write one label a row, or name another column with --label",
    )


def _number(value: Label | None) -> Label | None:
    """The finite number that a string spells, otherwise the value."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, str) and _DECIMAL.fullmatch(value) and math.isfinite(float(value)):
        return float(value)
    return value


def _are_numbers(values: Sequence[Label | None], train: Table) -> bool:
    """Whether all are numbers rather than words; DataError where some are and some are not."""
    first = next((value for value in values if value is not None), None)
    for row, value in enumerate(values):
        if value is not None and isinstance(value, str) != isinstance(first, str):
            raise DataError(
                train.place(row),
                why=f"label {shown(value)} in a column that began with {shown(first)}",
                remedy="write every label as a number, or every label as a word",
            )
    return not isinstance(first, str)


def _check_named(values: Sequence[Label | None], names: tuple[str, ...], train: Table) -> None:
    for row, value in enumerate(values):
        known = value in names if isinstance(value, str) else value in range(len(names))
        if value is not None and value != UNLABELLED and not known:
            raise DataError(
                train.place(row),
                why=f"label {shown(value)} is none of the {len(names)} named classes",
                remedy="correct it, or labels.json, which holds null for scores",
            )


def _missing(table: Table, row: int) -> DataError:
    return DataError(
        table.place(row),
        why="it has no label",
        remedy="add one, leave the row out, or name another column with --label",
    )
