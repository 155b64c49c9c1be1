"""Whether a server still answers: pings, and calls in a row that were not answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.protocol import Era
from gateway.upstream.base import Connection

PING_TIMEOUT: Final = 10.0
PINGS: Final = 3
"""Pings in a row, unanswered, that make a server count as hung."""
SUSPECT: Final = 3
"""Calls in a row, unanswered, after which a server is pinged although calls are in flight."""


class Pinged(Protocol):
    """What is asked of the server whose health is watched."""

    @property
    def in_flight(self) -> int:
        """Its calls in flight."""

    @property
    def connections(self) -> list[Connection]:
        """The live connections, each once."""


class Health:
    """The health of one server.

    A server with calls in flight is left alone unless it is suspected: many serve one call at a time
    and answer a ping only after it.

    :param hung: told of a connection that answers pings no more.
    """

    __slots__ = ("_checking", "_hung", "_server", "_unanswered")

    def __init__(self, server: Pinged, hung: Callable[[Connection], None]) -> None:
        self._server = server
        self._hung = hung
        self._unanswered = 0
        self._checking = False

    def answered(self) -> None:
        """A call was answered."""
        self._unanswered = 0

    def unanswered(self) -> bool:
        """A call was not answered in time. Returns whether the server is suspected by now."""
        self._unanswered += 1
        return self._unanswered >= SUSPECT

    async def check(self, although_busy: bool = False) -> None:
        """Ping every live connection."""
        if self._checking or (self._server.in_flight and not although_busy):
            return
        self._checking = True
        try:
            for connection in self._server.connections:
                if not await self._answers(connection, although_busy):
                    self._hung(connection)
        finally:
            self._checking = False

    async def _answers(self, connection: Connection, although_busy: bool) -> bool:
        assert connection.peer is not None
        method = "ping" if connection.peer.era is Era.HANDSHAKE else "server/discover"
        for _ in range(PINGS):
            try:
                await connection.request(method, {}, timeout=PING_TIMEOUT)
                return True
            except UpstreamTimeout:
                if self._server.in_flight and not although_busy:
                    return True  # it got a call meanwhile, which will tell
            except UpstreamError:
                return connection not in self._server.connections  # lost: dealt with where it was noticed
        return False
