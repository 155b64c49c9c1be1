"""A small HTTP/1.1 client on asyncio transports: pooled keep-alive connections, callbacks, no tasks.

Parsing is httptools (llhttp). A response is consumed by an ``Exchange`` in the parser's callbacks,
so that a call costs one future and no stream reader, and so that the tail of a response that has
already been answered drains by itself before its connection goes back to the pool.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

from gateway.errors import UpstreamTimeout, UpstreamUnavailable

CONNECT_TIMEOUT: Final = 10.0
# Servers close idle connections on their own (uvicorn and Node.js after 5 s, TLS front ends after a
# minute). A request that meets that close cannot be told from one that was executed, so stop using a
# connection a little before its server would drop it.
IDLE_PLAIN: Final = 4.0
IDLE_TLS: Final = 30.0
MAX_HEADER_BYTES: Final = 64 * 1024

_tls: ssl.SSLContext | None = None


def tls_context() -> ssl.SSLContext:
    """The one TLS context all connections share: reading the CA certificates takes tens of ms."""
    global _tls
    if _tls is None:
        _tls = ssl.create_default_context()
        _tls.set_alpn_protocols(["http/1.1"])
    return _tls


class Exchange:
    """Consumes one response. Subclasses override what they need; no method may block or raise."""

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers (names in lower case) have arrived."""

    def data(self, chunk: bytes) -> None:
        """A piece of the body has arrived."""

    def end(self) -> None:
        """The response is complete."""

    def lost(self, reason: Exception) -> None:
        """The connection ended before the response was complete."""


