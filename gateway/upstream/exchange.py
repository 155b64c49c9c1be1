"""What comes back for one HTTP request: an answer, a stream that ends in one, or a refusal."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from gateway import jsonrpc
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.upstream.base import MAX_MESSAGE
from gateway.upstream.call import PendingCall
from gateway.upstream.eventstream import EventStream
from gateway.upstream.http1 import Exchange, HttpConnection, HttpPool

log = logging.getLogger("toolyard.upstream")

_OF_A_CALL: Final = frozenset({"notifications/progress", "notifications/message"})
"""Notifications that a server sends on a call's stream because of that call; others are for everybody."""
Aside: TypeAlias = Callable[[Shallow, PendingCall | None], None]
"""Takes a message that answers nothing, with the call whose response it came in."""
Broken: TypeAlias = Callable[[bytes, int | None, bool], None]
"""Takes the last event id of a stream that ended before the answer, its retry time, and whether the
server ended it of its own accord."""


class NotStreamableError(UpstreamProtocolError):
    """The URL does not speak streamable HTTP (400, 404 or 405 with no modern error): try HTTP+SSE."""


class SessionLostError(UpstreamUnavailable):
    """The server answered 404 to our session (2025-11-25, Session Management): initialize again."""


class NeedsLoginError(UpstreamUnavailable):
    """The server answered 401 or 403."""

    kind = "needs_login"
    retriable = False


