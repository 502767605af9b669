"""One recipe with one thing changed at a time, over several seeds: what does each choice bring?

OUT/runs/seed-N/    the run folder of a seed's cells, which share its table, teachers and curves
OUT/ablation.json   a row for every cell, seed and budget; cells that stand there are not run again
OUT/ablation.md     the comparison
OUT/ablation.svg    its picture

Seeds are independent of each other, and so several of them may be run at a time.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import statistics
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from edgeprune.compression import compress_all
from edgeprune.errors import InputError, RecipeError, ResourceError, Unreachable
from edgeprune.measure.tails import t_quantile
from edgeprune.progress import SILENT, Progress
from edgeprune.publish import publish
from edgeprune.recipe import Method, Recipe, TransferHow, TransferWhat, TransferWhen
from edgeprune.report.discretion import discreet
from edgeprune.report.figures import Figure
from edgeprune.report.markdown import table
from edgeprune.report.report import Report
from edgeprune.run import digest, stage_folder

# The stored format; 1 (0.1.0): the first.
FORMAT = "edgeprune-ablation/1"
CONFIDENCE = 0.95
AXES: Mapping[str, tuple[str, tuple[str, ...]]] = {  # the recipe's key, and its values
    "method": ("method", get_args(Method)),
    "how": ("transfer_how", get_args(TransferHow)),
    "what": ("transfer_what", get_args(TransferWhat)),
    "when": ("transfer_when", get_args(TransferWhen)),
    "frozen": ("frozen_layers", ("0", "auto")),  # or any other number
    "order": ("order", ("random", "easy-first")),  # or interference, of several auxiliary tasks
}
SHARED = ("table", "teacher", "curves", "dense")  # stages that cells have in common
CORES_A_SEED = 4  # with fewer, what two seeds take turns in is most of what they do

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """The recipe with one of its keys changed, or as it is."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Effect:
    """A cell at one budget over its seeds; scores in points of the test metric times 100.

    `change` is the mean difference from the unchanged recipe, seed by seed, within `plus_minus` at
    95 % by Student's t; None where fewer than two seeds have both.
    """

    cell: str
    budget: str
    seeds: int
    points: float | None
    change: float | None
    plus_minus: float | None
    share_of_budget: float | None
    met: int
    error: str = ""


def cells(recipe: Recipe, grid: Sequence[str]) -> list[Cell]:
    """The recipe itself, then for each axis each of its other values. Raises InputError.

    A grid is names of axes, `method`, or with some values only, `method=fisher|magnitude`.
    """
    found = [Cell("as it is", recipe)]
    for text in grid:
        name, _, chosen = text.partition("=")
        if name not in AXES:
            raise InputError(
                f"--grid {text}", why="no such axis", remedy=f"one of {', '.join(AXES)}"
            )
        key, known = AXES[name]
        values = chosen.split("|") if chosen else known
        for value in values:
            try:
                changed = Recipe.model_validate(recipe.model_dump() | {key: value})
            except ValidationError:
                why = f"{name} has no {value!r}"
                remedy = f"one of {', '.join(known)}"
                raise InputError(f"--grid {text}", why=why, remedy=remedy) from None
            if changed != recipe:
                found.append(Cell(f"{name} {value}", changed))
    return found


