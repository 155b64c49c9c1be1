"""Rows of the store to records and back. Pure functions; nothing is lost either way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from registry.model import AssignedName, ItemKind, Origin, Server, ServerCatalog, ServerSpec, Transport


class Unreadable(ValueError):
    """A row that does not hold what we write. The message says which."""


def dump_spec(spec: ServerSpec) -> str:
    """The spec as JSON in ASCII: unknown keys, long integers and odd strings come back the same."""
    return json.dumps(
        {
            "transport": spec.transport.value,
            "command": spec.command,
            "args": list(spec.args),
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "url": spec.url,
            "headers": dict(spec.headers),
            "disabled": spec.disabled,
            "timeout": spec.timeout,
            "extra": dict(spec.extra),
        },
        separators=(",", ":"),
    )


def server(name: str, ordinal: int, origin: str, spec: str) -> Server:
    """A row of `servers`. Raises Unreadable."""
    try:
        fields = json.loads(spec)
        fields["transport"] = Transport(fields["transport"])
        fields["args"] = tuple(fields["args"])
        return Server(ServerSpec(name=name, **fields), Origin(origin), ordinal)
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable(f"server {name!r}: {error}") from error


def dump_catalog(catalog: ServerCatalog) -> dict[str, Any]:
    """The row of `catalogs`, without the items."""
    text = catalog.instructions
    return {
        "server": catalog.server,
        "era": catalog.era,
        "protocol_version": catalog.protocol_version,
        "server_info": bytes(catalog.server_info),
        "capabilities": bytes(catalog.capabilities),
        "instructions": None if text is None else json.dumps(text),
        "synced_at": catalog.synced_at,
    }


def catalog(row: Mapping[Any, Any], bodies: Mapping[tuple[str, str], list[bytes]]) -> ServerCatalog:
    """A row of `catalogs` with the bodies by (server, kind). Raises Unreadable."""
    server = row["server"]

    def items(kind: ItemKind) -> tuple[bytes, ...]:
        return tuple(bodies.get((server, kind.value), ()))

    try:
        text = row["instructions"]
        return ServerCatalog(
            server=server,
            era=row["era"],
            protocol_version=row["protocol_version"],
            server_info=row["server_info"],
            capabilities=row["capabilities"],
            instructions=None if text is None else json.loads(text),
            tools=items(ItemKind.TOOL),
            resources=items(ItemKind.RESOURCE),
            templates=items(ItemKind.TEMPLATE),
            prompts=items(ItemKind.PROMPT),
            synced_at=row["synced_at"],
        )
    except ValueError as error:
        raise Unreadable(f"catalog of {server!r}: {error}") from error


def name(kind: str, server: str, original: str, exposed: str) -> AssignedName:
    """A row of `names`. Raises Unreadable."""
    try:
        return AssignedName(ItemKind(kind), server, original, exposed)
    except ValueError as error:
        raise Unreadable(f"name {exposed!r}: {error}") from error
