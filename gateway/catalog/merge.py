"""The catalogs of all servers as one: what clients are shown, and which server each item is from.

Everything here is synchronous and does no I/O. A ``Catalog`` is frozen: a change makes a new one,
and whoever holds the old one keeps a consistent view until the swap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.crossing import item_for
from gateway.catalog import templates
from gateway.catalog.names import NameBook, naming_order
from gateway.catalog.pages import PAGE_SIZE, Listing
from registry.definition import definition_hash
from registry.model import ItemKind, Server, ServerCatalog

MAX_DEPTH: Final = jsonrpc.MAX_DEPTH - 3
"""Nesting an item may have: in an answer it stands inside the message, the result and the list."""

_KEY: Final = {
    ItemKind.TOOL: "name",
    ItemKind.PROMPT: "name",
    ItemKind.RESOURCE: "uri",
    ItemKind.TEMPLATE: "uriTemplate",
}
_CAPABILITY: Final = {
    ItemKind.TOOL: "tools",
    ItemKind.PROMPT: "prompts",
    ItemKind.RESOURCE: "resources",
    ItemKind.TEMPLATE: "resources",
}
_NAMED: Final = frozenset({ItemKind.TOOL, ItemKind.PROMPT})


@dataclass(frozen=True, slots=True)
class Entry:
    """An item as clients see it.

    :param original: the name or URI the server knows it by.
    :param exposed: the name or URI clients know it by.
    :param data: the item's JSON with only ``name`` replaced where it differs.
    :param hash: the definition hash of the item as the server sent it.
    :param older: ``data`` as a handshake-era client is shown it.
    """

    kind: ItemKind
    server: str
    original: str
    exposed: str
    data: bytes
    hash: str
    older: bytes


@dataclass(frozen=True, slots=True)
class Conflict:
    """One key that several servers list: the owner is shown, the shadowed are not."""

    kind: ItemKind
    key: str
    owner: str
    shadowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a server's catalog that cannot be used.

    :param kind: None where it is about the capabilities.
    :param index: the item's place in the server's list, or None.
    """

    server: str
    kind: ItemKind | None
    index: int | None
    message: str


class Withheld(NamedTuple):
    """A tool that is not served, under the name it would have, and why."""

    entry: Entry
    reason: str


Why: TypeAlias = Callable[[str, str, str], str | None]
"""Why a tool is withheld, by server, original name and definition hash; None where it is served."""


class Owner(NamedTuple):
    """A server, and the name or URI it knows an item by."""

    server: str
    original: str


def _read(kind: ItemKind, data: bytes) -> tuple[str, str]:
    """The key and the definition hash of an item. Raises ValueError saying what is wrong."""
    if jsonrpc.too_deep(data, MAX_DEPTH):
        raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")
    try:
        key = jsonrpc.text(jsonrpc.shallow(data).get(_KEY[kind]))
        digest = definition_hash(data)
    except msgspec.ValidationError:
        raise ValueError("it is not a JSON object") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON in UTF-8: {error}") from None
    if key is None:
        raise ValueError(f"it has no {_KEY[kind]!r} that is a string")
    return key, digest


def _shown(kind: ItemKind, data: bytes, original: str, exposed: str) -> bytes:
    """The item's JSON under its exposed name, on one line.

    In valid JSON a line break can only stand between tokens; there a space says the same, and a
    line is what stdio and SSE frame messages by.
    """
    if exposed != original:
        fields = jsonrpc.shallow(data)
        fields[_KEY[kind]] = jsonrpc.raw(exposed)
        data = jsonrpc.encode(fields)
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    return data


@dataclass(frozen=True, slots=True)
class _Share:
    """One server's part of the catalog, worked out once per ServerCatalog object."""

    source: ServerCatalog
    entries: Mapping[ItemKind, tuple[Entry, ...]]
    routes: tuple[templates.Template, ...]
    capabilities: Mapping[str, Any]
    problems: tuple[Problem, ...]