def request_head(pool: HttpPool, path: str, headers: Mapping[str, str], accept: str) -> bytes:
    """The part of a request's head that is the same for every call. Raises ValueError on CR or LF."""
    lines = [f"Host: {pool.authority}", f"Accept: {accept}", "User-Agent: toolyard"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = f"{path} HTTP/1.1\r\n" + "".join(line + "\r\n" for line in lines)
    if any("\r" in line or "\n" in line for line in lines) or "\n" in path or " " in path:
        raise ValueError("a header or the path contains a line break or a space")
    return text.encode("latin-1")


def target(url: str) -> str:
    """Path and query of a URL, for the request line."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class PostExchange(Exchange):
    """Consumes the response to one POST: a JSON body, or an event stream that ends in the answer."""

    __slots__ = (
        "_chunks",
        "_events",
        "_inflate",
        "_size",
        "call",
        "complete",
        "connection",
        "headers",
        "on_broken",
        "on_message",
        "status",
    )

    def __init__(self, call: PendingCall | None, on_message: Aside) -> None:
        self.call = call
        self.on_message = on_message
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.connection: HttpConnection | None = None
        self.complete = False
        self.on_broken: Broken | None = None
        self._events: EventStream | None = None
        self._inflate: zlib._Decompress | None = None
        self._chunks: list[bytes] = []
        self._size = 0

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status, self.headers = status, headers
        if status < 300 and headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            self._events = EventStream(self._event, MAX_MESSAGE)
        if headers.get(b"content-encoding", b"identity").lower() in (b"gzip", b"deflate"):
            self._inflate = zlib.decompressobj(wbits=47)

    def data(self, chunk: bytes) -> None:
        try:
            if self._inflate is not None:
                chunk = self._inflate.decompress(chunk, MAX_MESSAGE)
            if self._events is not None:
                self._events.feed(chunk)
                return
        except (OverflowError, zlib.error) as error:
            self._abort(UpstreamProtocolError(f"The server's answer cannot be read: {error}."))
            return
        self._size += len(chunk)
        if self._size > MAX_MESSAGE:
            self._abort(UpstreamProtocolError(f"The server's answer is larger than {MAX_MESSAGE >> 20} MiB."))
            return
        self._chunks.append(chunk)

    def _abort(self, reason: UpstreamError) -> None:
        self.abandon()
        self.lost(reason)

    def abandon(self) -> None:
        """Nobody wants the rest of this response."""
        if self.connection is not None and not self.complete:
            self.connection.abort()

    def _event(self, event: bytes, data: bytes, last_id: bytes) -> None:
        if not data or event != b"message":
            return
        try:
            messages = jsonrpc.parse(data)
        except RpcError:
            log.debug("skipped an event that is no JSON-RPC message")
            return
        for message in messages if isinstance(messages, list) else [messages]:
            self.message(message)

    def message(self, message: Shallow) -> None:
        """One JSON-RPC message of the stream."""
        if "method" not in message:
            if self.call is not None and self._is_answer(message):
                self.call.answer(message)
        elif self.call is not None and "id" not in message and jsonrpc.text(message["method"]) in _OF_A_CALL:
            self.call.notify(message)
        else:
            self.on_message(message, self.call)

    def _is_answer(self, message: Shallow) -> bool:
        """A result must name our request; an error may be unable to."""
        assert self.call is not None
        return "error" in message or (
            "result" in message and jsonrpc.number_of(message.get("id")) == self.call.ident
        )

    def body(self) -> bytes:
        """The body of a response that is no event stream."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def end(self) -> None:
        self.complete = True
        call = self.call
        if call is None or call.future.done():
            return
        if self._events is not None:
            if not self._goes_on(of_its_own=True):
                call.fail(UpstreamUnavailable("The server's event stream ended without an answer."))
            return
        try:
            message = jsonrpc.parse(self.body())
        except RpcError:
            message = {}
        if isinstance(message, dict) and self._is_answer(message):
            call.answer(message)
        elif isinstance(message, dict) and "result" in message:
            call.fail(UpstreamProtocolError("The server answered another request than it was sent."))
        else:
            call.fail(self.refusal())

    def refusal(self) -> UpstreamError:
        """Why a response is no answer."""
        excerpt = self.body()[:200].decode(errors="replace").strip()
        told = f": {excerpt}" if excerpt else ""
        if self.status in (401, 403):
            return NeedsLoginError(
                f"The server answered HTTP {self.status}{told}.",
                "Give it a credential: toolyard add NAME URL --header-env Authorization=VARIABLE.",
            )
        if self.status == 202:
            return UpstreamProtocolError("The server answered 202 Accepted to a request, without a result.")
        return UpstreamProtocolError(f"The server answered HTTP {self.status}{told}.")

    def lost(self, reason: Exception) -> None:
        self.complete = True
        if self.call is not None and (self.call.future.done() or not self._goes_on(of_its_own=False)):
            self.call.fail(reason)

    def _goes_on(self, of_its_own: bool) -> bool:
        """Whether the rest of a stream can be asked for (2025-11-25, Resumability and Redelivery)."""
        events = self._events
        if events is None or not events.last_id or self.on_broken is None:
            return False
        self.on_broken(events.last_id, events.retry_ms, of_its_own)
        return True


class NotifyExchange(PostExchange):
    """The response to a notification: any 2xx will do."""

    def end(self) -> None:
        self.complete = True
        assert self.call is not None
        if self.status < 300:
            self.call.answer({})
        else:
            self.call.fail(self.refusal())


class ListenExchange(PostExchange):
    """A stream of notifications, which is no answer to anything; an answer ends it."""

    lively = False
    on_open: Callable[[], None] | None = None

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        super().head(status, headers)
        if self._events is not None and self.on_open is not None:
            self.on_open()

    @property
    def last_id(self) -> bytes:
        """The id of the last event that had one (WHATWG HTML, 9.2.6)."""
        return self._events.last_id if self._events is not None else b""

    @property
    def retry(self) -> float | None:
        """Seconds the server wants to pass before the stream is opened again."""
        if self._events is None or self._events.retry_ms is None:
            return None
        return self._events.retry_ms / 1000

    def message(self, message: Shallow) -> None:
        self.lively = True
        if "method" in message:
            self.on_message(message, None)
        elif self.call is not None:
            self.call.answer(message)

    def end(self) -> None:
        self.complete = True
        if self.call is None or self.call.future.done():
            return
        if self._events is None and self.status:  # in place of a stream: an error, or nothing of use
            try:
                message = jsonrpc.parse(self.body())
            except RpcError:
                message = {}
            if isinstance(message, dict) and "method" not in message and self._is_answer(message):
                self.call.answer(message)
                return
        self.call.fail(UpstreamUnavailable("The stream of notifications ended."))
