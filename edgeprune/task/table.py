"""A data file as a value: columns of plain Python values, and the line that each row stands on."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import DataError

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]

MAX_FILE_BYTES = 1_000_000_000

# One quote inside a field, which a writer that quotes would have doubled: `5" disk`, `a "b" c`.
_BARE_QUOTE = re.compile(r'[^\t\r\n"]"[^\t\r\n"]')


Reader = Callable[[Path], "Table"]


@dataclass(frozen=True)
class Table:
    """One split as it was read, nothing interpreted yet."""

    where: str
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[int]  # of each row: its line, or its number where a format has no lines
    unit: str = "line"
    typed: bool = True  # False: every value is a string, as in CSV
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by column

    def __len__(self) -> int:
        return len(self.places)

    def place(self, row: int) -> str:
        return f"{self.where}, {self.unit} {self.places[row]}"


def read(path: Path, readers: Mapping[str, Reader] | None = None) -> Table:
    """The rows of a .jsonl, .json, .csv, .tsv or .parquet file; DataError names line and remedy."""
    readers = READERS if readers is None else readers
    reader = readers.get(path.suffix.casefold())
    if reader is None:
        raise DataError(
            f"data file {path}",
            why=f"its suffix {path.suffix!r} is not one that is read",
            remedy=f"give one of {', '.join(readers)}",
        )
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"data file {path}",
                why=f"{size} bytes, over the limit of {MAX_FILE_BYTES}",
                remedy="give a sample of its rows",
            )
        table = reader(path)
    except OSError as error:
        raise DataError(
            f"data file {path}",
            why=error.strerror or str(error),
            remedy="check that it exists and can be read",
        ) from None
    if not len(table):
        raise DataError(f"data file {path}", why="it holds no rows", remedy="add labelled rows")
    return table


def from_arrow(
    table: pyarrow.Table, where: str, class_names: Mapping[str, tuple[str, ...]] | None = None
) -> Table:
    """The columns that hold text or numbers; nested and binary ones cannot be texts or labels."""
    columns = {
        name: table[name].to_pylist() for name in table.schema.names if _is_plain(table, name)
    }
    places = range(1, table.num_rows + 1)
    return Table(where, columns, places, unit="row", class_names=class_names or {})


def shown(value: object) -> str:
    """A value from a file, fit for a one-line message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def has_surrogate(text: str) -> bool:
    """Whether half of a surrogate pair stands in it, as JSON's escapes allow and UTF-8 does not."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_plain(table: pyarrow.Table, name: str) -> bool:
    from pyarrow import types

    kind = table.schema.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _json(path: Path) -> Table:
    """One object a line, or one array of objects."""
    text = _decoded(path)
    if text.lstrip().startswith("["):
        rows = _parsed(text, str(path))
        places, unit = list(range(1, len(rows) + 1)), "row"
    else:
        # Not splitlines: it also splits at U+2028, which JSON strings may hold.
        lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [_parsed(line, f"{path}, line {number}") for number, line in lines]
        places, unit = [number for number, _ in lines], "line"
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, {unit} {place}",
                why=f"a JSON {type(row).__name__}, not an object",
                remedy='write one {"text": …, "label": …} a line',
            )
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {name: [row.get(name) for row in rows] for name in names}, places, unit)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where += f", line {error.lineno}" if "\n" in text.strip() else ""
        why = f"not JSON: {error.msg.lower()} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        why = f"not JSON that can be read: {error}"
    raise DataError(where, why=why, remedy="write one JSON object a line")


def _csv(path: Path) -> Table:
    return _tabular(path, _quoted(path, _decoded(path), ","))


def _tsv(path: Path) -> Table:
    """Tab-separated values, in which quotes are text or quote a field: both are in use.

    GLUE's files hold quotes as text; spreadsheets and pandas quote a field and double the quotes
    in it. They are taken as quoting only where the whole file can be read so.
    """
    text = _decoded(path)
    if '"' in text and not _BARE_QUOTE.search(text):
        try:
            return _tabular(path, _quoted(path, text, "\t"))
        except DataError:
            pass  # a quote that opens and never closes, say: then quotes are text
    lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
    return _tabular(path, [(number, line.split("\t")) for number, line in lines if line])


def _quoted(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    rows, line = [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(MAX_FILE_BYTES)  # of the process, hence put back
    try:
        for fields in reader:
            if fields:
                rows.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}",
            why=f"not CSV: {error}",
            remedy="close each quoted field, and double the quotes inside it",
        ) from None
    finally:
        csv.field_size_limit(limit)
    return rows


def _tabular(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Table:
    header = rows[0][1]
    for name in header:
        if header.count(name) > 1:
            raise DataError(
                f"{path}, line 1", why=f"two columns are named {name!r}", remedy="rename one"
            )
    for line, fields in rows:
        if len(fields) != len(header):
            raise DataError(
                f"{path}, line {line}",
                why=f"{len(fields)} fields where the header names {len(header)} columns",
                remedy="quote fields that hold the separator or a line break",
            )
    places = [line for line, _ in rows[1:]]
    columns = {name: [fields[i] for _, fields in rows[1:]] for i, name in enumerate(header)}
    return Table(str(path), columns, places, typed=False)


def _parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]

    try:
        return from_arrow(parquet.ParquetFile(path).read(), str(path))
    except pyarrow.ArrowException as error:
        raise DataError(
            f"data file {path}", why=f"not a Parquet file: {error}", remedy="write it again"
        ) from None


def _decoded(path: Path) -> str:
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:64]:
        raise DataError(
            f"data file {path}",
            why="UTF-16, or not text",
            remedy="convert it: iconv -f UTF-16 -t UTF-8",
        )
    start = len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0
    try:
        text = raw[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = start + error.start
        line = raw.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{path}, line {line}",
            why=f"not UTF-8 at byte {offset}",
            remedy="convert it, from Latin-1 perhaps: iconv -f LATIN1 -t UTF-8",
        ) from None
    if not text.strip():
        raise DataError(f"data file {path}", why="it is empty", remedy="add labelled rows")
    return text


def _lines(path: Path) -> Table:
    """Plain text, a row for each line that is not empty."""
    lines = [(n, line.strip()) for n, line in enumerate(_decoded(path).split("\n"), 1)]
    filled = [(number, line) for number, line in lines if line]
    return Table(str(path), {TEXT: [line for _, line in filled]}, [number for number, _ in filled])


TEXT = "text"  # the column of plain text
PLAIN: Mapping[str, Reader] = {".txt": _lines}
READERS: dict[str, Reader] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
