"""How, what and when to transfer: each answer alone against the default, at equal measured ms.

    python benchmarks/transfer.py --data DIR --runs DIR [--only stsb …] [--grid how what when]
                                  [--budget 25%] [--effort quick] [--seeds 3]

DIR holds the tasks and their auxiliary tasks as folders of JSON Lines. Every cell is a whole
`edgeprune compress`; a call that was stopped goes on. benchmarks/results/transfer-<effort>.json is
written after every task: the rows, and each answer's difference from the default over tasks and
seeds with the 95 % interval of a paired bootstrap. What was left out is told in `subset`.
"""

from __future__ import annotations

from grid import Rows, left_out, options, recipe_of, rows_of, table, write_result

from edgeprune.ablation import ablate, cells
from edgeprune_cli.show import progress

QUESTIONS = ("how", "what", "when")


def main() -> None:
    parser = options(__doc__, ["25%"])
    parser.add_argument("--grid", nargs="*", default=list(QUESTIONS))
    asked = parser.parse_args()
    rows: Rows = []
    for task in asked.only:
        compared = cells(recipe_of(asked.data, task, asked.effort, asked.budget), asked.grid)
        out = asked.runs / f"transfer-{task}-{asked.effort}"
        with progress(quiet=False) as told:
            ablate(compared, seeds=asked.seeds, out=out, progress=told)
        default = compared[0].name
        rows += rows_of(out, task)
        subset = left_out(rows, asked.seeds, asked.grid, QUESTIONS)
        write_result("transfer", rows, default, asked.budget, asked.effort, subset)
        print(table(rows, default, asked.budget), flush=True)


if __name__ == "__main__":
    main()
