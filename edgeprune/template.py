"""A Recipe as text that people edit or run again: a commented file, a command line."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from edgeprune.errors import RecipeError, ResourceError
from edgeprune.recipe import DEMO, Recipe

HEAD = """\
# A recipe of edgeprune. Run it with `edgeprune compress {name}`.
# Every key is also an option that overrides it: `train_size` is `--train-size`.
# Keys that start with `# ` stand at their defaults. Paths are relative to this file.
"""
PLACEHOLDERS = {"model": DEMO, "task": "path/to/task"}


def write_template(path: Path, keys: Mapping[str, Any] | None = None) -> None:
    """Write a commented recipe, never over an existing file. Raises RecipeError, ResourceError."""
    try:
        if path.exists():
            remedy = "choose another name or remove it"
            raise RecipeError(f"recipe {path}", why="exists already", remedy=remedy)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(commented(keys or {}, name=path.name))
    except OSError as error:
        why = error.strerror or "cannot be written"
        raise ResourceError(f"recipe {path}", why=why, remedy="choose another folder") from None


def commented(keys: Mapping[str, Any], *, name: str = "recipe.yaml") -> str:
    """A recipe of these keys in which every other key stands commented out at its default."""
    keys = PLACEHOLDERS | dict(keys)
    entries = (_entry(key, field, keys) for key, field in Recipe.model_fields.items())
    return "\n".join([HEAD.format(name=name), *entries])


def command_line(recipe: Recipe) -> str:
    """The `edgeprune compress` call that does what the recipe says."""
    keys = recipe.model_dump(mode="json", exclude_defaults=True)
    words = [word for key, value in keys.items() for word in _option(key, value)]
    return shlex.join(["edgeprune", "compress", *words])


def _entry(key: str, field: FieldInfo, keys: Mapping[str, Any]) -> str:
    comment = "".join(f"# {line}\n" for line in _described(field))
    value = keys.get(key, field.get_default())
    return f"{comment}{'' if key in keys else '# '}{key}: {_yaml(value)}\n"


def _yaml(value: object) -> str:
    plain = str(value) if isinstance(value, Path) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.strip().removesuffix("...").strip()  # the end mark of a document that is a scalar


def _described(field: FieldInfo) -> list[str]:
    text = field.description or ""
    if get_origin(field.annotation) is Literal:
        text += f" One of: {', '.join(get_args(field.annotation))}."
    return textwrap.wrap(text, 96)


def _option(key: str, value: object) -> Iterator[str]:
    option = f"--{key.replace('_', '-')}"
    if isinstance(value, bool):
        yield option if value else f"--no-{option[2:]}"
        return
    for item in value if isinstance(value, list) else [value]:
        # An equals sign keeps a value that starts with a dash from being read as an option.
        yield from [f"{option}={item}"] if str(item).startswith("-") else [option, str(item)]
