"""A server of the deprecated HTTP+SSE transport (2024-11-05): POSTs out, one long GET stream in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from urllib.parse import urljoin, urlsplit

from gateway import jsonrpc
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.upstream.aside import Aside
from gateway.upstream.base import MAX_MESSAGE
from gateway.upstream.call import CallSite, PendingCall, Reply
from gateway.upstream.eventstream import EventStream
from gateway.upstream.exchange import NeedsLoginError, NotifyExchange, request_head, target
from gateway.upstream.http1 import Exchange, HttpConnection, HttpPool
from gateway.upstream.onestream import OneStreamConnection
from gateway.upstream.peer import Peer, initialize_params, peer_from_initialize

log = logging.getLogger("toolyard.upstream")


class SseUpstream(OneStreamConnection):
    """Answers arrive on the GET stream; each request is a POST to the endpoint that stream named."""

    def __init__(
        self,
        server: str,
        url: str,
        headers: Mapping[str, str],
        on_message: Callable[[Shallow], None],
        on_lost: Callable[[str], None],
        pool: HttpPool,
    ) -> None:
        super().__init__(server, on_message, on_lost)
        self._url = url
        self._headers = dict(headers)
        self._pool = pool
        self._endpoint: asyncio.Future[str] | None = None
        self._head = b""
        self._stream: HttpConnection | None = None
        self._aside = Aside(server, self._post)
        self._closed = False

    async def open(self, timeout: float) -> Peer:
        loop = asyncio.get_running_loop()
        self._endpoint = loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                self._stream = await self._pool.acquire()
                head = request_head(self._pool, target(self._url), self._headers, "text/event-stream")
                self._stream.send(b"GET " + head + b"\r\n", _Stream(self))
                path = await self._endpoint
                headers = {**self._headers, "Content-Type": "application/json"}
                self._head = request_head(self._pool, path, headers, "application/json, text/event-stream")
                reply = await self.request("initialize", initialize_params(self.declared), timeout=timeout)
                self.peer = peer_from_initialize(self.server, reply)
                await self.notify("notifications/initialized")
            return self.peer
        except TimeoutError:
            await self.close()
            raise UpstreamUnavailable(
                f"Server '{self.server}' did not finish its HTTP+SSE handshake within {timeout:g} s."
            ) from None
        except BaseException:
            await self.close()
            raise

    def stream_opened(self, status: int, content_type: bytes) -> None:
        """The head of the GET stream's response."""
        if status in (401, 403):
            self.stream_ended(NeedsLoginError(f"The server answered HTTP {status}.", "Give it a credential."))
        elif status != 200 or not content_type.lower().startswith(b"text/event-stream"):
            self.stream_ended(
                UpstreamProtocolError(
                    f"Server '{self.server}' speaks neither streamable HTTP nor HTTP+SSE (HTTP {status}).",
                    "Check the path of its URL.",
                )
            )

    def event(self, event: bytes, data: bytes, last_id: bytes) -> None:
        """One event of the GET stream."""
        if event == b"endpoint":
            self._take_endpoint(data.decode(errors="replace").strip())
            return
        try:
            messages = jsonrpc.parse(data)
        except RpcError:
            return
        for message in messages if isinstance(messages, list) else [messages]:
            self._message(message)

    def _take_endpoint(self, location: str) -> None:
        assert self._endpoint is not None
        url = urljoin(self._url, location)
        was, now = urlsplit(self._url), urlsplit(url)
        if self._endpoint.done():
            return
        if (was.scheme, was.netloc) != (now.scheme, now.netloc):
            # "the endpoint origin must match the connection origin": credentials go there
            self._endpoint.set_exception(
                UpstreamProtocolError(
                    f"Server '{self.server}' names an endpoint on another origin, {now.netloc}."
                )
            )
        else:
            self._endpoint.set_result(target(url))

    def _message(self, message: Shallow) -> None:
        self._take(message, self._aside.post)

    def abort(self) -> None:
        """Drop the GET stream."""
        if self._stream is not None:
            self._stream.abort()

    def stream_ended(self, reason: Exception) -> None:
        """The GET stream is gone, and every answer with it."""
        self._attribution.close()
        if self._endpoint is not None and not self._endpoint.done():
            self._endpoint.set_exception(reason)
        for call in list(self._pending.values()):
            call.fail(reason)
        if not self._closed and self.peer is not None:
            self._closed = True
            self._aside.stop()
            self._on_lost(str(reason))

    async def request(
        self,
        method: str,
        params: Shallow,
        *,
        timeout: float,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> Reply:
        if self._closed:
            raise UpstreamUnavailable(f"The stream of server '{self.server}' has ended.", "Try again.")
        ident = self.new_id()
        data, token = self.prepare(params, ident)
        what = f"{method} on server '{self.server}'"
        call = PendingCall(ident, timeout, site, token, what, params.get("name"))
        self._pending[ident] = call
        try:
            await self._post(jsonrpc.request(ident, method, data))
            reply = await call.wait()
            self._attribution.answered(call)
            return reply
        except (asyncio.CancelledError, UpstreamError):
            self._attribution.given_up(call)
            if not self._closed and method != "initialize":
                cancelled = jsonrpc.encode({"requestId": ident, "reason": "cancelled by the caller"})
                self._aside.post(jsonrpc.notification("notifications/cancelled", cancelled))
            raise
        finally:
            call.settle()
            self._pending.pop(ident, None)

    async def notify(self, method: str, params: Shallow | None = None) -> None:
        await self._post(jsonrpc.notification(method, jsonrpc.encode(params) if params is not None else None))

    async def _post(self, body: bytes) -> None:
        posted = PendingCall(0, 30.0, None, None, f"a message to server '{self.server}'")
        exchange = NotifyExchange(posted, lambda message, call: self._message(message))
        try:
            connection = self._pool.try_acquire() or await self._pool.acquire()
            exchange.connection = connection
            connection.send(
                b"POST " + self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body, exchange
            )
            await posted.wait()
        finally:
            posted.settle()
            exchange.abandon()

    async def close(self) -> None:
        self._closed = True
        await self._aside.close()
        self.abort()
        self.stream_ended(UpstreamUnavailable(f"The connection to server '{self.server}' was closed."))


class _Stream(Exchange):
    def __init__(self, upstream: SseUpstream) -> None:
        self._upstream = upstream
        self._events = EventStream(upstream.event, MAX_MESSAGE)

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._upstream.stream_opened(status, headers.get(b"content-type", b""))

    def data(self, chunk: bytes) -> None:
        try:
            self._events.feed(chunk)
        except OverflowError as error:
            self._upstream.stream_ended(
                UpstreamProtocolError(f"The server's stream cannot be read: {error}.")
            )
            self._upstream.abort()

    def end(self) -> None:
        self._upstream.stream_ended(UpstreamUnavailable("The server closed its event stream."))

    def lost(self, reason: Exception) -> None:
        self._upstream.stream_ended(reason)
