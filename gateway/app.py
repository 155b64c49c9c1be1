"""The gateway itself: servers, their catalogs and connections, and what clients are shown of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from gateway import jsonrpc, protocol
from gateway.catalog import Catalog, CatalogBuilder, NameBook, NamePolicy, changed
from gateway.config.servers import resolve
from gateway.config.settings import Settings
from gateway.endpoint.dispatch import Dispatcher, capabilities, joined_instructions
from gateway.endpoint.notices import Notices
from gateway.endpoint.sessions import Session, Sessions
from gateway.errors import GatewayError, NotApproved, NotFound, RpcError, UpstreamError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.policy.approval import approval_key
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.fetch import LISTS, fetch_catalog
from gateway.upstream.lifeline import Lifeline
from gateway.upstream.peer import client_info
from gateway.upstream.pool import Connector
from gateway.upstream.serverlog import ServerLog, log_path
from gateway.upstream.supervisor import State, Upstream
from registry.errors import RegistryError
from registry.model import Approval, ItemKind, Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.store import Store

log = logging.getLogger("toolyard")
T = TypeVar("T")

DRAIN: Final = 30.0
"""Seconds that calls in flight may take to finish when their server is removed or changed."""
WATCH_EVERY: Final = 5.0
HEALTH_EVERY: Final = 6
"""Watches between two pings: every 30 s."""
LIST_TIMEOUT: Final = 30.0
WATCH_TIMEOUT: Final = 5.0
"""Seconds in which servers should take a subscription before its listener is acknowledged."""
LIST_AGAIN: Final = 60.0
"""Seconds after which a server is asked again that could not be listed."""
RESYNC_PAUSE: Final = (0.1, 5.0)
"""Seconds between a server's change notice and asking it, so that a burst of notices costs one list:
at first, and at most where notices never end."""

_CHANGES: Final = {
    "notifications/tools/list_changed": frozenset({ItemKind.TOOL}),
    "notifications/prompts/list_changed": frozenset({ItemKind.PROMPT}),
    "notifications/resources/list_changed": frozenset({ItemKind.RESOURCE, ItemKind.TEMPLATE}),
}


class Gateway:
    """Wires store, catalog, upstreams and endpoint together.

    :param tasks: the task group all background work runs in.
    :param trust_config: whether commands in the servers file count as approved as it stands at start,
        because a person named that file on the command line.
    :param log_dir: where servers' logs go; None keeps their last lines in memory only.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        tasks: anyio.abc.TaskGroup,
        *,
        cache_writer: Callable[[bytes], None] | None = None,
        trust_config: bool = False,
        log_dir: Path | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.started_at = time.time()
        self.config_file: str | None = None
        self.config_error: str | None = None
        self.servers: dict[str, Server] = {}
        self.sessions = Sessions(store.key("session"))
        self.notices = Notices(self.sessions, self._watch, self._unwatch)
        self.dispatcher = Dispatcher(self, self.sessions, store.key("handles"))
        self._tasks = tasks
        self._trust_config = trust_config
        self._trusted: dict[str, ServerSpec] = {}
        self._environ = dict(os.environ)
        self._upstreams: dict[str, Upstream] = {}
        self._catalogs: dict[str, ServerCatalog] = {}
        self._builder = CatalogBuilder(
            NameBook(settings.names, store.names(settings.names)), settings.page_size
        )
        self._catalog = self._builder.build([], {})
        self._cache_writer = cache_writer
        self._rebuilding = asyncio.Lock()
        self._store_turn = anyio.CapacityLimiter(1)
        self._unseen: set[str] = set()
        self._all_seen = asyncio.Event()
        self._news = asyncio.Event()
        self._grace_until: float | None = None
        self._lifeline = Lifeline()
        self._log_dir = log_dir
        self._logs: dict[str, ServerLog] = {}
        self._dirty: dict[Upstream, set[ItemKind]] = {}
        self._to_list_again: set[Upstream] = set()
        self._told_by: dict[Upstream, Connection] = {}
        self._subscribed: dict[str, str] = {}
        self._listened: Counter[str] = Counter()
        self._log_level: str | None = None
        self._watched = 0

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""
        return self._catalog

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""
        return self._upstreams

    @property
    def plain_names(self) -> bool:
        """Whether names go without a server's prefix where nothing forces one."""
        return NamePolicy(self.settings.names) is not NamePolicy.PREFIX

    @property
    def instructions(self) -> str:
        """What the servers want a model to know of them, as they last said."""
        known = (self._catalogs.get(name) for name in self._catalog.servers)
        return joined_instructions(
            (c.server, c.instructions) for c in known if c is not None and c.instructions
        )

    def known(self, name: str) -> ServerCatalog | None:
        """The last known catalog of a server."""
        return self._catalogs.get(name)

    async def _stored(self, work: Callable[[], T]) -> T:
        """Do store work in a worker thread, one piece at a time."""
        return await anyio.to_thread.run_sync(work, limiter=self._store_turn)

    # servers

    async def start(self, specs: Iterable[ServerSpec], starter: ServerSpec | None = None) -> None:
        """Take up the servers of the configuration and of the store, and begin to connect to them.

        :param starter: served, approved, when there is no other server at all.
        """
        specs = list(specs)
        if self._trust_config:
            self._trusted = {spec.name: spec for spec in specs}
        known = {server.name: server for server in await self._stored(self.store.servers)}
        added = [server for server in known.values() if server.origin is Origin.ADDED]
        wanted = [Server(spec, Origin.CONFIG, ordinal) for ordinal, spec in enumerate(specs)]
        taken = {server.name for server in wanted}
        wanted += [server for server in added if server.name not in taken]
        if not wanted and starter is not None:
            if (last := known.get(starter.name)) is not None and last.origin is Origin.STARTER:
                starter = replace(starter, disabled=last.spec.disabled)
            self._trusted[starter.name] = starter
            wanted = [Server(starter, Origin.STARTER)]
        self._catalogs = {
            name: catalog
            for name, catalog in (await self._stored(self.store.catalogs)).items()
            if name in {server.name for server in wanted}
        }
        await self._stored(partial(self._save_servers, known, wanted))
        for server in wanted:
            self._add(server)
        await self._rebuild()
        self._tasks.start_soon(self._keep_watch, name="watch servers")

    async def _keep_watch(self) -> None:
        """Ping servers now and then, and stop those that nobody has used for long."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self._watched += 1
            for upstream in list(self._upstreams.values()):
                self._tasks.start_soon(upstream.end_when_idle, name=f"idle {upstream.name}")
                if self._watched % HEALTH_EVERY == 0:
                    self._tasks.start_soon(upstream.check_health, name=f"check {upstream.name}")

    async def restart(self, name: str) -> None:
        """End a server's connections and start it anew. Raises NotFound."""
        if name not in self._upstreams:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        upstream = self._upstreams[name]
        await upstream.restart()
        self._tasks.start_soon(self._warm, upstream, name=f"warm {name}")

    async def enable(self, name: str, enabled: bool) -> None:
        """Switch a server on or off for good. Raises NotFound, RpcError for one of the servers file."""
        server = self.servers.get(name)
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
        if self._trusted.get(name) == server.spec:
            self._trusted[name] = changed_server.spec
        await self._stored(partial(self.store.put_server, changed_server))
        self._retire(name)
        self._add(changed_server)
        await self._rebuild()

    def _save_servers(self, known: Mapping[str, Server], wanted: Iterable[Server]) -> None:
        names = set()
        for server in wanted:
            names.add(server.name)
            if known.get(server.name) != server:
                self.store.put_server(server)
        for name in known.keys() - names:
            self.store.remove_server(name)

    def _add(self, server: Server) -> Upstream:
        self.servers[server.name] = server
        upstream = self._upstreams[server.name] = Upstream(server, self, self._tasks, self.settings.timeout)
        if not server.spec.disabled:
            if server.name not in self._catalogs:
                self._unseen.add(server.name)
                self._all_seen.clear()
            self._tasks.start_soon(self._warm, upstream, name=f"warm {server.name}")
        return upstream

    async def _warm(self, upstream: Upstream) -> None:
        catalog = self._catalogs.get(upstream.name)
        try:
            await upstream.connect(Era(catalog.era) if catalog is not None else Era.HANDSHAKE)
        except GatewayError as error:
            log.debug("server '%s' is not ready: %s", upstream.name, error)
            self._seen(upstream.name)

    def _seen(self, name: str) -> None:
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
            self._grace_until = now + self.settings.first_list_grace
        if now < self._grace_until:
            try:
                async with asyncio.timeout_at(self._grace_until):
                    await self._all_seen.wait()
            except TimeoutError:
                log.info(
                    "lists are served without %s, which has not answered yet", ", ".join(sorted(self._unseen))
                )

    async def configure(self, specs: Iterable[ServerSpec]) -> None:
        """Take a new version of the servers file. Unchanged servers notice nothing."""
        wanted = {spec.name: Server(spec, Origin.CONFIG, ordinal) for ordinal, spec in enumerate(specs)}
        for name, server in list(self.servers.items()):
            if server.origin is Origin.CONFIG and name not in wanted:
                await self.remove(name)
        for name, server in wanted.items():
            old = self.servers.get(name)
            if old == server:
                continue
            if old is not None and old.origin is not Origin.CONFIG:
                log.warning(
                    "server '%s' of the servers file is ignored: one of that name was added by hand", name
                )
                continue
            await self._stored(partial(self.store.put_server, server))
            if old is not None and old.spec == server.spec:
                self.servers[name] = self._upstreams[name].server = server  # only its place has changed
                continue
            if old is not None:
                self._retire(name)
            elif starter := next((s for s in self.servers.values() if s.origin is Origin.STARTER), None):
                await self.remove(starter.name)
            self._add(server)
        await self._rebuild()

    async def add(self, spec: ServerSpec) -> Upstream:
        """Add a server by hand; its command is thereby approved. Raises GatewayError."""
        if spec.name in self.servers and self.servers[spec.name].origin is not Origin.STARTER:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"There is a server named '{spec.name}' already.",
                f"Choose another name, or run: toolyard remove {spec.name}.",
                status=409,
            )
        ordinal = max([1000, *(server.ordinal + 1 for server in self.servers.values())])
        server = Server(spec, Origin.ADDED, ordinal)
        approval = await self._approval(spec)
        await self._stored(partial(self.store.put_server, server))
        if approval is not None:
            await self._stored(partial(self.store.approve, approval))
        if spec.name in self.servers:
            self._retire(spec.name)
        return self._add(server)

    async def remove(self, name: str) -> None:
        """Forget a server; calls in flight may finish. Raises NotFound."""
        if name not in self.servers:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        self._retire(name)
        del self.servers[name]
        self._catalogs.pop(name, None)
        self._trusted.pop(name, None)
        await self._stored(partial(self.store.remove_server, name))
        await self._rebuild()

    def _retire(self, name: str) -> None:
        upstream = self._upstreams.pop(name)
        self._seen(name)
        self._tasks.start_soon(upstream.close, DRAIN, name=f"retire {name}")

    async def approve(self, name: str) -> str:
        """Approve a server's command as it stands, and start it. Returns what was approved."""
        if name not in self.servers:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        approval = await self._approval(self.servers[name].spec)
        if approval is not None:
            await self._stored(partial(self.store.approve, approval))
        upstream = self._upstreams[name]
        upstream.wake()
        self._tasks.start_soon(self._warm, upstream, name=f"warm {name}")
        return approval.detail if approval is not None else "a remote server needs no approval"

    async def _approval(self, spec: ServerSpec) -> Approval | None:
        if spec.transport is not Transport.STDIO:
            return None
        key, detail = await anyio.to_thread.run_sync(
            lambda: approval_key(resolve(spec, self._environ), self._environ)
        )
        return Approval(key, spec.name, detail, time.time())

    async def approval_state(self, spec: ServerSpec) -> dict[str, object] | None:
        """The approval key of a command and whether a person has approved it. Raises GatewayError."""
        approval = await self._approval(spec)
        if approval is None:
            return None
        return {"key": approval.key, "approved": approval.key in await self._stored(self.store.approvals)}

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

    # what upstreams ask of their owner

    def server_log(self, name: str) -> ServerLog:
        """The log of a server, the same one across restarts."""
        if name not in self._logs:
            path = log_path(self._log_dir, name) if self._log_dir is not None else None
            self._logs[name] = ServerLog(path)
        return self._logs[name]

    async def connector(self, server: Server) -> Connector:
        """Resolve and check an entry. Raises NotApproved, ConfigError."""
        spec = resolve(server.spec, self._environ)
        approval = await self._approval(server.spec)
        if approval is not None and approval.key not in await self._stored(self.store.approvals):
            if self._trusted.get(server.name) != server.spec:
                raise NotApproved(
                    f"The command of server '{server.name}' has not been approved: {approval.detail}.",
                    f"Run: toolyard approve {server.name}.",
                )
            await self._stored(partial(self.store.approve, approval))
            del self._trusted[server.name]  # as it stood at start: what replaces the program is asked about
        return Connector(spec, self._environ, self._lifeline, self.server_log(server.name))

    async def on_ready(self, upstream: Upstream, connection: Connection) -> None:
        """Bring the catalog up to date with a server that was connected."""
        await self._sync(upstream, connection, None)
        self._seen(upstream.name)
        try:
            if self._log_level is not None:
                await self._send_log_level(upstream, self._log_level)
        except GatewayError as error:
            log.debug("restoring the state of server '%s': %s", upstream.name, error)

    def on_message(self, upstream: Upstream, connection: Connection, message: Shallow) -> None:
        """A notification of a server that belongs to no call."""
        method = jsonrpc.text(message.get("method")) or ""
        if method in _CHANGES:
            self._told_by[upstream] = connection
            waiting = self._dirty.get(upstream)
            if waiting is not None:
                waiting |= _CHANGES[method]
                return
            self._dirty[upstream] = set(_CHANGES[method])
            self._tasks.start_soon(self._resync, upstream, name=f"resync {upstream.name}")
        elif method == "notifications/resources/updated" and "params" in message:
            try:
                params = jsonrpc.shallow(message["params"])
            except msgspec.MsgspecError:
                return
            uri = jsonrpc.text(params.get("uri"))
            if uri is not None:
                self.notices.resource_updated(uri, params)

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
                    await self._sync(upstream, connection, kinds)
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
            await self._sync(upstream, connection, None)

    async def _sync(
        self, upstream: Upstream, connection: Connection, kinds: frozenset[ItemKind] | None
    ) -> None:
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
            return
        if self._upstreams.get(upstream.name) is not upstream:
            return  # removed meanwhile
        if upstream.state is State.READY:
            upstream.error = None
        for problem in problems:
            log.warning("server '%s': %s", upstream.name, problem)
        known = upstream.problems if kinds is not None else []
        upstream.problems = list(dict.fromkeys([*known, *problems]))
        if old is not None and _same(old, new):
            return
        self._catalogs[upstream.name] = new
        try:
            await self._stored(partial(self.store.put_catalog, new))
        except RegistryError as error:  # clients are still served; the next start just knows less
            log.error("%s", error)
        await self._rebuild()

    async def _rebuild(self) -> None:
        async with self._rebuilding:
            new = self._builder.build(self.servers.values(), self._catalogs)
            fresh, self._builder.book.fresh = list(self._builder.book.fresh), []
            if fresh:
                try:
                    refused = await self._stored(partial(self.store.put_names, self.settings.names, fresh))
                    if refused:
                        await self._take_stored_names()
                        new = self._builder.build(self.servers.values(), self._catalogs)
                except RegistryError as error:
                    log.error("%s", error)
                    self._builder.book.fresh = fresh + list(self._builder.book.fresh)
            kinds = changed(self._catalog, new)
            self._catalog = new
            if kinds:
                self.notices.lists_changed(kinds)
            await self._write_cache()

    async def _take_stored_names(self) -> None:
        """Another process named an item first: what the store holds is the truth."""
        names = await self._stored(partial(self.store.names, self.settings.names))
        self._builder = CatalogBuilder(NameBook(self.settings.names, names), self.settings.page_size)

    async def _write_cache(self) -> None:
        if self._cache_writer is not None:
            data = self.cached_lists()
            try:
                await anyio.to_thread.run_sync(self._cache_writer, data, limiter=self._store_turn)
            except OSError as error:  # a stdio client starts more slowly; nothing else is lost
                log.error("the lists could not be written to disk: %s", error)

    def cached_lists(self) -> bytes:
        """The disk cache of a stdio face: the handshake and the first page of every list."""
        return jsonrpc.encode(
            {
                "etag": self._catalog.etag,
                "initialize": {
                    "capabilities": capabilities(Era.HANDSHAKE),
                    "serverInfo": client_info(),
                    "instructions": self.instructions or None,
                },
                "results": {
                    method: msgspec.Raw(self._catalog.page(kind)) for kind, (method, _, _) in LISTS.items()
                },
            }
        )

    # subscriptions and logging

    async def subscribe(self, session: Session, uri: str, server: str) -> None:
        """Have the server tell of updates to a resource. Raises GatewayError."""
        if uri not in self._subscribed:
            upstream = self._upstreams.get(server)
            if upstream is None:
                raise UpstreamUnavailable(f"Server '{server}' was removed.", "List the resources again.")
            await upstream.watch(uri)
            self._subscribed[uri] = server
        session.subscriptions.add(uri)

    async def unsubscribe(self, session: Session, uri: str) -> None:
        """End a subscription; the server is told when nobody else has one."""
        session.subscriptions.discard(uri)
        await self._unsubscribe_upstream(uri)

    async def _unsubscribe_upstream(self, uri: str) -> None:
        wanted = self._listened[uri] > 0 or any(uri in other.subscriptions for other in self.sessions)
        if uri in self._subscribed and not wanted:
            upstream = self._upstreams.get(self._subscribed.pop(uri))
            if upstream is not None:
                await upstream.unwatch(uri)

    async def _watch(self, uris: frozenset[str]) -> None:
        """Have servers tell of updates to what a listener of the stateless era asked for.

        A server that is away is told when it is back.
        """
        self._listened.update(uris)
        new = []
        for uri in uris - self._subscribed.keys():
            if candidates := self.catalog.read_candidates(uri):
                self._subscribed[uri] = candidates[0]
                new.append((self._upstreams.get(candidates[0]), uri))
        try:
            async with asyncio.timeout(WATCH_TIMEOUT):
                await asyncio.gather(*(self._try_to_watch(upstream, uri) for upstream, uri in new))
        except TimeoutError:
            log.info("a client listens to resources of a server that is slow to answer")

    async def _try_to_watch(self, upstream: Upstream | None, uri: str) -> None:
        try:
            if upstream is not None:
                await upstream.watch(uri)
        except GatewayError as error:
            log.info("updates of %s will not be heard of: %s", uri, error)

    def _unwatch(self, uris: frozenset[str]) -> None:
        """A listener of these resources has left."""
        self._listened.subtract(uris)
        self._listened = +self._listened
        for uri in uris:
            self._tasks.start_soon(self._let_go, uri, name="unwatch")

    async def _let_go(self, uri: str) -> None:
        try:
            await self._unsubscribe_upstream(uri)
        except GatewayError as error:
            log.debug("ending a subscription to %s: %s", uri, error)

    async def set_log_level(self, level: str) -> None:
        """Have servers send log messages from the most verbose level any session wants."""
        ranks = [session.log_level for session in self.sessions] or [protocol.LOG_LEVELS.index(level)]
        wanted = protocol.LOG_LEVELS[min(ranks)]
        if wanted == self._log_level:
            return
        self._log_level = wanted
        for upstream in self._upstreams.values():
            if upstream.state is State.READY:
                self._tasks.start_soon(self._send_log_level, upstream, wanted)

    async def _send_log_level(self, upstream: Upstream, level: str) -> None:
        peer = next((c.peer for c in upstream.connections), None)
        if peer is None or peer.era is not Era.HANDSHAKE or not peer.offers("logging"):
            return
        try:
            await upstream.request(Era.HANDSHAKE, "logging/setLevel", {"level": jsonrpc.raw(level)})
        except GatewayError as error:
            log.debug("setting the log level of server '%s': %s", upstream.name, error)

    async def close(self) -> None:
        """End every stream and every server, within seconds."""
        self.notices.close()
        self.sessions.close()
        await self.dispatcher.parking.close()
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))
        await self._lifeline.close()
        for server_log in self._logs.values():
            server_log.flush()


def _same(old: ServerCatalog, new: ServerCatalog) -> bool:
    """Whether nothing but the time of the listing differs."""
    return all(
        getattr(old, name) == getattr(new, name)
        for name in ServerCatalog.__dataclass_fields__
        if name != "synced_at"
    )
