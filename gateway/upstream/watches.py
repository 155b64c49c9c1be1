"""Which resources of a server are watched, on every connection it ever has."""

from __future__ import annotations

import logging
from typing import Protocol

from gateway.errors import GatewayError
from gateway.protocol import Era
from gateway.upstream.base import Connection

log = logging.getLogger("toolyard.upstream")


class Watched(Protocol):
    """A server whose resources are watched."""

    name: str

    @property
    def connections(self) -> list[Connection]:
        """The live connections, each once."""

    async def connect(self, want: Era) -> Connection:
        """A live connection, opened if there is none. Raises UpstreamError."""


class Watches:
    """The resources of one server that somebody watches."""

    def __init__(self, server: Watched) -> None:
        self._server = server
        self._uris: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._uris)

    async def add(self, uri: str) -> None:
        """Have the server tell of updates to a resource from now on. Raises UpstreamError, RpcError."""
        self._uris.add(uri)
        for connection in self._server.connections or [await self._server.connect(Era.HANDSHAKE)]:
            await connection.watch(uri)

    async def remove(self, uri: str) -> None:
        """End that. Raises UpstreamError."""
        self._uris.discard(uri)
        for connection in self._server.connections:
            await connection.unwatch(uri)

    async def renew(self, connection: Connection) -> None:
        """Watch on a new connection what was watched on the one before."""
        for uri in list(self._uris):
            try:
                await connection.watch(uri)
            except GatewayError as error:
                log.debug("server '%s' does not watch %s again: %s", self._server.name, uri, error)
