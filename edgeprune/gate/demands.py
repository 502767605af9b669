"""What a gate demands: the `[check]` table of an edgeprune.toml, an option overriding a key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from edgeprune.errors import BudgetError, RecipeError
from edgeprune.size import Size
from edgeprune.validation import explained

FILE = Path("edgeprune.toml")  # read from the working folder if it is there
MAX_BYTES = 1_000_000


def _one_or_many(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


class Demands(BaseModel):
    """What a gate asks of a model. Every key is also an option: `score_floor` is `--score-floor`.

    What is not given comes from the bundle, which holds the budget and the conditions of its run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: str | None = Field(default=None, description='"12ms", "12 ms@p95", or "50%" of a run.')
    percentile: float | None = Field(default=None, description="Of inferences within the budget.")
    confidence: float = Field(default=99, gt=50, lt=100, description="Percent, of each side.")
    target: Annotated[list[str], BeforeValidator(_one_or_many)] = Field(
        default=[], description="A runtime, or runtime@device; all of them must meet the budget."
    )
    score_floor: float | None = Field(
        default=None, ge=-1, le=1, description="Least score of the exported file."
    )
    size: str | None = Field(default=None, description='Largest model file, as "30MB".')
    parameters: int | None = Field(default=None, gt=0, description="Most parameters.")
    multiply_adds: int | None = Field(default=None, gt=0, description="Most, of one inference.")
    baseline: Path | None = Field(
        default=None, description="The JSON of an earlier check: nothing may have grown since."
    )
    inconclusive: Literal["fail", "warn", "pass"] = Field(
        default="fail", description="What an inconclusive verdict does to the exit code."
    )
    looks: int | None = Field(
        default=None, ge=1, le=3, description="How often data may be doubled to decide."
    )
    threads: int | None = None
    batch: int | None = None
    sequence: int | None = None
    runs: str | None = None

    @field_validator("size")
    @classmethod
    def _size_has_a_unit(cls, size: str | None) -> str | None:
        try:
            return None if size is None else str(Size.parse(size))
        except BudgetError as error:
            raise ValueError(f"{error.why}, {error.remedy}") from None

    @property
    def size_budget(self) -> Size | None:
        return None if self.size is None else Size.parse(self.size)

    @classmethod
    def read(cls, path: Path | None, options: Mapping[str, Any]) -> Demands:
        """The demands of a file, by default ./edgeprune.toml if there is one, and of options.

        Raises RecipeError.
        """
        found = path or (FILE if FILE.is_file() else None)
        keys = {} if found is None else _parse(found)
        keys |= {key: value for key, value in options.items() if value not in (None, [], ())}
        try:
            return cls.model_validate(keys)
        except ValidationError as error:
            raise explained(error, cls, "check", found) from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise RecipeError(f"file {path}", why=f"over {MAX_BYTES} bytes")
        tables = tomllib.loads(raw.decode("utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"file {path}", why=error.strerror or "cannot be read") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise RecipeError(f"file {path}", why=str(error)) from None
    unknown = sorted(set(tables) - {"check"})
    if unknown or not isinstance(tables.get("check", {}), dict):
        why = f"holds {unknown[0]!r}" if unknown else "check is no table"
        raise RecipeError(f"file {path}", why=why, remedy="its one table is [check]")
    keys: dict[str, Any] = {key.replace("-", "_"): v for key, v in tables.get("check", {}).items()}
    if isinstance(keys.get("baseline"), str):
        keys["baseline"] = path.parent / keys["baseline"]
    return keys