def _share(server: str, catalog: ServerCatalog, book: NameBook) -> _Share:
    problems: list[Problem] = []
    entries: dict[ItemKind, tuple[Entry, ...]] = {}
    routes: list[templates.Template] = []
    for kind in ItemKind:
        found: dict[str, tuple[bytes, str]] = {}
        for index, data in enumerate(catalog.items(kind)):
            try:
                key, digest = _read(kind, data)
                if key in found:
                    raise ValueError(f"{_KEY[kind]} {key!r} is listed twice; the first one is shown")
                found[key] = (data, digest)
                if kind is ItemKind.TEMPLATE:
                    routes.append(templates.parse(key))
            except templates.TemplateError as error:
                message = f"The template {key!r} is shown but matches no URI: {error}."
                problems.append(Problem(server, kind, index, message))
            except ValueError as error:
                message = f"The {kind.value} at place {index} is left out: {error}."
                problems.append(Problem(server, kind, index, message))
        entries[kind] = tuple(_entries(kind, server, found, book, catalog.protocol_version))
    capabilities: Any = {}
    try:
        capabilities = jsonrpc.value(catalog.capabilities)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        capabilities = None
    if not isinstance(capabilities, dict):
        problems.append(
            Problem(server, None, None, "The capabilities are not a JSON object; none are assumed.")
        )
        capabilities = {}
    return _Share(catalog, entries, tuple(routes), capabilities, tuple(problems))