class HttpConnection(asyncio.Protocol):
    """One TCP (or TLS) connection, one exchange at a time."""

    __slots__ = (
        "_draining",
        "_exchange",
        "_header_bytes",
        "_headers",
        "_keep",
        "_parser",
        "_pool",
        "_transport",
        "idle_limit",
        "idle_since",
    )

    def __init__(self, pool: HttpPool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._keep = True
        self._draining: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        self.idle_limit = pool.idle_limit

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:  # nothing was asked: the next request must not take this for its answer
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(
                UpstreamUnavailable(f"The server at {self._pool.origin} answered no valid HTTP: {error}.")
            )

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        exchange, self._exchange, self._transport = self._exchange, None, None
        if self._draining is not None:
            self._draining.cancel()
        self._pool.forget(self)
        if exchange is None:
            return
        if exc is None and self._until_close():
            exchange.end()  # a body delimited by the end of the connection (RFC 9112, 6.3)
            return
        exchange.lost(
            UpstreamUnavailable(
                f"The server at {self._pool.origin} closed the connection before it answered"
                + (f" ({exc})." if exc else "."),
            )
        )

    def _until_close(self) -> bool:
        return bool(self._headers) and not (
            b"content-length" in self._headers or b"transfer-encoding" in self._headers
        )

    def pause_writing(self) -> None:
        """The body of one request fits the transport's buffer or waits there; requests are bounded."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._headers = {}
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._fail(
                UpstreamUnavailable(f"The server at {self._pool.origin} sent more than 64 KiB of headers.")
            )
            return
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # 100 Continue, 103 Early Hints
        self._keep = self._parser.should_keep_alive()
        if hint := self._headers.get(b"keep-alive"):
            for part in hint.split(b","):
                key, _, seconds = part.strip().partition(b"=")
                if key.lower() == b"timeout" and seconds.isdigit():
                    self.idle_limit = max(0.0, int(seconds) - 1.0)
        if self._exchange is not None:
            self._exchange.head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.data(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        exchange, self._exchange = self._exchange, None
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        if exchange is None:  # a second response to one request
            self.abort()
            return
        exchange.end()
        if self._keep and self._transport is not None:
            self._pool.release(self)
        else:
            self.abort()

    # used by the pool and by exchanges

    def send(self, request: bytes, exchange: Exchange) -> None:
        """Write a whole request and let ``exchange`` consume its response."""
        self._exchange = exchange
        self._headers = {}
        if self._transport is None or self._transport.is_closing():  # lost while its caller was not looking
            self._fail(UpstreamUnavailable(f"The server at {self._pool.origin} closed the connection."))
            return
        self._transport.write(request)

    def end_within(self, seconds: float) -> None:
        """The answer is there: what is left of its response has this long to arrive."""
        if self._exchange is not None and self._draining is None:
            self._draining = asyncio.get_running_loop().call_later(seconds, self.abort)

    @property
    def usable(self) -> bool:
        """Open, and idle for less long than its server keeps idle connections."""
        return (
            self._transport is not None
            and not self._transport.is_closing()
            and time.monotonic() - self.idle_since < self.idle_limit
        )

    def pause(self) -> None:
        """Stop reading until ``resume``: the consumer is behind."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again after ``pause``."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once; the exchange is told nothing more."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: Exception) -> None:
        exchange, self._exchange = self._exchange, None
        self.abort()
        if exchange is not None:
            exchange.lost(reason)


class HttpPool:
    """Keep-alive connections to one origin, last used first.

    :param url: http:// or https:// URL; only its origin is used.
    :param limit: connections open at a time; further requests wait their turn.
    """

    def __init__(self, url: str, limit: int = 256) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.secure = parts.scheme == "https"
        self.port = parts.port or (443 if self.secure else 80)
        self.authority = parts.netloc.rpartition("@")[2]
        self.origin = f"{parts.scheme}://{self.authority}"
        self.idle_limit = IDLE_TLS if self.secure else IDLE_PLAIN
        self._limit = limit
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._opening = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def try_acquire(self) -> HttpConnection | None:
        """An idle connection, or None when one has to be opened."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    async def acquire(self, timeout: float = CONNECT_TIMEOUT) -> HttpConnection:
        """An idle or a new connection. Raises UpstreamUnavailable, UpstreamTimeout."""
        connection = self.try_acquire()
        if connection is not None:
            return connection
        deadline = time.monotonic() + timeout
        while len(self._open) + self._opening >= self._limit:
            await self._turn(deadline)
            connection = self.try_acquire()
            if connection is not None:
                return connection
        if self._closed:
            raise UpstreamUnavailable(f"The connection to {self.origin} was closed.")
        return await self._connect(max(0.05, deadline - time.monotonic()))

    async def _turn(self, deadline: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await waiter
        except TimeoutError:
            raise UpstreamTimeout(
                f"All {self._limit} connections to {self.origin} are busy.",
                "Try again when calls have finished.",
            ) from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _connect(self, timeout: float) -> HttpConnection:
        self._opening += 1
        try:
            async with asyncio.timeout(timeout):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: HttpConnection(self),
                    self.host,
                    self.port,
                    ssl=tls_context() if self.secure else None,
                    server_hostname=self.host if self.secure else None,
                )
        except TimeoutError:
            raise UpstreamTimeout(
                f"Connecting to {self.origin} took longer than {timeout:.0f} s.",
                "Check that the server is up.",
            ) from None
        except ssl.SSLError as error:
            raise UpstreamUnavailable(
                f"TLS with {self.origin} failed: {error.reason or error}.", "Check the server's certificate."
            ) from None
        except OSError as error:
            raise UpstreamUnavailable(
                f"Cannot connect to {self.origin}: {error.strerror or error}.",
                "Check that the server is running and that the URL is right.",
            ) from None
        finally:
            self._opening -= 1
        self._open.add(connection)
        return connection

    def release(self, connection: HttpConnection) -> None:
        """Take a connection back whose response is complete."""
        if self._closed:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        self._wake()

    def forget(self, connection: HttpConnection) -> None:
        """A connection has ended."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """Drop every connection; whoever still waits on one is told."""
        self._closed = True
        self._idle.clear()
        for connection in list(self._open):
            connection._fail(UpstreamUnavailable(f"The connection to {self.origin} was closed."))
        while self._waiters:
            self._wake()
