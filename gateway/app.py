"""The gateway itself: servers, their catalogs and connections, and what clients are shown of them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.tasks import Tasks
from gateway.bridge.taskstate import Task
from gateway.calls import CallLog
from gateway.catalog import Catalog, NamePolicy
from gateway.clients import Clients
from gateway.config.servers import resolve
from gateway.config.settings import Settings
from gateway.endpoint.dispatch import Dispatcher
from gateway.endpoint.notices import Notices
from gateway.errors import GatewayError, NotApproved, NotFound, RpcError
from gateway.finder import Finder
from gateway.hosted.calls import UsageBook
from gateway.hosted.entry import approval_of, is_hosted, launched
from gateway.hosted.environments import Environments
from gateway.interests import Interests
from gateway.jsonrpc import Shallow
from gateway.listings import Listings
from gateway.memory import Memory
from gateway.planning.wiring import Planning
from gateway.policy.pins import PinPolicy, policy_of
from gateway.protocol import Era
from gateway.registering import Registrar
from gateway.toolsets.book import Toolsets
from gateway.upstream.base import Connection
from gateway.upstream.isolation import isolated
from gateway.upstream.lifeline import Lifeline
from gateway.upstream.pool import Connector
from gateway.upstream.private import Home
from gateway.upstream.serverlog import ServerLog, log_path
from gateway.upstream.supervisor import State, Upstream
from registry.model import Approval, ItemKind, Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.store import Store
from registry.sync import SyncReport
from registry.tasks import TaskRecords

if TYPE_CHECKING:
    from registry.official.publish import Published

log = logging.getLogger("toolyard")
T = TypeVar("T")

DRAIN: Final = 30.0
"""Seconds that calls in flight may take to finish when their server is removed or changed."""
LAST_CALLS: Final = 0.5
"""Seconds that calls in flight may take to finish when the gateway ends."""
WATCH_EVERY: Final = 5.0
HEALTH_EVERY: Final = 6
"""Watches between two pings: every 30 s."""

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
    :param journal: where runs of plans are journalled: a file or a database's URL; None runs no plans.
    :param search_dir: for what search derives; None has it search by words alone.
    :param toolset_cache: as ``cache_writer``, for the clients of one toolset; given its name too.
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
        journal: Path | str | None = None,
        search_dir: Path | None = None,
        toolset_cache: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.started_at = time.time()
        self.config_file: str | None = None
        self.config_error: str | None = None
        self.servers: dict[str, Server] = {}
        self.clients = Clients(store, self._stored)
        self.sessions, self.events = self.clients.open(), self.clients.events
        self._upstreams: dict[str, Upstream] = {}
        self._interests = Interests(self, self.clients, tasks)
        self.clients.on_recall.append(self._interests.resume)
        self.clients.on_end.append(self._interests.ended)
        self.notices = Notices(self.sessions, self._interests.watch, self._interests.unwatch)
        self.registrar = Registrar(store, self._stored, self.pin_policy)
        self._listings = Listings(
            settings,
            store,
            self._stored,
            tasks,
            self.servers,
            self._upstreams,
            self.registrar,
            self._lists_changed,
            cache_writer,
        )
        self.tasks = Tasks(TaskRecords(store), self._stored, tasks, self._task_changed)
        self.calls = CallLog(store, self._stored, self.cost_of, audit=settings.audit)
        self.dispatcher = Dispatcher(
            self, self.sessions, self._interests, self.calls, self.clients.ring, self.tasks
        )
        self.notices.tasks = self.dispatcher.tasks
        finder = Finder(store, search_dir, settings.search, tasks)
        self.registrar.listen(finder.hear)
        self._lifeline = Lifeline()
        self._planning = Planning(
            self,
            store,
            self.servers,
            settings,
            tasks,
            self.calls,
            finder,
            self._lifeline,
            journal=journal,
            log_dir=log_dir,
        )
        self.planners, self.runs = self._planning.planners, self._planning.runs
        plans = self._planning.tools
        self.toolsets = Toolsets(
            self, store, self._stored, settings, tasks, self._interests, finder, toolset_cache, plans
        )
        self._tasks = tasks
        self._trust_config = trust_config
        self._trusted: dict[str, ServerSpec] = {}
        self._environ = dict(os.environ)
        self._store_turn = anyio.CapacityLimiter(1)
        self._environments = Environments(self._lifeline)
        self.usage = UsageBook()
        self._log_dir = log_dir
        self._logs: dict[str, ServerLog] = {}
        self._watched = 0
        self._memory = Memory()

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""
        return self._listings.catalog

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
        return self._listings.instructions

    def known(self, name: str) -> ServerCatalog | None:
        """The last known catalog of a server."""
        return self._listings.known(name)

    def _lists_changed(self, kinds: set[ItemKind]) -> None:
        self.notices.lists_changed(kinds)
        self.toolsets.catalog_changed()

    def _task_changed(self, task: Task) -> None:
        self.notices.task_changed(task)
        self.toolsets.task_changed(task)

    async def published(self) -> list[Published]:
        """The servers as a registry of MCP servers lists them. Raises StoreError."""
        from registry.official import publish  # for who asks a gateway for its catalog

        servers = list(self.servers.values())
        catalogs = {s.name: known for s in servers if (known := self.known(s.name)) is not None}
        records = self.registrar.profiles
        return await self._stored(lambda: publish.published(servers, catalogs, records.histories()))

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""
        await self._listings.settled()

    async def list_anew(self, server: str) -> None:
        """Ask a server for its tools again."""
        upstream = self._upstreams.get(server)
        if upstream is not None and upstream.connections:
            await self._listings.sync(upstream, upstream.connections[0], frozenset({ItemKind.TOOL}))

    async def synced(self, name: str, timeout: float) -> None:
        """Wait until a server that was just added has been listed, or has failed."""
        await self._listings.synced(name, timeout)

    async def _stored(self, work: Callable[[], T]) -> T:
        """Do store work in a worker thread, one piece at a time."""
        return await anyio.to_thread.run_sync(work, limiter=self._store_turn)

    # servers

    async def start(self, specs: Iterable[ServerSpec], starters: Iterable[ServerSpec] = ()) -> None:
        """Take up the servers of the configuration and of the store, and begin to connect to them.

        :param starters: served, approved, when there is no other server at all.
        """
        specs = list(specs)
        if self._trust_config:
            self._trusted = {spec.name: spec for spec in specs}
        known = {server.name: server for server in await self._stored(self.store.servers)}
        added = [server for server in known.values() if server.origin is Origin.ADDED]
        wanted = [Server(spec, Origin.CONFIG, ordinal) for ordinal, spec in enumerate(specs)]
        taken = {server.name for server in wanted}
        wanted += [server for server in added if server.name not in taken]
        others = [server for server in wanted if server.spec.transport is not Transport.OWN]
        for ordinal, starter in enumerate(() if others else starters):
            if (last := known.get(starter.name)) is not None and last.origin is Origin.STARTER:
                starter = replace(starter, disabled=last.spec.disabled)
            self._trusted[starter.name] = starter
            wanted.append(Server(starter, Origin.STARTER, ordinal))
        await self._listings.load({server.name for server in wanted})
        await self._stored(partial(self._save_servers, known, wanted))
        await self.registrar.gone(known.keys() - {server.name for server in wanted})
        for server in wanted:
            await self._list_from_manifest(server)
        for server in wanted:
            self._add(server)
        await self._listings.rebuild()
        await self.toolsets.load()
        await self.tasks.start()
        self._tasks.start_soon(self._keep_watch, name="watch servers")
        self._tasks.start_soon(self.runs.recover, name="recover runs")
        self._tasks.start_soon(self.calls.run, name="count calls")
        if self.settings.resync:
            self._tasks.start_soon(self._listings.keep_in_step, self.settings.resync, name="keep in step")
        self._tasks.start_soon(self.clients.ledger.run, name="write the ledger")

    async def _keep_watch(self) -> None:
        """Ping servers now and then, and stop those that nobody has used for long."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self._watched += 1
            self._memory.give_back()
            await self.toolsets.keep_feedback()
            self.clients.watch()
            for upstream in list(self._upstreams.values()):
                self._tasks.start_soon(upstream.end_when_idle, name=f"idle {upstream.name}")
                if self._watched % HEALTH_EVERY == 0:
                    self._tasks.start_soon(upstream.health.check, name=f"check {upstream.name}")

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
        await self._listings.rebuild()

    def _save_servers(self, known: Mapping[str, Server], wanted: Iterable[Server]) -> None:
        names = set()
        for server in wanted:
            names.add(server.name)
            if known.get(server.name) != server:
                self.store.put_server(server)
        for name in known.keys() - names:
            self.store.remove_server(name)

    def _add(self, server: Server, *, start: bool = True) -> Upstream:
        self.servers[server.name] = server
        upstream = self._upstreams[server.name] = Upstream(server, self, self._tasks, self.settings.timeout)
        if is_hosted(server.spec):
            upstream.usage = self.usage
        if start and not server.spec.disabled:
            self._listings.expect(server.name)
            self._tasks.start_soon(self._warm, upstream, name=f"warm {server.name}")
        return upstream

    async def _list_from_manifest(self, server: Server) -> None:
        """Take over what a converted service, if approved, will list before it is built or started."""
        if not is_hosted(server.spec):
            return
        from gateway.hosted.catalog import catalog_of

        try:
            await self._permit(server)
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
            else:
                for starter in [s for s in self.servers.values() if s.origin is Origin.STARTER]:
                    await self.remove(starter.name)
            await self._list_from_manifest(server)
            self._add(server)
        await self._listings.rebuild()

    async def add(self, spec: ServerSpec, *, approve: bool = True) -> Upstream:
        """Add a server by hand; its command is thereby approved. Raises GatewayError.

        :param approve: without, nothing is started or reached: a person looks at it first.
        """
        if spec.name in self.servers and self.servers[spec.name].origin is not Origin.STARTER:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"There is a server named '{spec.name}' already.",
                f"Choose another name, or run: toolyard remove {spec.name}.",
                status=409,
            )
        isolated(spec)  # a value that means nothing is refused before anything is kept
        ordinal = max([1000, *(server.ordinal + 1 for server in self.servers.values())])
        server = Server(spec, Origin.ADDED, ordinal)
        approval = await self._approval(spec) if approve else None
        await self._stored(partial(self.store.put_server, server))
        if approval is not None:
            await self._stored(partial(self.store.approve, approval))
        if spec.name in self.servers:
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
        if name not in self.servers:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        self._retire(name)
        del self.servers[name]
        self._listings.forget(name)
        self._trusted.pop(name, None)
        await self._stored(partial(self.store.remove_server, name))
        await (self.registrar.forget(name) if pins else self.registrar.gone([name]))
        await self._listings.rebuild()

    def _retire(self, name: str) -> None:
        upstream = self._upstreams.pop(name)
        self._listings.seen(name)
        self._tasks.start_soon(upstream.close, DRAIN, name=f"retire {name}")

    async def approve(self, name: str) -> str:
        """Approve a server's command as it stands, and start it. Returns what was approved."""
        if name not in self.servers:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        approval = await self._approval(self.servers[name].spec)
        if approval is not None:
            await self._stored(partial(self.store.approve, approval))
        await self._list_from_manifest(self.servers[name])
        await self._listings.rebuild()
        upstream = self._upstreams[name]
        upstream.wake()
        self._tasks.start_soon(self._warm, upstream, name=f"warm {name}")
        return approval.detail if approval is not None else "a remote server needs no approval"

    async def _approval(self, spec: ServerSpec) -> Approval | None:
        if spec.transport is not Transport.STDIO:
            return None
        key, detail = await anyio.to_thread.run_sync(lambda: approval_of(spec, self._environ))
        return Approval(key, spec.name, detail, time.time())

    async def approval_state(self, spec: ServerSpec) -> dict[str, object] | None:
        """The approval key of a command and whether a person has approved it. Raises GatewayError."""
        approval = await self._approval(spec)
        if approval is None:
            return None
        return {"key": approval.key, "approved": approval.key in await self._stored(self.store.approvals)}

    def pin_policy(self, name: str) -> PinPolicy:
        """What becomes of changed definitions of a server: its entry's ``pins``, else the setting.

        A converted service follows its manifest, which was approved with its tools.
        """
        server = self.servers.get(name)
        hosted = server is not None and is_hosted(server.spec)
        default = PinPolicy.FOLLOW if hosted else self.settings.pins
        return policy_of(server.spec if server is not None else None, default)

    def cost_of(self, name: str, tool: str) -> float:
        """What one call of a server's tool costs: ``costPerCall`` of its entry, a number or one for each tool."""
        server = self.servers.get(name)
        said = server.spec.extra.get("costPerCall") if server is not None else None
        said = said.get(tool) if isinstance(said, dict) else said
        return float(said) if isinstance(said, (int, float)) and 0 <= said < 1e9 else 0.0

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

    async def reshow(self) -> None:
        """What is approved has changed: clients are shown what is served from now on."""
        await self._listings.rebuild()

    # what upstreams ask of their owner

    def server_log(self, name: str) -> ServerLog:
        """The log of a server, the same one across restarts."""
        if name not in self._logs:
            path = log_path(self._log_dir, name) if self._log_dir is not None else None
            self._logs[name] = ServerLog(path)
        return self._logs[name]

    async def connector(self, server: Server) -> Connector:
        """Resolve and check an entry. Raises NotApproved, ConfigError."""
        if server.spec.transport is Transport.OWN:
            return self._planning.connector(server.spec)
        hosted = is_hosted(server.spec)
        await self._permit(server)
        if not hosted:
            spec = resolve(server.spec, self._environ)
        else:
            spec = await anyio.to_thread.run_sync(launched, server.spec)
            if await self._environments.missing(server.spec):
                await self._build(server.spec)
        return Connector(spec, self._environ, self._lifeline, self.server_log(server.name))

    async def _permit(self, server: Server) -> None:
        """Raises NotApproved, and whatever keeps an entry from being approved."""
        approval = await self._approval(server.spec)
        if approval is not None and approval.key not in await self._stored(self.store.approvals):
            if self._trusted.get(server.name) != server.spec:
                raise NotApproved(
                    f"The command of server '{server.name}' has not been approved: {approval.detail}.",
                    f"Run: toolyard approve {server.name}.",
                )
            await self._stored(partial(self.store.approve, approval))
            del self._trusted[server.name]  # as it stood at start: what replaces the program is asked about

    async def _build(self, spec: ServerSpec) -> None:
        upstream, server_log = self._upstreams.get(spec.name), self.server_log(spec.name)
        before = upstream.state if upstream is not None else None
        if upstream is not None and before is not None:
            upstream.state = State.BUILDING
        server_log.write("[toolyard] building the environment")
        try:
            await self._environments.ready(spec)
        finally:
            if upstream is not None and before is not None and upstream.state is State.BUILDING:
                upstream.state = before
        server_log.write("[toolyard] the environment is built")

    async def on_ready(self, upstream: Upstream, connection: Connection) -> None:
        """Bring the catalog up to date with a server that was connected."""
        await self._listings.sync(upstream, connection, None)
        self._listings.seen(upstream.name)
        await self._interests.restore(upstream)

    def on_message(self, upstream: Upstream, connection: Connection, message: Shallow) -> None:
        """A notification of a server that belongs to no call."""
        method = jsonrpc.text(message.get("method")) or ""
        if method in _CHANGES:
            self._listings.told(upstream, connection, _CHANGES[method])
        elif method == "notifications/resources/updated" and "params" in message:
            try:
                params = jsonrpc.shallow(message["params"])
            except msgspec.MsgspecError:
                return
            uri = jsonrpc.text(params.get("uri"))
            if uri is not None:
                self.notices.resource_updated(uri, params)
                self.toolsets.resource_updated(upstream.name, uri, params)

    async def binding(self, home: Home) -> None:
        """A server is about to keep state for this session; returns when that would be known after a crash."""
        await self.clients.binding(home)

    def unbound(self, home: Home, server: str) -> GatewayError:
        """A session calls a server whose state for it is gone: what it is told."""
        return self.clients.unbound(home, server)

    def on_private(self, home: Home, message: Shallow) -> None:
        """A notification outside any call, for this session alone."""
        self.clients.on_private(home, message)

    async def close(self) -> None:
        """End every stream and every server, within seconds."""
        await self._planning.close()
        self.notices.close()
        self.clients.close_streams()
        await self.tasks.close()
        await self.dispatcher.parking.close()
        await self.toolsets.close()
        await asyncio.gather(*(upstream.quiet(LAST_CALLS) for upstream in self._upstreams.values()))
        self.clients.give_up()
        await asyncio.gather(*(upstream.close() for upstream in self._upstreams.values()))
        await self._environments.close()
        await self.clients.close()
        await self._lifeline.close()
        await self.calls.flush()
        for server_log in self._logs.values():
            server_log.flush()
