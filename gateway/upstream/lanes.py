"""Further connections to a server that asks clients, where one could not tell which client it asks.

A server of the handshake era on a pipe has one channel for all its calls. While it waits there for one
client, the calls of others that can be asked too are made over a connection each, which nobody else
shares: on those every question is plainly its caller's. Lists, and every other call, keep to the first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio.abc

from gateway import jsonrpc
from gateway.errors import GatewayError, UpstreamError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.call import CallSite, Reply
from gateway.upstream.pool import Connector

log = logging.getLogger("toolyard.upstream")

CONNECTIONS: Final = 16
"""Connections one shared server may have at a time, unless its ``maxConnections`` says otherwise."""
IDLE: Final = 30.0
"""Seconds without a call after which a further connection is ended."""
START_TIMEOUT: Final = 30.0


class _Lane:
    """A further connection, from the moment it is being opened.

    :param client: whose calls it has, while it has any.
    """

    __slots__ = ("calls", "client", "connection", "connector", "used_at")

    def __init__(self, client: object) -> None:
        self.client = client
        self.calls = 0
        self.connection: Connection | None = None
        self.connector: Connector | None = None
        self.used_at = time.monotonic()

    def free(self, client: object, name: Raw | None) -> bool:
        """Whether this client's calls would be the only ones there."""
        return (
            self.connection is not None
            and (not self.calls or self.client is client)
            and not self.connection.engaged(client, name)
        )


class Lanes:
    """The further connections of one server.

    :param most: how many there may be; 0 for none.
    :param connector: resolves and checks the entry anew. Raises GatewayError.
    :param prepare: brings a new connection to where the first one is.
    :param on_message: takes what the server says outside any call.
    """

    def __init__(
        self,
        server: str,
        most: int,
        connector: Callable[[], Awaitable[Connector]],
        prepare: Callable[[Connection], Awaitable[None]],
        on_message: Callable[[Shallow], None],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._server = server
        self._most = most
        self._connector = connector
        self._prepare = prepare
        self._on_message = on_message
        self._tasks = tasks
        self._lanes: list[_Lane] = []
        self._level: str | None = None

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return [lane.connection for lane in self._lanes if lane.connection is not None]

    async def request(
        self, first: Connection, method: str, params: Shallow, *, timeout: float, site: CallSite
    ) -> tuple[Connection, Reply]:
        """Make a call where nobody else can be meant by what the server asks: the connection, the reply.

        :param first: the connection that all callers share, which is as good where it is free of doubt.
        :raises UpstreamError: no answer came.
        """
        lane = self._choose(first, site.client, params.get("name"))
        if lane is None:
            return first, await first.request(method, params, timeout=timeout, site=site)
        lane.client, lane.calls = site.client, lane.calls + 1
        try:
            connection = lane.connection or await self._open(lane, first)
            if connection is None:
                return first, await first.request(method, params, timeout=timeout, site=site)
            return connection, await connection.request(method, params, timeout=timeout, site=site)
        finally:
            lane.calls -= 1
            lane.used_at = time.monotonic()

    def _choose(self, first: Connection, client: object, name: Raw | None) -> _Lane | None:
        """A lane for a client's call; None where it goes the way of all."""
        if not first.engaged(client, name):
            return None
        lane = next((lane for lane in self._lanes if lane.free(client, name)), None)
        if lane is None and len(self._lanes) < self._most:
            lane = _Lane(client)
            self._lanes.append(lane)
        return lane

    async def _open(self, lane: _Lane, first: Connection) -> Connection | None:
        """Open a lane; None where that fails: then what the server asks may have to be refused."""
        connection = None
        try:
            lane.connector = await self._connector()
            connection = await lane.connector.open(
                Era.HANDSHAKE,
                START_TIMEOUT,
                lambda _, message: self._on_message(message),
                lambda lost, reason: self._lost(lane, lost, reason),
            )
            connection.joins(first)
            await self._prepare(connection)
            if self._level is not None:
                await _set_level(connection, self._level)
            if connection.lost or lane not in self._lanes:
                raise UpstreamError(f"A further connection to server '{self._server}' was lost.")
        except GatewayError as error:
            log.warning("server '%s' gets no further connection: %s", self._server, error)
            self._discard(lane)
            if connection is not None:
                await connection.close()
            return None
        except BaseException:
            self._discard(lane)
            if connection is not None:
                self._tasks.start_soon(connection.close, name=f"close {self._server}")
            raise
        lane.connection = connection
        return connection

    def _lost(self, lane: _Lane, connection: Connection, reason: str) -> None:
        connection.lost = True
        log.warning("a further connection to server '%s' was lost: %s", self._server, reason)
        self._discard(lane)
        self._tasks.start_soon(connection.close, name=f"close {self._server}")

    def _discard(self, lane: _Lane) -> None:
        if lane in self._lanes:
            self._lanes.remove(lane)
        if lane.connector is not None:
            lane.connector.close()

    def hung(self, connection: Connection) -> bool:
        """Give up a connection that answers no more. Returns whether it was one of these."""
        lane = next((lane for lane in self._lanes if lane.connection is connection), None)
        if lane is not None:
            self._lost(lane, connection, "it does not answer pings any more")
        return lane is not None

    async def log_from(self, level: str) -> None:
        """Have the server log on each of them, now and later, as it does on the first."""
        self._level = level
        await asyncio.gather(*(_set_level(connection, level) for connection in self.connections))

    async def end_idle(self) -> None:
        """End those that nobody has used for a while."""
        now = time.monotonic()
        for lane in [one for one in self._lanes if not one.calls and now - one.used_at > IDLE]:
            self._discard(lane)
            if lane.connection is not None:
                await lane.connection.close()

    async def close(self) -> None:
        """End them all."""
        connections, lanes = self.connections, list(self._lanes)
        for lane in lanes:
            self._discard(lane)
        await asyncio.gather(*(connection.close() for connection in connections))


async def _set_level(connection: Connection, level: str) -> None:
    if connection.peer is None or not connection.peer.offers("logging"):
        return
    try:
        await connection.request("logging/setLevel", {"level": jsonrpc.raw(level)}, timeout=5.0)
    except UpstreamError as error:
        log.debug("setting the log level of server '%s': %s", connection.server, error)
