"""Tasks from real files: what loads, what is said about it, and what is refused in which words."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import DataError
from edgeprune.task import Rows, Task, leaked, load_auxiliary, load_task
from edgeprune.task.source import from_datasets, open_source

Row = Mapping[str, Any]


def labelled(
    count: int, classes: Sequence[Any] = ("bad", "good"), *, what: str = "row"
) -> list[Row]:
    return [{"text": f"{what} {i}", "label": classes[i % len(classes)]} for i in range(count)]


def write_jsonl(path: Path, rows: Iterable[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_folder(folder: Path, **splits: Iterable[Row]) -> str:
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return str(folder)


def three_splits(folder: Path, classes: Sequence[Any] = ("bad", "good")) -> str:
    return write_folder(
        folder,
        train=labelled(60, classes),
        validation=labelled(20, classes, what="validation"),
        test=labelled(20, classes, what="test"),
    )


def refusal(source: Path | str, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load_task(str(source), **options)
    error = caught.value
    assert error.remedy
    assert "\n" not in str(error)
    return error


# What loads


def test_a_folder_of_splits_becomes_a_task(tmp_path: Path) -> None:
    task = load_task(three_splits(tmp_path / "reviews"))
    assert (task.name, task.kind, task.metric) == ("reviews", "classification", "accuracy")
    assert task.labels == ("bad", "good")
    assert task.outputs == 2
    assert task.train.texts[:2] == ("row 0", "row 1")
    assert task.train.pairs is None
    assert task.train.targets.tolist()[:3] == [0, 1, 0]
    assert task.train.targets.dtype == np.int64
    assert (len(task.train), len(task.validation), len(task.test)) == (60, 20, 20)
    assert task.notes == ()


def write_csv(path: Path, rows: Sequence[Row], dialect: str = "excel") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), dialect=dialect)
        writer.writeheader()
        writer.writerows(rows)


def write_as(path: Path, rows: Sequence[Row]) -> Path:
    match path.suffix:
        case ".csv":
            write_csv(path, rows)
        case ".tsv":
            write_csv(path, rows, "excel-tab")
        case ".parquet":
            import pyarrow  # type: ignore[import-untyped]
            import pyarrow.parquet as parquet  # type: ignore[import-untyped]

            parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        case ".json":
            path.write_text(json.dumps(list(rows), indent=1), encoding="utf-8")
        case _:
            write_jsonl(path, rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_task(tmp_path: Path, suffix: str) -> None:
    awkward = ['say "hi", twice', "a\u2028b", "tab\there", "two\nlines", "naïve 😀", "5 inch"]
    rows = [{"text": f"{awkward[i % 6]} {i}", "label": i % 3} for i in range(60)]
    reference = load_task(str(write_jsonl(tmp_path / "reference" / "data.jsonl", rows)))
    task = load_task(str(write_as(tmp_path / f"data{suffix}", rows)))
    assert task.labels == ("0", "1", "2")
    assert task.digest == reference.digest


@pytest.mark.parametrize(
    ("columns", "pair"),
    [
        (("text", "label"), False),
        (("Sentence", "Intent"), False),
        (("sentence1", "label"), False),
        (("sentence1", "sentence2", "label"), True),
        (("premise", "hypothesis", "gold_label"), True),
        (("question1", "question2", "is_duplicate"), True),
        (("question", "sentence", "label"), True),
        (("#1 String", "#2 String", "Quality"), True),
    ],
)
def test_columns_are_known_by_their_names(
    tmp_path: Path, columns: tuple[str, ...], pair: bool
) -> None:
    *texts, label = columns
    rows = [
        {"id": i, **{text: f"{text} {i}" for text in texts}, label: "ab"[i % 2]} for i in range(40)
    ]
    task = load_task(str(write_jsonl(tmp_path / "data.jsonl", rows)))
    assert task.train.texts[0].startswith(texts[0])
    assert (task.train.pairs is not None) == pair
    if task.train.pairs is not None:
        assert task.train.pairs[0].startswith(texts[1])


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [
        {"text": "no", "body": f"b {i}", "reply": f"r {i}", "label": 1, "mood": "xy"[i % 2]}
        for i in range(40)
    ]
    source = str(write_jsonl(tmp_path / "data.jsonl", rows))
    task = load_task(source, text="body", text_pair="reply", label="mood")
    assert task.train.texts[0] == "b 0"
    assert task.train.pairs is not None and task.train.pairs[0] == "r 0"
    assert load_task(source, text="body", label="mood").train.pairs is None


def test_class_names_come_from_labels_json(tmp_path: Path) -> None:
    source = three_splits(tmp_path, classes=(0, 1))
    (tmp_path / "labels.json").write_text('{"labels": ["bad", "good"], "n_labels": 2}')
    assert load_task(source).labels == ("bad", "good")


def test_class_names_set_the_order_of_words(tmp_path: Path) -> None:
    source = three_splits(tmp_path, classes=("bad", "good"))
    (tmp_path / "labels.json").write_text('["good", "so-so", "bad"]')
    task = load_task(source)
    assert task.labels == ("good", "so-so", "bad")
    assert task.train.targets.tolist()[:2] == [2, 0]
    assert "train: no row of 'so-so'" in task.notes


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = labelled(120, [*range(9, 12)])
    write_csv(tmp_path / "data.csv", rows)
    assert load_task(str(tmp_path / "data.csv")).labels == ("9", "10", "11")


def test_true_and_false_are_classes(tmp_path: Path) -> None:
    assert load_task(three_splits(tmp_path, classes=(True, False))).labels == ("false", "true")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_numbers_with_fractions_are_scores(tmp_path: Path, suffix: str) -> None:
    path = write_as(tmp_path / f"data{suffix}", labelled(60, (5.0, 3.8, 2, 0.25)))
    task = load_task(str(path))
    assert (task.kind, task.metric, task.labels, task.outputs) == ("regression", "spearman", (), 1)
    assert task.train.targets.dtype == np.float32
    assert set(task.train.targets.tolist()) <= {5.0, np.float32(3.8), 2.0, 0.25}


def test_whole_numbers_are_scores_where_a_correlation_is_asked_for(tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path / "data.jsonl", labelled(60, (1, 2, 3, 4, 5))))
    assert load_task(path).kind == "classification"
    assert load_task(path, metric="pearson").kind == "regression"


def test_whole_floats_are_classes(tmp_path: Path) -> None:
    assert load_task(three_splits(tmp_path, classes=(0.0, 1.0))).labels == ("0", "1")


def test_utf8_with_a_mark_and_windows_lines_is_read(tmp_path: Path) -> None:
    lines = ["text,label", *(f"row {i},{'ab'[i % 2]}" for i in range(40))]
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n\r\n")
    assert load_task(str(path)).labels == ("a", "b")


def test_a_csv_text_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    rows = [*labelled(40), {"text": "long " * 40_000, "label": "good"}]
    limit = csv.field_size_limit()
    load_task(str(write_as(tmp_path / "data.csv", rows)))
    assert csv.field_size_limit() == limit


def all_texts(task: Task) -> set[str]:
    return {text for rows in (task.train, task.validation, task.test) for text in rows.texts}


def test_quotes_in_a_tsv_that_does_not_quote_are_text(tmp_path: Path) -> None:
    texts = ['"An opening quote', 'he said "no" twice', '5" disk', *(f"row {i}" for i in range(37))]
    lines = ["text\tlabel", *(f"{text}\t{'ab'[i % 2]}" for i, text in enumerate(texts))]
    (tmp_path / "data.tsv").write_text("\n".join(lines))
    assert all_texts(load_task(str(tmp_path / "data.tsv"))) == set(texts)


def test_an_unclosed_quote_does_not_swallow_a_tsv(tmp_path: Path) -> None:
    texts = ['"never closed', *(f"row {i}" for i in range(39))]
    lines = ["text\tlabel", *(f"{text}\t{'ab'[i % 2]}" for i, text in enumerate(texts))]
    (tmp_path / "data.tsv").write_text("\n".join(lines))
    assert all_texts(load_task(str(tmp_path / "data.tsv"))) == set(texts)


def test_a_data_set_of_datasets_brings_its_class_names() -> None:
    import datasets  # type: ignore[import-untyped]

    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    part = datasets.Dataset.from_dict(
        {"sentence": ["a", "b", "c"], "label": [0, 1, -1]}, features=features
    )
    data = datasets.DatasetDict({"train": part, "validation_matched": part.select([1, 0])})
    tables = from_datasets(data, "toy", ["train", "validation", "test"])
    assert sorted(tables) == ["train", "validation"]
    assert tables["train"].class_names == {"label": ("no", "yes")}
    assert tables["validation"].columns == {"sentence": ["b", "a"], "label": [1, 0]}
    assert tables["train"].place(2) == "toy train, row 3"


@pytest.mark.parametrize("name", ["valid", "val", "dev", "Validation"])
def test_validation_has_many_names(tmp_path: Path, name: str) -> None:
    source = write_folder(
        tmp_path, train=labelled(40), test=labelled(10, what="t"), **{name: labelled(10, what="v")}
    )
    assert load_task(source).validation.texts[0] == "v 0"


# Splits and samples


def test_one_file_is_divided_and_the_report_says_so(tmp_path: Path) -> None:
    task = load_task(str(write_jsonl(tmp_path / "data.jsonl", labelled(200))))
    assert (len(task.train), len(task.validation), len(task.test)) == (140, 30, 30)
    assert len(all_texts(task)) == 200
    assert Counter(task.test.targets.tolist()) == {0: 15, 1: 15}
    assert "70" not in task.notes[0] and "140 train, 30 validation and 30 test" in task.notes[0]


def test_a_missing_validation_split_is_taken_from_training(tmp_path: Path) -> None:
    task = load_task(write_folder(tmp_path, train=labelled(100), test=labelled(10, what="test")))
    assert (len(task.train), len(task.validation), len(task.test)) == (85, 15, 10)
    assert task.notes == ("no validation split: 15 of the training rows were taken for it",)


def test_a_missing_test_split_halves_validation(tmp_path: Path) -> None:
    source = write_folder(tmp_path, train=labelled(40), dev=labelled(21, what="dev"))
    task = load_task(source)
    assert (len(task.validation), len(task.test)) == (11, 10)
    assert not set(task.validation.texts) & set(task.test.texts)
    assert Counter(task.test.targets.tolist()) == {0: 5, 1: 5}
    assert "validation was halved" in task.notes[0]


@pytest.mark.parametrize("labels", [[-1], [None], [""]])
def test_a_test_split_without_labels_is_as_good_as_none(tmp_path: Path, labels: list[Any]) -> None:
    source = write_folder(
        tmp_path,
        train=labelled(40, (0, 1)),
        validation=labelled(20, (0, 1), what="v"),
        test=labelled(10, labels),
    )
    task = load_task(source)
    assert set(task.test.texts) <= {f"v {i}" for i in range(20)}
    assert task.notes[0] == "test split not used: it has no labels"


def test_a_test_split_without_a_label_column_is_as_good_as_none(tmp_path: Path) -> None:
    source = write_folder(
        tmp_path, train=labelled(40), validation=labelled(20, what="v"), test=[{"text": "t"}]
    )
    assert "test split not used: it has no labels" in load_task(source).notes


def test_rows_labelled_minus_one_are_left_out_where_classes_have_names(tmp_path: Path) -> None:
    source = write_folder(
        tmp_path,
        train=labelled(30, (0, 1, -1)),
        validation=labelled(20, (0, 1), what="v"),
        test=labelled(20, (0, 1), what="t"),
    )
    assert load_task(source).labels == ("-1", "0", "1")
    (tmp_path / "labels.json").write_text('["no", "yes"]')
    task = load_task(source)
    assert (task.labels, len(task.train)) == (("no", "yes"), 20)
    assert "train: rows left out because their label is -1: 10" in task.notes


def test_our_own_split_never_puts_a_training_text_into_evaluation(tmp_path: Path) -> None:
    rows = [{"text": f"Row  {i % 50}", "label": "ab"[i % 2]} for i in range(200)]
    task = load_task(str(write_jsonl(tmp_path / "data.jsonl", rows)))
    assert leaked(task.train, task.validation) == leaked(task.train, task.test) == 0
    assert len(task.train) + len(task.validation) + len(task.test) == 200


def test_a_class_of_one_row_stays_in_training(tmp_path: Path) -> None:
    rows = [*labelled(60), {"text": "the only one", "label": "rare"}]
    for seed in range(5):
        task = load_task(str(write_jsonl(tmp_path / "data.jsonl", rows)), seed=seed)
        assert "the only one" in task.train.texts
        assert "train: a single row of 'rare'" in task.notes
        assert any(note.endswith("no row of 'rare'") for note in task.notes)


def test_a_sample_is_stratified_and_seeded(tmp_path: Path) -> None:
    classes = ["a"] * 7 + ["b"] * 2 + ["c"]
    source = write_folder(
        tmp_path,
        train=labelled(1000, classes),
        validation=labelled(30, classes, what="v"),
        test=labelled(30, classes, what="t"),
    )
    task = load_task(source, train_size=100, seed=3)
    assert np.bincount(task.train.targets).tolist() == [70, 20, 10]
    assert task.notes == ("train: a stratified sample of 100 of 1000 rows, seed 3",)
    assert task.digest == load_task(source, train_size=100, seed=3).digest
    assert task.digest != load_task(source, train_size=100, seed=4).digest
    smallest = load_task(source, train_size=3).train
    assert sorted(smallest.targets.tolist()) == [0, 1, 2]


def test_a_sample_of_scores_spans_their_range(tmp_path: Path) -> None:
    rows = [{"text": f"row {i}", "label": i / 10} for i in range(1000)]
    task = load_task(str(write_jsonl(tmp_path / "data.jsonl", rows)), train_size=20)
    assert np.histogram(task.train.targets, bins=10, range=(0, 100))[0].tolist() == [2] * 10


def test_a_file_that_says_the_same_twice_is_noted(tmp_path: Path) -> None:
    twice = [{"text": "ROW 0 ", "label": "bad"}, *labelled(60)]
    source = write_folder(
        tmp_path, train=twice, dev=labelled(9, what="v"), test=labelled(9, what="t")
    )
    assert "train: rows that repeat the text of another: 1" in load_task(source).notes


def test_the_digest_is_of_rows_labels_and_metric(tmp_path: Path) -> None:
    first = load_task(three_splits(tmp_path / "first"))
    again = load_task(three_splits(tmp_path / "again"))
    other = load_task(three_splits(tmp_path / "first"), metric="f1")
    relabelled = load_task(three_splits(tmp_path / "other", classes=("good", "bad")))
    assert first.digest == again.digest
    assert len({first.digest, other.digest, relabelled.digest}) == 3
    assert first.digest == "9b44aa258151ba70a165c9b79363838bc66fdeba85fcb7734677b37f4a62ef12"


# Leakage


def rows_of(*texts: str, pairs: tuple[str, ...] | None = None) -> Rows:
    return Rows(texts, pairs, np.zeros(len(texts), dtype=np.int64))


def test_leakage_sees_through_case_and_white_space() -> None:
    train = rows_of("A brother, he said.", "other")
    assert leaked(train, rows_of("a  BROTHER , he\tsaid .", "another", "Other")) == 2


def test_a_pair_leaks_only_whole() -> None:
    train = rows_of("a", "b", pairs=("x", "y"))
    assert leaked(train, rows_of("A", "a", pairs=("X", "y"))) == 1
    assert leaked(train, rows_of("a", "b")) == 0


def leaking(folder: Path, count: int) -> str:
    shared = labelled(count, what="shared")
    return write_folder(
        folder,
        train=[*labelled(200), *shared],
        validation=[*labelled(100, what="v"), *shared],
        test=labelled(100 - count, what="t"),
    )


def test_a_leak_up_to_one_percent_is_noted(tmp_path: Path) -> None:
    task = load_task(leaking(tmp_path, 2))
    assert task.notes == (
        f"2 of 200 evaluation rows (1.0%) stand in the training rows of {task.name}",
    )


def test_a_leak_over_one_percent_is_refused_unless_allowed(tmp_path: Path) -> None:
    source = leaking(tmp_path, 3)
    error = refusal(source)
    assert "3 of 200 evaluation rows (1.5%)" in str(error)
    assert "--allow-leakage" in str(error)
    assert "3 of 200 evaluation rows" in load_task(source, allow_leakage=True).notes[0]


def test_leakage_counts_only_the_training_rows_in_use(tmp_path: Path) -> None:
    assert not any("stand in" in n for n in load_task(leaking(tmp_path, 3), train_size=4).notes)


# The auxiliary task


def test_an_auxiliary_task_is_a_sample_of_training_rows(tmp_path: Path) -> None:
    target = load_task(three_splits(tmp_path / "target"))
    auxiliary_rows = labelled(90, ("x", "y", "z"), what="aux")
    source = write_folder(tmp_path / "related", train=auxiliary_rows)
    auxiliary = load_auxiliary(source, size=30, seed=1, target=target)
    assert np.bincount(auxiliary.train.targets).tolist() == [10, 10, 10]
    assert len(auxiliary.validation) == len(auxiliary.test) == 0
    assert (auxiliary.name, auxiliary.labels) == ("related", ("x", "y", "z"))
    assert len(load_auxiliary(source, size=1000, seed=1, target=target).train) == 90


def test_an_auxiliary_task_that_holds_the_targets_test_rows_is_refused(tmp_path: Path) -> None:
    target = load_task(three_splits(tmp_path / "target"))
    source = str(write_jsonl(tmp_path / "aux.jsonl", labelled(50, what="Test")))
    with pytest.raises(DataError, match=r"aux — 20 of 40 evaluation rows .*--allow-leakage"):
        load_auxiliary(source, size=50, seed=0, target=target)
    auxiliary = load_auxiliary(source, size=50, seed=0, target=target, allow_leakage=True)
    assert auxiliary.notes == (
        "20 of 40 evaluation rows (50.0%) stand in the training rows of aux",
    )


# Metrics


def logits(classes: Sequence[int], width: int) -> np.ndarray[Any, Any]:
    return np.eye(width, dtype=np.float32)[list(classes)]


def with_targets(task: Task, targets: Sequence[float]) -> Rows:
    return Rows(("t",) * len(targets), None, np.array(targets, dtype=task.train.targets.dtype))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("auto", 0.6), ("f1", 2 / 3), ("f1_macro", (1 / 2 + 2 / 3) / 2), ("matthews", 1 / 6)],
)
def test_metrics_of_classes(tmp_path: Path, metric: str, expected: float) -> None:
    task = load_task(three_splits(tmp_path), metric=metric)
    rows = with_targets(task, [0, 0, 1, 1, 1])
    assert task.score(logits([0, 1, 0, 1, 1], 2), rows) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "f1_macro", "matthews"])
def test_an_answer_that_never_varies_has_a_score_too(tmp_path: Path, metric: str) -> None:
    task = load_task(three_splits(tmp_path), metric=metric)
    for only in (0, 1):
        score = task.score(logits([only] * len(task.test), 2), task.test)
        assert 0 <= score <= 1


@pytest.mark.parametrize(("metric", "expected"), [("spearman", 1.0), ("pearson", 0.8735215)])
def test_metrics_of_scores(tmp_path: Path, metric: str, expected: float) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", labelled(60, (0.5, 1.5, 2.5)))
    task = load_task(str(path), metric=metric)
    rows = with_targets(task, [1, 2, 3, 4])
    outputs = np.array([[1.0], [2.0], [4.0], [16.0]])
    assert task.score(outputs[:, :1], rows) == pytest.approx(expected)
    assert task.score(np.ones((4, 1)), rows) == 0.0
    assert task.score(np.full((4, 1), np.nan), rows) == 0.0


@pytest.mark.parametrize(
    ("classes", "metric", "words"),
    [
        (("a", "b"), "spearman", "the labels are classes"),
        ((0.5, 1.5), "accuracy", "the labels are scores"),
        (("a", "b", "c"), "f1", "choose f1_macro"),
        (("a", "b"), "bleu", "choose one of accuracy, f1, f1_macro, matthews"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(
    tmp_path: Path, classes: Sequence[Any], metric: str, words: str
) -> None:
    source = three_splits(tmp_path, classes)
    assert words in str(refusal(source, metric=metric))


# Bad input: one file, and the words of the refusal

CSV = "text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(30))
JSONL = "".join(json.dumps(row) + "\n" for row in labelled(30))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", b"", ["empty.jsonl", "it is empty"]),
        ("blank.csv", b"\n\n", ["it is empty"]),
        ("header.csv", b"text,label\n", ["it holds no rows"]),
        ("array.json", b"[]", ["it holds no rows"]),
        ("data.txt", b"hello", ["'.txt'", ".jsonl", ".parquet"]),
        ("bad.jsonl", JSONL + '{"text": "x", \n', ["bad.jsonl, line 31", "not JSON", "column"]),
        ("bad.json", '[{"text": 1},\n{"text" 2}]', ["bad.json, line 2", "not JSON"]),
        ("deep.jsonl", "[" * 100_000, ["deep.jsonl", "not JSON"]),
        ("digits.jsonl", '{"label": ' + "1" * 9_999 + "}", ["digits.jsonl, line 1", "not JSON"]),
        ("list.jsonl", JSONL + "5\n", ["line 31", "a JSON int, not an object"]),
        ("ragged.csv", CSV + "one,two,three\n", ["line 32", "3 fields", "2 columns", "quote"]),
        ("ragged.tsv", "text\tlabel\nx\ta\ny\n", ["ragged.tsv, line 3", "1 fields"]),
        ("quote.csv", CSV + '"open,a\nx,b\n', ["quote.csv, line 32", "close each quoted field"]),
        ("twice.csv", "text,text\na,b\n", ["line 1", "two columns are named 'text'"]),
        ("semicolon.csv", "text;label\na;b\n", ["'text;label'", "separate columns by commas"]),
        (
            "latin.csv",
            CSV.encode() + b"caf\xe9,a\n",
            ["latin.csv, line 32", f"byte {len(CSV) + 3}", "iconv"],
        ),
        ("marked.csv", b"\xef\xbb\xbfa,\xff", ["line 1", "byte 5"]),
        ("wide.csv", CSV.encode("utf-16"), ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("wide2.csv", CSV.encode("utf-16-le"), ["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        ("data.parquet", b"PAR1 not really", ["data.parquet", "not a Parquet file"]),
        ("nolabel.csv", "text,mood\nx,a\n", ["looks like the label", "'mood'", "--label"]),
        ("notext.csv", "body,label\nx,a\n", ["looks like the text", "'body'", "--text"]),
        ("headless.csv", "good film,1\nbad,0\n", ["the first line must hold the columns' names"]),
        ("notext.jsonl", JSONL + '{"label": "bad"}\n', ["line 31", "no text in column 'text'"]),
        ("blank.jsonl", JSONL + '{"text": " ", "label": "bad"}\n', ["line 31", "no text"]),
        ("number.jsonl", JSONL + '{"text": 7, "label": "bad"}\n', ["line 31", "7", "string"]),
        ("unlabelled.jsonl", JSONL + '{"text": "x"}\n', ["line 31", "it has no label"]),
        ("unlabelled.csv", CSV + "x,\n", ["line 32", "it has no label"]),
        ("none.jsonl", '{"text": "x", "label": null}\n', ["no row of it has a label"]),
        (
            "list2.jsonl",
            '{"text": "x", "label": [1, 2]}\n',
            ["line 1", "[1, 2]", "one label a row"],
        ),
        ("inf.jsonl", '{"text": "x", "label": Infinity}\n', ["line 1", "inf", "finite"]),
        ("vast.jsonl", '{"text": "x", "label": 0.5}\n{"text": "x", "label": 1e39}\n', ["line 2"]),
        ("mixed.jsonl", JSONL + '{"text": "x", "label": 3}\n', ["line 31", "began with 'bad'"]),
        ("mixed.csv", "text,label\nx,1\ny,good\n", ["mixed.csv, line 3", "'good'", "began with 1"]),
        ("vast.csv", "text,label\nx,0.5\ny,1e999\n", ["line 3", "'1e999'", "began with 0.5"]),
        ("single.csv", "text,label\nx,a\ny,a\n", ["all 2 rows have the same class"]),
        ("same.csv", "text,label\nx,0.5\ny,0.5\n", ["all 2 rows have the same score"]),
        ("few.csv", "text,label\nx,a\ny,b\n", ["few", "can show nothing", "add rows"]),
        (
            "names.csv",
            "text,label\n" + "".join(f"row {i},name {i}\n" for i in range(30)),
            ["30 classes in 30 rows", "--label"],
        ),
        (
            "long.jsonl",
            JSONL + json.dumps({"text": "x" * 10_000_000, "label": "bad"}),
            ["line 31", "10000000 characters", "1000000", "cut it"],
        ),
        (
            "surrogate.jsonl",
            JSONL + '{"text": "half \\ud83d", "label": "bad"}\n',
            ["line 31", "surrogate"],
        ),
        ("surrogate2.jsonl", '{"text": "x", "label": "\\ud83d"}\n', ["line 1", "no word"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, words: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    message = str(refusal(path))
    for word in words:
        assert word in message


def test_a_named_column_that_is_missing_lists_those_that_exist(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", labelled(30))
    assert "did you mean 'label'?" in str(refusal(path, label="lable"))
    message = str(refusal(path, text_pair="second"))
    assert "no column 'second'" in message and "'text', 'label'" in message


def test_a_label_that_training_never_saw_is_refused(tmp_path: Path) -> None:
    source = write_folder(
        tmp_path, train=labelled(30), dev=[*labelled(9, what="v"), {"text": "x", "label": "odd"}]
    )
    message = str(refusal(source))
    assert "dev.jsonl, line 10" in message and "'odd' never occurs in the training" in message


def test_evaluation_of_a_single_class_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path, train=labelled(30), dev=labelled(8, ["bad"], what="v"))
    assert "can show nothing" in str(refusal(source))


def test_a_column_that_only_training_has_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path, train=labelled(30), dev=[{"txt": "x", "label": "bad"}])
    assert "no column 'text', which training has" in str(refusal(source))


@pytest.mark.parametrize(
    ("names", "classes", "words"),
    [
        ("{", (0, 1), "labels.json"),
        ('["a", "a"]', (0, 1), "not a list of distinct names"),
        ('{"names": ["a", "b"]}', (0, 1), '"labels"'),
        ('["a", "b"]', (0, 2), "train.jsonl, line 2 — label 2 is none of the 2 named classes"),
        ('["a", "b"]', ("a", "c"), "label 'c' is none of the 2 named classes"),
        ('["a", "b"]', (0.5, 1.5), "labels.json, which holds null for scores"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(
    tmp_path: Path, names: str, classes: Sequence[Any], words: str
) -> None:
    source = three_splits(tmp_path, classes)
    (tmp_path / "labels.json").write_text(names)
    assert words in str(refusal(source))


def test_a_sample_larger_than_the_training_rows_names_how_many_there_are(tmp_path: Path) -> None:
    message = str(refusal(three_splits(tmp_path), train_size=61))
    assert "60 training rows" in message and "ask for at most 60" in message


def test_a_sample_too_small_for_every_class_is_refused(tmp_path: Path) -> None:
    source = three_splits(tmp_path, classes=("a", "b", "c"))
    assert "ask for at least 3" in str(refusal(source, train_size=2))


def test_a_folder_without_a_training_file_says_what_it_holds(tmp_path: Path) -> None:
    write_folder(tmp_path, reviews=labelled(9))
    message = str(refusal(tmp_path))
    assert "no train" in message and "reviews.jsonl" in message and "give one file" in message


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path, train=labelled(9), dev=labelled(9), valid=labelled(9))
    assert "both dev.jsonl and valid.jsonl are validation files" in str(refusal(source))


def run_python(code: str, *arguments: str, **environment: str) -> str:
    """Standard output of a fresh interpreter, in which nothing is imported yet."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


