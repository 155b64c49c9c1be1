"""Which servers there are: of the servers file, added by hand, or the starters; and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import anyio.abc
import anyio.to_thread

from gateway import protocol
from gateway.errors import GatewayError, NotFound, RpcError
from gateway.hosted.calls import UsageBook
from gateway.hosted.entry import is_hosted
from gateway.listings import Listings
from gateway.protocol import Era
from gateway.registering import Registrar
from gateway.starting import Starting, Stored
from gateway.upstream.isolation import isolated
from gateway.upstream.supervisor import Owner, Upstream
from registry.model import Origin, Server, ServerSpec, Transport
from registry.store import Store
from registry.sync import SyncReport

log = logging.getLogger("toolyard")

DRAIN: Final = 30.0
"""Seconds that calls in flight may take to finish when their server is removed or changed."""


class Roster:
    """The servers, kept in step with the servers file and the store.

    :param servers: the servers by name; this one alone changes it, and ``upstreams``.
    :param owner: what upstreams are given to ask things of.
    :param trust_config: whether commands in the servers file count as approved as it stands at start,
        because a person named that file on the command line.
    """

    def __init__(
        self,
        servers: dict[str, Server],
        upstreams: dict[str, Upstream],
        owner: Owner,
        store: Store,
        stored: Stored,
        tasks: anyio.abc.TaskGroup,
        starting: Starting,
        listings: Listings,
        registrar: Registrar,
        usage: UsageBook,
        timeout: float,
        *,
        trust_config: bool = False,
    ) -> None:
        self.config_file: str | None = None
        self._servers = servers
        self._upstreams = upstreams
        self._owner = owner
        self._store = store
        self._stored = stored
        self._tasks = tasks
        self._starting = starting
        self._listings = listings
        self._registrar = registrar
        self._usage = usage
        self._timeout = timeout
        self._trust_config = trust_config

    async def start(self, specs: Iterable[ServerSpec], starters: Iterable[ServerSpec] = ()) -> None:
        """Take up the servers of the configuration and of the store, and begin to connect to them.

        :param starters: served, approved, when there is no other server at all.
        """
        specs = list(specs)
        for spec in specs if self._trust_config else ():
            self._starting.trust(spec)
        known = {server.name: server for server in await self._stored(self._store.servers)}
        added = [server for server in known.values() if server.origin is Origin.ADDED]
        wanted = [Server(spec, Origin.CONFIG, ordinal) for ordinal, spec in enumerate(specs)]
        taken = {server.name for server in wanted}
        wanted += [server for server in added if server.name not in taken]
        others = [server for server in wanted if server.spec.transport is not Transport.OWN]
        for ordinal, starter in enumerate(() if others else starters):
            if (last := known.get(starter.name)) is not None and last.origin is Origin.STARTER:
                starter = replace(starter, disabled=last.spec.disabled)
            self._starting.trust(starter)
            wanted.append(Server(starter, Origin.STARTER, ordinal))
        await self._listings.load({server.name for server in wanted})
        await self._stored(partial(self._save_servers, known, wanted))
        await self._registrar.gone(known.keys() - {server.name for server in wanted})
        for server in wanted:
            await self._list_from_manifest(server)
        for server in wanted:
            self._add(server)
        await self._listings.rebuild()

    async def restart(self, name: str) -> None:
        """End a server's connections and start it anew. Raises NotFound."""
        if name not in self._upstreams:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        upstream = self._upstreams[name]
        await upstream.restart()
        self._tasks.start_soon(self._warm, upstream, name=f"warm {name}")

    async def enable(self, name: str, enabled: bool) -> None:
        """Switch a server on or off for good. Raises NotFound, RpcError for one of the servers file."""
        server = self._servers.get(name)
        if server is None:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        if server.spec.disabled is not enabled:
            return
        if server.origin is Origin.CONFIG:
            value = str(not enabled).lower()
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"Server '{name}' is set by {self.config_file}.",
                f'Write "disabled": {value} into its entry there; the change applies at once.',
                status=409,
            )
        changed_server = replace(server, spec=replace(server.spec, disabled=not enabled))
        self._starting.switched(server.spec, changed_server.spec)
        await self._stored(partial(self._store.put_server, changed_server))
        self._retire(name)
        self._add(changed_server)
        await self._listings.rebuild()

    def _save_servers(self, known: Mapping[str, Server], wanted: Iterable[Server]) -> None:
        names = set()
        for server in wanted:
            names.add(server.name)
            if known.get(server.name) != server:
                self._store.put_server(server)
        for name in known.keys() - names:
            self._store.remove_server(name)

    def _add(self, server: Server, *, start: bool = True) -> Upstream:
        self._servers[server.name] = server
        upstream = self._upstreams[server.name] = Upstream(server, self._owner, self._tasks, self._timeout)
        if is_hosted(server.spec):
            upstream.usage = self._usage
        if start and not server.spec.disabled:
            if not is_hosted(server.spec):  # its manifest says what it will list, or nothing does for now
                self._listings.expect(server.name)
            self._tasks.start_soon(self._warm, upstream, name=f"warm {server.name}")
        return upstream

    async def _list_from_manifest(self, server: Server) -> None:
        """Take over what a converted service, if approved, will list before it is built or started."""
        if not is_hosted(server.spec):
            return
        from gateway.hosted.catalog import catalog_of

        try:
            await self._starting.permit(server)
            await self._listings.take(await anyio.to_thread.run_sync(catalog_of, server.spec))
        except GatewayError as error:  # met again, and shown, when the service is prepared
            log.debug("server '%s' is not listed from its manifest: %s", server.name, error)

    async def _warm(self, upstream: Upstream) -> None:
        if is_hosted(upstream.server.spec):
            await upstream.prepare()  # the first call starts it
            return
        catalog = self._listings.known(upstream.name)
        try:
            await upstream.connect(Era(catalog.era) if catalog is not None else Era.HANDSHAKE)
        except GatewayError as error:
            log.debug("server '%s' is not ready: %s", upstream.name, error)
            self._listings.seen(upstream.name)

    async def configure(self, specs: Iterable[ServerSpec]) -> None:
        """Take a new version of the servers file. Unchanged servers notice nothing."""
        wanted = {spec.name: Server(spec, Origin.CONFIG, ordinal) for ordinal, spec in enumerate(specs)}
        for name, server in list(self._servers.items()):
            if server.origin is Origin.CONFIG and name not in wanted:
                await self.remove(name)
        for name, server in wanted.items():
            old = self._servers.get(name)
            if old == server:
                continue
            if old is not None and old.origin is not Origin.CONFIG:
                log.warning(
                    "server '%s' of the servers file is ignored: one of that name was added by hand", name
                )
                continue
            await self._stored(partial(self._store.put_server, server))
            if old is not None and old.spec == server.spec:
                self._servers[name] = self._upstreams[name].server = server  # only its place has changed
                continue
            if old is not None:
                self._retire(name)
            else:
                for starter in [s for s in self._servers.values() if s.origin is Origin.STARTER]:
                    await self.remove(starter.name)
            await self._list_from_manifest(server)
            self._add(server)
        await self._listings.rebuild()

    async def add(self, spec: ServerSpec, *, approve: bool = True) -> Upstream:
        """Add a server by hand; its command is thereby approved. Raises GatewayError.

        :param approve: without, nothing is started or reached: a person looks at it first.
        """
        if spec.name in self._servers and self._servers[spec.name].origin is not Origin.STARTER:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"There is a server named '{spec.name}' already.",
                f"Choose another name, or run: toolyard remove {spec.name}.",
                status=409,
            )
        isolated(spec)  # a value that means nothing is refused before anything is kept
        ordinal = max([1000, *(server.ordinal + 1 for server in self._servers.values())])
        server = Server(spec, Origin.ADDED, ordinal)
        approval = await self._starting.approval(spec) if approve else None
        await self._stored(partial(self._store.put_server, server))
        if approval is not None:
            await self._stored(partial(self._store.approve, approval))
        if spec.name in self._servers:
            self._retire(spec.name)
        await self._list_from_manifest(server)
        upstream = self._add(server, start=approve)
        if not approve and spec.transport is Transport.STDIO and not spec.disabled:
            upstream.await_approval()
        if is_hosted(spec):
            await self._listings.rebuild()  # nothing else tells clients: it is not started yet
        return upstream

    async def remove(self, name: str, *, pins: bool = False) -> None:
        """Forget a server; calls in flight may finish. Raises NotFound.

        :param pins: forget what was approved of its tools, too: a person wants it gone.
        """
        if name not in self._servers:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        self._retire(name)
        del self._servers[name]
        self._listings.forget(name)
        self._starting.distrust(name)
        await self._stored(partial(self._store.remove_server, name))
        await (self._registrar.forget(name) if pins else self._registrar.gone([name]))
        await self._listings.rebuild()

    def _retire(self, name: str) -> None:
        upstream = self._upstreams.pop(name)
        self._listings.seen(name)
        self._tasks.start_soon(upstream.close, DRAIN, name=f"retire {name}")

    async def approve(self, name: str) -> str:
        """Approve a server's command as it stands, and start it. Returns what was approved."""
        if name not in self._servers:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        approval = await self._starting.approval(self._servers[name].spec)
        if approval is not None:
            await self._stored(partial(self._store.approve, approval))
        await self._list_from_manifest(self._servers[name])
        await self._listings.rebuild()
        upstream = self._upstreams[name]
        upstream.wake()
        self._tasks.start_soon(self._warm, upstream, name=f"warm {name}")
        return approval.detail if approval is not None else "a remote server needs no approval"

    async def follow(self) -> None:
        """Take up the servers that were added, changed or removed by hand at another gateway."""
        stored = {server.name: server for server in await self._stored(self._store.servers)}
        gone = [name for name, s in self._servers.items() if s.origin is Origin.ADDED and name not in stored]
        for name in gone:
            self._retire(name)
            del self._servers[name]
            self._listings.forget(name)
        fresh = [
            server
            for name, server in stored.items()
            if server.origin is Origin.ADDED
            and self._servers.get(name) != server
            and (name not in self._servers or self._servers[name].origin is Origin.ADDED)
        ]
        for server in fresh:
            if server.name in self._servers:
                self._retire(server.name)
            await self._list_from_manifest(server)
            self._add(server)
        if gone or fresh:
            await self._listings.rebuild()

    async def resync(self, name: str) -> SyncReport | None:
        """Connect to a server where it is not, and bring the registry in step with what it lists now.

        Returns what changed, or None where it could not be listed. Raises GatewayError.
        """
        upstream = self._upstreams.get(name)
        if upstream is None:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        catalog = self._listings.known(name)
        connection = await upstream.connect(Era(catalog.era) if catalog is not None else Era.HANDSHAKE)
        return await self._listings.sync(upstream, connection, None, always=True)
