"""Write the JSON Schemas of what people store: `python -m edgeprune.schema docs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from edgeprune.gate.result import CheckResult
from edgeprune.recipe import Recipe
from edgeprune.report.report import Report


def schemas() -> dict[str, str]:
    """The text of each schema by its file name."""
    return {
        "check.schema.json": _text(CheckResult),
        "recipe.schema.json": _text(Recipe),
        "report.schema.json": _text(Report),
    }


def write_schemas(folder: Path) -> None:
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")


def _text(model: type[BaseModel]) -> str:
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(draft | model.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
