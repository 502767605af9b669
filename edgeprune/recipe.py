"""The Recipe: everything a run is asked to do, validated; YAML in, YAML out, its JSON Schema."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from edgeprune.errors import RecipeError, ResourceError
from edgeprune.latency import Budget
from edgeprune.size import Size
from edgeprune.validation import explained

TransferHow = Literal["none", "sequential", "joint", "meta", "decompose"]
TransferWhat = Literal["none", "weights", "stats", "masks", "both"]
TransferWhen = Literal["teacher", "prune", "recover", "all"]
Order = Literal["random", "easy-first", "interference"]
Effort = Literal["quick", "standard", "thorough"]
Precision = Literal["fp32", "int8", "auto"]
Method = Literal["obs", "fisher", "l0", "magnitude", "layerdrop", "random", "oneshot"]
Metric = Literal["auto", "accuracy", "f1", "f1_macro", "matthews", "spearman", "pearson"]
MAX_RECIPE_BYTES = 1_000_000
AUTO = "auto:"  # before a folder of candidates for the auxiliary task
DEMO = "demo"  # the encoder of the `demo` extra, whatever folders there are


def _one_or_many(value: object) -> object:
    values = value if isinstance(value, (list, tuple)) else [value]
    # A number without a unit is a budget that is told what it lacks.
    return [str(v) if isinstance(v, (int, float)) else v for v in values]


def _none_one_or_many(value: object) -> object:
    return [] if value is None else _one_or_many(value)


class Recipe(BaseModel):
    """What a run is asked to do. Every key is also an option: `train_size` is `--train-size`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="Encoder: a folder, a hub name, or `demo`.")
    task: str = Field(
        description="Labelled rows: a folder with train/validation/test files, one file (JSON "
        "Lines, CSV, TSV, Parquet), or the name of a `datasets` data set."
    )
    auxiliary: Annotated[
        list[str],
        BeforeValidator(_none_one_or_many, json_schema_input_type=str | list[str] | None),
    ] = Field(
        default=[],
        description="A related, bigger data set to learn from, or plain text (.txt); its columns "
        "are detected. Of several, or of those in a folder (`auto:DIR`), the one that promises "
        "most is taken.",
    )
    budget: Annotated[
        list[str], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])
    ] = Field(
        default=["50%"],
        min_length=1,
        description='Latency budget: "12ms", "12 ms@p95", or "50%" of the unpruned model. '
        "Several share one teacher, one latency table and one set of error curves.",
    )
    size: str | None = Field(
        default=None,
        description="Size budget of the model's file, as in 8MB or 800kB. It holds together with "
        "each latency budget: the vocabulary is cut to what is left, and more is pruned where that "
        "is too little.",
    )
    target: Annotated[
        list[str], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])
    ] = Field(
        default=["ort"],
        min_length=1,
        description="Where latency counts: a runtime, or runtime@device (`targets list`), with "
        "an option as in openvino:bf16. A budget must be met on each of several.",
    )
    out: Path = Field(default=Path("runs/edgeprune"), description="The run folder.")

    text: str | None = Field(default=None, description="Column of the text; detected if not named.")
    text_pair: str | None = Field(default=None, description="Column of the second text of a pair.")
    label: str | None = Field(default=None, description="Column of the label or score.")
    metric: Metric = Field(
        default="auto", description="auto: accuracy for classes, Spearman's correlation for scores."
    )
    train_size: int | None = Field(
        default=None, ge=8, description="Rows to train on: a seeded sample, stratified by class."
    )
    auxiliary_size: int = Field(
        default=8000, ge=8, description="Rows of the auxiliary task to use at most."
    )
    vocabulary_text: str | None = Field(
        default=None,
        description="Plain text (.txt) of which every token is kept under a size budget, beside "
        "those of the training rows.",
    )
    allow_leakage: bool = Field(
        default=False,
        description="Go on although over 1% of evaluation rows stand in the training rows.",
    )

    method: Method = Field(default="obs", description="What decides which heads and FFN units go.")
    transfer_how: TransferHow = Field(
        default="joint",
        description="How the auxiliary task is coupled with the target task in a training.",
    )
    transfer_what: TransferWhat = Field(
        default="both",
        description="What is transferred: the jointly taught weights, the pooled activation "
        "statistics of the error curves, both; or masks, the plan by the auxiliary text alone.",
    )
    transfer_when: TransferWhen = Field(
        default="all",
        description="In which stage the auxiliary task takes part; a guard switches it off "
        "where it does not help.",
    )
    frozen_layers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default=0,
        description="Layers, from the lowest, that stay as they are while the teacher is taught; "
        "auto: none, a third or two thirds, by short trials.",
    )
    votes: Annotated[
        list[str],
        BeforeValidator(_none_one_or_many, json_schema_input_type=str | list[str] | None),
    ] = Field(
        default=[],
        description="Folders of earlier runs on similar tasks, with an encoder of the same shape: "
        "what their plans pruned hard is cheap to prune here.",
    )
    order: Order = Field(
        default="random",
        description="Of the teacher's coupled training: easy-first draws the target's rows by "
        "their loss after the training alone, the easiest third at first; interference lets all "
        "of several auxiliary tasks take part, one after the other, the least at odds together.",
    )
    effort: Effort = Field(default="standard", description="How long to search and train.")

    precision: Precision = Field(
        default="fp32",
        description="auto keeps int8 where it is faster and within the quality floor.",
    )
    floor: float = Field(
        default=0.98,
        gt=0,
        le=1,
        description="Quality floor, as a share of the unpruned model's score.",
    )

    sequence: int = Field(
        default=128, ge=8, le=8192, description="Tokens a row is measured and cut at."
    )
    batch: int = Field(default=1, ge=1, le=1024, description="Rows per inference when measuring.")
    threads: int = Field(
        default=1, ge=1, le=256, description="Threads of the runtime when measuring."
    )
    runs: Literal["auto", "rapid", "quick", "standard", "mlperf"] = Field(
        default="auto",
        description="How many launches and inferences a measurement takes; auto: quick at effort "
        "quick, else standard.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Of samples, initial heads and batches."
    )

    @field_validator("budget")
    @classmethod
    def _budgets_can_be_read(cls, budgets: list[str]) -> list[str]:
        return [str(Budget.parse(str(text))) for text in budgets]

    @field_validator("size", mode="before")
    @classmethod
    def _size_can_be_read(cls, size: object) -> object:
        # A number without a unit is told what it lacks.
        return str(Size.parse(str(size))) if isinstance(size, (str, int, float)) else size

    @property
    def ranks_auxiliary(self) -> bool:
        """Whether one of several candidates is to be picked."""
        return len(self.auxiliary) > 1 or any(one.startswith(AUTO) for one in self.auxiliary)

    @property
    def run_plan(self) -> str:
        if self.runs != "auto":
            return self.runs
        return "quick" if self.effort == "quick" else "standard"

    @property
    def budgets(self) -> list[Budget]:
        return [Budget.parse(text) for text in self.budget]

    @property
    def size_budget(self) -> Size | None:
        return None if self.size is None else Size.parse(self.size)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What every student is exported in; `auto` compares the two."""
        return ("fp32", "int8") if self.precision == "auto" else (self.precision,)

    def from_anywhere(self) -> Recipe:
        """The same with absolute paths, so that it holds in any working folder."""
        keys = self.model_dump(mode="json")
        return Recipe.model_validate(_moved(keys, Path(), lambda path: str(Path(path).absolute())))

    def save(self, path: Path) -> None:
        """Write the keys that differ from their defaults; `read` takes them back from anywhere.

        Raises ResourceError.
        """
        keys = self.model_dump(mode="json", exclude_defaults=True)

        def beside(place: str) -> str:
            return place if Path(place).is_absolute() else os.path.relpath(place, path.parent)

        keys = _moved(keys, Path(), beside)
        text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            why = error.strerror or "cannot be written"
            raise ResourceError(f"recipe {path}", why=why, remedy="choose another name") from None

    @classmethod
    def read(cls, path: Path | None, options: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe of a YAML file, an option of the same name overriding a key.

        Paths in the file are relative to the file's folder; paths given as options, to the
        working folder. Raises RecipeError, BudgetError.
        """
        keys = {}
        if path is not None:
            home = path.parent
            keys = _moved(_parse(path), home, lambda place: str(home / place))
        keys |= {key: value for key, value in (options or {}).items() if value not in (None, [])}
        try:
            return cls.model_validate(keys)
        except ValidationError as error:
            raise explained(error, cls, "compress", path) from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_RECIPE_BYTES + 1)  # whatever it is: /dev/zero has no end
    except OSError as error:
        raise RecipeError(
            f"recipe {path}",
            why=error.strerror or "cannot be read",
            remedy="`edgeprune init` writes one",
        ) from None
    if len(raw) > MAX_RECIPE_BYTES:
        raise RecipeError(f"recipe {path}", why=f"over {MAX_RECIPE_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
        # An anchor can expand to gigabytes; a recipe has no use for one.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise RecipeError(f"recipe {path}", why="YAML aliases are not taken")
        keys = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path}", why=f"not UTF-8 at byte {error.start}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "not YAML"
        raise RecipeError(f"recipe {path}{where}", why=str(why)) from None
    if not isinstance(keys, dict):
        raise RecipeError(f"recipe {path}", why="not a mapping of keys to values")
    return {str(key): value for key, value in keys.items()}


def _is_there(path: Path) -> bool:
    """What is no possible path (too long a name) is not there."""
    try:
        return path.exists()
    except OSError:
        return False


def _moved(keys: Mapping[str, Any], folder: Path, move: Callable[[str], str]) -> dict[str, Any]:
    """The keys, with `move` done to each path: not to what is on the hub or in an extra."""

    def place(key: str, value: Any) -> Any:
        if not isinstance(value, str) or (key, value) == ("model", DEMO):
            return value
        mark = AUTO if key == "auxiliary" and value.startswith(AUTO) else ""
        path = value.removeprefix(mark)
        return mark + move(path) if key == "out" or _is_there(folder / path) else value

    found = dict(keys)
    for key in ("model", "task", "auxiliary", "vocabulary_text", "votes", "out"):
        if isinstance(value := keys.get(key), list):
            found[key] = [place(key, one) for one in value]
        elif value is not None:
            found[key] = place(key, value)
    return found
