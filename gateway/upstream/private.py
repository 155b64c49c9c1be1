"""Connections of one server that belong to one client session each.

They are opened on a session's first call, and end with the session, when they are idle, or when the
server ends them. Nothing opens one again for the same session: it would be a blank one. Clients of
2026-07-28 have no session; those of one principal share a connection, and a new one follows a lost one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import anyio.abc

from gateway import jsonrpc, protocol
from gateway.bridge.features import capabilities_of
from gateway.errors import GatewayError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.call import CallSite
from gateway.upstream.health import Health
from gateway.upstream.isolation import number
from gateway.upstream.pool import Connector

log = logging.getLogger("toolyard.upstream")

MOST: Final = 8
"""Sessions that may have a connection of their own to one server, unless its ``maxSessions`` says more."""
MAKES_WAY: Final = 60.0
"""Seconds without a call after which a connection makes way for that of another session."""
PINGED_EVERY: Final = 30.0
"""Seconds between two pings of a connection that nobody calls."""
IDLE: Final = 1800
"""Seconds without a call after which a session's connection is ended, unless ``idleTimeout`` says."""


class Home(Protocol):
    """A client session, as those see it who keep state for it."""

    ident: str
    features: tuple[str, ...]
    log_level: int
    private: set[str]
    lost: set[str]

    def site(self) -> CallSite:
        """Its end of what comes outside any call."""


class Owner(Protocol):
    """What private connections ask of the gateway."""

    async def binding(self, home: Home) -> None:
        """A server is about to keep state for this session; returns when that would be known after a crash."""

    def unbound(self, home: Home, server: str) -> GatewayError:
        """A session calls a server whose state for it is gone: what it is told."""

    def on_private(self, home: Home, message: Shallow) -> None:
        """A notification outside any call, for this session alone."""


class TooManySessions(UpstreamUnavailable):
    """The server has as many sessions of its own as it may."""

    kind = "too_many_sessions"


class StateLost(UpstreamUnavailable):
    """What the server kept for this client is gone, and the client cannot be told to begin a new session."""

    kind = "state_lost"


class _Entry:
    """One session's connection, from the moment it is being opened."""

    __slots__ = ("connection", "connector", "health", "home", "opening", "pinged_at", "used_at")

    def __init__(self, home: Home | None, hung: Callable[[_Entry, Connection], None]) -> None:
        self.home = home
        self.health = Health(self, lambda connection: hung(self, connection))
        self.opening: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.connection: Connection | None = None
        self.connector: Connector | None = None
        self.used_at = self.pinged_at = time.monotonic()

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        return len(self.connection.calls) if self.connection is not None else 0

    @property
    def connections(self) -> list[Connection]:
        """The connection, where it is open."""
        return [self.connection] if self.connection is not None and not self.connection.lost else []

    @property
    def busy(self) -> bool:
        """Whether it is being opened or has requests in flight."""
        return self.connection is None or self.connection.busy


