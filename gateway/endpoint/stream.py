"""Event-stream responses, and noticing that their reader has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from gateway.endpoint.caller import Caller
from gateway.endpoint.events import PRIMED, RETRY_MS, EventLog, EventStream, Reader
from gateway.endpoint.sessions import Session
from gateway.jsonrpc import Raw

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STREAM_BACKLOG: Final = 16 * 1024 * 1024
"""Bytes of notifications that may wait for a client that does not read its response."""
WATCH_AFTER: Final = 0.05
"""Seconds after which a call is slow enough to watch whether its client is still there."""
KEEP_ALIVE: Final = 15.0
"""Seconds between comments on a quiet stream, so that nothing on the way closes it."""

STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def event(message: bytes) -> bytes:
    """One message as a server-sent event."""
    if b"\n" in message or b"\r" in message:
        message = message.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: message\r\ndata: " + message + b"\r\n\r\n"


class ResponseStream:
    """Turns a response into an event stream the moment something comes before the answer.

    Nothing is sent, and no task is started, for a call that just answers. The writing task ends
    with ``finish`` or ``close``.
    """

    __slots__ = ("_answer", "_backlog", "_queue", "_send", "_wake", "_writer", "dropped")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._queue: list[bytes] = []
        self._backlog = 0
        self._wake: asyncio.Event | None = None
        self._writer: asyncio.Task[None] | None = None
        self._answer: bytes | None = None
        self.dropped = 0

    @property
    def started(self) -> bool:
        """Whether the response is an event stream by now."""
        return self._writer is not None

    def emit(self, message: bytes) -> None:
        """Send a message before the answer. Never blocks; past the backlog messages are dropped."""
        if self._backlog + len(message) > STREAM_BACKLOG:
            self.dropped += 1
            return
        self._backlog += len(message)
        self._queue.append(message)
        if self._wake is None:
            self._wake = asyncio.Event()
            self._writer = asyncio.create_task(self._write(self._wake))
        self._wake.set()

    async def _write(self, wake: asyncio.Event) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        while self._answer is None or self._queue:
            await wake.wait()
            wake.clear()
            queue, self._queue = self._queue, []
            if queue:
                body = b"".join(map(event, queue))
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                self._backlog -= sum(map(len, queue))
        await self._send({"type": "http.response.body", "body": event(self._answer)})

    async def finish(self, answer: bytes) -> None:
        """Send the answer as the last event."""
        assert self._writer is not None
        assert self._wake is not None
        self._answer = answer
        self._wake.set()
        await self._writer

    async def close(self) -> None:
        """End the writing task, finished or not."""
        if self._writer is not None and not self._writer.done():
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)


async def read_stream(
    stream: EventStream, position: int, opening: bytes, send: Send, receive: Receive
) -> None:
    """Write a stream's events from after a position on, until its end or until its reader leaves.

    :param opening: what the response begins with.
    """
    reader = stream.attach(position)
    await _read_on(stream, reader, opening, send, receive)


async def _read_on(stream: EventStream, reader: Reader, opening: bytes, send: Send, receive: Receive) -> None:
    async def leave() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.create_task(leave())
    leaving.add_done_callback(lambda _: reader.wake.set())
    try:
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        await send({"type": "http.response.body", "body": opening or b": open\r\n\r\n", "more_body": True})
        while not (reader.stopped or leaving.done()):
            reader.wake.clear()
            if body := stream.take(reader):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if stream.closed and reader.position >= stream.last:
                break
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await reader.wake.wait()
            except TimeoutError:
                await send({"type": "http.response.body", "body": b": \r\n\r\n", "more_body": True})
        if not leaving.done():
            last = b"retry: %d\r\n\r\n" % reader.retry_ms if reader.retry_ms is not None else b""
            await send({"type": "http.response.body", "body": last})
    finally:
        leaving.cancel()
        stream.detach(reader)


class CallStream:
    """The response to one call of a handshake-era client: plain JSON, or a stream it can come back to.

    It becomes a stream when something comes before the answer, or when the answer takes long. Nothing
    is sent, logged or started for a call that just answers.

    :param comes_back: whether its client surely asks for the rest of a stream that is closed early.
    """

    __slots__ = (
        "_comes_back",
        "_ident",
        "_lingers",
        "_log",
        "_reading",
        "_receive",
        "_send",
        "_session",
        "_stream",
    )

    def __init__(
        self, log: EventLog, session: Session, ident: Raw, send: Send, receive: Receive, comes_back: bool
    ) -> None:
        self._log, self._session, self._ident = log, session, ident
        self._send, self._receive = send, receive
        self._comes_back = comes_back
        self._stream: EventStream | None = None
        self._reading: asyncio.Task[None] | None = None
        self._lingers = False

    @property
    def started(self) -> bool:
        """Whether the response is an event stream by now."""
        return self._stream is not None

    def _begin(self) -> EventStream:
        if self._stream is None:
            stream = self._stream = self._log.open(self._session, self._ident)
            reader = stream.attach(0)
            reading = _read_on(stream, reader, stream.opening(), self._send, self._receive)
            self._reading = asyncio.create_task(reading)
        return self._stream

    def emit(self, message: bytes) -> None:
        """Send a message before the answer. Never blocks."""
        self._begin().put(message)

    def linger(self) -> None:
        """The call is seen in flight, now and then: the second time, it becomes a stream."""
        if self._lingers:
            self._begin()
        self._lingers = True

    def polled(self, retry_ms: int | None) -> None:
        """The server has its caller come back later: have a client do so too that can (SEP-1699)."""
        if not self._comes_back or self._session.version not in PRIMED:
            return
        stream = self._begin()
        if stream.reader is not None:
            stream.reader.stop(retry_ms if retry_ms is not None else RETRY_MS)

    async def finish(self, answer: bytes) -> None:
        """Send the answer as the last event; it waits in the log where the client has left."""
        assert self._stream is not None
        self._stream.finish(answer)
        if self._reading is not None:
            await self._reading

    async def close(self) -> None:
        """End what runs, finished or not."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


class ClientLeft(Exception):
    """The client closed its connection."""


class DisconnectWatch:
    """Cancels a call when its client closes the response (2026-07-28, Cancellation).

    Most calls are answered before the watch begins, and cost a timer instead of a task.
    """

    __slots__ = ("_caller", "_receive", "_task", "_timer")

    def __init__(self, receive: Receive, caller: Caller) -> None:
        self._receive = receive
        self._caller = caller
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._caller.cancel("the client closed the response stream")

    def stop(self) -> None:
        """The call is over."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
