"""The stages of a run: each makes its values from those of earlier stages, once, and keeps them.

A stage is a function from values to a value. What it makes is published in the run folder, and
read back from there, so that a value found is the same as a value made.
"""

from __future__ import annotations

from edgeprune.inputs import Transfer
from edgeprune.recipe import Recipe
from edgeprune.report.folder import slug


def stage_names(recipe: Recipe) -> tuple[str, ...]:
    """The stages that a recipe comes to, in order; the pipeline says what each does."""
    slugs = [slug(str(budget)) for budget in recipe.budgets]
    of_budgets = [
        name
        for own in slugs
        for name in (
            f"plan-{own}",
            *([f"vocabulary-{own}"] if recipe.size is not None else []),
            f"student-{own}",
            *(f"{precision}-{own}" for precision in recipe.precisions),
        )
    ]
    prices = [f"gates-{own}" for own in slugs] if recipe.method == "l0" else ["curves"]
    ranking = ["ranking"] if recipe.ranks_auxiliary and Transfer.of(recipe).anywhere else []
    return (*ranking, "table", "teacher", *prices, "dense", *of_budgets, "latency")
