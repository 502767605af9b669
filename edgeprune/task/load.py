"""From a source to a Task: choose columns, read labels, complete the splits, sample, check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeprune.errors import DataError
from edgeprune.task.checks import (
    evaluation_notes,
    leakage_notes,
    refuse_unlearnable,
    training_notes,
)
from edgeprune.task.columns import Columns, choose
from edgeprune.task.labels import Coding
from edgeprune.task.sample import halve, hold_out, sample
from edgeprune.task.source import Source, open_source
from edgeprune.task.table import PLAIN, TEXT, Table, has_surrogate, read, shown
from edgeprune.task.task import METRICS, UNJUDGED, Rows, Task, digest_of

MAX_TEXT = 1_000_000  # characters; the longest encoders read a tenth of that
HELD_FOR_BOTH = 0.30  # of the training rows, where there is neither validation nor test
HELD_FOR_ONE = 0.15  # where there is a test split


def load_task(
    source: str,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    metric: str = "auto",
    train_size: int | None = None,
    seed: int = 0,
    allow_leakage: bool = False,
) -> Task:
    """The task of a folder of splits, of one file, or of a data set such as "hf:OWNER/NAME:CONFIG".

    A split that is missing is taken from another (seeded, stratified), `train_size` takes a
    seeded, stratified sample of the training rows; the notes say both. Raises DataError at data
    that cannot be learned from, and where over 1 % of the evaluation rows stand in the training
    rows in use, unless `allow_leakage`.
    """
    opened = open_source(source)
    columns = choose(opened.tables["train"], text, text_pair, label)
    coding = _coding(opened, columns, metric)
    metric = _metric(metric, coding)
    read = {split: _rows(opened, split, columns, coding) for split in opened.tables}
    labelled = {split: rows for split, rows in read.items() if len(rows)}
    splits = _completed(labelled, seed)
    train, validation, test = splits["train"], splits["validation"], splits["test"]
    notes = [*_unlabelled_notes(read, opened), *_completion_notes(labelled, splits)]
    if train_size is not None:
        train = _sampled(train, train_size, seed, opened.name)
        notes.append(_sample_note(train, splits["train"], seed))
    notes += training_notes(train, coding)
    notes += evaluation_notes(validation, coding, f"validation of {opened.name}")
    notes += evaluation_notes(test, coding, f"test of {opened.name}")
    notes += leakage_notes(train, validation, test, opened.name, allowed=allow_leakage)
    return _task(opened.name, coding, (train, validation, test), metric, notes)


def load_auxiliary(
    source: str, *, size: int, seed: int, target: Task, allow_leakage: bool = False
) -> Task:
    """At most `size` training rows of a related task; its validation and test hold no rows.

    Read like a task, or from plain text (.txt), a row each line; its rows are held against the
    evaluation rows of the `target`.
    """
    if (path := Path(source).expanduser()).suffix.casefold() in PLAIN:
        return _plain_text(path, size, seed, target, allow_leakage)
    opened = open_source(source, ["train"])
    coding = _coding(opened, columns := choose(opened.tables["train"]), "auto")
    whole = train = _rows(opened, "train", columns, coding)
    notes = [*_unlabelled_notes({"train": whole}, opened)]
    if size < len(whole):
        train = _sampled(whole, size, seed, opened.name)
        notes.append(_sample_note(train, whole, seed))
    notes += training_notes(train, coding)
    notes += leakage_notes(
        train, target.validation, target.test, opened.name, allowed=allow_leakage
    )
    splits = (train, train.take([]), train.take([]))
    return _task(opened.name, coding, splits, _metric("auto", coding), notes)


def load_text(source: str) -> Task:
    """All of a plain text (.txt), a row each line. Raises DataError."""
    path = Path(source).expanduser()
    return _text_task(path, _lines_of(path), [])


def _lines_of(path: Path) -> Rows:
    table = read(path, PLAIN)
    texts = tuple(_texts(table, TEXT, range(len(table))))
    return Rows(texts, None, np.zeros(len(texts), np.float32))


def _text_task(path: Path, train: Rows, notes: Sequence[str]) -> Task:
    splits = (train, train.take([]), train.take([]))
    digest = digest_of(splits, (), UNJUDGED)
    return Task(path.stem, "text", *splits, (), UNJUDGED, tuple(notes), digest)


def _plain_text(path: Path, size: int, seed: int, target: Task, allow_leakage: bool) -> Task:
    whole = train = _lines_of(path)
    notes = []
    if size < len(whole):
        drawn = np.random.default_rng([seed, 1]).permutation(len(whole))[:size]
        train = whole.take(np.sort(drawn))
        notes.append(f"train: a sample of {size} of {len(whole)} lines, seed {seed}")
    notes += leakage_notes(train, target.validation, target.test, path.stem, allowed=allow_leakage)
    return _text_task(path, train, notes)


def _task(
    name: str, coding: Coding, splits: tuple[Rows, Rows, Rows], metric: str, notes: Sequence[str]
) -> Task:
    digest = digest_of(splits, coding.names, metric)
    return Task(name, coding.kind, *splits, coding.names, metric, tuple(notes), digest)


def _coding(opened: Source, columns: Columns, metric: str) -> Coding:
    train, label = opened.tables["train"], columns.label
    return Coding.of(train, label, opened.class_names(label), metric=metric)


def _metric(metric: str, coding: Coding) -> str:
    """The metric that is meant, if it fits."""
    fitting = METRICS[coding.kind]
    if metric == "auto":
        return fitting[0]
    if metric not in fitting:
        raise DataError(
            f"metric {metric!r}",
            why=f"the labels are {'scores' if coding.kind == 'regression' else 'classes'}",
            remedy=f"choose one of {', '.join(fitting)}",
        )
    if metric == "f1" and len(coding.names) != 2:
        raise DataError(
            "metric 'f1'",
            why=f"it needs 2 classes and there are {len(coding.names)}",
            remedy="choose f1_macro",
        )
    return metric


def _rows(opened: Source, split: str, columns: Columns, coding: Coding) -> Rows:
    """The labelled rows of a split; none where a test split has no labels."""
    table = opened.tables[split]
    if split == "test" and columns.label not in table.columns:
        return Rows((), None, np.array([]))
    columns.check(table)
    targets, kept = coding.encode(table, columns.label)
    if not kept and split != "test":
        raise DataError(
            table.where,
            why=f"no row of it has a label in column {columns.label!r}",
            remedy=f"label the {split} rows, or name another column with --label",
        )
    pairs = None if columns.pair is None else tuple(_texts(table, columns.pair, kept))
    rows = Rows(tuple(_texts(table, columns.text, kept)), pairs, targets)
    if split == "train":
        refuse_unlearnable(rows, coding, table.where)
    return rows


def _texts(table: Table, column: str, kept: Sequence[int]) -> Iterator[str]:
    values = table.columns[column]
    for row in kept:
        value = values[row]
        if value is None or (isinstance(value, str) and not value.strip()):
            why, remedy = f"no text in column {column!r}", "give the row a text or leave it out"
        elif not isinstance(value, str):
            why, remedy = f"{shown(value)} in column {column!r} is not text", "write it as a string"
        elif len(value) > MAX_TEXT:
            why = f"a text of {len(value)} characters, over the limit of {MAX_TEXT}"
            remedy = "cut it: an encoder reads its beginning only"
        elif has_surrogate(value):
            why = f"half of a surrogate pair in {shown(value)}, which UTF-8 cannot hold"
            remedy = "write the file again from its source"
        else:
            yield value
            continue
        raise DataError(table.place(row), why=why, remedy=remedy)


def _completed(labelled: Mapping[str, Rows], seed: int) -> dict[str, Rows]:
    """All three splits, what is missing taken from what is there."""
    rng = np.random.default_rng([seed, 0])
    splits = dict(labelled)
    if "validation" not in labelled:
        share = HELD_FOR_ONE if "test" in labelled else HELD_FOR_BOTH
        splits["train"], splits["validation"] = hold_out(labelled["train"], share, rng)
    if "test" not in labelled:
        splits["validation"], splits["test"] = halve(splits["validation"], rng)
    return splits


def _sampled(train: Rows, size: int, seed: int, name: str) -> Rows:
    if size > len(train):
        raise DataError(
            f"a sample of {size} rows",
            why=f"{name} has {len(train)} training rows",
            remedy=f"ask for at most {len(train)}",
        )
    is_classes = np.issubdtype(train.targets.dtype, np.integer)
    least = len(np.unique(train.targets)) if is_classes else 2
    if size < least:
        raise DataError(
            f"a sample of {size} rows",
            why=f"{name} needs {least}, {'a row of each class' if is_classes else 'two scores'}",
            remedy=f"ask for at least {least}",
        )
    return sample(train, size, np.random.default_rng([seed, 1]))


def _sample_note(train: Rows, whole: Rows, seed: int) -> str:
    return f"train: a stratified sample of {len(train)} of {len(whole)} rows, seed {seed}"


def _unlabelled_notes(read: Mapping[str, Rows], opened: Source) -> Iterator[str]:
    for split, rows in read.items():
        left_out = len(opened.tables[split]) - len(rows)
        if not len(rows):
            yield "test split not used: it has no labels"
        elif left_out:
            yield f"{split}: rows left out because their label is -1: {left_out}"


def _completion_notes(labelled: Mapping[str, Rows], splits: Mapping[str, Rows]) -> Iterator[str]:
    train, validation, test = (len(splits[name]) for name in ("train", "validation", "test"))
    if "validation" not in labelled and "test" not in labelled:
        yield (
            "no validation and no test split: the rows were divided into "
            f"{train} train, {validation} validation and {test} test"
        )
    elif "validation" not in labelled:
        yield f"no validation split: {validation} of the training rows were taken for it"
    elif "test" not in labelled:
        yield (
            f"no test split: validation was halved, {validation} rows to choose on "
            f"and {test} to report on"
        )
