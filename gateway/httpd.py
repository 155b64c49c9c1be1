"""Our HTTP server: uvicorn on sockets of ours, with limits it does not set itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import StateError

log = logging.getLogger("toolyard")

MAX_HEADER_BYTES: Final = 64 * 1024
HEADER_TIMEOUT: Final = 30.0
"""Seconds a connection has to send the head of a request, the first one counted from its start."""
BODY_TIMEOUT: Final = 60.0
"""Seconds the body of a request may take to arrive."""
KEEP_ALIVE: Final = 75
COPY_LIMIT: Final = 64 * 1024
"""Bytes of a body up to which joining it to its head costs less than a second write."""
MAX_CONNECTIONS: Final = 4096
DESCRIPTORS: Final = 2 * MAX_CONNECTIONS
"""File descriptors to ask the system for; connections may use half of what it gives."""
GRACE: Final = 1
"""Seconds that requests in flight may take when the gateway ends."""


_most_connections = MAX_CONNECTIONS


def raise_descriptor_limit() -> None:
    """Use as many file descriptors as the system allows, up to what we can need.

    Systems start programs with 256 or 1024, which clients that only connect would use up; the
    servers behind us would then be out of reach.
    """
    global _most_connections
    if os.name != "posix":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError) as error:
            log.info("the limit on open files stays at %d: %s", soft, error)
    if soft != resource.RLIM_INFINITY:
        _most_connections = max(16, soft // 2)


class CorkedTransport:
    """Sends the head of a response together with the first of its body.

    uvicorn writes them apart, which costs a system call here and a wake-up of the client, for every
    answer. Everything else goes straight to the transport.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, or keep the head of a response for the write that follows it at once."""
        if self._head:
            head, self._head = self._head, b""
            if len(data) > COPY_LIMIT:
                self._transport.write(head)
            else:
                data = head + data
        elif (
            data.startswith(b"HTTP/1.1 ")
            and data.endswith(b"\r\n\r\n")
            and not data.startswith(b"HTTP/1.1 1")
        ):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send what is kept: the response has no body (to HEAD, for one)."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what is kept, then close."""
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits on the size of a head and on the time a request may take.

    A request that arrives in one piece, as nearly all do, starts no timer.
    """

    _head_bytes = 0
    _in_head = False
    _arriving = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > min(MAX_CONNECTIONS, _most_connections):
            transport.close()
            return
        self.transport = cast(asyncio.Transport, CorkedTransport(transport))
        self._timer = self.loop.call_later(HEADER_TIMEOUT, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._arriving and self._timer is None:
            limit = HEADER_TIMEOUT if self._in_head else BODY_TIMEOUT
            self._timer = self.loop.call_later(limit, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._arriving = self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._bounded(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._bounded(len(name) + len(value))
        super().on_header(name, value)

    def _bounded(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES:
            raise ValueError("the head of the request is too large")  # becomes a 400 and a closed connection

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._arriving = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        cast(CorkedTransport, self.transport).flush()
        super().on_response_complete()


class HttpServer(uvicorn.Server):
    """A uvicorn server that leaves signals to its owner."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @classmethod
    def of(cls, app: Any) -> HttpServer:
        """A server for an ASGI app, quiet and without lifespan."""
        return cls(
            uvicorn.Config(
                app,
                http=BoundedProtocol,
                ws="none",
                loop="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=GRACE,
            )
        )


def listen_tcp(host: str, port: int, *, fall_back: bool = False) -> socket.socket:
    """A listening socket.

    :param fall_back: take any free port where this one is in use.
    :raises StateError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP: the standard event loop sets TCP_NODELAY only on connections of which it knows that.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            if not fall_back:
                raise
            sock.bind((host, 0))
        sock.listen(1024)
        sock.setblocking(False)
        return sock
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StateError(
            f"Cannot listen on {host} port {port}: {reason}.",
            "Choose another with --port, or --port 0 for any.",
        ) from None


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only its owner can reach (0600). Raises StateError.

    The caller holds the lock of the state directory, so a socket file that exists is a leftover.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(mask)
        sock.listen(256)
        sock.setblocking(False)
        return sock
    except OSError as error:
        sock.close()
        raise StateError(
            f"Cannot listen on {path}: {error.strerror or error}.", "Choose another --state-dir."
        ) from None
