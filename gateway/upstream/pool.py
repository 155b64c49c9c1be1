"""Which connections a server has, by what they depend on, and how one is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from gateway import jsonrpc, protocol
from gateway.errors import UpstreamError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.policy.approval import child_environment, find_executable
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.exchange import NotStreamableError
from gateway.upstream.http import HttpUpstream
from gateway.upstream.http1 import HttpPool
from gateway.upstream.lifeline import Lifeline
from gateway.upstream.peer import WrongEraError, stateless_meta
from gateway.upstream.serverlog import ServerLog
from gateway.upstream.sse import SseUpstream
from gateway.upstream.stdio import StdioConnection
from registry.model import ServerSpec, Transport

PROBE_TIMEOUT: Final = 5.0


class PoolKey(NamedTuple):
    """Callers share a connection when all of these agree.

    :param credential: whose credential the connection carries; "" is the gateway's own.
    """

    era: Era
    credential: str = ""


class Connector:
    """Opens connections to one server and remembers what was learned of it on the way.

    A server's era is a property of the server (2026-07-28, Versioning): once one era was refused,
    it is not tried again for the life of this object.
    """

    def __init__(
        self, spec: ServerSpec, environ: Mapping[str, str], lifeline: Lifeline, log: ServerLog
    ) -> None:
        self.spec = spec
        self.prepare: Callable[[Connection], None] | None = None
        """Is shown each connection before it is opened."""
        self._environ = environ
        self._lifeline = lifeline
        self._log = log
        self._refused: set[Era] = set()
        self._speaks_both = False
        self._legacy_sse = spec.transport is Transport.SSE
        self._pool = HttpPool(spec.url) if spec.url else None

    async def open(
        self,
        want: Era,
        timeout: float,
        on_message: Callable[[Connection, Shallow], None],
        on_lost: Callable[[Connection, str], None],
        existing: Connection | None = None,
    ) -> Connection:
        """A connection in the wanted era, or in the other one where the server does not speak it.

        :param existing: a live connection, returned where the server has no better one to offer.
        :raises UpstreamError: none could be opened.
        """
        if self.spec.transport is Transport.STDIO:
            return await self._open_stdio(want, timeout, on_message, on_lost, existing)
        if self._legacy_sse:
            return await self._open(self._sse, timeout, on_message, on_lost)
        if want is Era.HANDSHAKE and not self._refused:
            found = await self._probe(timeout, on_message, on_lost, existing)
            if found is not None:
                return found
        other = Era.STATELESS if want is Era.HANDSHAKE else Era.HANDSHAKE
        for era in (want, other):
            if era in self._refused:
                continue
            try:
                return await self._open(self._http(era), timeout, on_message, on_lost)
            except WrongEraError:
                self._refused.add(era)
            except NotStreamableError as error:
                try:
                    connection = await self._open(self._sse, timeout, on_message, on_lost)
                except UpstreamUnavailable:
                    raise
                except UpstreamError:
                    raise error from None
                self._legacy_sse = True
                return connection
        raise UpstreamUnavailable(
            f"Server '{self.spec.name}' accepts no protocol version that we speak.", "Update the server."
        )

    async def _probe(
        self,
        timeout: float,
        on_message: Callable[[Connection, Shallow], None],
        on_lost: Callable[[Connection, str], None],
        existing: Connection | None,
    ) -> Connection | None:
        """A stateless connection where the server has nothing else to offer.

        A server whose eras are not known is asked in the later one first (2026-07-28, Versioning:
        Backward Compatibility): one that has it alone need not make sense of ``initialize``.
        """
        if existing is None:
            if self._speaks_both:
                return None
            try:
                found = await self._open(self._http(Era.STATELESS), timeout, on_message, on_lost)
            except WrongEraError:
                self._refused.add(Era.STATELESS)
                return None
        else:
            found = existing
        assert found.peer is not None
        if found.peer.era is Era.STATELESS and not set(protocol.HANDSHAKE_VERSIONS) & set(
            found.peer.versions
        ):
            self._refused.add(Era.HANDSHAKE)
            return found
        self._speaks_both = True
        if found is not existing:
            await found.close()
        return None

    async def _open_stdio(
        self,
        want: Era,
        timeout: float,
        on_message: Callable[[Connection, Shallow], None],
        on_lost: Callable[[Connection, str], None],
        existing: Connection | None,
    ) -> Connection:
        """One process per era: a server speaks on its stdin what its first message was in."""
        if existing is not None and (want in self._refused or await _speaks_one_era(existing)):
            self._refused.add(want)
            return existing
        first = Era.HANDSHAKE if want in self._refused else want
        try:
            connection = await self._open(self._stdio(first), timeout, on_message, on_lost)
        except WrongEraError:
            self._refused.add(want)
            if existing is not None:
                return existing
            connection = await self._open(self._stdio(Era.HANDSHAKE), timeout, on_message, on_lost)
        if connection.peer is not None and connection.peer.era is not want:
            self._refused.add(want)
        return connection

    async def _open(
        self,
        make: Callable[[Callable[[Shallow], None], Callable[[str], None]], Connection],
        timeout: float,
        on_message: Callable[[Connection, Shallow], None],
        on_lost: Callable[[Connection, str], None],
    ) -> Connection:
        connection = make(
            lambda message: on_message(connection, message), lambda reason: on_lost(connection, reason)
        )
        if self.prepare is not None:
            self.prepare(connection)
        await connection.open(timeout)
        return connection

    def _stdio(self, era: Era) -> Callable[[Callable[[Shallow], None], Callable[[str], None]], Connection]:
        return lambda on_message, on_lost: StdioConnection(
            self.spec.name,
            era,
            [find_executable(self.spec, self._environ), *self.spec.args],  # what runs is what was approved
            child_environment(self.spec, self._environ),
            self.spec.cwd,
            self._lifeline,
            self._log,
            on_message,
            on_lost,
        )

    def _http(self, era: Era) -> Callable[[Callable[[Shallow], None], Callable[[str], None]], Connection]:
        assert self.spec.url is not None
        assert self._pool is not None
        url, pool = self.spec.url, self._pool
        return lambda on_message, on_lost: HttpUpstream(
            self.spec.name, url, self.spec.headers, era, on_message, on_lost, pool
        )

    def _sse(self, on_message: Callable[[Shallow], None], on_lost: Callable[[str], None]) -> Connection:
        assert self.spec.url is not None
        assert self._pool is not None
        return SseUpstream(self.spec.name, self.spec.url, self.spec.headers, on_message, on_lost, self._pool)

    def close(self) -> None:
        """Drop what is pooled; the connections themselves are closed by their owner."""
        if self._pool is not None:
            self._pool.close()


async def _speaks_one_era(connection: Connection) -> bool:
    """Whether a running server certainly has no other era to offer.

    One of 2026-07-28 has said which versions it supports. One of the handshake era, asked for
    ``server/discover``, which every 2026-07-28 server implements, says that it does not know the
    method. Anything else is worth a process of its own to find out.
    """
    assert connection.peer is not None
    if connection.peer.era is Era.STATELESS:
        return not set(protocol.HANDSHAKE_VERSIONS) & set(connection.peer.versions)
    try:
        params: Shallow = {"_meta": jsonrpc.raw(dict(stateless_meta()))}
        reply = await connection.request("server/discover", params, timeout=PROBE_TIMEOUT)
    except UpstreamError:
        return True
    return jsonrpc.error_code(reply.error) == protocol.METHOD_NOT_FOUND
