"""Ask a server for everything it lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from gateway import jsonrpc
from gateway.errors import UpstreamError, UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.http import HttpUpstream
from gateway.upstream.mirror import InvalidAnnotation, mirrors
from registry.model import ItemKind, ServerCatalog

LISTS: Final = {
    ItemKind.TOOL: ("tools/list", "tools", "tools"),
    ItemKind.RESOURCE: ("resources/list", "resources", "resources"),
    ItemKind.TEMPLATE: ("resources/templates/list", "resourceTemplates", "resources"),
    ItemKind.PROMPT: ("prompts/list", "prompts", "prompts"),
}
"""Kind: its list method, the field of the result, the capability that offers it."""

MAX_ITEMS: Final = 100_000
MAX_PAGES: Final = 2_000
PATIENCE: Final = 4
"""How many times one page's limit all pages together may take."""
_items = msgspec.json.Decoder(list[msgspec.Raw])


async def fetch_catalog(
    connection: Connection,
    timeout: float,
    previous: ServerCatalog | None = None,
    kinds: frozenset[ItemKind] | None = None,
    problems: list[str] | None = None,
) -> ServerCatalog:
    """The server's whole catalog, every page of every list it offers.

    A list that cannot be read leaves the others alone: it stays as it was, and ``problems`` says so.

    :param timeout: seconds for each page.
    :param previous: where lists come from that are not asked for again, or cannot be read.
    :param problems: takes a sentence for each thing that is not as it should be.
    :raises UpstreamError: no list could be read.
    """
    peer = connection.peer
    assert peer is not None
    wanted = [
        kind
        for kind, (_, _, capability) in LISTS.items()
        if peer.offers(capability) and (kinds is None or previous is None or kind in kinds)
    ]
    lists: dict[ItemKind, tuple[bytes, ...]] = {}
    faults: dict[ItemKind, UpstreamError] = {}

    async def read(kind: ItemKind) -> None:
        try:
            lists[kind] = await _all(connection, kind, timeout)
        except UpstreamError as error:
            faults[kind] = error

    async with asyncio.TaskGroup() as tasks:
        for kind in wanted:
            tasks.create_task(read(kind))
    if faults and (not lists or connection.lost):
        raise next(iter(faults.values()))
    problems = problems if problems is not None else []
    problems += (error.message for error in faults.values())
    if ItemKind.TOOL in lists and isinstance(connection, HttpUpstream) and peer.era is Era.STATELESS:
        lists[ItemKind.TOOL] = tuple(_callable(lists[ItemKind.TOOL], problems))

    def items(kind: ItemKind) -> tuple[bytes, ...]:
        if kind in lists:
            return lists[kind]
        kept = kind in faults or (kinds is not None and kind not in kinds)
        return previous.items(kind) if previous is not None and kept else ()

    return ServerCatalog(
        server=connection.server,
        era=peer.era.value,
        protocol_version=peer.protocol_version,
        server_info=bytes(peer.server_info),
        capabilities=bytes(peer.capabilities),
        instructions=peer.instructions,
        tools=items(ItemKind.TOOL),
        resources=items(ItemKind.RESOURCE),
        templates=items(ItemKind.TEMPLATE),
        prompts=items(ItemKind.PROMPT),
        synced_at=time.time(),
    )


def _callable(tools: tuple[bytes, ...], problems: list[str]) -> Iterator[bytes]:
    """The tools whose ``x-mcp-header`` keeps the rules: "clients MUST exclude the invalid tool"."""
    for definition in tools:
        try:
            mirrors(definition)
            yield definition
        except InvalidAnnotation as error:
            name = jsonrpc.text(jsonrpc.shallow(definition).get("name"))
            problems.append(f"The tool {(name or '')[:100]!r} is left out: {error}.")


async def _all(connection: Connection, kind: ItemKind, timeout: float) -> tuple[bytes, ...]:
    method, field, _ = LISTS[kind]
    found: list[bytes] = []
    cursor: Raw | None = None
    seen: set[bytes] = set()
    deadline = time.monotonic() + PATIENCE * timeout
    for _ in range(MAX_PAGES):
        params: Shallow = {"cursor": cursor} if cursor is not None else {}
        limit = min(timeout, max(0.01, deadline - time.monotonic()))
        reply = await connection.request(method, params, timeout=limit)
        if reply.result is None:
            if kind is ItemKind.TEMPLATE:
                return ()  # many servers with resources never implemented templates
            raise UpstreamError(
                f"Server '{connection.server}' refused {method}: {jsonrpc.describe(reply.error)}."
            )
        try:
            result = jsonrpc.shallow(reply.result)
            page = _items.decode(result[field])
        except (msgspec.MsgspecError, KeyError):
            raise UpstreamProtocolError(
                f"Server '{connection.server}' answered {method} without a list of {field}."
            ) from None
        found += (bytes(item) for item in page)
        if len(found) > MAX_ITEMS:
            raise UpstreamProtocolError(
                f"Server '{connection.server}' lists more than {MAX_ITEMS:,} {field}."
            )
        cursor = result.get("nextCursor")
        if jsonrpc.is_null(cursor):
            return tuple(found)
        if bytes(cursor) in seen:  # type: ignore[arg-type]
            raise UpstreamProtocolError(
                f"Server '{connection.server}' repeats a cursor of {method} without end."
            )
        seen.add(bytes(cursor))  # type: ignore[arg-type]
    raise UpstreamProtocolError(f"Server '{connection.server}' has more than {MAX_PAGES:,} pages of {field}.")
