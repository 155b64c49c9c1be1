"""Exposed names: valid, unique, and the same for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.names import NameBook, NamePolicy, is_valid
from gateway.errors import ConfigError
from registry.model import AssignedName, ItemKind

TOOL, PROMPT = ItemKind.TOOL, ItemKind.PROMPT

awkward = st.one_of(
    st.sampled_from(
        ["a", "b", "a_b", "a.b", "a/b", "a__b", "b__c", "", "_", "検索", "檢索", "x" * 64, "x" * 65]
    ),
    st.text(max_size=80),
)
pairs = st.lists(st.tuples(awkward, awkward), max_size=30)
stored = st.sampled_from([NamePolicy.PREFIX, NamePolicy.ON_COLLISION])


def test_prefix_always_names_the_server() -> None:
    assert NameBook("prefix").assign(TOOL, "git", "log") == "git__log"


def test_on_collision_prefixes_only_what_another_server_holds() -> None:
    book = NameBook("on-collision")
    names = [book.assign(TOOL, server, name) for server, name in [("a", "x"), ("b", "x"), ("b", "y")]]
    assert names == ["x", "b__x", "y"]


def test_a_prompt_does_not_take_the_name_of_a_tool() -> None:
    book = NameBook("on-collision")
    assert book.assign(TOOL, "a", "x") == book.assign(PROMPT, "b", "x") == "x"


def test_priority_gives_every_server_the_plain_name_and_stores_nothing() -> None:
    book = NameBook("priority", [AssignedName(TOOL, "a", "x", "a__x")])
    assert book.assign(TOOL, "a", "x") == book.assign(TOOL, "b", "x") == "x"
    assert book.fresh == []


def test_names_that_read_alike_once_cleaned_are_told_apart() -> None:
    book = NameBook("prefix")
    first, second = book.assign(TOOL, "a", "b.c"), book.assign(TOOL, "a", "b/c")
    assert first == "a__b_c"
    assert second.startswith("a__b_c_")
    crossed = book.assign(TOOL, "s", "t__u"), book.assign(TOOL, "s__t", "u")
    assert crossed[0] == "s__t__u" != crossed[1]


def test_a_long_name_is_shortened_with_a_hash() -> None:
    book = NameBook("prefix")
    names = {book.assign(TOOL, "server", "n" * 70 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) == 64 and name.startswith("server__nnn") for name in names)


def test_an_unknown_policy_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="no name policy 'suffix'") as caught:
        NameBook("suffix")
    assert "on-collision" in (caught.value.hint or "")


def test_given_names_that_clash_or_that_clients_refuse_are_not_taken_over() -> None:
    given = [
        AssignedName(TOOL, "a", "x", "same"),
        AssignedName(TOOL, "b", "x", "same"),
        AssignedName(TOOL, "c", "x", "not valid"),
    ]
    book = NameBook("prefix", given)
    assert [book.assign(TOOL, server, "x") for server in "abc"] == ["same", "b__x", "c__x"]


@given(st.sampled_from(NamePolicy), pairs)
def test_every_name_is_one_that_clients_accept(policy: NamePolicy, items: list[tuple[str, str]]) -> None:
    book = NameBook(policy)
    assert all(is_valid(book.assign(TOOL, *pair)) for pair in items)


@given(stored, pairs)
def test_two_originals_never_share_a_name(policy: NamePolicy, items: list[tuple[str, str]]) -> None:
    book = NameBook(policy)
    names = {pair: book.assign(TOOL, *pair) for pair in items}
    assert len(set(names.values())) == len(names)
    assert {(n.server, n.original): n.exposed for n in book.fresh} == names


@given(pairs)
def test_under_priority_only_equal_originals_share_a_name(items: list[tuple[str, str]]) -> None:
    book = NameBook("priority")
    names = {original: book.assign(TOOL, server, original) for server, original in items}
    assert len(set(names.values())) == len(names)


@given(stored, pairs, pairs, st.randoms())
def test_a_name_once_given_stays_whatever_comes_and_goes(
    policy: NamePolicy, before: list[tuple[str, str]], later: list[tuple[str, str]], random: object
) -> None:
    first = NameBook(policy)
    names = {pair: first.assign(TOOL, *pair) for pair in before}
    restarted = NameBook(policy, first.fresh)
    for pair in later:
        restarted.assign(TOOL, *pair)
    again = list(names)
    random.shuffle(again)  # type: ignore[attr-defined]
    assert {pair: restarted.assign(TOOL, *pair) for pair in again} == names
    assert not {(n.server, n.original) for n in restarted.fresh} & names.keys()


@given(stored, pairs)
def test_the_same_inputs_in_the_same_order_give_the_same_names(
    policy: NamePolicy, items: list[tuple[str, str]]
) -> None:
    books = NameBook(policy), NameBook(policy)
    assert [books[0].assign(TOOL, *p) for p in items] == [books[1].assign(TOOL, *p) for p in items]


plain = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(st.lists(st.tuples(plain, plain), unique=True, max_size=20), st.randoms())
def test_prefixed_plain_names_do_not_depend_on_order(items: list[tuple[str, str]], random: object) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, two = NameBook("prefix"), NameBook("prefix")
    for pair in shuffled:
        two.assign(TOOL, *pair)
    assert [one.assign(TOOL, *pair) for pair in items] == [two.assign(TOOL, *pair) for pair in items]
