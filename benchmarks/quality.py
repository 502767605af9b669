"""What is left of the score at equal measured milliseconds: our methods, and Torch-Pruning.

And the default without its auxiliary task.

    pip install torch-pruning==1.6.1
    python benchmarks/quality.py --data DIR --runs DIR [--only mrpc …] [--effort quick] [--seeds 3]
                                 [--budget 50% 25% 12%] [--methods obs fisher …]

DIR holds the tasks as folders of JSON Lines. Every cell is a whole `edgeprune compress`; a call
that was stopped goes on. benchmarks/results/quality-<effort>.json is written after every task: the
rows, the mean over tasks at each budget, and each method's difference from the default, with the
95 % interval of a paired bootstrap over tasks and seeds. What was left out is told in `subset`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import torch_pruning_method
from grid import Rows, left_out, options, recipe_of, rows_of, table, write_result

from edgeprune.ablation import Cell, ablate
from edgeprune.recipe import Method
from edgeprune_cli.show import progress

METHODS = get_args(Method)
DEFAULT = "obs"
ALONE, PEER = "obs, no transfer", "Torch-Pruning"


def compared(data: Path, task: str, asked: argparse.Namespace) -> list[Cell]:
    """The default, every other method, and the default without its auxiliary task."""
    recipe = recipe_of(data, task, asked.effort, asked.budget)
    names = [name for name in asked.methods if name != DEFAULT]
    others = [Cell(name, recipe.model_copy(update={"method": name})) for name in names]
    alone = Cell(ALONE, recipe.model_copy(update={"transfer_how": "none"}))
    return [Cell(DEFAULT, recipe), *others, alone]


def main() -> None:
    parser = options(__doc__, ["50%", "25%", "12%"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    asked = parser.parse_args()
    rows: Rows = []
    for task in asked.only:
        out = asked.runs / f"quality-{task}-{asked.effort}"
        cells = compared(asked.data, task, asked)
        with progress(quiet=False) as told:
            ablate(cells, seeds=asked.seeds, out=out, progress=told)
            # In this process, as only here it stands in for the default.
            with torch_pruning_method.in_place_of(DEFAULT):
                other = [cells[0], Cell(PEER, cells[0].recipe)]
                ablate(other, seeds=asked.seeds, jobs=1, out=out, progress=told)
        rows += rows_of(out, task)
        subset = left_out(rows, asked.seeds, asked.methods, METHODS)
        write_result("quality", rows, DEFAULT, asked.budget, asked.effort, subset)
        print(table(rows, DEFAULT, asked.budget), flush=True)


if __name__ == "__main__":
    main()
