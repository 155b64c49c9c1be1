"""A toolset over any catalog: nothing is lost, nothing is added, and search sees exactly what is left."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog, NameBook, NamePolicy
from gateway.toolsets.finding import Filters, Scopes
from gateway.toolsets.project import project, server_tags, tags_of
from registry import document
from registry.definition import definition_hash
from registry.model import ItemKind, Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.search.index import ToolIndex
from registry.toolsets import RESERVED, read, selector

NAMES = st.sampled_from(["a", "b", "ab", "find_tools", "call_tool", "a__find_tools", "read it", "x" * 70])
POLICIES = st.sampled_from(list(NamePolicy))
PATTERNS = st.sampled_from(["*", "a/*", "*/b", "ab", "*/find_tools", "a__b", "s?/*"])
TAGS = st.lists(st.sampled_from(["red", "blue"]), max_size=2)


@st.composite
def catalogs(draw: Any) -> tuple[Catalog, list[Server]]:
    servers, known = [], {}
    for place, name in enumerate(draw(st.lists(st.sampled_from(["a", "b", "s1"]), unique=True, max_size=3))):
        spec = ServerSpec(name, Transport.HTTP, url="http://x/mcp", extra={"tags": draw(TAGS)})
        servers.append(Server(spec, Origin.CONFIG, place))
        tools = [
            json.dumps({"name": tool, "inputSchema": {}, "_meta": {"tags": draw(TAGS)}}).encode()
            for tool in draw(st.lists(NAMES, unique=True, max_size=6))
        ]
        known[name] = ServerCatalog(name, "handshake", "2025-11-25", tools=tuple(tools))
    return Catalog.build(servers, known, NameBook(draw(POLICIES))), servers


@st.composite
def toolsets(draw: Any) -> Any:
    renames = draw(st.dictionaries(st.sampled_from(["a/a", "a/b", "b/ab", "a__a"]), NAMES, max_size=3))
    usable = {k: v for k, v in renames.items() if v not in RESERVED and " " not in v and len(v) < 65}
    fields: dict[str, Any] = {
        "include": draw(st.lists(PATTERNS, max_size=3)),
        "exclude": draw(st.lists(PATTERNS, max_size=1)),
        "expose": draw(st.sampled_from(["all", "search", "both", "auto"])),
        "token_budget": draw(st.integers(0, 100)),
        "rename": {k: v for k, v in usable.items() if list(usable.values()).count(v) == 1},
    }
    if draw(st.booleans()):
        fields["tags"] = draw(TAGS)
    return read("any", fields)


@given(catalogs(), toolsets(), st.booleans())
def test_every_chosen_tool_is_there_once_under_a_name_of_its_own(
    made: tuple[Catalog, list[Server]], toolset: Any, plans: bool
) -> None:
    catalog, servers = made
    tags = server_tags(servers)
    projection = project(toolset, catalog, tags, plans=plans)
    wanted = selector(toolset)
    chosen = {
        (entry.server, entry.original)
        for entry in catalog.entries[ItemKind.TOOL].values()
        if wanted(
            entry.server,
            entry.original,
            entry.exposed,
            tags.get(entry.server, frozenset()) | tags_of(entry.data),
        )
    }
    assert {(e.server, e.original) for e in projection.tools.values()} == chosen
    assert len(projection.tools) == len(chosen)
    assert not RESERVED & set(projection.tools)
    for name, entry in projection.tools.items():
        assert entry.exposed == name == json.loads(entry.data)["name"]
        assert len(name) <= 64
    listed = [t["name"] for t in json.loads(projection.catalog.page(ItemKind.TOOL))["tools"]]
    expected = set() if projection.searching else set(projection.tools)
    own = set(RESERVED) if plans else {"find_tools", "call_tool"}
    assert set(listed) == expected | (own if projection.meta_tools else set())
    assert len(listed) == len(set(listed))
    assert listed == sorted(listed)
    assert set(projection.catalog.servers) == {server for server, _ in chosen}


@given(catalogs(), toolsets())
def test_search_sees_the_tools_of_the_toolset_at_the_version_that_is_served(
    made: tuple[Catalog, list[Server]], toolset: Any
) -> None:
    catalog, servers = made
    projection = project(toolset, catalog, server_tags(servers))
    index = ToolIndex()
    stale = set()
    for place, entry in enumerate(catalog.entries[ItemKind.TOOL].values()):
        definition = {"name": entry.original, "inputSchema": {}, **json.loads(entry.data)}
        definition["name"] = entry.original
        data = json.dumps(definition).encode()
        if definition_hash(data) != entry.hash or place % 3 == 0:
            stale.add((entry.server, entry.original))
            data = json.dumps({**definition, "description": "changed since"}).encode()
        index.put(document.read(entry.server, data))
    slots = Scopes(projection).of(Filters()).slots(index)
    seen = {index.ref(slot)[:2] for slot in slots}
    assert seen == {ref for ref in projection.by_ref if ref not in stale}


@given(st.binary(max_size=60))
def test_tags_of_anything_are_a_set_of_strings(junk: bytes) -> None:
    for definition in (b'{"name":"x","_meta":{"tags":[' + junk + b"]}}", b'{"tags":1,"_meta":' + junk + b"}"):
        assert all(isinstance(tag, str) for tag in tags_of(definition))


def test_handshake_era_clients_are_shown_what_their_era_knows_renamed_or_not() -> None:
    server = Server(ServerSpec("a", Transport.HTTP, url="http://x/mcp"), Origin.CONFIG, 0)
    tools = [
        json.dumps(
            {"name": name, "inputSchema": {"type": "object"}, "outputSchema": {"type": "array"}}
        ).encode()
        for name in ("kept", "moved")
    ]
    known = {"a": ServerCatalog("a", "stateless", "2026-07-28", tools=tuple(tools))}
    catalog = Catalog.build([server], known, NameBook(NamePolicy.PREFIX))
    fields = {"rename": {"a/moved": "new"}, "describe": {"a/kept": "Said."}, "expose": "both"}
    shown = project(read("any", fields), catalog, {}).catalog
    newer, older = (json.loads(shown.page(ItemKind.TOOL, None, era))["tools"] for era in (True, False))
    assert [tool["name"] for tool in newer] == [tool["name"] for tool in older]
    assert {"new", "a__kept"} < {tool["name"] for tool in older}
    assert all("outputSchema" in tool for tool in newer if tool["name"] in ("new", "a__kept"))
    assert not any("outputSchema" in tool for tool in older if tool["name"] in ("new", "a__kept"))
    assert [tool.get("description") for tool in older if tool["name"] == "a__kept"] == ["Said."]
