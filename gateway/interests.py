"""What clients want servers to tell: updates of resources, and log messages from some severity on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import anyio.abc

from gateway import jsonrpc, protocol
from gateway.catalog import Catalog
from gateway.endpoint.sessions import Session
from gateway.errors import GatewayError, UpstreamUnavailable
from gateway.protocol import Era
from gateway.upstream.supervisor import State, Upstream

log = logging.getLogger("toolyard")

WATCH_TIMEOUT: Final = 5.0
"""Seconds in which servers should take a subscription before its listener is acknowledged."""


class Board(Protocol):
    """What interests are about."""

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""


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
        self._log_level: str | None = None

    async def restore(self, upstream: Upstream) -> None:
        """Tell a server that was connected anew."""
        if self._log_level is not None:
            await self._send_log_level(upstream, self._log_level)

    async def subscribe(self, session: Session, uri: str, server: str) -> None:
        """Have the server tell of updates to a resource. Raises GatewayError."""
        if uri not in self._subscribed:
            upstream = self._board.upstreams.get(server)
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
        wanted = self._listened[uri] > 0 or any(uri in other.subscriptions for other in self._sessions)
        if uri in self._subscribed and not wanted:
            upstream = self._board.upstreams.get(self._subscribed.pop(uri))
            if upstream is not None:
                await upstream.unwatch(uri)

    async def watch(self, uris: frozenset[str]) -> None:
        """Have servers tell of updates to what a listener of the stateless era asked for.

        A server that is away is told when it is back.
        """
        self._listened.update(uris)
        new = []
        for uri in uris - self._subscribed.keys():
            if candidates := self._board.catalog.read_candidates(uri):
                self._subscribed[uri] = candidates[0]
                new.append((self._board.upstreams.get(candidates[0]), uri))
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

    async def set_log_level(self, level: str) -> None:
        """Have servers send log messages from the most verbose level any session wants."""
        ranks = [session.log_level for session in self._sessions] or [protocol.LOG_LEVELS.index(level)]
        wanted = protocol.LOG_LEVELS[min(ranks)]
        if wanted == self._log_level:
            return
        self._log_level = wanted
        for upstream in self._board.upstreams.values():
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
