"""Event-stream responses, and noticing that their reader has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from gateway.endpoint.caller import Caller

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STREAM_BACKLOG: Final = 16 * 1024 * 1024
"""Bytes of notifications that may wait for a client that does not read its response."""
WATCH_AFTER: Final = 0.05
"""Seconds after which a call is slow enough to watch whether its client is still there."""

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