REFUSED = """
import sys
from edgeprune.errors import DataError
from edgeprune.task import load_task
for source in sys.argv[1:]:
    try:
        load_task(source)
    except DataError as error:
        print(error)
print("network" if "huggingface_hub" in sys.modules else "no network")
print("torch" if "torch" in sys.modules else "no torch")
"""


def test_a_path_that_does_not_exist_is_never_looked_for_on_the_network() -> None:
    paths = ["./nothing", "data/nothing", ".nothing", "nothing.csv", "", "no such name"]
    *refusals, network, torch = run_python(REFUSED, *paths).splitlines()
    assert len(refusals) == len(paths)
    assert all("no such file or folder" in refusal for refusal in refusals)
    assert (network, torch) == ("no network", "no torch")


def test_a_name_that_no_hub_answers_for_is_refused_in_one_line() -> None:
    nobody = "http://127.0.0.1:9"
    refusals = run_python(REFUSED, "nosuchname", "hf:who/what:when", HF_ENDPOINT=nobody)
    first, second, *_ = refusals.splitlines()
    assert first.startswith("data 'nosuchname' — no file or folder here")
    assert second.startswith("data 'who/what' — no file or folder here")
    assert "check the path, or the network" in first


def test_only_the_splits_asked_for_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path, train=labelled(9))
    (tmp_path / "test.jsonl").write_text("not JSON")
    assert list(open_source(str(tmp_path), ["train"]).tables) == ["train"]


