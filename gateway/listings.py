"""The catalogs of all servers: kept in step with them, in the store, and merged for clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from gateway import jsonrpc
from gateway.catalog import Catalog, CatalogBuilder, NameBook, changed
from gateway.config.settings import Settings
from gateway.endpoint.introduction import capabilities, joined_instructions
from gateway.errors import UpstreamError
from gateway.protocol import Era
from gateway.registering import Registrar, StoreWork
from gateway.upstream.base import Connection
from gateway.upstream.fetch import LISTS, fetch_catalog
from gateway.upstream.peer import client_info
from gateway.upstream.state import State
from gateway.upstream.supervisor import Upstream
from registry.errors import RegistryError
from registry.model import ItemKind, Server, ServerCatalog
from registry.store import Store
from registry.sync import SyncReport

log = logging.getLogger("toolyard")

LIST_TIMEOUT: Final = 30.0
LIST_AGAIN: Final = 60.0
"""Seconds after which a server is asked again that could not be listed."""
RESYNC_PAUSE: Final = (0.1, 5.0)
"""Seconds between a server's change notice and asking it, so that a burst of notices costs one list:
at first, and at most where notices never end."""


class Listings:
    """The last known catalog of each server, and the one that clients are shown.

    :param servers: the servers by name, kept up to date by their owner; so are ``upstreams``.
    :param registrar: takes up the tools, and says which of them are served.
    :param on_changed: told the kinds of lists that look different from now on.
    :param cache_writer: writes the disk cache of the stdio face, in a worker thread.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        stored: StoreWork,
        tasks: anyio.abc.TaskGroup,
        servers: Mapping[str, Server],
        upstreams: Mapping[str, Upstream],
        registrar: Registrar,
        on_changed: Callable[[set[ItemKind]], None],
        cache_writer: Callable[[bytes], None] | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._stored = stored
        self._tasks = tasks
        self._servers = servers
        self._upstreams = upstreams
        self._registrar = registrar
        self._on_changed = on_changed
        self._cache_writer = cache_writer
        self._catalogs: dict[str, ServerCatalog] = {}
        book = NameBook(settings.names, store.names(settings.names))
        self._builder = CatalogBuilder(book, settings.page_size)
        self.catalog = self._builder.build([], {})
        self._rebuilding = asyncio.Lock()
        self._unseen: set[str] = set()
        self._all_seen = asyncio.Event()
        self._news = asyncio.Event()
        self._grace_until: float | None = None
        self._dirty: dict[Upstream, set[ItemKind]] = {}
        self._to_list_again: set[Upstream] = set()
        self._told_by: dict[Upstream, Connection] = {}

    async def load(self, names: set[str]) -> None:
        """Take up what the store knows of these servers."""
        known = await self._stored(self._store.catalogs)
        self._catalogs = {name: catalog for name, catalog in known.items() if name in names}
        await self._registrar.load(self._catalogs.values())

    @property
    def instructions(self) -> str:
        """What the servers want a model to know of them, as they last said."""
        known = (self._catalogs.get(name) for name in self.catalog.servers)
        return joined_instructions(
            (c.server, c.instructions) for c in known if c is not None and c.instructions
        )

    def known(self, name: str) -> ServerCatalog | None:
        """The last known catalog of a server."""
        return self._catalogs.get(name)

    def all(self) -> Mapping[str, ServerCatalog]:
        """The last known catalog of every server."""
        return self._catalogs

    def expect(self, name: str) -> None:
        """A server is being started; where it was never listed, first lists wait for it."""
        if name not in self._catalogs:
            self._unseen.add(name)
            self._all_seen.clear()

    async def take(self, catalog: ServerCatalog) -> None:
        """Take over a catalog that was not asked of its server but is known for certain; `rebuild` shows it."""
        old = self._catalogs.get(catalog.server)
        if old is None or not _same(old, catalog):
            await self._stored(partial(self._store.put_catalog, catalog))
            await self._registrar.sync(catalog)
            self._catalogs[catalog.server] = catalog

    def forget(self, name: str) -> None:
        """A server was removed."""
        self._catalogs.pop(name, None)

    def told(self, upstream: Upstream, connection: Connection, kinds: frozenset[ItemKind]) -> None:
        """A server says that some of its lists have changed."""
        self._told_by[upstream] = connection
        waiting = self._dirty.get(upstream)
        if waiting is not None:
            waiting |= kinds
            return
        self._dirty[upstream] = set(kinds)
        self._tasks.start_soon(self._resync, upstream, name=f"resync {upstream.name}")

    def seen(self, name: str) -> None:
        """A server was listed, or will not be soon: nobody need wait for it."""
        self._unseen.discard(name)
        self._news.set()
        if not self._unseen:
            self._all_seen.set()

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""
        if not self._unseen:
            return
        now = asyncio.get_running_loop().time()
        if self._grace_until is None:
            self._grace_until = now + self._settings.first_list_grace
        if now < self._grace_until:
            try:
                async with asyncio.timeout_at(self._grace_until):
                    await self._all_seen.wait()
            except TimeoutError:
                log.info(
                    "lists are served without %s, which has not answered yet", ", ".join(sorted(self._unseen))
                )

    async def synced(self, name: str, timeout: float) -> None:
        """Wait until a server that was just added has been listed, or has failed."""
        deadline = asyncio.get_running_loop().time() + timeout
        while name in self._unseen and asyncio.get_running_loop().time() < deadline:
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return

    async def _resync(self, upstream: Upstream) -> None:
        """Ask for what has changed: one listing at a time, and less often while notices keep coming."""
        pause, longest = RESYNC_PAUSE
        try:
            while self._dirty[upstream]:
                await asyncio.sleep(pause)
                kinds = frozenset(self._dirty[upstream])
                self._dirty[upstream].clear()
                connection = self._told_by.get(upstream)
                if connection in upstream.connections and connection is not None:
                    await self.sync(upstream, connection, kinds)
                pause = min(2 * pause, longest)
        finally:
            del self._dirty[upstream]
            self._told_by.pop(upstream, None)

    async def _list_again(self, upstream: Upstream, connection: Connection) -> None:
        try:
            await asyncio.sleep(LIST_AGAIN)
        finally:
            self._to_list_again.discard(upstream)
        if connection in upstream.connections:
            await self.sync(upstream, connection, None)

    async def keep_in_step(self, every: float) -> None:
        """Ask every connected server for its lists anew, for ever: not all send notices of changes.

        :param every: seconds between two rounds.
        """
        while True:
            await asyncio.sleep(every)
            for upstream in list(self._upstreams.values()):
                if upstream.connections:
                    await self.sync(upstream, upstream.connections[0], None)

    async def sync(
        self,
        upstream: Upstream,
        connection: Connection,
        kinds: frozenset[ItemKind] | None,
        *,
        always: bool = False,
    ) -> SyncReport | None:
        """Ask a server for its lists, or for those of some kinds, and take over what it says.

        :param always: compare with the registry although nothing seems to have changed.

        Returns what the registry made of it, or None where there was nothing to take over.
        """
        old = self._catalogs.get(upstream.name)
        problems: list[str] = []
        try:
            new = await fetch_catalog(connection, LIST_TIMEOUT, old, kinds, problems)
        except UpstreamError as error:
            log.warning("listing server '%s': %s", upstream.name, error)
            if connection in upstream.connections:
                upstream.error = error
                if upstream not in self._to_list_again:
                    self._to_list_again.add(upstream)
                    name = f"list {upstream.name} again"
                    self._tasks.start_soon(self._list_again, upstream, connection, name=name)
            return None
        if self._upstreams.get(upstream.name) is not upstream:
            return None  # removed meanwhile
        if upstream.state is State.READY:
            upstream.error = None
        for problem in problems:
            log.warning("server '%s': %s", upstream.name, problem)
        known = upstream.problems if kinds is not None else []
        upstream.problems = list(dict.fromkeys([*known, *problems]))
        if old is not None and _same(old, new) and not always:
            if kinds is not None:
                # It has changed and changed back: the server's notice is passed on all the same.
                self._on_changed(set(kinds))
            return None
        try:
            await self._stored(partial(self._store.put_catalog, new))
        except RegistryError as error:  # clients are still served; the next start just knows less
            log.error("%s", error)
        report = await self._registrar.sync(new)
        if self._upstreams.get(upstream.name) is not upstream:
            if upstream.name not in self._upstreams:  # removed meanwhile; else another has its place
                await self._registrar.gone([upstream.name])
            return None
        self._catalogs[upstream.name] = new  # only now: what was not decided about is not shown
        await self.rebuild()
        return report

    async def rebuild(self) -> None:
        """Merge the catalogs anew; clients are told where something looks different."""
        async with self._rebuilding:
            new = self._merged()
            fresh, self._builder.book.fresh = list(self._builder.book.fresh), []
            if fresh:
                try:
                    refused = await self._stored(partial(self._store.put_names, self._settings.names, fresh))
                    if refused:
                        await self._take_stored_names()
                        new = self._merged()
                except RegistryError as error:
                    log.error("%s", error)
                    self._builder.book.fresh = fresh + list(self._builder.book.fresh)
            kinds = changed(self.catalog, new)
            self.catalog = new
            if kinds:
                self._on_changed(kinds)
            await self._write_cache()

    def _merged(self) -> Catalog:
        return self._builder.build(self._servers.values(), self._catalogs, self._registrar.book.why)

    async def _take_stored_names(self) -> None:
        """Another process named an item first: what the store holds is the truth."""
        names = await self._stored(partial(self._store.names, self._settings.names))
        self._builder = CatalogBuilder(NameBook(self._settings.names, names), self._settings.page_size)

    async def _write_cache(self) -> None:
        if self._cache_writer is not None:
            data = self.cached_lists()
            try:
                await self._stored(partial(self._cache_writer, data))
            except OSError as error:  # a stdio client starts more slowly; nothing else is lost
                log.error("the lists could not be written to disk: %s", error)

    def cached_lists(self) -> bytes:
        """The disk cache of a stdio face: the handshake and the first page of every list."""
        return cached_lists(self.catalog, self.instructions)


def cached_lists(catalog: Catalog, instructions: str) -> bytes:
    """The disk cache of a stdio face over a catalog: the handshake and the first page of every list."""
    return jsonrpc.encode(
        {
            "etag": catalog.etag,
            "initialize": {
                "capabilities": capabilities(Era.HANDSHAKE),
                "serverInfo": client_info(),
                "instructions": instructions or None,
            },
            "results": {method: msgspec.Raw(catalog.page(kind)) for kind, (method, _, _) in LISTS.items()},
        }
    )


def _same(old: ServerCatalog, new: ServerCatalog) -> bool:
    """Whether nothing but the time of the listing differs."""
    return all(
        getattr(old, name) == getattr(new, name)
        for name in ServerCatalog.__dataclass_fields__
        if name != "synced_at"
    )
