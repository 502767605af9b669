"""Where a task's tables come from: a folder of splits, one file, or a `datasets` name."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import hub
from edgeprune.errors import DataError
from edgeprune.task.table import READERS, Table, from_arrow, read

if TYPE_CHECKING:
    import datasets  # type: ignore[import-untyped]

# What each split is called, in files and in data sets; the first is preferred.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "validation_matched", "dev_matched"),
    "test": ("test", "test_matched"),
}
HUB = "hf:"

_HUB_NAME = re.compile(rf"(?P<name>{hub.NAME.pattern})(:(?P<config>[\w.+-]+))?")


@dataclass(frozen=True)
class Source:
    """The tables of a source; one file alone is all `train`."""

    name: str
    tables: dict[str, Table]
    names: tuple[str, ...] | None  # of the classes, from labels.json

    def class_names(self, column: str) -> tuple[str, ...] | None:
        return self.tables["train"].class_names.get(column, self.names)


def open_source(source: str, splits: Sequence[str] = tuple(SPLITS)) -> Source:
    """Read the splits that there are, of those asked for; `train` always is. Raises DataError."""
    path = Path(source).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(
            f"data {source!r}", why=error.strerror or str(error), remedy="check the path"
        ) from None
    if source.strip() and is_folder:
        files = _split_files(path)
        tables = {split: read(files[split]) for split in splits if split in files}
        return Source(path.resolve().name, tables, _label_names(path))
    if is_file:
        return Source(path.stem, {"train": read(path)}, _label_names(path.parent))
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB), splits)
    if not _HUB_NAME.fullmatch(source) or "/" in source or _is_like_a_file(path):
        raise DataError(
            f"data {source!r}",
            why="no such file or folder",
            remedy=f"check the path; a data set on the hub is written {HUB}OWNER/NAME",
        )
    return _from_hub(source, splits)


def _is_like_a_file(path: Path) -> bool:
    return path.name.startswith(".") or path.suffix.casefold() in (*READERS, ".txt", ".gz", ".zip")


def _split_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.casefold() not in READERS or not path.is_file():
            continue
        for split, names in SPLITS.items():
            if path.stem.casefold() not in names:
                continue
            if split in found:
                raise DataError(
                    f"data folder {folder}",
                    why=f"both {found[split].name} and {path.name} are {split} files",
                    remedy="leave one of them",
                )
            found[split] = path
    if "train" not in found:
        others = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(
            f"data folder {folder}",
            why=f"no train{{{','.join(READERS)}}} in it, but {others}",
            remedy="name its files train, validation and test, or give one file",
        )
    return found


def _label_names(folder: Path) -> tuple[str, ...] | None:
    """The class names in `labels.json`, a list or {"labels": list or null}; None without it."""
    path = folder / "labels.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"class names {path}", why=str(error), remedy="write JSON") from None
    names = content.get("labels", ...) if isinstance(content, dict) else content
    if names is None:
        return None
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) and name for name in names)
        or len(set(names)) != len(names)
    ):
        raise DataError(
            f"class names {path}",
            why="not a list of distinct names",
            remedy='write {"labels": ["first class", "second class"]}, or null for scores',
        )
    return tuple(names)


def _from_hub(name: str, splits: Sequence[str]) -> Source:
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"data set {name!r}", why="not a name", remedy=f"write {HUB}OWNER/NAME:CONFIG"
        )
    return Source(
        name, from_datasets(_downloaded(match["name"], match["config"]), name, splits), None
    )


def _downloaded(name: str, config: str | None) -> datasets.DatasetDict:
    """What `datasets` has of that name; from its cache alone where the hub does not answer."""
    try:
        silent = hub.silence(name, "dataset")
    except LookupError:
        raise DataError(
            f"data {name!r}",
            why="no file or folder here, and no such public data set on the hub",
            remedy="check the path or the name",
        ) from None

    import datasets

    offline, bars = datasets.config.HF_HUB_OFFLINE, datasets.are_progress_bars_disabled()
    datasets.config.HF_HUB_OFFLINE = offline or bool(silent)
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config)
    except Exception as error:  # whatever a loader of somebody's files may raise
        if silent:
            why = f"no file or folder here, not in the cache, and no hub ({silent})"
            remedy = "check the path, or the network"
        else:
            why = f"{type(error).__name__}: {str(error).strip()[:300]}"
            remedy = f"check the name; a configuration is written {HUB}{name}:CONFIG"
        raise DataError(f"data {name!r}", why=why, remedy=remedy) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        if not bars:
            datasets.enable_progress_bars()


def from_datasets(data: datasets.DatasetDict, name: str, splits: Sequence[str]) -> dict[str, Table]:
    """The asked-for splits of a `datasets` data set, its class names with them."""
    tables = {}
    for split in splits:
        called = next((alias for alias in SPLITS[split] if alias in data), None)
        if called is not None:
            tables[split] = _table(data[called], f"{name} {called}")
    if "train" not in tables:
        raise DataError(
            f"data {name!r}",
            why=f"no train split, but {', '.join(map(str, data))}",
            remedy="export the splits to files: train.jsonl, validation.jsonl",
        )
    return tables


def _table(data: datasets.Dataset, where: str) -> Table:
    if not len(data):
        raise DataError(f"data {where}", why="it holds no rows", remedy="choose another data set")
    names: dict[str, Any] = {
        column: tuple(feature.names)
        for column, feature in data.features.items()
        if getattr(feature, "names", None)
    }
    return from_arrow(data.with_format("arrow")[:], where, class_names=names)