def test_plain_text_is_rows_without_labels(tmp_path: Path) -> None:
    target = load_task(three_splits(tmp_path / "reviews"))
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xef\xbb\xbfOne line.\r\n\n  Another  one. \n" + b"More.\n" * 20)
    text = load_auxiliary(str(path), size=100, seed=0, target=target)
    assert (text.name, text.kind, text.labels) == ("notes", "text", ())
    assert text.train.texts[:2] == ("One line.", "Another  one.")
    assert len(text.train) == 22
    some = load_auxiliary(str(path), size=10, seed=0, target=target)
    assert len(some.train) == 10
    assert some.notes == ("train: a sample of 10 of 22 lines, seed 0",)
    assert some.digest != text.digest
    seen = "\n".join(target.test.texts)
    path.write_text(seen)
    with pytest.raises(DataError, match="training rows"):
        load_auxiliary(str(path), size=100, seed=0, target=target)
    path.write_bytes(b"fine\n\xff\n")
    with pytest.raises(DataError, match="line 2 — not UTF-8"):
        load_auxiliary(str(path), size=100, seed=0, target=target)
    with pytest.raises(DataError, match="one that is read"):
        load_task(str(path))


@pytest.mark.parametrize(("score", "told"), [(0.62, True), (0.69, True), (0.71, False)])
def test_a_score_that_a_constant_answer_reaches_is_told(
    tmp_path: Path, score: float, told: bool
) -> None:
    """Six of ten test rows have the commonest label; two standard errors are a tenth at most."""
    rows = [{"text": f"row {i}", "label": "ab"[i % 5 > 2]} for i in range(100)]
    for split in ("train", "validation", "test"):
        lines = [json.dumps(row | {"text": f"{split} {row['text']}"}) for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    note = load_task(str(tmp_path)).unlearnt(score)
    assert (note is not None) == told
    assert note is None or "scores 0.6000" in note
