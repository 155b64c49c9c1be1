"""Pages and cursors."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import protocol
from gateway.catalog.pages import MEMBER, TTL_MS, Listing, encode_cursor
from gateway.errors import RpcError
from registry.model import ItemKind

TOOL, RESOURCE = ItemKind.TOOL, ItemKind.RESOURCE


def listing(keys: set[str], page_size: int, kind: ItemKind = TOOL) -> Listing:
    ordered = tuple(sorted(keys))
    return Listing(kind, ordered, tuple(json.dumps({"name": key}).encode() for key in ordered), page_size)


@pytest.mark.parametrize("kind", ItemKind)
def test_an_empty_list_is_a_result_with_no_items(kind: ItemKind) -> None:
    assert json.loads(listing(set(), 5, kind).page()) == {MEMBER[kind]: []}


def test_a_stateless_result_says_that_it_is_complete_and_how_long_it_is_fresh() -> None:
    got = json.loads(listing({"a", "b", "c"}, 2).page(stateless=True))
    assert got.pop("nextCursor")
    assert got == {
        "tools": [{"name": "a"}, {"name": "b"}],
        "resultType": "complete",
        "ttlMs": TTL_MS,
        "cacheScope": "private",
    }


def test_a_page_holds_two_thousand_items_and_only_more_give_a_cursor() -> None:
    keys = {f"t{i}" for i in range(2000)}
    exact = json.loads(listing(keys, 2000).page())
    assert len(exact["tools"]) == 2000
    assert "nextCursor" not in exact
    more = listing(keys | {"zzz"}, 2000)
    assert json.loads(more.page(json.loads(more.page())["nextCursor"])) == {"tools": [{"name": "zzz"}]}


def test_a_page_is_serialised_once() -> None:
    one = listing({"a", "b", "c"}, 2)
    assert one.page() is one.page()
    cursor = json.loads(one.page())["nextCursor"]
    assert one.page(cursor) is one.page(cursor)


def test_cursors_a_client_makes_up_do_not_fill_the_memory() -> None:
    one = listing({f"t{i:03}" for i in range(100)}, 50)
    for i in range(100):
        one.page(encode_cursor(TOOL, f"t{i:03}"))
    assert len(one._pages) <= 3


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "abc",
        "é",
        "\ud800",
        "a" * 10_000,
        encode_cursor(RESOURCE, "x"),
        encode_cursor(TOOL, "x") + "=",
        encode_cursor(TOOL, "x") + "\n",
        base64.urlsafe_b64encode(b"\xff\xfe:tool:x").decode(),
        base64.urlsafe_b64encode(b"5").decode(),
    ],
)
def test_a_cursor_that_is_not_ours_is_invalid_params(cursor: str) -> None:
    with pytest.raises(RpcError, match="not one this gateway gave") as caught:
        listing({"a"}, 5).page(cursor)
    assert caught.value.code == protocol.INVALID_PARAMS


@given(st.text())
def test_any_text_for_a_cursor_is_answered_or_refused(cursor: str) -> None:
    with contextlib.suppress(RpcError):
        assert "tools" in json.loads(listing({"a"}, 5).page(cursor))


def walk(at: Callable[[int], Listing]) -> list[str]:
    """The names a client collects when the list is ``at(n)`` at its n-th request."""
    names: list[str] = []
    cursor = None
    for step in range(1000):
        result = json.loads(at(step).page(cursor))
        names += [item["name"] for item in result["tools"]]
        cursor = result.get("nextCursor")
        if cursor is None:
            return names
    raise AssertionError("the walk does not end")


keys = st.text(alphabet="abAB_-9é\U0001f600:/", min_size=1, max_size=4)


@given(st.sets(keys, max_size=20), st.lists(st.sets(keys, max_size=10), max_size=8), st.integers(1, 5))
def test_a_walk_neither_skips_nor_repeats_an_item_that_stayed(
    stable: set[str], others: list[set[str]], page_size: int
) -> None:
    """At each step other items are there; those in ``stable`` are there at every step."""
    names = walk(lambda n: listing(stable | (others[n % len(others)] if others else set()), page_size))
    assert len(set(names)) == len(names)
    assert [name for name in names if name in stable] == sorted(stable)


@given(st.sets(keys, max_size=20), st.integers(1, 5), st.booleans())
def test_the_pages_together_are_the_whole_list(every: set[str], page_size: int, stateless: bool) -> None:
    one = listing(every, page_size)
    assert walk(lambda _: one) == sorted(every)
