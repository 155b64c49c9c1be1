"""The fixture server over streamable HTTP, an ASGI application: both eras at one path."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
from typing import Any
from urllib.parse import urlsplit

import tools
from rpc import HANDSHAKE, META, STATELESS, RpcError, dumps, end
from server import Listener, Server, Session

MODERN = {-32020, -32021, -32022}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
LOCAL = {"localhost", "127.0.0.1", "::1"}
RETRY = 100
"""Milliseconds after which a client may come back to a stream that was closed."""
LAST = None


class Stream:
    """Messages on their way to one reader at a time, kept for one that comes back (2025-11-25, Resumability)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[dict[str, Any] | None] = []
        self.broken = False
        self._news = asyncio.Event()

    def send(self, message: dict[str, Any] | None) -> None:
        """Queue a message; None ends the stream."""
        self.messages.append(message)
        self._news.set()

    def interrupt(self) -> None:
        """Have the reader's response end, although there is more to come."""
        self.broken = True
        self._news.set()

    async def write(self, send: Any, after: int, prime: bool) -> None:
        """Write what comes after this place to a response whose head was sent."""
        self.broken = False
        if prime:
            await _chunk(send, f"id: {self.name}:{after}\nretry: {RETRY}\ndata: \n\n")
        for place in itertools.count(after):
            while place >= len(self.messages):
                if self.broken:
                    await send({"type": "http.response.body", "body": b""})
                    return
                self._news.clear()
                await self._news.wait()
            message = self.messages[place]
            if message is LAST:
                await send({"type": "http.response.body", "body": b""})
                return
            await _chunk(send, f"event: message\nid: {self.name}:{place + 1}\ndata: {dumps(message)}\n\n")