def _entries(
    kind: ItemKind, server: str, found: Mapping[str, tuple[bytes, str]], book: NameBook, revision: str
) -> Iterable[Entry]:
    named = kind in _NAMED
    for original in naming_order(found) if named else found:
        exposed = book.assign(kind, server, original) if named else original
        data, digest = found[original]
        shown = _shown(kind, data, original, exposed)
        older = item_for(protocol.LATEST_HANDSHAKE, revision, kind.value, shown)
        yield Entry(kind, server, original, exposed, shown, digest, older)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything clients are shown, and where each item goes.

    :param servers: names of the enabled servers whose catalog is known, in order of priority.
    :param entries: per kind, exposed name or URI -> Entry, sorted.
    :param capabilities: per server, its parsed ``ServerCapabilities``.
    :param withheld: tools that are not served, by the name they would have.
    """

    servers: tuple[str, ...]
    entries: Mapping[ItemKind, Mapping[str, Entry]]
    listings: Mapping[ItemKind, Listing]
    capabilities: Mapping[str, Mapping[str, Any]]
    conflicts: tuple[Conflict, ...] = ()
    problems: tuple[Problem, ...] = ()
    routes: tuple[templates.Route, ...] = field(default=(), repr=False)
    withheld: Mapping[str, Withheld] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        servers: Sequence[Server],
        catalogs: Mapping[str, ServerCatalog],
        book: NameBook,
        page_size: int = PAGE_SIZE,
        why: Why | None = None,
    ) -> Catalog:
        """Merge once. Whoever merges again and again keeps a CatalogBuilder."""
        return CatalogBuilder(book, page_size).build(servers, catalogs, why)

    def get(self, kind: ItemKind, exposed: str) -> Entry | None:
        """The item clients know by this name or URI."""
        return self.entries[kind].get(exposed)

    def page(self, kind: ItemKind, cursor: str | None = None, stateless: bool = False) -> bytes:
        """The JSON of a list result. Raises RpcError (-32602) for a cursor that is not ours."""
        return self.listings[kind].page(cursor, stateless)

    @property
    def etag(self) -> str:
        """A hash over everything the four lists show; equal catalogs have equal ones, across restarts."""
        digests = b"".join(self.listings[kind].digest() for kind in ItemKind)
        return hashlib.sha256(digests).hexdigest()[:32]

    def has(self, kind: ItemKind) -> bool:
        """Whether to declare the capability for a kind: a server does, or there are items to show."""
        return bool(self.entries[kind]) or self.supports(_CAPABILITY[kind])

    def supports(self, feature: str) -> bool:
        """Whether any server declares a capability, such as ``resources.subscribe``."""
        return any(True for _ in self._supporting(feature))

    def supporting(self, feature: str) -> list[str]:
        """The servers that declare a capability, in order of priority."""
        return list(self._supporting(feature))

    def _supporting(self, feature: str) -> Iterable[str]:
        for server in self.servers:
            value: Any = self.capabilities[server]
            for part in feature.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is True or isinstance(value, Mapping):
                yield server

    def read_candidates(self, uri: str) -> list[str]:
        """The servers to ask for a resource, best first, each once.

        The listed owner; then owners of matching templates, most literal characters first, ties by
        priority; then every server with the resources capability, by priority. A URI longer than
        ``templates.MAX_URI`` is not matched against templates.
        """
        listed = self.entries[ItemKind.RESOURCE].get(uri)
        order = [listed.server] if listed else []
        order += [route.server for route in templates.matching(self.routes, uri)]
        order += self._supporting("resources")
        return list(dict.fromkeys(order))

    def completion_owner(self, ref: Mapping[str, Any]) -> Owner | None:
        """Who completes arguments for a ``ref/prompt`` or ``ref/resource``; None for an unknown one.

        A ``ref/resource`` holds a template as it was listed, or a URI that one matches.
        """
        name, uri = ref.get("name"), ref.get("uri")
        if ref.get("type") == "ref/prompt" and isinstance(name, str):
            entry = self.get(ItemKind.PROMPT, name)
        elif ref.get("type") == "ref/resource" and isinstance(uri, str):
            entry = self.get(ItemKind.TEMPLATE, uri) or self.get(ItemKind.RESOURCE, uri)
            if entry is None:
                return next((Owner(r.server, uri) for r in templates.matching(self.routes, uri)), None)
        else:
            return None
        return Owner(entry.server, entry.original) if entry else None


def changed(old: Catalog | None, new: Catalog) -> set[ItemKind]:
    """The kinds whose list looks different to a client: the ``list_changed`` notices to send."""
    if old is None:
        return {kind for kind in ItemKind if new.entries[kind]}
    return {kind for kind in ItemKind if old.listings[kind].items != new.listings[kind].items}


class CatalogBuilder:
    """Builds catalogs one after another and keeps the work of servers that did not change.

    A server's share is kept as long as the same ServerCatalog object comes in; a list that turns
    out the same is kept with its serialised pages.
    """

    def __init__(self, book: NameBook, page_size: int = PAGE_SIZE) -> None:
        self.book = book
        self.page_size = page_size
        self._shares: dict[str, _Share] = {}
        self._listings: dict[ItemKind, Listing] = {}

    def build(
        self, servers: Iterable[Server], catalogs: Mapping[str, ServerCatalog], why: Why | None = None
    ) -> Catalog:
        """Merge the last known catalogs; servers that are disabled or not in ``catalogs`` are left out.

        Priority is the ordinal, then the name. The result depends on nothing else but the book and
        ``why``. A withheld tool keeps its name: no other server's takes its place meanwhile.
        """
        shares: dict[str, _Share] = {}
        for server in sorted(servers, key=lambda s: (s.ordinal, s.name)):
            catalog = catalogs.get(server.name)
            if catalog is None or server.spec.disabled:
                continue
            share = self._shares.get(server.name)
            if share is None or share.source is not catalog:
                share = _share(server.name, catalog, self.book)
            shares[server.name] = share
        self._shares = shares
        conflicts: list[Conflict] = []
        entries: dict[ItemKind, Mapping[str, Entry]] = {}
        withheld: dict[str, Withheld] = {}
        for kind in ItemKind:
            shown, shadowed = _merge([share.entries[kind] for share in shares.values()])
            conflicts += [Conflict(kind, k, shown[k].server, tuple(s)) for k, s in sorted(shadowed.items())]
            if kind is ItemKind.TOOL and why is not None:
                withheld = _withheld(shown, why)
                shown = {key: entry for key, entry in shown.items() if key not in withheld}
            entries[kind] = MappingProxyType(shown)
            self._listings[kind] = self._listing(kind, shown)
        return Catalog(
            servers=tuple(shares),
            entries=MappingProxyType(entries),
            listings=MappingProxyType(dict(self._listings)),
            capabilities=MappingProxyType({name: share.capabilities for name, share in shares.items()}),
            conflicts=tuple(conflicts),
            problems=tuple(problem for share in shares.values() for problem in share.problems),
            routes=templates.order(
                templates.Route(template, name, rank)
                for rank, (name, share) in enumerate(shares.items())
                for template in share.routes
            ),
            withheld=MappingProxyType(withheld),
        )

    def _listing(self, kind: ItemKind, shown: Mapping[str, Entry]) -> Listing:
        items = tuple(entry.data for entry in shown.values())
        older = tuple(entry.older for entry in shown.values())
        last = self._listings.get(kind)
        older = older if older != items else ()
        if last is not None and last.items == items and last.older == older:
            return last
        return Listing(kind, tuple(shown), items, self.page_size, older)


def _withheld(tools: Mapping[str, Entry], why: Why) -> dict[str, Withheld]:
    found: dict[str, Withheld] = {}
    for key, entry in tools.items():
        reason = why(entry.server, entry.original, entry.hash)
        if reason is not None:
            found[key] = Withheld(entry, reason)
    return found


def _merge(parts: Iterable[tuple[Entry, ...]]) -> tuple[dict[str, Entry], dict[str, list[str]]]:
    """The owner of each key, sorted by key, and who is shadowed where; parts come by priority."""
    owners: dict[str, Entry] = {}
    shadowed: dict[str, list[str]] = {}
    for part in parts:
        for entry in part:
            if owners.setdefault(entry.exposed, entry) is not entry:
                shadowed.setdefault(entry.exposed, []).append(entry.server)
    return {key: owners[key] for key in sorted(owners)}, shadowed
