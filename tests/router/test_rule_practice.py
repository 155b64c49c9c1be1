"""Requests to learn from among other tools than their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.planner.rules.practice import LIKE, TWIN, found, refusals


def record(verb: str, thing: str) -> dict[str, Any]:
    tool = {"name": f"{verb}_{thing}", "description": f"{verb} a {thing}", "inputSchema": {}}
    step = {"id": "1", "tool": tool["name"], "arguments": {}}
    return {
        "id": f"{verb}:{thing}",
        "source": "s",
        "request": f"{verb} my {thing}",
        "tools": [tool],
        "plan": [step],
        "labels": ["args"],
    }


def words(texts: Sequence[str], others: Sequence[str]) -> list[list[float]]:
    """Closeness by shared words, 0 to 1."""
    sets = [
        [set(text.replace("_", " ").replace(":", " ").split()) for text in each] for each in (texts, others)
    ]
    return [[len(a & b) / max(1, len(a | b)) for b in sets[1]] for a in sets[0]]


records = st.lists(
    st.builds(
        record, st.sampled_from(["get", "make", "send"]), st.sampled_from(["mail", "map", "song", "trip"])
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda made: made["id"],
)


@given(records, st.integers(0, 9))
def test_a_request_is_met_among_the_nearest_tools_and_none_that_would_do_as_well(
    given_: list[dict[str, Any]], seed: int
) -> None:
    made = list(found(given_, words, 1.0, seed))
    assert made == list(found(given_, words, 1.0, seed))
    for one in made:
        names = [tool["name"] for tool in one["tools"]]
        (own,) = next(r for r in given_ if r["id"] == one["id"])["tools"]
        assert len(names) == len(set(names))
        assert (own["name"] in names) == bool(one["plan"])
        for tool in one["tools"]:
            texts = [f"{t['name']}: {t['description']}" for t in (own, tool)]
            assert tool == own or words(texts[:1], texts[1:])[0][0] < (TWIN if one["plan"] else LIKE)


@given(records)
def test_a_request_whose_tools_were_taken_away_is_to_be_refused(given_: list[dict[str, Any]]) -> None:
    for one in refusals(given_, 1.0):
        own = one["id"].replace(":", "_")
        assert one["plan"] == []
        assert own not in [tool["name"] for tool in one["tools"]]
