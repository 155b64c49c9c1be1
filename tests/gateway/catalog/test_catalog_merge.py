"""The merge: nothing lost, one owner per key, the same order every time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from catalog_parts import catalog, item, server
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog, CatalogBuilder, Conflict, NameBook, Owner, changed, definition_hash
from registry.model import ItemKind, Server, ServerCatalog

TOOL, PROMPT, RESOURCE, TEMPLATE = ItemKind.TOOL, ItemKind.PROMPT, ItemKind.RESOURCE, ItemKind.TEMPLATE


def build(*catalogs: ServerCatalog, policy: str = "prefix", page_size: int = 2000) -> Catalog:
    servers = [server(c.server, n) for n, c in enumerate(catalogs)]
    return Catalog.build(servers, {c.server: c for c in catalogs}, NameBook(policy), page_size)


def test_only_the_name_changes_and_every_other_byte_stays() -> None:
    sent = (
        b'{"zz":{"b":1.50,"a" : [1e400, -0.0, 123456789012345678901234567890]},'
        b'"name":"t","x-new":"\\u00e9\\/","inputSchema":{"type":"object"}}'
    )
    entry = build(catalog("s", tools=[sent])).entries[TOOL]["s__t"]
    assert entry.data == sent.replace(b'"name":"t"', b'"name":"s__t"')
    assert (entry.server, entry.original) == ("s", "t")


def test_an_item_whose_name_stays_is_the_very_bytes_the_server_sent() -> None:
    sent = b'{ "name" : "t", "n": 1.0e-400 }'
    assert build(catalog("s", tools=[sent]), policy="priority").entries[TOOL]["t"].data is sent


def test_line_breaks_between_tokens_become_spaces_as_messages_are_framed_by_lines() -> None:
    sent = b'{\r\n  "uri": "a:b",\n  "name": "two\\nlines"\n}'
    (data,) = (e.data for e in build(catalog("s", resources=[sent])).entries[RESOURCE].values())
    assert b"\n" not in data
    assert b"\r" not in data
    assert json.loads(data) == json.loads(sent)


@pytest.mark.parametrize(
    "broken",
    [
        b"[]",
        b'"t"',
        b"{}",
        b"",
        b"nonsense",
        b'{"name":1}',
        b'{"name":null}',
        b'{"name":"t"',
        b'{"name":"t"} {}',
        b'{"name":"t","d":"\xff"}',
        b'{"name":"t","d":NaN}',
        b'{"name":"t","d":"a\nb"}',
        b'{"name":"t","d":' + b"[" * 126 + b"]" * 126 + b"}",
        b'{"name":"t","d":' + b"[" * 100_000,
    ],
)
def test_a_malformed_item_is_left_out_and_reported_and_the_rest_is_shown(broken: bytes) -> None:
    built = build(catalog("s", tools=[broken, "fine"]))
    assert list(built.entries[TOOL]) == ["s__fine"]
    (problem,) = built.problems
    assert (problem.server, problem.kind, problem.index) == ("s", TOOL, 0)
    assert "is left out" in problem.message


def test_an_item_listed_twice_by_one_server_is_shown_once_and_reported() -> None:
    built = build(catalog("s", tools=[item(TOOL, "t", v=1), item(TOOL, "t", v=2)]))
    assert b'"v":1' in built.entries[TOOL]["s__t"].data.replace(b" ", b"")
    assert "listed twice" in built.problems[0].message


def test_a_duplicate_uri_keeps_the_server_with_the_lowest_ordinal() -> None:
    parts = {n: catalog(n, resources=["file:///x"]) for n in "abc"}
    servers = [server("a", 3), server("b", 1), server("c", 2)]
    built = Catalog.build(servers, parts, NameBook("prefix"))
    assert built.entries[RESOURCE]["file:///x"].server == "b"
    assert built.conflicts == (Conflict(RESOURCE, "file:///x", "b", ("c", "a")),)


def test_under_priority_the_first_server_owns_a_name_and_gives_way_when_it_goes() -> None:
    parts = {n: catalog(n, tools=["t"]) for n in "ab"}
    builder = CatalogBuilder(NameBook("priority"))
    both = builder.build([server("a", 0), server("b", 1)], parts)
    assert both.entries[TOOL]["t"].server == "a"
    assert both.conflicts == (Conflict(TOOL, "t", "a", ("b",)),)
    one = builder.build([server("a", 0, disabled=True), server("b", 1)], parts)
    assert one.entries[TOOL]["t"].server == "b"
    assert one.conflicts == ()


def test_disabled_and_unseen_servers_show_nothing() -> None:
    parts = {"a": catalog("a", tools=["t"])}
    built = Catalog.build([server("a", disabled=True), server("b", 1)], parts, NameBook("prefix"))
    assert built.servers == ()
    assert not built.has(TOOL)


def test_capabilities_are_the_union_of_the_servers() -> None:
    built = build(
        catalog("a", {"tools": {}, "resources": {"subscribe": False}}),
        catalog("b", {"resources": {"subscribe": True}, "completions": {}}),
        catalog("c", prompts=["listed but not declared"]),
    )
    assert [built.has(kind) for kind in (TOOL, RESOURCE, TEMPLATE, PROMPT)] == [True] * 4
    assert built.supports("completions")
    assert not built.supports("logging")
    assert built.supporting("resources.subscribe") == ["b"]
    assert not build(catalog("a", {"resources": {}})).supports("resources.subscribe")


def test_capabilities_that_are_no_object_are_reported() -> None:
    odd = ServerCatalog("s", "handshake", "2025-11-25", capabilities=b"[1]", tools=(b'{"name":"t"}',))
    built = build(odd)
    assert built.problems[0].kind is None
    assert not built.supports("tools")
    assert built.has(TOOL)


def test_changed_names_the_kinds_a_client_would_see_differently() -> None:
    old = catalog("a", tools=["t"], prompts=["p"], resources=["r:1"])
    builder = CatalogBuilder(NameBook("prefix"))
    first = builder.build([server("a")], {"a": old})
    new = catalog("a", tools=["t"], prompts=["p", "q"], resources=[item(RESOURCE, "r:1", size=2)])
    second = builder.build([server("a")], {"a": new})
    assert changed(None, first) == {TOOL, PROMPT, RESOURCE}
    assert changed(first, first) == set()
    assert changed(first, second) == {PROMPT, RESOURCE}


def test_a_change_of_one_server_keeps_the_work_of_the_others() -> None:
    parts = {n: catalog(n, tools=["t"], prompts=["p"]) for n in "ab"}
    servers = [server("a", 0), server("b", 1)]
    builder = CatalogBuilder(NameBook("prefix"))
    first = builder.build(servers, parts)
    second = builder.build(servers, {**parts, "b": catalog("b", tools=["t", "u"], prompts=["p"])})
    assert second.entries[TOOL]["a__t"] is first.entries[TOOL]["a__t"]
    assert second.listings[PROMPT] is first.listings[PROMPT]
    assert list(first.entries[TOOL]) == ["a__t", "b__t"]
    assert list(second.entries[TOOL]) == ["a__t", "b__t", "b__u"]


def test_the_etag_follows_what_is_shown() -> None:
    one, same = build(catalog("a", tools=["t"])), build(catalog("a", tools=["t"]))
    assert one.etag == same.etag
    assert one.etag != build(catalog("a", tools=["u"])).etag
    assert one.etag != build(catalog("a", prompts=["t"])).etag


def test_the_definition_hash_sees_meaning_and_not_layout() -> None:
    base = definition_hash(b'{"name":"t","a":{"x":1,"y":"\\u00e9"}}')
    assert base == definition_hash('{"a":{"y":"é", "x":1},\n"name":"t"}'.encode())
    assert base != definition_hash(b'{"name":"t","a":{"x":2,"y":"\\u00e9"}}')


def test_the_definition_hash_tells_numbers_apart_that_floats_do_not() -> None:
    spelled = ["1e400", "1e401", "0.1", "0.10000000000000000000001", "1" * 5000, "1" * 4999 + "2"]
    hashes = {definition_hash(b'{"n":%b}' % text.encode()) for text in spelled}
    assert len(hashes) == len(spelled)


def test_an_item_with_a_number_of_thousands_of_digits_is_kept() -> None:
    sent = b'{"name":"t","n":%b}' % (b"7" * 5000)
    assert b"7" * 5000 in build(catalog("s", tools=[sent])).entries[TOOL]["s__t"].data


def test_completion_goes_to_the_owner_under_the_name_it_knows() -> None:
    built = build(catalog("a", prompts=["p"], templates=["a://{x}"]), catalog("b", resources=["b://1"]))
    assert built.completion_owner({"type": "ref/prompt", "name": "a__p"}) == Owner("a", "p")
    assert built.completion_owner({"type": "ref/resource", "uri": "a://{x}"}) == Owner("a", "a://{x}")
    assert built.completion_owner({"type": "ref/resource", "uri": "b://1"}) == Owner("b", "b://1")
    assert built.completion_owner({"type": "ref/resource", "uri": "a://7"}) == Owner("a", "a://7")
    odd: list[dict[str, Any]] = [
        {},
        {"type": "ref/prompt"},
        {"type": "ref/prompt", "name": "p"},
        {"type": "ref/resource", "uri": 1},
        {"type": "x", "name": "a__p"},
    ]
    for ref in odd:
        assert built.completion_owner(ref) is None


words = st.sampled_from(["a", "b", "a.b", "a/b", "c__d", "d", "é", "x" * 70])
listings = st.dictionaries(
    st.sampled_from(["s1", "s2", "s.3", "s_3", "s1__c"]),
    st.tuples(st.lists(words, unique=True, max_size=6), st.lists(words, unique=True, max_size=4)),
    max_size=5,
)


@given(listings, st.sampled_from(["prefix", "on-collision", "priority"]), st.randoms())
def test_the_result_does_not_depend_on_the_order_servers_or_their_items_came_in(
    listed: dict[str, tuple[list[str], list[str]]], policy: str, random: Any
) -> None:
    servers = [server(name, n) for n, name in enumerate(listed)]
    parts = {name: catalog(name, tools=tools, resources=uris) for name, (tools, uris) in listed.items()}
    one = Catalog.build(servers, parts, NameBook(policy))
    shuffled: list[Server] = random.sample(servers, len(servers))
    mixed = {
        s.name: catalog(s.name, tools=random.sample(tools, len(tools)), resources=uris)
        for s in shuffled
        for tools, uris in [listed[s.name]]
    }
    two = Catalog.build(shuffled, mixed, NameBook(policy))
    assert {k: list(v.items()) for k, v in one.entries.items()} == {
        k: list(v.items()) for k, v in two.entries.items()
    }
    assert one.etag == two.etag
    assert one.conflicts == two.conflicts
    for entries in one.entries.values():
        assert list(entries) == sorted(entries)


@given(listings, st.sampled_from(["prefix", "on-collision"]), st.data())
def test_names_stay_while_servers_leave_and_come_back(
    listed: dict[str, tuple[list[str], list[str]]], policy: str, data: st.DataObject
) -> None:
    servers = [server(name, n) for n, name in enumerate(listed)]
    parts = {name: catalog(name, tools=tools) for name, (tools, _) in listed.items()}
    book = NameBook(policy)
    builder = CatalogBuilder(book)
    seen: dict[tuple[str, str], str] = {}
    for _ in range(5):
        present = data.draw(st.sets(st.sampled_from(sorted(parts)))) if parts else set()
        built = builder.build(servers, {name: parts[name] for name in present})
        for entry in built.entries[TOOL].values():
            assert seen.setdefault((entry.server, entry.original), entry.exposed) == entry.exposed
    assert len(set(seen.values())) == len(seen)
    restarted = Catalog.build(servers, parts, NameBook(policy, book.fresh))
    assert all(
        seen.get((e.server, e.original), e.exposed) == e.exposed for e in restarted.entries[TOOL].values()
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
spellings = st.sampled_from(["1e999", "-0", "1.000", "0.1e+2", "9" * 40, "1E5", "-0.0"])


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.text(max_size=10), spellings)
def test_unknown_fields_and_odd_numbers_survive_byte_for_byte(
    fields: dict[str, Any], name: str, number: str
) -> None:
    fields.pop("name", None)
    fields.pop("n", None)
    parts = [b"%b: %b" % (msgspec.json.encode(k), msgspec.json.encode(v)) for k, v in fields.items()]
    parts.insert(len(parts) // 2, b'"name":%b' % msgspec.json.encode(name))
    parts.append(b'"n":[%b , 1]' % number.encode())
    sent = b"{" + b",".join(parts) + b"}"
    (entry,) = build(catalog("s", tools=[sent])).entries[TOOL].values()
    before = msgspec.json.decode(sent, type=dict[str, msgspec.Raw])
    after = msgspec.json.decode(entry.data, type=dict[str, msgspec.Raw])
    assert list(before) == list(after)
    assert {k: bytes(v) for k, v in before.items() if k != "name"} == {
        k: bytes(v) for k, v in after.items() if k != "name"
    }
    assert msgspec.json.decode(after["name"]) == entry.exposed
    assert entry.original == name
