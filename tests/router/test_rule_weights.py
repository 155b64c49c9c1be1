"""What was learned, and what may not be learned whatever the data say."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.planner.rules import calls, choose, evidence, planner
from router.planner.rules.linear import Linear
from router.planner.rules.trees import Trees
from router.planner.rules.weights import weights

MODELS = {
    "tools": (choose.FEATURES, choose.GROWS, choose.FALLS),
    "tools_by_words": (choose.FEATURES, choose.GROWS, choose.FALLS),
    "values": (evidence.FEATURES, evidence.GROWS, evidence.FALLS),
    "calls": (planner.CLOSER, planner.CLOSER_GROWS, planner.CLOSER_FALLS),
    "calls_by_words": (planner.CLOSER, planner.CLOSER_GROWS, planner.CLOSER_FALLS),
    "splits": (calls.FEATURES, calls.GROWS, calls.FALLS),
}
ROUNDED = 2e-3
"""What the rounding of a hundred and fifty leaves may add up to."""


@pytest.mark.parametrize("name", MODELS)
def test_every_number_that_has_a_sign_is_one_of_the_model(name: str) -> None:
    features, grows, falls = MODELS[name]
    assert len(set(features)) == len(features)
    assert grows | falls <= set(features)
    assert not grows & falls


@pytest.mark.parametrize("name", MODELS)
@given(st.randoms(use_true_random=False))
def test_more_of_what_speaks_for_a_thing_never_makes_it_less_likely(name: str, chance: Random) -> None:
    features, grows, falls = MODELS[name]
    model: Trees | Linear = getattr(weights(), name)
    row = [chance.uniform(-2, 4) for _ in features]
    more = list(row)
    at = features.index(chance.choice(sorted(grows | falls)))
    more[at] += chance.uniform(0, 4)
    before, after = (row, more) if features[at] in grows else (more, row)
    assert model.margin(after) >= model.margin(before) - ROUNDED


def learned(
    grows: Collection[str], falls: Collection[str], rows: Sequence[tuple[float, bool]]
) -> list[list[float]]:
    """What trees and a line make of 0 to 9 after they learned from rows of one number."""
    pytest.importorskip("sklearn")
    from router.planner.rules.train import Rows

    table = Rows(("x",), grows, falls)
    for number, label in rows:
        table.add((number,), label, "s")
    models = (Trees.of(table.fit(20)), Linear.of(table.fit_line()))
    return [[model.probability((float(x),)) for x in range(10)] for model in models]


def test_a_number_is_held_to_its_sign_against_the_data() -> None:
    rows = [(float(x), x % 10 < 5) for x in range(10) for _ in range(60)]
    for free in learned((), (), rows):
        assert free[0] > free[9]
    for up in learned(("x",), (), rows):
        assert up == sorted(up)
    for down in learned((), ("x",), rows):
        assert down == sorted(down, reverse=True)
