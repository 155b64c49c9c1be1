"""Our own catalog as a subregistry lists it: what may be said of each server, and nothing else.

A server that was imported is listed as its publisher described it. Of any other, this is said: its name,
title, version and number of tools; an address only where it can hold no secret (no query, no user, no
reference to a variable, no long random part) and means the same elsewhere; a header by its name alone;
a command only where it is one package and nothing more (``npx NAME@VERSION``), its variables by their
names alone. Paths, arguments and values are never said, and neither is a server nobody has reached.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from registry.errors import BadFilter, BadServerJson
from registry.model import Server, ServerCatalog, ServerSpec, Transport
from registry.official import model
from registry.official.model import OFFICIAL_META, SCHEMA
from registry.profiles import Profile

NAMESPACE: Final = "local.toolyard"
"""Of the servers that no registry has a name for: toolyard.local reversed, a name of nobody's (RFC 6762)."""
PUBLISHED: Final = "registryEntry"
"""Key of a spec's ``extra`` under which an imported server keeps where it is from, and its server.json."""
MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 30
_TEXT: Final = 100
"""Characters of a title or description (schema: ``maxLength``)."""
_RANGE: Final = re.compile(r"[\^~<>=*|\s]|(^|\.)[xX](\.|$)|^latest$")
_SECRET: Final = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_=+.%-]{16,}|[A-Za-z0-9_=+%-]{32,}")
_SAYS: Final = frozenset({"value", "valueHint"})
_HINTS: Final = {"npx": "npm", "uvx": "pypi", "dnx": "nuget"}
_PACKAGE: Final[Mapping[str, re.Pattern[str]]] = {
    "npm": re.compile(r"((?:@[a-zA-Z0-9~][\w.~-]*/)?[a-zA-Z0-9~][\w.~-]*)@([0-9][\w.+-]*)"),
    "pypi": re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:@|==)([0-9][\w.+!-]*)"),
    "nuget": re.compile(r"([A-Za-z0-9_][\w.-]*)@([0-9][\w.+-]*)"),
}


