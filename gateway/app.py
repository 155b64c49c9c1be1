"""The gateway itself: servers, their catalogs and connections, and what clients are shown of them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from gateway import jsonrpc
from gateway.bridge.tasks import Tasks
from gateway.bridge.taskstate import Task
from gateway.calls import CallLog
from gateway.catalog import Catalog, NamePolicy
from gateway.clients import Clients
from gateway.config.settings import Settings
from gateway.endpoint.dispatch import Dispatcher
from gateway.endpoint.notices import Notices
from gateway.errors import GatewayError
from gateway.finder import Finder
from gateway.following import Follower
from gateway.hosted.calls import UsageBook
from gateway.hosted.entry import is_hosted
from gateway.interests import Interests
from gateway.jsonrpc import Shallow
from gateway.listings import Listings
from gateway.memory import Memory
from gateway.planning.wiring import Planning
from gateway.policy.pins import PinPolicy, policy_of
from gateway.registering import Registrar
from gateway.roster import Roster
from gateway.starting import Starting
from gateway.toolsets.book import Toolsets
from gateway.upstream.base import Connection
from gateway.upstream.pool import Connector
from gateway.upstream.private import Home
from gateway.upstream.serverlog import ServerLog
from gateway.upstream.supervisor import Upstream
from registry.counters import Counter
from registry.model import ItemKind, Server, ServerCatalog, ServerSpec, Transport
from registry.store import Store
from registry.tasks import TaskRecords

if TYPE_CHECKING:
    from registry.official.publish import Published

log = logging.getLogger("toolyard")
T = TypeVar("T")

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
    :param identity: tells this gateway from others on the same store; the same after a restart.
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
        identity: str | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.started_at = time.time()
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
        self.usage = UsageBook()
        self.starting = Starting(store, self._stored, self._upstreams, log_dir)
        self.roster = Roster(
            self.servers,
            self._upstreams,
            self,
            store,
            self._stored,
            tasks,
            self.starting,
            self._listings,
            self.registrar,
            self.usage,
            settings.timeout,
            trust_config=trust_config,
        )
        self.following = Follower(store, identity or secrets.token_hex(16), self._stored)
        owner = self.following.owner
        self.tasks = Tasks(TaskRecords(store), self._stored, tasks, self._task_changed, owner=owner)
        self.calls = CallLog(store, self._stored, self.cost_of, audit=settings.audit)
        self.dispatcher = Dispatcher(
            self, self.sessions, self._interests, self.calls, self.clients.ring, self.tasks
        )
        self.notices.tasks = self.dispatcher.tasks
        finder = Finder(store, search_dir, settings.search, tasks)
        self.registrar.listen(finder.hear)
        self._planning = Planning(
            self,
            store,
            self.servers,
            settings,
            tasks,
            self.calls,
            finder,
            self.starting.lifeline,
            journal=journal,
            log_dir=log_dir,
        )
        self.planners, self.runs = self._planning.planners, self._planning.runs
        plans = self._planning.tools
        self.toolsets = Toolsets(
            self, store, self._stored, settings, tasks, self._interests, finder, toolset_cache, plans
        )
        self.tasks.watched = lambda: self.notices.watched_tasks | self.toolsets.watched_tasks
        self.tasks.opener = self.toolsets.view
        following = self.following
        following.on(Counter.KEYS, self.clients.follow)
        following.on(Counter.SERVERS, self.roster.follow)
        following.on(Counter.APPROVALS, self._follow_approvals)
        following.on(Counter.TOOLSETS, self.toolsets.follow)
        following.on(Counter.TOOLS, finder.follow)
        following.on(Counter.ADAPTERS, finder.follow)
        following.on(Counter.TASKS, self.tasks.follow)
        self._tasks = tasks
        self._store_turn = anyio.CapacityLimiter(1)
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

    async def start(self, specs: Iterable[ServerSpec], starters: Iterable[ServerSpec] = ()) -> None:
        """Take up the servers of the configuration and of the store, and begin to connect to them.

        :param starters: served, approved, when there is no other server at all.
        """
        await self.following.start()
        await self.roster.start(specs, starters)
        await self.toolsets.load()
        await self.tasks.start()
        self._tasks.start_soon(self._keep_watch, name="watch servers")
        self._tasks.start_soon(self.runs.recover, name="recover runs")
        self._tasks.start_soon(self.calls.run, name="count calls")
        if self.settings.resync:
            self._tasks.start_soon(self._listings.keep_in_step, self.settings.resync, name="keep in step")
        self._tasks.start_soon(self.clients.ledger.run, name="write the ledger")
        self._tasks.start_soon(self.following.run, name="follow other gateways")

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

    async def reshow(self) -> None:
        """What is approved has changed: clients are shown what is served from now on."""
        await self._listings.rebuild()

    # what other gateways on the same store have changed

    async def _follow_approvals(self) -> None:
        """Serve what was approved at another gateway, and nothing that was withheld there."""
        await self.registrar.follow()
        await self._listings.rebuild()

    # what upstreams ask of their owner

    def server_log(self, name: str) -> ServerLog:
        """The log of a server, the same one across restarts."""
        return self.starting.server_log(name)

    async def connector(self, server: Server) -> Connector:
        """Resolve and check an entry. Raises NotApproved, ConfigError."""
        if server.spec.transport is Transport.OWN:
            return self._planning.connector(server.spec)
        return await self.starting.connector(server)

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
        await self.clients.close()
        await self.starting.close()
        await self.calls.flush()
        await self.following.close()
