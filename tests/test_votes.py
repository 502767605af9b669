"""What the plans of earlier runs do to a plan."""

from __future__ import annotations

import math

import pytest
from test_search import DENSE, ERRORS, TABLE

from edgeprune.errors import RecipeError
from edgeprune.prune.search import search
from edgeprune.prune.votes import TRUST, Vote, prior_sensitivity
from edgeprune.shape import LayerShape


def vote(*kept: tuple[int, int], dense: tuple[LayerShape, ...] = DENSE.layers) -> Vote:
    return Vote("runs/a", dense, tuple(LayerShape(*widths) for widths in kept))


def test_without_votes_there_is_no_prior() -> None:
    assert prior_sensitivity([], DENSE) is None


def test_a_sub_layer_counts_by_the_share_of_it_that_plans_kept() -> None:
    found = prior_sensitivity([vote((2, 10), (1, 0)), vote((2, 5), (0, 0))], DENSE)
    assert found == pytest.approx(
        {
            (0, "attention"): math.exp(TRUST),
            (0, "ffn"): math.exp(0.75 * TRUST),
            (1, "attention"): math.exp(0.25 * TRUST),
            (1, "ffn"): 1.0,
        }
    )


def test_what_earlier_runs_pruned_hard_is_pruned_first() -> None:
    ways = {
        layer: prior_sensitivity([vote(*([(2, 10), (0, 0)][::order]))], DENSE)
        for layer, order in ((0, 1), (1, -1))
    }
    for layer, prior in ways.items():
        shape = search(ERRORS, TABLE, DENSE, 12.0, prior).shape
        kept, gone = shape.layers[layer], shape.layers[1 - layer]
        assert (kept.heads, kept.ffn) >= (gone.heads, gone.ffn)
        assert kept != gone


@pytest.mark.parametrize("budget_ms", [6.0, 9.0, 12.0, 15.0, 20.0])
def test_votes_for_the_same_share_everywhere_change_nothing(budget_ms: float) -> None:
    prior = prior_sensitivity([vote((1, 5), (1, 5))], DENSE)
    with_votes, without = (search(ERRORS, TABLE, DENSE, budget_ms, one) for one in (prior, None))
    assert with_votes.predicted_loss == pytest.approx(without.predicted_loss)


@pytest.mark.parametrize(
    ("dense", "told"),
    [
        ((LayerShape(2, 10),) * 3, "3 layers of 2 heads and 10 FFN units, this one 2 layers of 2"),
        ((LayerShape(2, 10), LayerShape(2, 12)), "10 FFN units or 2 heads and 12 FFN units"),
    ],
)
def test_a_run_of_another_encoder_is_refused(dense: tuple[LayerShape, ...], told: str) -> None:
    with pytest.raises(RecipeError, match=told) as caught:
        prior_sensitivity([vote((1, 5), (1, 5)), vote((0, 0), (0, 0), dense=dense)], DENSE)
    assert str(caught.value).startswith("--votes runs/a")
