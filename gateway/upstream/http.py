"""A streamable HTTP server, in either era, over pooled keep-alive connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit

from gateway import jsonrpc, protocol
from gateway.errors import UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream import aside, base
from gateway.upstream.base import Connection
from gateway.upstream.call import CallSite, PendingCall, Reply
from gateway.upstream.exchange import (
    ListenExchange,
    NeedsLoginError,
    NotifyExchange,
    NotStreamableError,
    PostExchange,
    SessionLostError,
    request_head,
    target,
)
from gateway.upstream.http1 import HttpPool
from gateway.upstream.listening import RETRY, NoStream
from gateway.upstream.mirror import header_value
from gateway.upstream.peer import (
    Peer,
    WrongEraError,
    initialize_params,
    peer_from_discover,
    peer_from_initialize,
    stateless_meta,
    supported_versions,
)

log = logging.getLogger("toolyard.upstream")

_NAMED: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}
DRAIN: Final = 5.0
"""Seconds a server may keep a stream open after the answer on it."""
RESUMES: Final = 8
"""Attempts in a row, without one new event, to go on with a call's stream."""
RESUME_PAUSE: Final = (1.0, 30.0)
"""Seconds before an attempt where the server names none, and at most."""


class HttpUpstream(Connection):
    """One handshake-era session, or the stateless era, with a streamable HTTP server."""

    def __init__(
        self,
        server: str,
        url: str,
        headers: Mapping[str, str],
        era: Era,
        on_message: Callable[[Shallow], None],
        on_lost: Callable[[str], None],
        pool: HttpPool,
    ) -> None:
        super().__init__(server, on_message, on_lost)
        self._url = url
        self._own_headers = dict(headers)
        self._era = era
        self._pool = pool
        self._session: str | None = None
        self._reading: asyncio.Task[None] | None = None
        self._aside = aside.Aside(server, self._post)
        self._calls: set[PendingCall] = set()
        self._resumed: dict[PendingCall, PostExchange] = {}
        self._resumes: set[asyncio.Task[None]] = set()
        self._closed = False
        self._head = b""
        self._set_head({})

    def _set_head(self, fields: dict[str, str]) -> None:
        try:
            self._head = request_head(
                self._pool,
                target(self._url),
                {**self._own_headers, "Content-Type": "application/json", **fields},
                "application/json, text/event-stream",
            )
        except ValueError as error:
            raise UpstreamUnavailable(
                f"Server '{self.server}': {error}.", "Correct its URL or headers."
            ) from None
        self._fields = fields

    @property
    def calls(self) -> Collection[PendingCall]:
        return self._calls

    @property
    def asking(self) -> bool:
        return False  # the stream on which a request comes says whose it is

    async def open(self, timeout: float) -> Peer:
        try:
            async with asyncio.timeout(timeout):
                self.peer = await (self._initialize() if self._era is Era.HANDSHAKE else self._discover())
            if self._era is Era.STATELESS:
                await self._start_listening(self._listen)
            else:
                self._reading = asyncio.create_task(self._read_notices(), name=f"listen {self.server}")
        except TimeoutError:
            await self.close()
            raise UpstreamUnavailable(
                f"Server '{self.server}' did not finish its handshake within {timeout:g} s.",
                "Check that the server is healthy.",
            ) from None
        except BaseException:
            await self.close()
            raise
        return self.peer

    async def _initialize(self) -> Peer:
        exchange, reply = await self._first("initialize", initialize_params(self.declared), b"")
        if reply is None or reply.result is None:
            error = reply.error if reply else None
            if jsonrpc.error_code(error) in protocol.MODERN_ERRORS or _names_modern_version(error):
                raise WrongEraError(f"Server '{self.server}' speaks {protocol.LATEST_STATELESS} only.")
            if exchange.status in (400, 404, 405):
                raise NotStreamableError(
                    f"Server '{self.server}' answered HTTP {exchange.status} to initialize.",
                    "Check the path of its URL.",
                )
            if reply is None:
                raise exchange.refusal()
        peer = peer_from_initialize(self.server, reply)
        session = exchange.headers.get(b"mcp-session-id")
        self._session = session.decode("latin-1") if session else None
        fields = {"MCP-Protocol-Version": peer.protocol_version}
        if self._session:
            fields["Mcp-Session-Id"] = self._session
        self._set_head(fields)
        await self.notify("notifications/initialized")
        return peer

    async def _discover(self) -> Peer:
        self._set_head({"MCP-Protocol-Version": protocol.LATEST_STATELESS})
        params = {"_meta": jsonrpc.raw(dict(stateless_meta()))}
        for _ in range(2):
            _, reply = await self._first("server/discover", params, b"Mcp-Method: server/discover\r\n")
            # "retries with a supported version", which may be the one that was refused just now
            if reply is None or protocol.LATEST_STATELESS not in supported_versions(reply.error):
                break
        peer = peer_from_discover(self.server, reply) if reply is not None else None
        if peer is None:
            raise WrongEraError(f"Server '{self.server}' does not speak {protocol.LATEST_STATELESS}.")
        return peer

    async def _first(self, method: str, params: Shallow, extra: bytes) -> tuple[PostExchange, Reply | None]:
        """The opening request: follows redirects of the same origin, reports status and reply."""
        for _ in range(4):
            call = PendingCall(self.new_id(), 60.0, None, None, f"{method} on server '{self.server}'")
            exchange = PostExchange(call, self._on_server_message)
            try:
                await self._send(exchange, jsonrpc.request(call.ident, method, jsonrpc.encode(params)), extra)
                return exchange, await call.wait()
            except NeedsLoginError:
                raise
            except UpstreamProtocolError:
                location = exchange.headers.get(b"location", b"").decode("latin-1")
                if exchange.status in (301, 302, 307, 308) and location:
                    self._follow(location)
                    continue
                return exchange, None
            finally:
                call.settle()
                exchange.abandon()
        raise UpstreamProtocolError(f"Server '{self.server}' redirects in a circle.", "Correct its URL.")

    def _follow(self, location: str) -> None:
        url = urljoin(self._url, location)
        was, now = urlsplit(self._url), urlsplit(url)
        if (was.scheme, was.netloc) != (now.scheme, now.netloc):
            raise UpstreamProtocolError(
                f"Server '{self.server}' redirects to another origin, {now.scheme}://{now.netloc}.",
                "Use that URL if you trust it; credentials are never sent along a redirect.",
            )
        self._url = url
        self._set_head(self._fields)

    async def _send(
        self, exchange: PostExchange, body: bytes, extra: bytes = b"", verb: bytes = b"POST"
    ) -> None:
        connection = self._pool.try_acquire() or await self._pool.acquire()
        exchange.connection = connection
        connection.send(
            b"%b %b%bContent-Length: %d\r\n\r\n%b" % (verb, self._head, extra, len(body), body), exchange
        )

    async def request(
        self,
        method: str,
        params: Shallow,
        *,
        timeout: float,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> Reply:
        ident = self.new_id()
        data, token = self.prepare(params, ident)
        headers = self._mirrored(method, params) + headers if self._era is Era.STATELESS else b""
        session = self._session
        call = PendingCall(ident, timeout, site, token, f"{method} on server '{self.server}'")
        exchange = PostExchange(call, self._on_server_message)
        if self._era is Era.HANDSHAKE:
            exchange.on_broken = partial(self._resume_later, call, RESUMES)
        self._calls.add(call)
        try:
            await self._send(exchange, jsonrpc.request(ident, method, data), headers)
            reply = await call.wait()
            self._attribution.answered(call)
        except (asyncio.CancelledError, UpstreamError) as error:
            self._attribution.given_up(call)
            if exchange.status == 404 and session is not None and isinstance(error, UpstreamProtocolError):
                self._session_lost()
            resumed = self._resumed.get(call)
            if exchange.connection is not None and (not exchange.complete or resumed is not None):
                exchange.abandon()
                if self._era is Era.HANDSHAKE:
                    self._cancel_upstream(ident)
            raise
        finally:
            call.settle()
            self._calls.discard(call)
            if (resumed := self._resumed.pop(call, None)) is not None:
                resumed.abandon()
        if not exchange.complete and exchange.connection is not None:
            exchange.connection.end_within(DRAIN)
        if exchange.status == 404 and session is not None and reply.error is not None:
            self._session_lost()
        if reply.error is not None and self._era is Era.STATELESS:
            self._check_version(reply.error)
        return reply

    def _check_version(self, error: Raw) -> None:
        """A server that has come to speak another version is asked anew what it speaks.

        Raises SessionLostError: the request was refused, hence not executed.
        """
        if jsonrpc.error_code(error) == protocol.UNSUPPORTED_PROTOCOL_VERSION:
            reason = f"Server '{self.server}' does not speak {protocol.LATEST_STATELESS} any more."
            self._lose(reason)
            raise SessionLostError(reason, "Try again.")

    def _resume_later(
        self, call: PendingCall, tries: int, last_id: bytes, retry_ms: int | None, of_its_own: bool
    ) -> None:
        """Ask for the rest of a call's stream after the pause the server wants (SEP-1699)."""
        if self._closed or not tries:
            call.fail(UpstreamUnavailable(f"Server '{self.server}' broke the stream of its answer."))
            return
        if of_its_own and call.site is not None:
            call.site.polled(retry_ms)
        pause = min(RESUME_PAUSE[1], RESUME_PAUSE[0] if retry_ms is None else retry_ms / 1000)

        async def resume() -> None:
            await asyncio.sleep(pause)
            if call.future.done():
                return
            exchange = self._resumed[call] = PostExchange(call, self._on_server_message)
            exchange.on_broken = lambda last, retry, own: self._resume_later(
                call,
                RESUMES if last != last_id else tries - 1,
                last,
                retry_ms if retry is None else retry,
                own,
            )
            fields = {**self._own_headers, **self._fields, "Last-Event-ID": last_id.decode("latin-1")}
            try:
                head = request_head(self._pool, target(self._url), fields, "text/event-stream")
                exchange.connection = await self._pool.acquire()
                exchange.connection.send(b"GET " + head + b"\r\n", exchange)
            except UpstreamError as error:
                log.debug("going on with a stream of server '%s': %s", self.server, error)
                self._resume_later(call, tries - 1, last_id, retry_ms, False)
            except ValueError as error:
                call.fail(UpstreamProtocolError(f"Server '{self.server}' gave a bad event id: {error}."))

        def ended(task: asyncio.Task[None]) -> None:
            self._resumes.discard(task)
            if task.cancelled():
                call.fail(UpstreamUnavailable(f"The connection to server '{self.server}' was closed."))

        task = asyncio.create_task(resume(), name=f"resume {self.server}")
        self._resumes.add(task)
        task.add_done_callback(ended)

    def _session_lost(self) -> None:
        """What HTTP 404 means while we hold a session. The request was not executed."""
        reason = f"Server '{self.server}' has lost our session."
        self._session = None
        self._lose(reason)
        raise SessionLostError(reason, "Try again.")

    def _mirrored(self, method: str, params: Shallow) -> bytes:
        """The headers that repeat parts of the body (2026-07-28, Standard Request Headers)."""
        lines = f"Mcp-Method: {method}\r\n"
        if (field := _NAMED.get(method)) and (name := jsonrpc.text(params.get(field))) is not None:
            lines += f"Mcp-Name: {header_value(name)}\r\n"
        return lines.encode()

    def _cancel_upstream(self, ident: int) -> None:
        """Say that nobody waits for this request any more; there is nobody to tell if it fails."""
        params = jsonrpc.encode({"requestId": ident, "reason": "cancelled by the caller"})
        self._aside.post(jsonrpc.notification("notifications/cancelled", params))

    async def notify(self, method: str, params: Shallow | None = None) -> None:
        body = jsonrpc.notification(method, jsonrpc.encode(params) if params is not None else None)
        await self._deliver(b"POST", body, 30.0)

    async def _post(self, body: bytes) -> None:
        await self._deliver(b"POST", body, aside.SECONDS)

    async def _deliver(self, verb: bytes, body: bytes, timeout: float) -> None:
        """Send what has no answer but a status. Raises UpstreamError."""
        call = PendingCall(0, timeout, None, None, f"A message to server '{self.server}'")
        exchange = NotifyExchange(call, self._on_server_message)
        try:
            await self._send(exchange, body, verb=verb)
            await call.wait()
        finally:
            call.settle()
            exchange.abandon()

    def _on_server_message(self, message: Shallow, call: PendingCall | None) -> None:
        if "id" in message:  # the answer to the server's request is a POST of its own
            known = call is not None and call.site is not None
            self.serve(message, self._aside.post, call if known else None)
        elif jsonrpc.text(message["method"]) == "notifications/cancelled":
            self.withdraw(message)
        else:
            self.notice(message)

    async def _read_notices(self) -> None:
        """Keep the GET stream open on which a handshake-era server tells of changes, with back-off."""
        pause, longest = RETRY
        opened, last_id = False, b""
        while not self._closed:
            fields = {**self._own_headers, **self._fields}
            if last_id:  # 2025-11-25, Resumability and Redelivery
                fields["Last-Event-ID"] = last_id.decode("latin-1")
            head = request_head(self._pool, target(self._url), fields, "text/event-stream")
            exchange = ListenExchange(self._notices_call(self.new_id()), self._on_server_message)
            if opened and not last_id:
                exchange.on_open = self._missed
            try:
                await self._hold(exchange, b"GET " + head + b"\r\n")
            except UpstreamError as error:
                log.debug("notification stream of %s: %s", self.server, error)
            if exchange.status == 404 and self._session:
                self._lose(f"Server '{self.server}' has lost our session.")
                return
            if 400 <= exchange.status < 500:
                return  # 405 and the like: the server offers no such stream
            opened = opened or exchange.status == 200
            last_id = exchange.last_id or last_id
            pause = RETRY[0] if exchange.lively else min(pause * 2, longest)
            await asyncio.sleep(min(exchange.retry or pause, longest))

    def _notices_call(self, ident: int) -> PendingCall:
        return PendingCall(ident, base.FOR_EVER, None, None, "notifications")

    async def _hold(self, exchange: ListenExchange, request: bytes) -> Reply:
        """Send a request and read its stream to the end. Raises UpstreamError."""
        call = exchange.call
        assert call is not None
        try:
            connection = await self._pool.acquire()
            exchange.connection = connection
            connection.send(request, exchange)
            return await call.wait()
        finally:
            call.settle()
            exchange.abandon()

    async def _listen(self, ident: int, params: Shallow) -> Reply:
        body = jsonrpc.request(ident, "subscriptions/listen", jsonrpc.encode(params))
        head = self._head + b"Mcp-Method: subscriptions/listen\r\n"
        request = b"POST " + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        exchange = ListenExchange(self._notices_call(ident), self._on_server_message)
        try:
            return await self._hold(exchange, request)
        except UpstreamError as error:
            if 400 <= exchange.status < 500:
                raise NoStream(f"Server '{self.server}' answers HTTP {exchange.status}.") from error
            raise

    def _lose(self, reason: str) -> None:
        if not self._closed:
            # The server refuses each call in flight by itself, which proves that it was not executed.
            self._closed = True
            self._aside.stop()
            self._on_lost(reason)

    async def close(self) -> None:
        self._closed = True
        self._attribution.close()
        if self._listening is not None:
            await self._listening.close()
        await self._aside.close()
        tasks = [*self._resumes, *([self._reading] if self._reading is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._end_session()

    async def _end_session(self) -> None:
        """DELETE the session, as a good guest; a server that is gone needs no good-bye."""
        try:
            async with asyncio.timeout(1.0):
                await self._deliver(b"DELETE", b"", 1.0)
        except (UpstreamError, TimeoutError) as error:
            log.debug("ending the session with %s: %s", self.server, error)


def _names_modern_version(error: Raw | None) -> bool:
    # "servers SHOULD name the protocol versions they support in any error to initialize"
    return error is not None and protocol.LATEST_STATELESS.encode() in bytes(error)
