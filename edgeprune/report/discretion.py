"""What a report does not tell: the home folder's name and secrets that strayed into a string."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePath

from pydantic import BaseModel

_SECRET = re.compile(
    r"\b(?:hf_|gh[pousr]_|github_pat_|glpat-|sk-)[A-Za-z0-9_-]{16,}"  # tokens by their prefix
    # user:password in an address, also in one that was taken for a path and lost a slash
    r"|(?:(?<=://)|(?<=\w:/))[^/\s:@]+:[^/\s@]+(?=@)"
)


def without_secrets(text: str) -> str:
    """The same with tokens and passwords as `[redacted]`."""
    return _SECRET.sub("[redacted]", text)


def discreet(value: object) -> object:
    """The same as a plain value, the user's home shown as `~` and secrets as `[redacted]`."""
    # Not Path.home(): it raises where neither HOME nor the user is known, as in some containers.
    home = os.path.expanduser("~").rstrip("/")  # noqa: PTH111
    return _told(value, re.compile(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])") if home else None)


def _told(value: object, home: re.Pattern[str] | None) -> object:
    if isinstance(value, (str, PurePath)):
        text = without_secrets(str(value))
        return home.sub("~", text) if home else text
    if isinstance(value, BaseModel):
        return _told(value.model_dump(by_alias=True), home)
    if isinstance(value, Mapping):
        return {_told(key, home): _told(item, home) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(item, home) for item in value]
    return value
