"""Servers and catalogs to build from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from registry.model import ItemKind, Origin, Server, ServerCatalog, ServerSpec, Transport

FIELD = {
    ItemKind.TOOL: ("tools", "name"),
    ItemKind.PROMPT: ("prompts", "name"),
    ItemKind.RESOURCE: ("resources", "uri"),
    ItemKind.TEMPLATE: ("templates", "uriTemplate"),
}


def server(name: str, ordinal: int = 0, disabled: bool = False) -> Server:
    return Server(ServerSpec(name, Transport.STDIO, command="x", disabled=disabled), Origin.CONFIG, ordinal)


def item(kind: ItemKind, key: str, **more: Any) -> bytes:
    return json.dumps({FIELD[kind][1]: key, **more}).encode()


def catalog(
    name: str, capabilities: Mapping[str, Any] | None = None, **kinds: Iterable[str | bytes]
) -> ServerCatalog:
    """A catalog of items given by key or as raw JSON: ``tools=``, ``prompts=``, ``resources=``, ``templates=``."""
    items = {}
    for kind, (field, _) in FIELD.items():
        given = kinds.get(field, ())
        items[field] = tuple(part if isinstance(part, bytes) else item(kind, part) for part in given)
    data = json.dumps(capabilities or {}).encode()
    return ServerCatalog(name, "handshake", "2025-11-25", capabilities=data, **items)
