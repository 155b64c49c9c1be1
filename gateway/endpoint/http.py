"""The MCP endpoint over HTTP: streamable HTTP of the handshake era and of 2026-07-28 at one path."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.endpoint.caller import Caller
from gateway.endpoint.dispatch import Dispatcher
from gateway.endpoint.events import EventLog, EventStream
from gateway.endpoint.notices import Filter, Notices
from gateway.endpoint.outbox import Outbox
from gateway.endpoint.sessions import Session, SessionGone
from gateway.endpoint.stateless import check_stateless, is_stateless, unsupported_version
from gateway.endpoint.stream import (
    KEEP_ALIVE,
    STREAM_HEADERS,
    CallStream,
    ClientLeft,
    DisconnectWatch,
    Receive,
    ResponseStream,
    Scope,
    Send,
    event,
    read_stream,
)
from gateway.errors import GatewayError, RpcError
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.principal import LOCAL
from gateway.protocol import Era
from gateway.upstream.call import CallCancelled

MAX_STREAMS: Final = 8
"""Notification streams one session may have open."""

_JSON: Final = (b"content-type", b"application/json")


class HttpEndpoint:
    """ASGI application for ``/mcp``. Authentication and Host checks are done before it.

    :param max_body: bytes a request body may have.
    """

    def __init__(self, dispatcher: Dispatcher, notices: Notices, events: EventLog, max_body: int) -> None:
        self._dispatcher = dispatcher
        self._notices = notices
        self._events = events
        self._max_body = max_body
        self.active = 0
        self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers = dict(scope["headers"])
        method = scope["method"]
        principal = scope.get("toolyard.principal", LOCAL)
        self.active += 1
        try:
            if method == "POST":
                await self._post(headers, principal, receive, send)
            elif method == "GET":
                await self._get(headers, principal, receive, send)
            elif method == "DELETE":
                await self._delete(headers, principal, send)
            else:
                await _plain(send, 405, b"", [(b"allow", b"POST, GET, DELETE, OPTIONS")])
        except GatewayError as error:
            await _json(send, _status(error), jsonrpc.error(None, error.to_error()))
        finally:
            self.active -= 1
            self.served += 1

    # POST

    async def _post(self, headers: dict[bytes, bytes], principal: str, receive: Receive, send: Send) -> None:
        if not headers.get(b"content-type", b"").lower().startswith(b"application/json"):
            raise RpcError(
                protocol.INVALID_REQUEST,
                "The body must be JSON.",
                "Send Content-Type: application/json.",
                status=415,
            )
        accept = headers.get(b"accept", b"*/*").lower()
        streams = b"text/event-stream" in accept or b"*/*" in accept
        if not streams and b"application/" not in accept:
            raise RpcError(
                protocol.INVALID_REQUEST,
                "The client accepts neither JSON nor an event stream.",
                "Send Accept: application/json, text/event-stream.",
                status=406,
            )
        # Both will do; a client that names event streams first gets its answer as one.
        prefers = streams and accept.startswith(b"text/event-stream")
        body = await self._body(headers, receive)
        message = jsonrpc.parse(body)
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        if isinstance(message, list):
            await self._batch(headers, principal, message, send)
            return
        try:
            if is_stateless(version, message):
                await self._stateless(headers, principal, version, message, receive, send, streams, prefers)
                return
            if version and version not in protocol.HANDSHAKE_VERSIONS:
                raise unsupported_version(version)
            await self._handshake(headers, principal, message, receive, send, streams, prefers)
        except RpcError as error:  # even a refusal repeats the id
            await _json(send, _status(error), jsonrpc.error(_ident(message), error.to_error()))

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        event = await receive()
        if not event.get("more_body"):
            body: bytes = event.get("body", b"")
            if len(body) > self._max_body:
                raise self._too_large()
            return body
        parts, size = [event.get("body", b"")], len(event.get("body", b""))
        while event.get("more_body"):  # the server below sees to it that a body ends or its connection does
            event = await receive()
            if event["type"] == "http.disconnect":
                raise RpcError(protocol.INVALID_REQUEST, "The client went away in mid-request.")
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body:
                raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> RpcError:
        return RpcError(
            protocol.INVALID_REQUEST,
            f"The body is larger than {self._max_body:,} bytes.",
            "Raise max_body in the gateway's settings if it has to be.",
            status=413,
        )

    async def _session(self, headers: dict[bytes, bytes], principal: str) -> Session:
        token = headers.get(b"mcp-session-id")
        if token is None:
            raise RpcError(
                protocol.INVALID_REQUEST, "Mcp-Session-Id is missing.", "Send initialize first.", status=400
            )
        text = token.decode("latin-1")
        sessions = self._dispatcher.sessions
        session = sessions.find(text, principal) or await sessions.recall(text, principal)
        if session is None:  # 2025-11-25, Session Management: 404 has the client initialize again
            raise SessionGone("This session is unknown or has ended.")
        return session

    async def _versioned_session(self, headers: dict[bytes, bytes], principal: str) -> Session:
        """The session of a request without a body, whose version its header alone names."""
        version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
        if version and version not in protocol.HANDSHAKE_VERSIONS:
            raise unsupported_version(version)
        return await self._session(headers, principal)

    async def _handshake(
        self,
        headers: dict[bytes, bytes],
        principal: str,
        message: Shallow,
        receive: Receive,
        send: Send,
        streams: bool,
        prefers: bool,
    ) -> None:
        method = jsonrpc.text(message.get("method"))
        if method is None:
            if "result" in message or "error" in message:
                self._dispatcher.response(await self._session(headers, principal), message)
                await _plain(send, 202, b"")
                return
            raise RpcError(protocol.INVALID_REQUEST, "The message has no method.")
        ident = jsonrpc.request_id(message)
        if method == "initialize" and ident is not None:
            await self._initialize(ident, principal, message, send)
            return
        session = await self._session(headers, principal)
        if ident is None:
            self._dispatcher.notification(session, method, message)
            await _plain(send, 202, b"")
            return
        if not streams:
            caller = Caller(Era.HANDSHAKE, session, None, session.log_level, principal=principal)
            await _json(send, 200, await self._answer(caller, method, ident, message))
            return
        stream = CallStream(self._events, session, ident, send, receive, prefers or session.came_back)
        caller = Caller(Era.HANDSHAKE, session, stream.emit, session.log_level, principal=principal)
        caller.stream = stream
        try:
            answer = await self._answer(caller, method, ident, message)
            if stream.started:
                await stream.finish(answer)
            elif prefers:
                await _one_event(send, answer)
            else:
                await _json(send, 200, answer)
        except SessionGone as error:
            if not stream.started:
                raise
            await stream.finish(jsonrpc.error(ident, error.to_error()))
        finally:
            await stream.close()

    async def _answer(self, caller: Caller, method: str, ident: Raw, message: Shallow) -> bytes:
        try:
            return await self._dispatcher.handle(caller, method, ident, message)
        except SessionGone:
            raise
        except GatewayError as error:
            return jsonrpc.error(ident, error.to_error())

    async def _initialize(self, ident: Raw, principal: str, message: Shallow, send: Send) -> None:
        try:
            params = jsonrpc.shallow(message.get("params") or msgspec.Raw(b"{}"))
            session, result = self._dispatcher.initialize(params, principal, lasting=True)
        except msgspec.MsgspecError:
            raise RpcError(protocol.INVALID_PARAMS, "The params of initialize must be an object.") from None
        except RpcError as error:
            await _json(send, 200, jsonrpc.error(ident, error.to_error()))
            return
        await _json(send, 200, jsonrpc.result(ident, result), [(b"mcp-session-id", session.token.encode())])

    async def _batch(
        self, headers: dict[bytes, bytes], principal: str, messages: list[Shallow], send: Send
    ) -> None:
        session = await self._session(headers, principal)
        if session.version not in protocol.BATCHING_VERSIONS:
            raise RpcError(
                protocol.INVALID_REQUEST,
                f"Protocol {session.version} has no batches.",
                "Send one message a request.",
            )
        answers = [
            a for a in await asyncio.gather(*(self._one(session, m) for m in messages)) if a is not None
        ]
        if answers:
            await _json(send, 200, b"[" + b",".join(answers) + b"]")
        else:
            await _plain(send, 202, b"")

    async def _one(self, session: Session, message: Shallow) -> bytes | None:
        method = jsonrpc.text(message.get("method"))
        try:
            ident = jsonrpc.request_id(message)
        except RpcError as error:
            return jsonrpc.error(None, error.to_error())
        if method is None:
            if "result" in message or "error" in message:
                self._dispatcher.response(session, message)
                return None
            return jsonrpc.error(ident, {"code": protocol.INVALID_REQUEST, "message": "There is no method."})
        if ident is None:
            self._dispatcher.notification(session, method, message)
            return None
        caller = Caller(Era.HANDSHAKE, session, None, None, principal=session.principal)
        return await self._answer(caller, method, ident, message)

    # 2026-07-28

    async def _stateless(
        self,
        headers: dict[bytes, bytes],
        principal: str,
        version: str,
        message: Shallow,
        receive: Receive,
        send: Send,
        streams: bool,
        prefers: bool,
    ) -> None:
        method = jsonrpc.text(message.get("method"))
        if method is None:
            raise RpcError(protocol.INVALID_REQUEST, "Clients send requests and notifications only.")
        ident = jsonrpc.request_id(message)
        if ident is None:
            await _plain(send, 202, b"")
            return
        stream = ResponseStream(send)
        watch: DisconnectWatch | None = None
        status = 200
        try:
            log_level = check_stateless(headers, version, method, message)
            if method == "subscriptions/listen":
                await self._listen(principal, ident, message, receive, send)
                return
            emit = stream.emit if streams else None
            caller = Caller(Era.STATELESS, None, emit, log_level, headers, principal)
            watch = DisconnectWatch(receive, caller)
            answer = await self._dispatcher.handle(caller, method, ident, message)
            if jsonrpc.failure(answer, ident) in protocol.MODERN_ERRORS:
                status = 400  # as 2026-07-28 has it for these
        except CallCancelled:
            await stream.close()
            return  # the client closed the stream; there is nobody to answer
        except GatewayError as error:
            status = error.status if isinstance(error, RpcError) else 200
            answer = jsonrpc.error(ident, error.to_error())
        finally:
            if watch is not None:
                watch.stop()
        try:
            if stream.started:
                await stream.finish(answer)
            elif prefers and status == 200:
                await _one_event(send, answer)
            else:
                await _json(send, status, answer)
        finally:
            await stream.close()

    async def _listen(
        self, principal: str, ident: Raw, message: Shallow, receive: Receive, send: Send
    ) -> None:
        outbox = Outbox()
        caller = Caller(Era.STATELESS, None, None, None, principal=principal)
        async with self._notices.listening(outbox, ident, Filter.parse(message), caller):
            await self._stream(outbox, receive, send)
            if outbox.closed:
                last = b'{"resultType":"complete","_meta":{"%b":%b}}' % (
                    protocol.META_SUBSCRIPTION_ID.encode(),
                    bytes(ident),
                )
                await send({"type": "http.response.body", "body": event(jsonrpc.result(ident, last))})

    # GET and DELETE

    async def _get(self, headers: dict[bytes, bytes], principal: str, receive: Receive, send: Send) -> None:
        if b"text/event-stream" not in headers.get(b"accept", b"").lower():
            raise RpcError(
                protocol.INVALID_REQUEST,
                "GET opens an event stream.",
                "Send Accept: text/event-stream.",
                status=406,
            )
        if headers.get(b"mcp-protocol-version", b"").decode("latin-1") in protocol.STATELESS_VERSIONS:
            await _plain(send, 405, b"", [(b"allow", b"POST")])
            return
        session = await self._versioned_session(headers, principal)
        stream, position = self._events.open(session), 0
        opening = stream.opening()
        if (last := headers.get(b"last-event-id")) is not None:
            again, position = await self._events.resume(session, last.decode("latin-1"))
            session.came_back = True
            if again.ident in last.decode("latin-1"):
                opening = b""  # it knows where it is
            stream = again
        if stream.request is not None:
            await read_stream(stream, position, opening, send, receive)
            return
        if len(session.outboxes) >= MAX_STREAMS:
            raise RpcError(
                protocol.INVALID_REQUEST,
                f"This session has {MAX_STREAMS} streams open.",
                "Close one.",
                status=409,
            )
        if isinstance(session.absent, EventStream) and session.absent is not stream:
            self._events.forget(session.absent)
        session.absent = None
        session.outboxes.append(stream)
        try:
            await read_stream(stream, position, opening, send, receive)
        finally:
            session.outboxes.remove(stream)
            if stream.reader is None and (stream.closed or session.outboxes):
                self._events.forget(stream)  # what is told now is told on another stream, or not at all
            elif stream.reader is None:
                session.absent = stream

    async def _stream(self, outbox: Outbox, receive: Receive, send: Send) -> None:
        """Write what arrives in the box until it is closed or the client leaves."""
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await send({"type": "http.response.body", "body": b": open\r\n\r\n", "more_body": True})

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            raise ClientLeft

        async def write() -> None:
            while not outbox.closed:
                messages = await outbox.take(KEEP_ALIVE)
                body = b"".join(map(event, messages)) or b": \r\n\r\n"
                if messages or not outbox.closed:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            leaving.cancel()

        try:
            async with asyncio.TaskGroup() as tasks:
                leaving = tasks.create_task(leave())
                tasks.create_task(write())
        except* ClientLeft:
            pass

    async def _delete(self, headers: dict[bytes, bytes], principal: str, send: Send) -> None:
        if headers.get(b"mcp-protocol-version", b"").decode("latin-1") in protocol.STATELESS_VERSIONS:
            await _plain(send, 405, b"", [(b"allow", b"POST")])
            return
        self._dispatcher.sessions.end(await self._versioned_session(headers, principal))
        await _plain(send, 204, b"")


def _status(error: GatewayError) -> int:
    return error.status if isinstance(error, RpcError) and error.status != 200 else 400


def _ident(message: Shallow) -> Raw | None:
    """The id of a request, as far as it has a valid one."""
    try:
        return jsonrpc.request_id(message) if "method" in message else None
    except RpcError:
        return None


async def _json(send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    if extra:
        headers += extra
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _one_event(send: Send, answer: bytes) -> None:
    """An answer that has come already, as an event stream of one event."""
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    await send({"type": "http.response.body", "body": event(answer)})


async def _plain(
    send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-length", b"%d" % len(body)), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
