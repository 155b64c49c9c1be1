"""A toolset applied to the merged catalog: what its clients are shown and what they may call.

Pure functions over frozen records. Nothing here is done per call: a projection is made anew when the
catalog or the toolset changes, and its pages are serialised once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec

from gateway import jsonrpc
from gateway.catalog import Catalog, Entry
from gateway.catalog.names import clean
from gateway.catalog.pages import PAGE_SIZE, Listing
from gateway.toolsets import meta
from registry.model import ItemKind, Server
from registry.toolsets import RESERVED, Toolset, names_tool, selector

BYTES_PER_TOKEN: Final = 4
"""Of JSON tool definitions in the tokenizers of common models: between 3.5 and 4.5."""


@dataclass(frozen=True, slots=True)
class Projection:
    """One toolset over one catalog.

    :param source: the merged catalog it was made from.
    :param catalog: what clients of the toolset are shown; its tools are those to be called directly.
    :param tools: every tool of the toolset, by the name its clients know.
    :param by_ref: the same names, by (server, the server's name for it).
    :param read_only: names of tools that the toolset's author declared read-only.
    :param meta_tools: whether ``find_tools`` and ``call_tool`` are there.
    :param tokens: what the full list would cost a client, about.
    :param problems: what of the toolset could not be done, each a sentence.
    """

    toolset: Toolset
    source: Catalog
    catalog: Catalog
    tools: Mapping[str, Entry]
    by_ref: Mapping[tuple[str, str], str]
    tags: Mapping[str, frozenset[str]]
    read_only: frozenset[str]
    meta_tools: bool
    searching: bool
    tokens: int
    problems: tuple[str, ...]


def tokens(size: int) -> int:
    """About how many tokens so many bytes of definitions are."""
    return -(-size // BYTES_PER_TOKEN)


def project(
    toolset: Toolset,
    source: Catalog,
    server_tags: Mapping[str, frozenset[str]],
    page_size: int = PAGE_SIZE,
    plans: bool = False,
) -> Projection:
    """Apply a toolset to a catalog.

    :param server_tags: the tags of each server's entry; a tool's own are read from its definition.
    :param plans: whether plans can be run, so that the tools for it stand beside those for searching.
    """
    chosen, tags = _chosen(toolset, source.entries[ItemKind.TOOL].values(), server_tags)
    away, _ = _chosen(toolset, (held.entry for held in source.withheld.values()), server_tags)
    shown, problems = _named(toolset, chosen)
    cost = tokens(sum(len(entry.data) for entry in shown.values()))
    expose = toolset.expose
    searching = expose == "search" or (expose == "auto" and cost > toolset.token_budget)
    meta_tools = searching or expose == "both"
    declared = names_tool(toolset.read_only)
    by_ref = {(entry.server, entry.original): name for name, entry in shown.items()}
    listed = {} if searching else {name: (entry.data, entry.older) for name, entry in shown.items()}
    if meta_tools:
        servers = {entry.server for entry in shown.values()}
        found = meta.topics_of(shown.values())
        ours = meta.definitions(toolset.name, len(shown), len(servers), found)
        if plans:
            from gateway.planning.definitions import definitions

            ours |= definitions()
        listed |= {name: (data, data) for name, data in ours.items()}
    return Projection(
        toolset=toolset,
        source=source,
        catalog=replace(
            _catalog(toolset, source, shown, listed, searching, page_size),
            withheld=MappingProxyType({entry.exposed: source.withheld[entry.exposed] for entry in away}),
        ),
        tools=MappingProxyType(shown),
        by_ref=MappingProxyType(by_ref),
        tags=MappingProxyType({by_ref[ref]: has for ref, has in tags.items()}),
        read_only=frozenset(n for n, e in shown.items() if declared(e.server, e.original, n)),
        meta_tools=meta_tools,
        searching=searching,
        tokens=cost,
        problems=tuple(problems),
    )


def _chosen(
    toolset: Toolset, tools: Iterable[Entry], server_tags: Mapping[str, frozenset[str]]
) -> tuple[list[Entry], dict[tuple[str, str], frozenset[str]]]:
    wanted = selector(toolset)
    chosen: list[Entry] = []
    tags: dict[tuple[str, str], frozenset[str]] = {}
    for entry in tools:
        has = server_tags.get(entry.server, frozenset()) | tags_of(entry.data)
        if wanted(entry.server, entry.original, entry.exposed, has):
            chosen.append(entry)
            if has:
                tags[entry.server, entry.original] = has
    return chosen, tags


def server_tags(servers: Iterable[Server]) -> dict[str, frozenset[str]]:
    """The list ``tags`` in each server's entry, by the server's name."""
    found: dict[str, frozenset[str]] = {}
    for server in servers:
        tags = server.spec.extra.get("tags")
        if isinstance(tags, list):
            found[server.name] = frozenset(tag for tag in tags if isinstance(tag, str))
    return found


def tags_of(definition: bytes) -> frozenset[str]:
    """The tags in a tool's ``_meta``: a list ``tags``, or one within another's object, as FastMCP writes it."""
    if b'"tags"' not in definition:
        return frozenset()
    try:
        found = jsonrpc.object_of(jsonrpc.shallow(definition).get("_meta"))
        whole = {key: jsonrpc.value(item) for key, item in (found or {}).items()}
    except (msgspec.MsgspecError, RecursionError):
        return frozenset()
    lists = [whole.get("tags"), *(v.get("tags") for v in whole.values() if isinstance(v, dict))]
    return frozenset(tag for tags in lists if isinstance(tags, list) for tag in tags if isinstance(tag, str))


def _named(toolset: Toolset, chosen: list[Entry]) -> tuple[dict[str, Entry], list[str]]:
    """The chosen tools by the name they get here, sorted; a new name that is taken is not given.

    Every tool keeps its place: no two ever get one name.
    """
    problems: list[str] = []
    taken = {entry.exposed for entry in chosen}
    shown: dict[str, Entry] = {}
    used = set[str]()
    for entry in chosen:
        name = _free_of_meta(entry)
        for key in (f"{entry.server}/{entry.original}", entry.exposed):
            if key in toolset.rename:
                used.add(key)
                name = toolset.rename[key]
                break
        if name != entry.exposed and name in taken:
            problems.append(f"{entry.exposed} is not renamed to {name}: another tool has that name.")
            name = _free_of_meta(entry)
        if name in shown:  # a meta tool's namesake may be moved onto another tool's name
            name = f"{name[:55]}_{entry.hash[:8]}"
        taken.add(name)
        text = toolset.describe.get(f"{entry.server}/{entry.original}") or toolset.describe.get(entry.exposed)
        shown[name] = _rewritten(entry, name, text)
    problems += [f"The tool {key} to rename is not in this toolset." for key in toolset.rename.keys() - used]
    return {name: shown[name] for name in sorted(shown)}, sorted(problems)


def _free_of_meta(entry: Entry) -> str:
    """The name clients know a tool by, unless it is that of a meta tool (a server may have one too)."""
    return entry.exposed if entry.exposed not in RESERVED else f"{clean(entry.server)[:50]}__{entry.exposed}"


def _rewritten(entry: Entry, name: str, description: str | None) -> Entry:
    if name == entry.exposed and description is None:
        return entry
    said: dict[str, Any] = (
        {"name": name} if description is None else {"name": name, "description": description}
    )
    data = jsonrpc.encode({**jsonrpc.shallow(entry.data), **said})
    older = data if entry.older == entry.data else jsonrpc.encode({**jsonrpc.shallow(entry.older), **said})
    return replace(entry, exposed=name, data=data, older=older)


def _catalog(
    toolset: Toolset,
    source: Catalog,
    shown: Mapping[str, Entry],
    listed: Mapping[str, tuple[bytes, bytes]],
    searching: bool,
    page_size: int,
) -> Catalog:
    """The catalog of a view: its tools, and what else the servers they come from offer."""
    servers = {entry.server for entry in shown.values()}
    names = sorted(listed)
    entries: dict[ItemKind, Mapping[str, Entry]] = {ItemKind.TOOL: {} if searching else shown}
    listings = {ItemKind.TOOL: _listing(ItemKind.TOOL, names, [listed[name] for name in names], page_size)}
    for kind in (ItemKind.PROMPT, ItemKind.RESOURCE, ItemKind.TEMPLATE):
        kept = {
            key: entry
            for key, entry in source.entries[kind].items()
            if entry.server in servers and not toolset.tools_only
        }
        entries[kind] = MappingProxyType(kept)
        items = [(entry.data, entry.older) for entry in kept.values()]
        listings[kind] = _listing(kind, kept, items, page_size)
    offered = {name: source.capabilities[name] for name in source.servers if name in servers}
    if toolset.tools_only:
        offered = {name: {k: v for k, v in has.items() if k == "tools"} for name, has in offered.items()}
    return Catalog(
        servers=tuple(offered),
        entries=MappingProxyType(entries),
        listings=MappingProxyType(listings),
        capabilities=MappingProxyType(offered),
        routes=() if toolset.tools_only else tuple(r for r in source.routes if r.server in servers),
    )


def _listing(
    kind: ItemKind, keys: Iterable[str], items: Sequence[tuple[bytes, bytes]], page_size: int
) -> Listing:
    """A list of items, each as clients of 2026-07-28 are shown it and as those of the handshake era are."""
    newer, older = tuple(data for data, _ in items), tuple(data for _, data in items)
    return Listing(kind, tuple(keys), newer, page_size, older if older != newer else ())
