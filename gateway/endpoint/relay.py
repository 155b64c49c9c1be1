"""The MCP endpoint over a byte stream: newline-delimited JSON-RPC, both eras, any number in flight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final, Protocol

import msgspec

from gateway import jsonrpc, protocol
from gateway.endpoint.caller import Caller
from gateway.endpoint.dispatch import Dispatcher
from gateway.endpoint.notices import Filter, Notices
from gateway.endpoint.outbox import Outbox
from gateway.endpoint.sessions import Session
from gateway.endpoint.stateless import check_stateless, is_stateless
from gateway.endpoint.stream import STREAM_BACKLOG
from gateway.errors import GatewayError, RpcError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.call import CallCancelled, CallSite
from registry.model import ItemKind

log = logging.getLogger("toolyard.endpoint")

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes one message of a client may have."""
MAX_IN_FLIGHT: Final = 256
"""Requests served at a time for one client; more wait unread."""
MAX_LISTENS: Final = 256
_HELLO_TIMEOUT: Final = 10.0
_IDLE_TAKE: Final = 3600.0


class Writer(Protocol):
    """The sending half of a stream, as asyncio.StreamWriter has it."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def is_closing(self) -> bool:
        """Whether the stream has ended or is about to."""

    async def drain(self) -> None:
        """Wait until the peer has taken most of what is queued."""


class _ListenSite(CallSite):
    """A ``subscriptions/listen`` in flight: giving it up closes its box."""

    __slots__ = ("given_up", "outbox")

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self.outbox = outbox
        self.given_up = False

    def cancel(self, reason: str) -> None:
        self.given_up = True
        self.outbox.close()


class _Batch:
    """Requests that came together, whose answers go together."""

    __slots__ = ("answers", "left")

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.left = 1
        """Requests without an answer, and one while it is still being read."""


class StreamClient:
    """One client on one stream."""

    def __init__(
        self, dispatcher: Dispatcher, notices: Notices, reader: asyncio.StreamReader, writer: Writer
    ) -> None:
        self._dispatcher = dispatcher
        self._notices = notices
        self._reader = reader
        self._writer = writer
        self._queued = 0
        self._session: Session | None = None
        self._stateless: dict[bytes, CallSite] = {}
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._stale_lists = False

    async def serve(self, stale_lists: bool = False) -> None:
        """Serve until the stream ends; then everything in flight is given up.

        :param stale_lists: the client was shown lists that differ from ours: tell it once it listens.
        """
        self._stale_lists = stale_lists
        try:
            async with asyncio.TaskGroup() as tasks:
                async for line in self._lines():
                    await self._take(line, tasks)
                raise _Ended
        except* (_Ended, ConnectionError):
            pass
        finally:
            if self._session is not None:
                self._dispatcher.sessions.end(self._session)
            for site in list(self._stateless.values()):
                site.cancel("the client left")

    async def _lines(self) -> AsyncIterator[bytes]:
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await self._skip_line()
                line = b""
                await self._refuse(
                    None, RpcError(protocol.PARSE_ERROR, f"A line has over {MAX_LINE:,} bytes.")
                )
            if line.strip():
                yield line

    async def _skip_line(self) -> None:
        while True:
            try:
                await self._reader.readuntil(b"\n")
                return
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
            except asyncio.IncompleteReadError:
                return

    async def _take(self, line: bytes, tasks: asyncio.TaskGroup) -> None:
        try:
            message = jsonrpc.parse(line)
        except RpcError as error:
            await self._refuse(None, error)
            return
        if isinstance(message, list):
            if self._session is None or self._session.version not in protocol.BATCHING_VERSIONS:
                await self._refuse(None, RpcError(protocol.INVALID_REQUEST, "This protocol has no batches."))
                return
            batch = _Batch()
            for item in message:
                await self._one(item, tasks, batch)
            await self._send_batch(batch)
            return
        await self._one(message, tasks)

    async def _one(self, message: Shallow, tasks: asyncio.TaskGroup, batch: _Batch | None = None) -> None:
        ident = None
        try:
            ident = jsonrpc.request_id(message)
            method = jsonrpc.text(message.get("method"))
            if method is None:
                if "result" in message or "error" in message:
                    if self._session is not None:
                        self._dispatcher.response(self._session, message)
                    return
                raise RpcError(protocol.INVALID_REQUEST, "The message has no method.")
            if ident is None:
                self._notified(method, message, tasks)
            elif method == "initialize":
                await self._initialize(ident, message)
            else:
                await self._slots.acquire()
                if batch is not None:
                    batch.left += 1
                tasks.create_task(self._serve_one(method, ident, message, batch))
        except (RpcError, msgspec.MsgspecError) as error:
            refusal = error if isinstance(error, RpcError) else RpcError(protocol.INVALID_PARAMS, str(error))
            if batch is not None:
                batch.answers.append(jsonrpc.error(ident, refusal.to_error()))
            else:
                await self._refuse(ident, refusal)

    async def _send_batch(self, batch: _Batch) -> None:
        """Send the answers to a batch as one array, once all are there (JSON-RPC 2.0, 6)."""
        batch.left -= 1
        if not batch.left and batch.answers:
            await self._send(b"[" + b",".join(batch.answers) + b"]")

    def _notified(self, method: str, message: Shallow, tasks: asyncio.TaskGroup) -> None:
        if method == "notifications/cancelled":
            ident = (jsonrpc.object_of(message.get("params")) or {}).get("requestId")
            site = self._stateless.get(bytes(ident)) if ident is not None else None
            if site is not None:
                site.cancel("cancelled by the caller")
        if self._session is None:
            return
        self._dispatcher.notification(self._session, method, message)
        if method == "notifications/initialized" and not self._session.outboxes:
            outbox = Outbox()
            self._session.outboxes.append(outbox)
            tasks.create_task(self._pump(outbox))
            if self._stale_lists:
                self._stale_lists = False
                self._notices.lists_changed_for(self._session, set(ItemKind))

    async def _initialize(self, ident: Raw, message: Shallow) -> None:
        if self._session is not None:
            raise RpcError(protocol.INVALID_REQUEST, "This connection is initialized already.")
        params = jsonrpc.shallow(message["params"]) if "params" in message else {}
        self._session, result = self._dispatcher.initialize(params)
        await self._send(jsonrpc.result(ident, result))

    async def _serve_one(
        self, method: str, ident: Raw, message: Shallow, batch: _Batch | None = None
    ) -> None:
        try:
            try:
                answer = await self._answer(method, ident, message)
            except CallCancelled:
                answer = None  # 2025-11-25, Cancellation: no response for a cancelled request
            except GatewayError as error:
                answer = jsonrpc.error(ident, error.to_error())
            if batch is not None:
                batch.answers += [answer] if answer is not None else []
                await self._send_batch(batch)
            elif answer is not None:
                await self._send(answer)
        finally:
            self._slots.release()

    async def _answer(self, method: str, ident: Raw, message: Shallow) -> bytes | None:
        if not is_stateless("", message):
            if self._session is None:
                if method == "server/discover":  # a probe that lacks its _meta is told what is missing
                    check_stateless(None, "", method, message)
                raise RpcError(protocol.INVALID_REQUEST, "Send initialize first.")
            caller = Caller(Era.HANDSHAKE, self._session, self._emit, self._session.log_level)
            return await self._dispatcher.handle(caller, method, ident, message)
        level = check_stateless(None, "", method, message)
        caller = Caller(Era.STATELESS, None, self._emit, level)
        key = bytes(ident)
        if key in self._stateless:
            raise RpcError(
                protocol.INVALID_REQUEST, f"A request with id {key.decode()} is still being served."
            )
        if method == "subscriptions/listen":
            return await self._listen(ident, message)
        self._stateless[key] = caller
        try:
            return await self._dispatcher.handle(caller, method, ident, message)
        finally:
            del self._stateless[key]

    async def _listen(self, ident: Raw, message: Shallow) -> bytes | None:
        if len(self._stateless) >= MAX_LISTENS + MAX_IN_FLIGHT:
            raise RpcError(protocol.INTERNAL_ERROR, f"{MAX_LISTENS} subscriptions are open.", "End some.")
        outbox = Outbox()
        site = self._stateless[bytes(ident)] = _ListenSite(outbox)
        self._slots.release()  # a subscription lasts; it must not use up a place
        try:
            caller = Caller(Era.STATELESS, None, None, None)
            async with self._notices.listening(outbox, ident, Filter.parse(message), caller):
                await self._pump(outbox)
        finally:
            del self._stateless[bytes(ident)]
            await self._slots.acquire()
        if site.given_up:
            return None
        meta = {"resultType": "complete", "_meta": {protocol.META_SUBSCRIPTION_ID: ident}}
        return jsonrpc.result(ident, jsonrpc.encode(meta))

    async def _pump(self, outbox: Outbox) -> None:
        while not outbox.closed:
            for message in await outbox.take(_IDLE_TAKE):
                await self._send(message)

    def _emit(self, message: bytes) -> None:
        """A notification of a call; dropped when the client is far behind in reading."""
        if self._queued + len(message) < STREAM_BACKLOG and not self._writer.is_closing():
            self._queued += len(message)
            self._writer.write(_line(message))

    async def _refuse(self, ident: Raw | None, error: RpcError) -> None:
        await self._send(jsonrpc.error(ident, error.to_error()))

    async def _send(self, message: bytes) -> None:
        if self._writer.is_closing():  # uvloop's transports raise something else then
            raise ConnectionResetError("the client has left")
        self._writer.write(_line(message))
        await self._writer.drain()
        self._queued = 0


class _Ended(Exception):
    """The client closed its end."""


def _line(message: bytes) -> bytes:
    if b"\n" in message or b"\r" in message:
        message = message.replace(b"\n", b" ").replace(b"\r", b" ")
    return message + b"\n"


async def read_hello(reader: asyncio.StreamReader) -> dict[str, object]:
    """The line a relay begins with. Raises RpcError."""
    try:
        async with asyncio.timeout(_HELLO_TIMEOUT):
            hello = jsonrpc.value(await reader.readuntil(b"\n"))
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.MsgspecError):
        hello = None
    if not isinstance(hello, dict) or hello.get("toolyard") != 1:
        raise RpcError(protocol.INVALID_REQUEST, "This socket is for toolyard stdio of this version.")
    return hello


async def refuse_all(reader: asyncio.StreamReader, writer: Writer, error: GatewayError) -> None:
    """Answer every request of a client with one error, until it leaves: it asked for what is not there."""
    while True:
        try:
            message = jsonrpc.parse(await reader.readuntil(b"\n"))
            parts = message if isinstance(message, list) else [message]
            idents = [jsonrpc.request_id(part) for part in parts if "method" in part]
        except RpcError:
            idents = [None]
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        for ident in idents:
            if ident is not None:
                writer.write(_line(jsonrpc.error(ident, error.to_error())))
        await writer.drain()