class Http:
    """ASGI application."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sessions: dict[str, tuple[Session, Stream]] = {}
        self._streams: dict[str, Stream] = {}
        self._names = itertools.count(1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one HTTP request."""
        headers = {name.decode(): value.decode("latin-1").strip(" \t") for name, value in scope["headers"]}
        origin = urlsplit(headers.get("origin", "//localhost")).hostname
        if urlsplit(f"//{headers.get('host', '')}").hostname not in LOCAL or origin not in LOCAL:
            await _answer(send, 403, {"error": "This host or origin is not served."})
            return
        modern = headers.get("mcp-protocol-version") in STATELESS
        try:
            if scope["method"] == "POST":
                await self._post(headers, receive, send)
            elif scope["method"] == "GET" and not modern and self._server.handshake:
                await self._get(headers, receive, send)
            elif scope["method"] == "DELETE" and not modern and self._server.handshake:
                session, stream = self._session(headers)
                self._server.sessions.remove(session)
                del self._sessions[headers["mcp-session-id"]]
                stream.send(LAST)
                await _answer(send, 204, None)
            else:
                await _answer(send, 405, None)
        except RpcError as error:
            status = error.status if error.status != 200 else 400
            await _answer(send, status, {"jsonrpc": "2.0", "id": None, "error": error.error})

    async def _post(self, headers: dict[str, str], receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        try:
            message = json.loads(body)
        except ValueError:
            raise RpcError(-32700, "The body is not JSON.", 400) from None
        if not isinstance(message, dict) or "jsonrpc" not in message:
            raise RpcError(-32600, "The body is no JSON-RPC message.", 400)
        params = message.get("params") or {}
        meta = params.get("_meta") or {}
        version = headers.get("mcp-protocol-version")
        if version in STATELESS or META + "protocolVersion" in meta:
            await self._post_stateless(headers, message, receive, send)
        elif message.get("method") == "initialize":
            await self._initialize(message, send)
        elif not self._server.handshake or (version is not None and version not in HANDSHAKE):
            error = RpcError(-32022, "Unsupported", supported=self._server.supported, requested=version)
            await _answer(send, 400, {"jsonrpc": "2.0", "id": message.get("id"), "error": error.error})
        else:
            await self._post_handshake(headers, message, receive, send)

    # handshake era

    def _session(self, headers: dict[str, str]) -> tuple[Session, Stream]:
        if "mcp-session-id" not in headers:
            raise RpcError(-32600, "Mcp-Session-Id is missing.", 400)
        if (found := self._sessions.get(headers["mcp-session-id"])) is None:
            raise RpcError(-32600, "There is no such session.", 404)
        return found

    def _stream(self) -> Stream:
        stream = Stream(f"s{next(self._names)}")
        self._streams[stream.name] = stream
        return stream

    async def _initialize(self, message: dict[str, Any], send: Any) -> None:
        stream = self._stream()
        try:
            session, result = self._server.initialize(message.get("params") or {}, stream.send)
        except RpcError as error:
            await _answer(send, error.status, {"jsonrpc": "2.0", "id": message["id"], "error": error.error})
            return
        token = secrets.token_hex(16)
        self._sessions[token] = (session, stream)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        await _answer(send, 200, answer, [(b"mcp-session-id", token.encode())])

    async def _post_handshake(self, headers: dict[str, str], message: Any, receive: Any, send: Any) -> None:
        session, _ = self._session(headers)
        method, ident = message.get("method"), message.get("id")
        if method is None:
            session.asker.answered(message)
        elif method == "notifications/cancelled":
            running = session.running.get((message.get("params") or {}).get("requestId"))
            if running is not None:
                running.cancel()
        if method is None or ident is None:
            await _answer(send, 202, None)
            if method == "notifications/initialized":
                await self._server.initialized(session)
            return
        stream = self._stream()
        serving = asyncio.create_task(self._server.serve(session, message, stream.send, stream.interrupt))
        session.running[ident] = serving
        serving.add_done_callback(lambda task: self._done(session, ident, stream, task))
        await self._respond(stream, session.version >= "2025-11-25", receive, send)

    @staticmethod
    def _done(session: Session, ident: Any, stream: Stream, task: asyncio.Task[Any]) -> None:
        session.running.pop(ident, None)
        if not task.cancelled():
            stream.send(task.result())
        stream.send(LAST)

    async def _respond(self, stream: Stream, prime: bool, receive: Any, send: Any) -> None:
        """Plain JSON where the answer comes first, else an event stream; the call outlives its reader."""
        while not stream.messages:
            stream._news.clear()
            await stream._news.wait()
        first = stream.messages[0]
        if first is not None and "method" not in first:
            await _answer(send, 200, first)
            return
        await _stream_head(send)
        await _until_left(stream.write(send, 0, prime), receive)

    async def _get(self, headers: dict[str, str], receive: Any, send: Any) -> None:
        if "text/event-stream" not in headers.get("accept", ""):
            await _answer(send, 406, None)
            return
        _, stream = self._session(headers)
        after = len(stream.messages)
        if last := headers.get("last-event-id"):
            name, _, place = last.partition(":")
            stream, after = self._streams.get(name, stream), int(place or 0)
        await _stream_head(send)
        await _chunk(send, ": open\n\n")
        await _until_left(stream.write(send, after, False), receive)

    # 2026-07-28

    async def _post_stateless(self, headers: dict[str, str], message: Any, receive: Any, send: Any) -> None:
        ident, method, params = message.get("id"), str(message.get("method")), message.get("params") or {}
        if ident is None:
            await _answer(send, 202, None)
            return
        try:
            _check_headers(headers, method, params)
        except RpcError as error:
            await _answer(send, 400, {"jsonrpc": "2.0", "id": ident, "error": error.error})
            return
        stream = Stream("")
        if method == "subscriptions/listen" and self._server.stateless:
            listener = Listener(ident, params.get("notifications") or {}, stream.send)
            listener.acknowledge()
            self._server.listeners.append(listener)
            try:
                await _stream_head(send)
                await _until_left(stream.write(send, 0, False), receive)
            finally:
                self._server.listeners.remove(listener)
            return
        serving = asyncio.create_task(self._server.serve(None, message, stream.send, lambda: None))
        serving.add_done_callback(lambda task: None if task.cancelled() else stream.send(task.result()))
        serving.add_done_callback(lambda _: stream.send(LAST))
        try:
            await _until_left(self._respond_stateless(stream, send), receive)
        finally:
            await end(serving)  # closing the response cancels the call (2026-07-28, Cancellation)

    async def _respond_stateless(self, stream: Stream, send: Any) -> None:
        while not stream.messages:
            stream._news.clear()
            await stream._news.wait()
        first = stream.messages[0]
        if first is not None and "method" not in first:
            await _answer(send, _status(first), first)
            return
        await _stream_head(send)
        await stream.write(send, 0, False)


def _status(answer: dict[str, Any]) -> int:
    code = (answer.get("error") or {}).get("code")
    if code == -32601:
        return 404
    return 400 if code in MODERN or (code == -32602 and "_meta" in answer["error"]["message"]) else 200


def _check_headers(headers: dict[str, str], method: str, params: dict[str, Any]) -> None:
    """2026-07-28, Server Validation. Raises RpcError."""
    expected = {
        "mcp-protocol-version": (params.get("_meta") or {}).get(META + "protocolVersion"),
        "mcp-method": method,
    }
    if field := NAMED.get(method):
        expected["mcp-name"] = params.get(field)
    if method == "tools/call":
        schema = tools.DEFINITIONS.get(str(params.get("name")), {}).get("inputSchema", {})
        for name, part in schema.get("properties", {}).items():
            if "x-mcp-header" in part:
                argument = (params.get("arguments") or {}).get(name)
                header = f"mcp-param-{part['x-mcp-header'].lower()}"
                if argument is not None or header in headers:
                    expected[header] = argument
    for header, wanted in expected.items():
        given = headers.get(header)
        if given is None or (wanted is not None and _decoded(given) != wanted):
            raise RpcError(-32020, f"Header mismatch: {header}", 400)


def _decoded(value: str) -> str:
    if value.startswith("=?base64?") and value.endswith("?="):
        with contextlib.suppress(ValueError):
            return base64.b64decode(value[9:-2], validate=True).decode()
        raise RpcError(-32020, "Header mismatch: not Base64", 400)
    return value


async def _until_left(writing: Any, receive: Any) -> None:
    """Write until done, or until the client has closed the connection."""

    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    writer, watcher = asyncio.create_task(writing), asyncio.create_task(leave())
    try:
        await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(watcher)
        if writer.done():
            writer.result()
        else:
            await end(writer)


async def _stream_head(send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _chunk(send: Any, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _answer(send: Any, status: int, body: Any, extra: Any = ()) -> None:
    data = b"" if body is None else dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
