"""Which columns of a table are the text, its pair and the label: named, or known by their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.errors import DataError
from edgeprune.task.table import Table, shown

# The first line whose columns are all there is taken, case aside.
TEXTS: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("#1 string", "#2 string"),
    ("text",),
    ("sentence",),
    ("sentence1",),
    ("utterance",),
    ("content",),
    ("question",),
    ("query",),
)
LABELS = (
    "label",
    "labels",
    "score",
    "intent",
    "class",
    "category",
    "target",
    "gold_label",
    "similarity_score",
    "is_duplicate",
    "quality",
)


@dataclass(frozen=True)
class Columns:
    text: str
    pair: str | None
    label: str

    def check(self, table: Table) -> None:
        """DataError where another split lacks one of the columns that training has."""
        for name in (self.text, self.pair, self.label):
            if name is not None and name not in table.columns:
                raise _missing(table, name, "which training has")


def choose(
    train: Table, text: str | None = None, pair: str | None = None, label: str | None = None
) -> Columns:
    """The named columns, and the others by their usual names; a named text alone is no pair."""
    for option, name in (("--text", text), ("--text-pair", pair), ("--label", label)):
        if name is not None and name not in train.columns:
            raise _missing(train, name, f"which {option} names")
    label = label or _first(train, LABELS)
    if label is None:
        raise _unrecognised(train, "label", "--label")
    if text is not None:
        return Columns(text, pair, label)
    for candidates in TEXTS:
        found = [_first(train, [candidate]) for candidate in candidates]
        if not {None, pair, label}.intersection(found):
            first, *second = [name for name in found if name is not None]
            return Columns(first, pair or (second[0] if second else None), label)
    raise _unrecognised(train, "text", "--text")


def _first(train: Table, candidates: Sequence[str]) -> str | None:
    names = {name.strip().casefold(): name for name in train.columns}
    return next((names[candidate] for candidate in candidates if candidate in names), None)


def _missing(table: Table, name: str, why: str) -> DataError:
    close = difflib.get_close_matches(name, table.columns, n=1)
    return DataError(
        table.where,
        why=f"no column {name!r}, {why}, among {_listed(table)}",
        remedy=f"did you mean {close[0]!r}?" if close else "name one of them, or add it",
    )


def _unrecognised(train: Table, what: str, option: str) -> DataError:
    remedy = f"name it with {option}"
    if not train.typed:
        remedy += "; the first line must hold the columns' names"
    if not train.typed and len(train.columns) == 1:
        remedy = "separate columns by commas in a .csv, by tabs in a .tsv"
    return DataError(
        train.where, why=f"no column looks like the {what} among {_listed(train)}", remedy=remedy
    )


def _listed(table: Table) -> str:
    return ", ".join(shown(name) for name in list(table.columns)[:20])
