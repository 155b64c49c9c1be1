"""One toolset with clients: its catalog, its sessions, its change notices, its endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import anyio.to_thread

from gateway import protocol
from gateway.bridge.tasks import Tasks
from gateway.calls import CallLog
from gateway.catalog import Catalog, changed
from gateway.clients import Clients
from gateway.endpoint.board import Interests
from gateway.endpoint.http import HttpEndpoint
from gateway.endpoint.introduction import joined_instructions
from gateway.endpoint.notices import Notices
from gateway.errors import RpcError
from gateway.jsonrpc import Shallow
from gateway.listings import cached_lists
from gateway.registering import Registrar
from gateway.toolsets import meta
from gateway.toolsets.dispatch import Services, ViewDispatcher
from gateway.toolsets.finding import Scopes
from gateway.toolsets.project import Projection, project, server_tags
from gateway.upstream.supervisor import Upstream
from registry.model import Server, ServerCatalog
from registry.toolsets import Toolset

log = logging.getLogger("toolyard")


class Yard(Protocol):
    """What a view needs of the gateway."""

    @property
    def catalog(self) -> Catalog:
        """The merged catalog."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers' connections, by name."""

    @property
    def servers(self) -> Mapping[str, Server]:
        """The servers, by name."""

    @property
    def registrar(self) -> Registrar:
        """What was approved of every tool."""

    @property
    def calls(self) -> CallLog:
        """What hears of every call."""

    @property
    def clients(self) -> Clients:
        """Whose clients those of every endpoint are, and what seals what they hold."""

    @property
    def tasks(self) -> Tasks:
        """The calls that go on after their client was given a task."""

    def known(self, name: str) -> ServerCatalog | None:
        """The last known catalog of a server."""

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""

    async def list_anew(self, server: str) -> None:
        """Ask a server for its tools again."""


class Wants(Interests, Protocol):
    """Where clients say what they want to hear of, listeners of the stateless era included."""

    async def watch(self, uris: frozenset[str]) -> None:
        """Have servers tell of updates to these resources; does not raise."""

    def unwatch(self, uris: frozenset[str]) -> None:
        """A listener of these has left."""


class View:
    """A toolset's endpoint. Make it with `View.open`; it lives until the toolset is removed.

    :param write_cache: keeps the first lists on disk for `toolyard stdio --toolset`; blocks.
    """

    def __init__(
        self,
        toolset: Toolset,
        yard: Yard,
        interests: Wants,
        services: Services,
        *,
        page_size: int,
        max_body: int,
        write_cache: Callable[[bytes], None] | None = None,
    ) -> None:
        self.toolset = toolset
        self._yard = yard
        self._interests = interests
        self._page_size = page_size
        self._write_cache = write_cache
        self._turn = asyncio.Lock()
        self._closed = False
        self.connections: set[asyncio.Task[Any]] = set()
        """What serves clients that came over a stream; ended with the view."""
        self._plans = services.plans is not None
        self._projection: Projection | None = None
        self._scopes: Scopes | None = None
        self._watched: Counter[str] = Counter()
        clients = yard.clients
        self.sessions = clients.open(toolset.name)
        self.notices = Notices(self.sessions, self._watch, self._unwatch)
        self.dispatcher = ViewDispatcher(self, self.sessions, interests, clients.ring, yard.tasks, services)
        self.notices.tasks = self.dispatcher.tasks
        self.endpoint = HttpEndpoint(self.dispatcher, self.notices, clients.events, max_body)

    # what its dispatcher asks of it

    @property
    def projection(self) -> Projection:
        """The toolset over the catalog, as last refreshed."""
        assert self._projection is not None, "refresh comes first"
        return self._projection

    @property
    def scopes(self) -> Scopes:
        """The scopes of that projection."""
        assert self._scopes is not None, "refresh comes first"
        return self._scopes

    @property
    def catalog(self) -> Catalog:
        """What its clients are shown."""
        return self.projection.catalog

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""
        return self._yard.upstreams

    @property
    def plain_names(self) -> bool:
        """A name that is not in the toolset goes nowhere, be there one server or many."""
        return False

    @property
    def instructions(self) -> str:
        """What a model should know: of search, or what the servers say of themselves."""
        projection = self.projection
        if projection.searching:
            return meta.hint(len(projection.tools))
        known = [self._yard.known(name) for name in projection.catalog.servers]
        return joined_instructions(
            (c.server, c.instructions) for c in known if c is not None and c.instructions
        )

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""
        await self._yard.settled()
        await self.refresh()

    async def list_anew(self, server: str) -> None:
        """Ask a server for its tools again."""
        await self._yard.list_anew(server)
        await self.refresh()

    async def refresh(self) -> None:
        """Apply the toolset anew where it or the catalog has changed; its clients, and only they, are told.

        Raises RpcError where the toolset was removed.
        """
        if self._closed:
            raise RpcError(
                protocol.INVALID_REQUEST,
                f"Toolset '{self.toolset.name}' was removed.",
                "Connect to another one.",
                status=404,
            )
        if self._current(self._projection):
            return
        async with self._turn:
            while not self._current(old := self._projection):
                source, toolset = self._yard.catalog, self.toolset
                tags = server_tags(self._yard.servers.values())
                new = await anyio.to_thread.run_sync(
                    partial(project, toolset, source, tags, self._page_size, self._plans)
                )
                self._projection, self._scopes = new, Scopes(new)
                for problem in set(new.problems) - set(old.problems if old is not None else ()):
                    log.warning("toolset '%s': %s", toolset.name, problem)
                kinds = changed(old.catalog, new.catalog) if old is not None else set()
                if kinds:
                    self.notices.lists_changed(kinds)
                if kinds or old is None:
                    await self._cache()

    def _current(self, projection: Projection | None) -> bool:
        return (
            projection is not None
            and projection.source is self._yard.catalog
            and projection.toolset is self.toolset
        )

    async def _cache(self) -> None:
        if self._write_cache is not None:
            data = cached_lists(self.catalog, self.instructions)
            try:
                await anyio.to_thread.run_sync(self._write_cache, data)
            except OSError as error:  # a stdio client starts more slowly; nothing else is lost
                log.error("the lists of toolset '%s' could not be written: %s", self.toolset.name, error)

    async def _watch(self, uris: frozenset[str]) -> None:
        if not all(map(self._serves, uris)):
            await self._yard.settled()
        served = frozenset(filter(self._serves, uris))
        self._watched.update(served)
        await self._interests.watch(served)

    def _unwatch(self, uris: frozenset[str]) -> None:
        left = frozenset(uri for uri in uris if self._watched[uri] > 0)  # and not what was never watched
        self._watched.subtract(left)
        self._watched = +self._watched
        self._interests.unwatch(left)

    def _serves(self, uri: str) -> bool:
        return bool(self.catalog.read_candidates(uri))

    def resource_updated(self, server: str, uri: str, params: Shallow) -> None:
        """A server says that a resource has changed."""
        if self._projection is not None and server in self.catalog.servers:
            self.notices.resource_updated(uri, params)

    async def close(self) -> None:
        """The gateway ends: so do listeners' streams and parked calls. Sessions go on in the next process."""
        self.notices.close()
        await self.dispatcher.parking.close()

    async def remove(self) -> None:
        """The toolset was removed: end its sessions, its connections, its tasks, and every call."""
        self._closed = True
        for task in list(self.connections):
            task.cancel()
        self._yard.clients.end(self.toolset.name)
        self._yard.tasks.leave(self.toolset.name)
        await self.close()