def ablate(
    compared: Sequence[Cell],
    *,
    seeds: int = 3,
    jobs: int | None = None,
    out: Path,
    progress: Progress = SILENT,
) -> list[Effect]:
    """Run every cell on every seed, and compare them with the first one.

    Goes on where an earlier call stopped. `jobs` seeds are run at a time, by default one for every
    four cores; whatever is measured, is measured alone. A budget that a cell cannot reach is a row
    that says so. Raises what `compress_all` raises for anything else, and RecipeError where OUT
    holds the ablation of another recipe.
    """
    recipe = compared[0].recipe
    stored = _Stored.of(out, recipe)
    every = [
        Cell(cell.name, cell.recipe.model_copy(update={"seed": seed, "out": _folder(out, seed)}))
        for seed in range(recipe.seed, recipe.seed + seeds)
        for cell in compared
    ]
    todo = [cell for cell in every if not stored.has(cell)]
    jobs = min(seeds, jobs or max(1, len(os.sched_getaffinity(0)) // CORES_A_SEED))
    for number, (cell, rows) in enumerate(_run_all(todo, jobs, progress), 1):
        stored.keep(rows)
        said = f"{cell.name}, seed {cell.recipe.seed}"
        progress.note(f"{said} is done, {number} of {len(todo)} cells")
    found = effects(stored.rows, [cell.name for cell in compared], recipe.budget)
    publish(out / "ablation.md", to_markdown(recipe, found))
    try:
        from edgeprune.report.drawing import standalone
    except ModuleNotFoundError as error:
        progress.note(f"no picture: {error.name} is not there, pip install 'edgeprune[html]'")
    else:
        publish(out / "ablation.svg", standalone(figure(found, recipe.budget[0])))
    return found


def _folder(out: Path, seed: int) -> Path:
    return out / "runs" / f"seed-{seed}"


def _run_all(todo: Sequence[Cell], jobs: int, progress: Progress) -> Iterator[tuple[Cell, Rows]]:
    """Each cell with its rows, as they come."""
    if jobs == 1:
        for cell in todo:
            progress.note(f"{cell.name}, seed {cell.recipe.seed}")
            yield cell, _run(cell, progress)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, initializer=_share, initargs=(threads,)) as pool:
        try:
            yield from _seed_by_seed(todo, pool)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # what it has finished lies in its run folder
            if isinstance(error, BrokenProcessPool):
                why, remedy = "killed, most likely for want of memory", "give fewer --jobs"
                raise ResourceError("a cell's process", why=why, remedy=remedy) from None
            raise


def _seed_by_seed(todo: Sequence[Cell], pool: Executor) -> Iterator[tuple[Cell, Rows]]:
    """Cells of one seed one after another, as they share a run folder."""
    waiting: dict[int, deque[Cell]] = defaultdict(deque)
    for cell in todo:
        waiting[cell.recipe.seed].append(cell)
    running: dict[Future[Rows], Cell] = {}

    def begin(seed: int) -> None:
        if waiting[seed]:
            cell = waiting[seed].popleft()
            running[pool.submit(_run, cell)] = cell

    for seed in [*waiting]:
        begin(seed)
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            cell = running.pop(future)
            begin(cell.recipe.seed)
            yield cell, future.result()


def _share(threads: int) -> None:
    """A worker's part of the cores."""
    import torch

    torch.set_num_threads(threads)


def _run(cell: Cell, progress: Progress = SILENT) -> Rows:
    """The rows of one cell and seed."""
    rows = []
    for budget in cell.recipe.budget:
        row: dict[str, Any] = {"cell": cell.name, "seed": cell.recipe.seed, "budget": budget}
        one = cell.recipe.model_copy(update={"budget": [budget]})
        try:
            (report,) = compress_all(one, progress=progress)
        except Unreachable as error:
            rows.append(row | {"error": str(error)})
            continue
        rows.append(row | _told(report))
        _clear(cell.recipe.out, report)
    return rows


def _told(report: Report) -> dict[str, Any]:
    return {
        "outcome": report.verdict.outcome,
        "score": report.after.score,
        "dense_score": report.before.score,
        "p90_ms": report.after.p90_ms,
        "dense_p90_ms": report.before.p90_ms,
        "budget_ms": report.budget.ms,
        "layers": [f"{layer.heads}h/{layer.ffn}" for layer in report.plan.layers],
        "seconds": round(sum(report.seconds.values()), 1),
        "transfer": report.transfer.note,
    }


def _clear(run: Path, report: Report) -> None:
    """Remove what no other cell rests on: a grid would fill a disk."""
    for name, key in report.stages.items():
        if name not in SHARED:
            shutil.rmtree(stage_folder(run, name, key), ignore_errors=True)


class _Stored:
    """The rows of OUT/ablation.json."""

    def __init__(self, path: Path, asked: Mapping[str, Any], rows: Rows) -> None:
        self.path, self.asked, self.rows = path, asked, rows

    @classmethod
    def of(cls, out: Path, recipe: Recipe) -> _Stored:
        path = out / "ablation.json"
        asked = recipe.model_dump(mode="json", exclude={"out", "budget"})
        if not path.exists():
            out.mkdir(parents=True, exist_ok=True)
            return cls(path, asked, [])
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["format"] == FORMAT and told["recipe_sha256"] == digest(asked):
                return cls(path, asked, list(told["rows"]))
        except (OSError, ValueError, LookupError, TypeError):
            raise RecipeError(f"ablation {path}", why="cannot be read") from None
        why = "is of another recipe"
        raise RecipeError(f"ablation {path}", why=why, remedy="choose another --out")

    def has(self, cell: Cell) -> bool:
        there = _by_place(self.rows)
        recipe = cell.recipe
        return all((cell.name, recipe.seed, budget) in there for budget in recipe.budget)

    def keep(self, rows: Rows) -> None:
        there = _by_place(self.rows)
        self.rows += [r for r in rows if (r["cell"], r["seed"], r["budget"]) not in there]
        told = {
            "format": FORMAT,
            "recipe": discreet(dict(self.asked)),
            "recipe_sha256": digest(self.asked),
            "rows": self.rows,
        }
        publish(self.path, json.dumps(told, indent=1) + "\n")


Row = TypeVar("Row", bound=Mapping[str, Any])


def _by_place(rows: Sequence[Row]) -> dict[tuple[str, int, str], Row]:
    return {(row["cell"], row["seed"], row["budget"]): row for row in rows}


def effects(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], budgets: Sequence[str]
) -> list[Effect]:
    """What each cell came to at each budget, in their order."""
    by_place = _by_place(rows)
    seeds = sorted({row["seed"] for row in rows})
    found = []
    for budget in budgets:
        for name in names:
            mine = [by_place[name, s, budget] for s in seeds if (name, s, budget) in by_place]
            good = [row for row in mine if "score" in row]
            pairs = [
                100 * (row["score"] - base["score"])
                for row in good
                if "score" in (base := by_place.get((names[0], row["seed"], budget), {}))
            ]
            found.append(
                Effect(
                    cell=name,
                    budget=budget,
                    seeds=len(good),
                    points=_mean([100 * row["score"] for row in good]),
                    change=_mean(pairs) if name != names[0] else None,
                    plus_minus=_plus_minus(pairs) if name != names[0] else None,
                    share_of_budget=_mean([row["p90_ms"] / row["budget_ms"] for row in good]),
                    met=sum(row["outcome"] == "met" for row in good),
                    error=next((row["error"] for row in mine if "error" in row), ""),
                )
            )
    return found


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _plus_minus(values: Sequence[float]) -> float | None:
    """Half the interval of the mean, by Student's t."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return t_quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * error


def to_markdown(recipe: Recipe, found: Sequence[Effect]) -> str:
    """A table for each budget."""
    parts = [f"# edgeprune ablate: {Path(recipe.task).name}"]
    parts.append(
        "Mean test score over seeds, and its difference from the recipe as it is, seed by seed, "
        f"with the {CONFIDENCE:.0%} interval of that mean. All at the same budget; what was used "
        "of it is measured."
    )
    head = ("cell", "seeds", "score", "change", "of the budget", "met")
    for budget in dict.fromkeys(one.budget for one in found):
        lines = [_line(one) for one in found if one.budget == budget]
        parts += [f"## {budget}", table(head, lines)]
    return "\n\n".join(parts) + "\n"


def _line(one: Effect) -> tuple[str, ...]:
    if one.points is None or one.share_of_budget is None:
        return (one.cell, "0", one.error or "not run", "", "", "")
    change = "" if one.change is None else f"{one.change:+.1f}"
    if one.plus_minus is not None:
        change += f" ± {one.plus_minus:.1f}"
    met = f"{one.met} of {one.seeds}"
    return (
        one.cell,
        str(one.seeds),
        f"{one.points:.1f}",
        change,
        f"{one.share_of_budget:.0%}",
        met,
    )


def figure(found: Sequence[Effect], budget: str) -> Figure:
    """The changes at one budget as a picture shows them."""
    mine = [one for one in found if one.budget == budget and one.change is not None]
    best = max(mine, key=lambda one: one.change or 0.0, default=None)
    said = "" if best is None else f"{best.cell} comes to {best.change:+.1f} points. "
    rows = tuple((one.cell, one.change, one.plus_minus, one.seeds) for one in mine)
    return Figure(
        name="ablation",
        kind="ablation",
        title=f"Change of the score at {budget}",
        says=f"{said}{len(rows)} changes of the recipe, each alone.",
        columns=("cell", "points", "plus_minus", "seeds"),
        rows=rows,
    )
