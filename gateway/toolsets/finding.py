"""``find_tools``: a request in, tools with their schemas out, within what the caller may use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway import jsonrpc, protocol
from gateway.catalog import Entry
from gateway.errors import RpcError
from gateway.toolsets import meta
from gateway.toolsets.project import Projection

if TYPE_CHECKING:
    from registry.search.engine import Found, Hit
    from registry.search.scope import Scope
    from registry.tools import ToolRef

MAX_SCHEMA: Final = 16 * 1024
"""Bytes of a schema that is shown; a larger one is named by its size, and ``call_tool`` says what is missing."""
MAX_DESCRIPTION: Final = 2000
_KEPT_SCOPES: Final = 16

_Words = Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(max_length=100)]


class Filters(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the caller narrows a search by."""

    servers: _Words | None = None
    tags: _Words | None = None
    names: _Words | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``find_tools``."""

    query: Annotated[str, Meta(min_length=1, max_length=meta.MAX_QUERY)]
    limit: Annotated[int, Meta(ge=1, le=meta.MAX_FOUND)] = meta.FOUND
    filters: Filters = Filters()


def parse(arguments: jsonrpc.Raw | None) -> Request:
    """The request in a call's arguments. Raises ValueError saying what to mend."""
    try:
        request = msgspec.json.decode(b"{}" if arguments is None else arguments, type=Request)
    except msgspec.ValidationError as error:
        raise ValueError(f"The arguments do not fit {meta.FIND}: {error}.") from None
    if not request.query.strip():
        raise ValueError("The query is empty: say what is to be done.")
    return request


class Scopes:
    """The part of the index that one projection leaves, and the narrower ones its callers ask for.

    A scope is worked out once per revision of the index, so they are kept; they go with the projection.
    """

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._refs = {
            (entry.server, entry.original): (entry.hash, name) for name, entry in projection.tools.items()
        }
        self._kept: OrderedDict[bytes, Scope] = OrderedDict()

    def of(self, filters: Filters) -> Scope:
        """The scope of a search: the toolset's tools, each at the version that is served, and the filters."""
        from registry.search.scope import Scope

        key = jsonrpc.encode(filters)
        scope = self._kept.get(key)
        if scope is None:
            scope = self._kept[key] = Scope(self._rule(filters))
            if len(self._kept) > _KEPT_SCOPES:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return scope

    def _rule(self, filters: Filters) -> Callable[[ToolRef], bool]:
        from registry.search.scope import matcher

        refs, tags = self._refs, self._projection.tags
        servers = None if filters.servers is None else frozenset(filters.servers)
        wanted = None if filters.tags is None else frozenset(filters.tags)
        names = (
            None if filters.names is None else matcher(f"*/{p}" if "/" not in p else p for p in filters.names)
        )
        nameless = filters.names is not None and names is None

        def rule(ref: ToolRef) -> bool:
            digest, name = refs.get((ref.server, ref.name), (None, ""))
            if digest != ref.hash or nameless or (servers is not None and ref.server not in servers):
                return False
            if wanted is not None and wanted.isdisjoint(tags.get(name, ())):
                return False
            return names is None or any(
                map(names.match, (f"{ref.server}/{name}", f"{ref.server}/{ref.name}"))
            )

        return rule


def answer(found: Found, projection: Projection) -> tuple[str, dict[str, Any]]:
    """The text and the structured content of an answer."""
    rows = [row for hit in found.hits if (row := _row(hit, projection)) is not None]
    structured = {"tools": rows, "mode": found.mode, "searched": len(projection.tools)}
    if not rows:
        text = "No tool here fits that. Say it in other words, or with fewer filters."
    else:
        text = "\n\n".join(f"{place}. {_told(row)}" for place, row in enumerate(rows, 1))
        text += f"\n\nRun one with {meta.CALL}."
    return text, structured


def _row(hit: Hit, projection: Projection) -> dict[str, Any] | None:
    from router.ground import explain

    name = projection.by_ref.get(hit.ref[:2])
    if name is None:
        return None  # gone since the search began
    entry = projection.tools[name]
    row = described(name, entry)
    row["score"], row["why"] = hit.score, explain(hit)
    twins = [projection.by_ref[ref[:2]] for ref in hit.alike if ref[:2] in projection.by_ref]
    if twins:
        row["sameAs"] = twins
    return row


def described(name: str, entry: Entry) -> dict[str, Any]:
    """What a caller has to know of a tool to call it."""
    fields: Mapping[str, jsonrpc.Raw] = jsonrpc.shallow(entry.data)
    text = jsonrpc.text(fields.get("description")) or jsonrpc.text(fields.get("title")) or ""
    row: dict[str, Any] = {"name": name, "server": entry.server, "description": text[:MAX_DESCRIPTION]}
    schema = fields.get("inputSchema")
    if schema is not None and len(bytes(schema)) <= MAX_SCHEMA:
        row["inputSchema"] = schema
    elif schema is not None:
        row["inputSchemaBytes"] = len(bytes(schema))
    if (annotations := fields.get("annotations")) is not None and bytes(annotations)[:1] == b"{":
        row["annotations"] = annotations
    return row


def _told(row: Mapping[str, Any]) -> str:
    lines = [f"{row['name']} (server {row['server']}): {row['description']}".rstrip(": ")]
    if "inputSchema" in row:
        lines.append(f"   arguments: {bytes(row['inputSchema']).decode()}")
    elif "inputSchemaBytes" in row:
        lines.append(f"   arguments: a schema of {row['inputSchemaBytes']:,} bytes, too large to show")
    if twins := row.get("sameAs"):
        lines.append(f"   the same tool: {', '.join(twins)}")
    return "\n".join(lines)


def refused(error: Exception) -> RpcError:
    """The error for a search that could not be made."""
    hint = getattr(error, "hint", None)
    return RpcError(protocol.INTERNAL_ERROR, f"The search failed: {getattr(error, 'message', error)}", hint)
