"""Ask a server for everything it lists."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from gateway import jsonrpc
from gateway.errors import UpstreamError, UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.upstream.base import Connection, describe
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
_items = msgspec.json.Decoder(list[msgspec.Raw])


async def fetch_catalog(
    connection: Connection,
    timeout: float,
    previous: ServerCatalog | None = None,
    kinds: frozenset[ItemKind] | None = None,
) -> ServerCatalog:
    """The server's whole catalog, every page of every list it offers.

    :param timeout: seconds for each page.
    :param previous: with ``kinds``, where the lists come from that need not be asked for again.
    :raises UpstreamError: a list could not be read.
    """
    peer = connection.peer
    assert peer is not None
    wanted = [
        kind
        for kind, (_, _, capability) in LISTS.items()
        if peer.offers(capability) and (kinds is None or previous is None or kind in kinds)
    ]
    lists = dict(
        zip(wanted, await asyncio.gather(*(_all(connection, kind, timeout) for kind in wanted)), strict=True)
    )

    def items(kind: ItemKind) -> tuple[bytes, ...]:
        if kind in lists:
            return lists[kind]
        return (
            previous.items(kind) if previous is not None and kinds is not None and kind not in kinds else ()
        )

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


async def _all(connection: Connection, kind: ItemKind, timeout: float) -> tuple[bytes, ...]:
    method, field, _ = LISTS[kind]
    found: list[bytes] = []
    cursor: Raw | None = None
    seen: set[bytes] = set()
    for _ in range(MAX_PAGES):
        params: Shallow = {"cursor": cursor} if cursor is not None else {}
        reply = await connection.request(method, params, timeout=timeout)
        if reply.result is None:
            if kind is ItemKind.TEMPLATE:
                return ()  # many servers with resources never implemented templates
            raise UpstreamError(f"Server '{connection.server}' refused {method}: {describe(reply.error)}.")
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