class PrivateConnections:
    """The private connections of one server.

    :param connector: resolves and checks the entry anew. Raises GatewayError.
    :param extra: the entry's own keys.
    """

    def __init__(
        self,
        server: str,
        connector: Callable[[], Awaitable[Connector]],
        owner: Owner,
        tasks: anyio.abc.TaskGroup,
        extra: Mapping[str, Any],
    ) -> None:
        self._server = server
        self._connector = connector
        self._owner = owner
        self._tasks = tasks
        self._most = number(extra, "maxSessions", MOST)
        self._idle = number(extra, "idleTimeout", IDLE)
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def connection(self, site: CallSite, want: Era, timeout: float) -> Connection:
        """The caller's connection, opened where it has none yet.

        Raises UpstreamError; RpcError where the state that the server kept for this session is gone.
        """
        home = site.home
        if home is not None and self._server in home.lost:
            raise self._owner.unbound(home, self._server)
        whose = home.ident if home is not None else f"{site.principal}\0{want}"
        entry = self._entries.get(whose)
        if entry is None:
            entry = self._begin(whose, home, want, timeout)
        entry.used_at = time.monotonic()
        if entry.connection is not None:
            return entry.connection
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(entry.opening)
        except TimeoutError:
            raise UpstreamTimeout(
                f"Server '{self._server}' is still starting after {timeout:g} s.", "Try again in a moment."
            ) from None

    def of(self, home: Home) -> Connection | None:
        """The connection a session has."""
        entry = self._entries.get(home.ident)
        return entry.connection if entry is not None else None

    def _begin(self, whose: str, home: Home | None, want: Era, timeout: float) -> _Entry:
        if len(self._entries) >= self._most and not self._make_way():
            raise TooManySessions(
                f"Server '{self._server}' has {self._most} sessions with a connection of their own.",
                'Try again when one has ended, or raise "maxSessions" in its entry.',
            )
        entry = self._entries[whose] = _Entry(home, partial(self._hung, whose))
        entry.opening.add_done_callback(_seen)
        self._tasks.start_soon(self._open, whose, entry, want, timeout, name=f"open {self._server}")
        return entry

    def _make_way(self) -> bool:
        """End the connection that nobody has used for longest: many clients leave without a word."""
        unused = [(entry.used_at, whose) for whose, entry in self._entries.items() if not entry.busy]
        used_at, whose = min(unused, default=(float("inf"), ""))
        if time.monotonic() - used_at < MAKES_WAY:
            return False
        entry = self._entries[whose]
        self._drop(whose, entry)
        if entry.connection is not None:
            self._tasks.start_soon(entry.connection.close, name=f"close {self._server}")
        return True

    async def _open(self, whose: str, entry: _Entry, want: Era, timeout: float) -> None:
        try:
            connection = await self._attempt(whose, entry, want, timeout)
        except GatewayError as error:
            self._drop(whose, entry)
            entry.opening.set_exception(error)
            return
        except BaseException:
            self._drop(whose, entry)
            entry.opening.set_exception(
                UpstreamUnavailable(f"Starting server '{self._server}' was interrupted.")
            )
            raise
        if self._entries.get(whose) is not entry:  # its session ended meanwhile
            entry.opening.set_exception(UpstreamUnavailable(f"The session with '{self._server}' has ended."))
            await connection.close()
            return
        entry.connection = connection
        entry.opening.set_result(connection)

    async def _attempt(self, whose: str, entry: _Entry, want: Era, timeout: float) -> Connection:
        home = entry.home
        entry.connector = connector = await self._connector()
        if home is not None:
            connector.prepare = lambda connection: _declare(connection, home)
        connection = await connector.open(
            want,
            timeout,
            lambda _, message: self._notice(home, message),
            lambda lost, reason: self._lost(whose, entry, lost, reason),
        )
        if home is not None:
            home.private.add(self._server)
            await self._owner.binding(home)
            await self.set_log_level(home, connection)
        return connection

    async def set_log_level(self, home: Home, connection: Connection | None = None) -> None:
        """Have a session's own connection log as that session wants."""
        connection = connection or self.of(home)
        if connection is None or connection.peer is None or connection.peer.era is not Era.HANDSHAKE:
            return
        if home.log_level >= 0 and connection.peer.offers("logging"):
            level = jsonrpc.raw(protocol.LOG_LEVELS[home.log_level])
            try:
                await connection.request("logging/setLevel", {"level": level}, timeout=5.0)
            except UpstreamError as error:
                log.debug("setting the log level of server '%s': %s", self._server, error)

    def _notice(self, home: Home | None, message: Shallow) -> None:
        if home is not None:
            self._owner.on_private(home, message)

    def _lost(self, whose: str, entry: _Entry, connection: Connection, reason: str) -> None:
        """The server ended a connection of its own accord."""
        connection.lost = True
        log.warning("a session's own server '%s' was lost: %s", self._server, reason)
        if self._entries.get(whose) is entry:
            self._drop(whose, entry)
        self._tasks.start_soon(connection.close, name=f"close {self._server}")

    def _hung(self, whose: str, entry: _Entry, connection: Connection) -> None:
        self._lost(whose, entry, connection, "it does not answer pings any more")

    def answered(self, connection: Connection) -> None:
        """A call was answered over it."""
        for entry in self._entries.values():
            if entry.connection is connection:
                entry.health.answered()

    def unanswered(self, connection: Connection) -> None:
        """A call was not answered in time over it: after some in a row it is pinged, although it is called."""
        for entry in self._entries.values():
            if entry.connection is connection and entry.health.unanswered():
                self._tasks.start_soon(entry.health.check, True, name=f"check {self._server}")

    def _drop(self, whose: str, entry: _Entry) -> None:
        """Forget an entry: what the server knew of that session is gone."""
        if self._entries.get(whose) is entry:
            del self._entries[whose]
        if entry.connector is not None:
            entry.connector.close()
        home = entry.home
        if home is not None and self._server in home.private:
            home.private.discard(self._server)
            home.lost.add(self._server)

    async def end(self, home: Home) -> None:
        """A session has ended: its connection ends with it."""
        await self._end(home.ident)

    async def end_idle(self) -> None:
        """End the connections that nobody has used for long, and ping the others now and then."""
        now = time.monotonic()
        for entry in self._entries.values():
            if entry.connection is not None and now - entry.pinged_at >= PINGED_EVERY:
                entry.pinged_at = now
                self._tasks.start_soon(entry.health.check, name=f"check {self._server}")
        for whose, entry in list(self._entries.items()):
            if not entry.busy and now - entry.used_at > self._idle:
                await self._end(whose)

    async def close(self) -> None:
        """End every connection."""
        await asyncio.gather(*(self._end(whose) for whose in list(self._entries)))

    async def _end(self, whose: str) -> None:
        entry = self._entries.get(whose)
        if entry is None:
            return
        self._drop(whose, entry)
        if entry.connection is not None:
            await entry.connection.close()


def _declare(connection: Connection, home: Home) -> None:
    """Declare what this one client declared, roots among it (2025-11-25, Lifecycle: Initialization)."""
    capabilities = capabilities_of(home.features)
    if "roots" in capabilities:
        capabilities["roots"] = {"listChanged": True}
    connection.declared = capabilities
    connection.home = home.site()


def _seen(future: asyncio.Future[Connection]) -> None:
    if not future.cancelled():
        future.exception()  # nobody need be waiting
