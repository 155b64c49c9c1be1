"""What clients want servers to tell: updates of resources, and log messages from some severity on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import anyio.abc

from gateway import jsonrpc, protocol
from gateway.catalog import Catalog
from gateway.endpoint.notices import MAX_SUBSCRIPTIONS
from gateway.endpoint.sessions import UNSET_LEVEL, Session
from gateway.errors import GatewayError, RpcError, UpstreamUnavailable
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.state import State
from gateway.upstream.supervisor import Upstream

log = logging.getLogger("toolyard")

WATCH_TIMEOUT: Final = 5.0
"""Seconds in which servers should take a subscription before its listener is acknowledged."""

LONGEST_URI: Final = 8192
"""Characters of a resource's URI that a session may subscribe to."""


class Board(Protocol):
    """What interests are about."""

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""


class Interests:
    """Adds up what all clients want, and tells each server once.

    :param sessions: of every client, whichever endpoint it uses.
    :param tasks: the task group its background work runs in.
    """

    def __init__(self, board: Board, sessions: Iterable[Session], tasks: anyio.abc.TaskGroup) -> None:
        self._board = board
        self._sessions = sessions
        self._tasks = tasks
        self._subscribed: dict[str, str] = {}
        self._listened: Counter[str] = Counter()
        self._underway: dict[str, asyncio.Event] = {}
        self._log_level: str | None = None
        self._logged: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()

    async def restore(self, upstream: Upstream) -> None:
        """Tell a server that was connected anew."""
        if self._log_level is not None:
            await self._send_log_level(upstream, self._log_level)
        # What was listened to before anybody knew whose it is.
        await self._watch(frozenset(self._listened))

    async def subscribe(self, session: Session, uri: str, server: str) -> None:
        """Have the server tell of updates to a resource. Raises GatewayError."""
        if len(session.subscriptions) >= MAX_SUBSCRIPTIONS and uri not in session.subscriptions:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"This session has {MAX_SUBSCRIPTIONS} subscriptions.",
                "End some with resources/unsubscribe.",
            )
        if len(uri) > LONGEST_URI:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"The URI has {len(uri)} characters, {LONGEST_URI} at most can be kept.",
            )
        owner = self._board.upstreams.get(server)
        if owner is not None and owner.private is not None:
            connection = await owner.private.connection(session.site(), Era.HANDSHAKE, owner.timeout)
            await connection.watch(uri)
        elif uri not in self._subscribed:
            upstream = self._board.upstreams.get(server)
            if upstream is None:
                raise UpstreamUnavailable(f"Server '{server}' was removed.", "List the resources again.")
            await upstream.watches.add(uri)
            self._subscribed[uri] = server
        session.subscriptions.add(uri)

    async def unsubscribe(self, session: Session, uri: str) -> None:
        """End a subscription; the server is told when nobody else has one."""
        session.subscriptions.discard(uri)
        for connection in self._private(session):
            await connection.unwatch(uri)
        await self._unsubscribe_upstream(uri)

    async def _unsubscribe_upstream(self, uri: str) -> None:
        wanted = self._listened[uri] > 0 or any(uri in other.subscriptions for other in self._sessions)
        if uri in self._subscribed and not wanted:
            upstream = self._board.upstreams.get(self._subscribed.pop(uri))
            if upstream is not None:
                await upstream.watches.remove(uri)

    async def watch(self, uris: frozenset[str]) -> None:
        """Have servers tell of updates to what a listener of the stateless era asked for.

        A server that is away is told when it is back.
        """
        self._listened.update(uris)
        if not all(map(self._board.catalog.read_candidates, uris)):
            await self._board.settled()
        await self._watch(uris)

    def resume(self, session: Session) -> None:
        """A session from before a restart is back: have servers tell what it wanted to hear."""
        self._tasks.start_soon(self._resume, session, name="resume")

    async def _resume(self, session: Session) -> None:
        await self._board.settled()
        await self._watch(frozenset(session.subscriptions))
        if session.log_level != UNSET_LEVEL:
            await self.set_log_level(protocol.LOG_LEVELS[session.log_level])

    async def _watch(self, uris: frozenset[str]) -> None:
        for uri in uris - self._subscribed.keys():
            if candidates := self._board.catalog.read_candidates(uri):
                self._subscribed[uri] = candidates[0]
                self._underway[uri] = asyncio.Event()
                upstream = self._board.upstreams.get(candidates[0])
                # Not in the listener's own task: it may leave while others wait for the same.
                self._tasks.start_soon(self._try_to_watch, upstream, uri, name="watch")
        underway = [self._underway[uri].wait() for uri in uris if uri in self._underway]
        try:
            async with asyncio.timeout(WATCH_TIMEOUT):
                await asyncio.gather(*underway)
        except TimeoutError:
            log.info("a client listens to resources of a server that is slow to answer")

    async def _try_to_watch(self, upstream: Upstream | None, uri: str) -> None:
        try:
            if upstream is not None:
                await upstream.watches.add(uri)
        except GatewayError as error:
            log.info("updates of %s will not be heard of: %s", uri, error)
        finally:
            self._underway.pop(uri).set()

    def unwatch(self, uris: frozenset[str]) -> None:
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

    def _private(self, session: Session) -> list[Connection]:
        """The connections that belong to this session alone."""
        owners = [upstream.private for upstream in self._board.upstreams.values() if upstream.private]
        return [connection for owner in owners if (connection := owner.of(session)) is not None]

    def roots_changed(self, session: Session) -> None:
        """The roots of a session are others now: tell the servers that keep them for it alone."""
        for connection in self._private(session):
            self._tasks.start_soon(self._tell_roots, connection, name="roots changed")

    async def _tell_roots(self, connection: Connection) -> None:
        try:
            await connection.notify("notifications/roots/list_changed")
        except GatewayError as error:
            log.debug("telling server '%s' of changed roots: %s", connection.server, error)

    def ended(self, session: Session) -> None:
        """A session has ended: what belonged to it alone ends too."""
        for upstream in self._board.upstreams.values():
            if upstream.private is not None:
                self._tasks.start_soon(upstream.private.end, session, name=f"end {upstream.name}")

    async def set_log_level(self, level: str, session: Session | None = None) -> None:
        """Have servers send log messages from the most verbose level any session wants."""
        for upstream in self._board.upstreams.values() if session is not None else ():
            if upstream.private is not None and session is not None:
                self._tasks.start_soon(upstream.private.set_log_level, session)
        ranks = [other.log_level for other in self._sessions if other.log_level != UNSET_LEVEL]
        wanted = protocol.LOG_LEVELS[min(ranks, default=protocol.LOG_LEVELS.index(level))]
        if wanted == self._log_level:
            return
        self._log_level = wanted
        self._logged.clear()
        for upstream in self._board.upstreams.values():
            if upstream.state is State.READY:
                self._tasks.start_soon(self._send_log_level, upstream, wanted)

    async def log_from(self, upstream: Upstream, rank: int) -> None:
        """Have a handshake-era server log from a severity on, for a request of the stateless era.

        There the level belongs to the connection, which callers share: it only ever gets more
        verbose on their account, and each is passed what it asked for.
        """
        connection = next(iter(upstream.connections), None)
        if connection is None:
            return
        known = self._logged.get(connection)
        if known is None and self._log_level is not None:
            known = protocol.LOG_LEVELS.index(self._log_level)
        if known is not None and known <= rank:
            return
        self._logged[connection] = rank
        await self._send_log_level(upstream, protocol.LOG_LEVELS[rank])

    async def _send_log_level(self, upstream: Upstream, level: str) -> None:
        peer = next((c.peer for c in upstream.connections), None)
        if peer is None or peer.era is not Era.HANDSHAKE or not peer.offers("logging"):
            return
        try:
            params = {"level": jsonrpc.raw(level)}
            await upstream.request(Era.HANDSHAKE, "logging/setLevel", params, timeout=WATCH_TIMEOUT)
            await upstream.lanes.log_from(level)
        except GatewayError as error:
            log.debug("setting the log level of server '%s': %s", upstream.name, error)
