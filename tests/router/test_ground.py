"""Grounding: every wish of a request has its candidates, inside what the caller may use."""

from __future__ import annotations

import json

import pytest

from registry import document
from registry.search.engine import Found, Searcher
from registry.search.index import ToolIndex
from registry.search.scope import Scope
from router.errors import BadRequest
from router.ground import ground

TOOLS = [
    ("mail", "send_message", "Send an e-mail to a person"),
    ("files", "read_file", "Read the contents of a file"),
    ("sky", "get_weather", "The weather forecast of a city"),
    *[("trips", f"book_flight_{i}", f"Book a flight from one city to another, kind {i}") for i in range(20)],
]


def finder() -> Searcher:
    index = ToolIndex()
    for server, name, text in TOOLS:
        data = {"name": name, "description": text, "inputSchema": {"type": "object"}}
        index.put(document.read(server, json.dumps(data).encode()))
    return Searcher(index)


def test_each_wish_has_candidates_however_loud_the_others_are() -> None:
    request = "Book a flight to another city and send a message to Ann"
    grounding = ground(request, finder().find, limit=5)
    assert [wish.text for wish in grounding.wishes] == [
        "Book a flight to another city",
        "send a message to Ann",
    ]
    for wish, name in zip(grounding.wishes, ("book_flight", "send_message"), strict=True):
        assert wish.candidates[0].tool.name.startswith(name)
    listed = {candidate.tool for candidate in grounding.candidates}
    assert len(listed) == len(grounding.candidates)
    assert {c.tool for wish in grounding.wishes for c in wish.candidates} <= listed
    assert grounding.mode == "lexical"


def test_a_single_wish_is_one_search() -> None:
    searches: list[str] = []
    search = finder()

    def find(request: str, limit: int = 10, scope: Scope | None = None) -> Found:
        searches.append(request)
        return search.find(request, limit, scope)

    grounding = ground("What is the weather forecast?", find)
    assert searches == ["What is the weather forecast?"]
    assert grounding.wishes[0].candidates == grounding.candidates
    assert "weather" in grounding.candidates[0].why


def test_the_scope_holds_for_every_wish() -> None:
    scope = Scope.of(servers={"sky", "files"})
    grounding = ground("Book a flight and read a file please", finder().find, scope=scope)
    assert {candidate.tool.server for candidate in grounding.candidates} <= {"sky", "files"}


@pytest.mark.parametrize(
    ("request_", "limit", "per_wish"), [("  ", 5, 1), ("x", 0, 0), ("x", 99, 1), ("x", 2, 3)]
)
def test_what_cannot_be_grounded_is_refused(request_: str, limit: int, per_wish: int) -> None:
    with pytest.raises(BadRequest):
        ground(request_, finder().find, limit=limit, per_wish=per_wish)


def test_a_request_that_fits_nothing_has_wishes_without_candidates() -> None:
    grounding = ground("xyzzy", finder().find)
    assert grounding.candidates == ()
    assert [wish.candidates for wish in grounding.wishes] == [()]