@dataclass(frozen=True, slots=True)
class Published:
    """A server as it is listed.

    :param value: the ``ServerResponse`` (OpenAPI).
    """

    name: str
    version: str
    updated_at: datetime
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for. All given as the query string has it; raises BadFilter where it cannot be."""

    cursor: str | None = None
    limit: int = DEFAULT_LIMIT
    search: str | None = None
    updated_since: datetime | None = None
    version: str | None = None

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Query:
        """The query of a query string; fields we do not know are passed over. Raises BadFilter."""
        limit, since = fields.get("limit", str(DEFAULT_LIMIT)), fields.get("updated_since")
        if not re.fullmatch(r"[0-9]{1,9}", limit) or int(limit) < 1:
            raise BadFilter(f"limit is {limit[:20]!a}.", f"Give a number from 1 to {MAX_LIMIT}.")
        moment: datetime | None = None
        if since:
            try:
                moment = datetime.fromisoformat(since.replace(" ", "+"))
            except ValueError:
                moment = None
            if moment is None or moment.tzinfo is None:
                raise BadFilter(
                    f"updated_since is {since[:40]!a}.", "Give an RFC 3339 moment: 2026-01-31T12:00:00Z."
                )
        return cls(
            _position(fields["cursor"]) if fields.get("cursor") else None,
            min(int(limit), MAX_LIMIT),
            fields.get("search") or None,
            moment,
            fields.get("version") or None,
        )


def published(
    servers: Iterable[Server],
    catalogs: Mapping[str, ServerCatalog],
    profiles: Mapping[str, Sequence[Profile]],
) -> list[Published]:
    """Every server that is listed, in the order of their names.

    :param catalogs: what each server listed last; one that was never reached is not listed, nor one
        that is switched off.
    :param profiles: what each server offered over time, oldest first.
    """
    made: dict[str, Published] = {}
    for server in servers:
        catalog, history = catalogs.get(server.name), profiles.get(server.name)
        if server.spec.disabled or catalog is None or not history:
            continue
        value = _imported(server.spec) or _own(server.spec, catalog, history)
        since = next(p.at for p in history if p.server_version == history[-1].server_version)
        updated = datetime.fromtimestamp(history[-1].at, UTC)
        one = Published(value["name"], value["version"], updated, _response(value, since, updated))
        made.setdefault(one.name, one)  # one that is configured twice is listed once
    return sorted(made.values(), key=lambda one: one.name)


def page(entries: Sequence[Published], query: Query) -> dict[str, Any]:
    """The ``ServerList`` (OpenAPI) of a query over entries in the order of their names."""
    wanted = [
        one
        for one in entries
        if (query.cursor is None or one.name > query.cursor)
        and (query.search is None or query.search.lower() in one.name.lower())
        and (query.updated_since is None or one.updated_at >= query.updated_since)
        and query.version in (None, "latest", one.version)
    ]
    shown = wanted[: query.limit]
    metadata: dict[str, Any] = {"count": len(shown)}
    if len(wanted) > len(shown):
        metadata["nextCursor"] = base64.urlsafe_b64encode(shown[-1].name.encode()).decode().rstrip("=")
    return {"servers": [one.value for one in shown], "metadata": metadata}


def _position(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        raise BadFilter(
            "The cursor is none of ours.", "Give the metadata.nextCursor of the page before."
        ) from None


def _response(server: dict[str, Any], since: float, updated: datetime) -> dict[str, Any]:
    published_at = datetime.fromtimestamp(since, UTC).isoformat()
    official = {
        "status": "active",
        "statusChangedAt": published_at,
        "publishedAt": published_at,
        "updatedAt": updated.isoformat(),
        "isLatest": True,
    }
    return {"server": server, "_meta": {OFFICIAL_META: official}}


def _imported(spec: ServerSpec) -> dict[str, Any] | None:
    """What the publisher wrote; None for a server of our own, or where it is not to be passed on as it is."""
    kept = spec.extra.get(PUBLISHED)
    written = kept.get("server") if isinstance(kept, dict) else None
    if written is None:
        return None
    try:
        server = model.from_value(written)
    except BadServerJson:
        return None
    value = model.to_value(server)
    value["$schema"] = SCHEMA
    value["description"] = _clipped(server.description) or f"The MCP server {server.name}"[:_TEXT]
    if "title" in value and not (title := _clipped(server.title or "")):
        del value["title"]
    elif "title" in value:
        value["title"] = title
    if not (server.website_url or "https://").startswith("https://"):
        del value["websiteUrl"]
    for key, sound in (("packages", _sound_package), ("remotes", _sound_transport)):
        if kept := [one for one in value.pop(key, ()) if sound(one)]:
            value[key] = kept
    return value


def _sound_package(package: dict[str, Any]) -> bool:
    """Whether a package is as the schema wants it, beyond its types: others than we read what we list."""
    version = package.get("version", "1")
    arguments = [*package.get("runtimeArguments", ()), *package.get("packageArguments", ())]
    return (
        0 < len(version) <= model.MAX_VERSION
        and version != "latest"
        and re.fullmatch(r"[a-f0-9]{64}", package.get("fileSha256", "0" * 64)) is not None
        and (package["transport"]["type"] == "stdio" or _sound_transport(package["transport"]))
        and all(
            "name" in one if one["type"] == "named" else one["type"] == "positional" and one.keys() & _SAYS
            for one in arguments
        )
    )


def _sound_transport(transport: dict[str, Any]) -> bool:
    return (
        transport["type"] in ("streamable-http", "sse")
        and re.fullmatch(r"https?://\S+|\{[a-zA-Z_][a-zA-Z0-9_]*\}\S*", transport.get("url", "")) is not None
    )


def _own(spec: ServerSpec, catalog: ServerCatalog, history: Sequence[Profile]) -> dict[str, Any]:
    info = _object(catalog.server_info)
    slug = re.sub(r"[^a-zA-Z0-9._-]+", "-", spec.name).strip("-") or "server"
    version = history[-1].server_version
    if not version or _RANGE.search(version) or not version.isprintable():
        version = f"0.0.0+profile.{history[-1].version}"
    count = history[-1].tools
    said = info.get("description")
    value: dict[str, Any] = {
        "$schema": SCHEMA,
        "name": f"{NAMESPACE}/{slug}"[: model.MAX_NAME],
        "description": _clipped(said if isinstance(said, str) else "")
        or f"An MCP server with {count} tool{'' if count == 1 else 's'}",
        "version": version[: model.MAX_VERSION],
    }
    title = info.get("title")
    if isinstance(title, str) and _clipped(title):
        value["title"] = _clipped(title)
    if spec.transport is not Transport.STDIO:
        if (remote := _remote(spec)) is not None:
            value["remotes"] = [remote]
    elif (package := _package(spec)) is not None:
        value["packages"] = [package]
    return value


def _remote(spec: ServerSpec) -> dict[str, Any] | None:
    """A remote, where its address may be said; headers by their names alone."""
    url = spec.url or ""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or _only_here(host):
        return None
    if parts.query or parts.fragment or re.search(r"[\s{}$?#\\]", url):
        return None
    if any(_SECRET.fullmatch(part) for part in (*parts.path.split("/"), *host.split("."))):
        return None
    made: dict[str, Any] = {
        "type": "sse" if spec.transport is Transport.SSE else "streamable-http",
        "url": url,
    }
    if spec.headers:
        made["headers"] = [_value(name) for name in spec.headers]
    return made


def _only_here(host: str) -> bool:
    """Whether an address means another machine to everybody else."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _package(spec: ServerSpec) -> dict[str, Any] | None:
    """A package, where the command is that package at an exact version and nothing more."""
    command = spec.command or ""
    kind = _HINTS.get(command)  # not of a path: it says how the machine is set up
    args = [arg for arg in spec.args if not (kind in ("npm", "nuget") and arg in ("-y", "--yes"))]
    if kind is None or len(args) != 1 or spec.cwd is not None:
        return None
    found = _PACKAGE[kind].fullmatch(args[0])
    if found is None:
        return None
    made: dict[str, Any] = {
        "registryType": kind,
        "identifier": found[1],
        "version": found[2],
        "runtimeHint": command,
        "transport": {"type": "stdio"},
    }
    if spec.env:
        made["environmentVariables"] = [_value(name) for name in spec.env]
    return made


def _value(name: str) -> dict[str, Any]:
    return {"name": name, "isRequired": True, "isSecret": True}


def _clipped(text: str) -> str:
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= _TEXT else text[: _TEXT - 1].rstrip() + "…"


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
