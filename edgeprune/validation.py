"""What pydantic found wrong with keys, as one line."""

from __future__ import annotations

import difflib
from pathlib import Path

from pydantic import BaseModel, ValidationError

from edgeprune.errors import RecipeError


def explained(
    error: ValidationError, model: type[BaseModel], command: str, path: Path | None
) -> RecipeError:
    """The first finding; `command` is the one whose options mirror the keys of `model`."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else model.__name__.lower()
    what = f"{model.__name__.lower()} key {key!r}" + (f" ({path})" if path else "")
    option = f"--{key.replace('_', '-')}"
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, model.model_fields, n=1)
        listed = f"`edgeprune {command} --help` lists all keys"
        remedy = f"did you mean {close[0]!r}?" if close else listed
        return RecipeError(what, why="unknown", remedy=remedy)
    if first["type"] == "missing":
        remedy = f"give {option} or write it into a recipe"
        return RecipeError(what, why="missing", remedy=remedy)
    found = first["msg"].removeprefix("Value error, ")
    return RecipeError(
        what,
        why=f"{found[:1].lower()}{found[1:]}, got {first['input']!r}",
        remedy=f"see {option} in `edgeprune {command} --help`",
    )
