"""Resumable event streams of handshake-era clients (2025-11-25, Transports: Resumability and Redelivery).

A stream outlives the connection it began on: its messages stand in the event log, and a client that
comes back with ``Last-Event-ID`` gets what it missed on that stream, and the rest as it comes. A call
that answers in plain JSON has no stream and costs the log nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway import jsonrpc, protocol
from gateway.endpoint.notices import MAX_SUBSCRIPTIONS, look_again
from gateway.endpoint.sessions import Session
from gateway.errors import RpcError
from gateway.jsonrpc import Raw
from gateway.ledger import StreamSource
from gateway.sealing import MAX_LIFETIME, Sealer
from registry.continuity import StreamRecord

RETRY_MS: Final = 1000
"""What a client is told to wait before it comes back to a stream."""
KEEP: Final = 300.0
"""Seconds a stream without a reader is kept, from its last message or its last reader on."""
STREAM_BYTES: Final = 16 * 1024 * 1024
"""Bytes of messages that one stream may hold; the oldest that were read go first."""
WAITING: Final = (16 * 1024 * 1024, 4096)
DELIVERED: Final = (4 * 1024 * 1024, 1024)
"""Bytes and streams held in memory without a reader: with something to say, and kept to say it again."""
NOTICES: Final = MAX_SUBSCRIPTIONS + 100
"""Messages that a stream of notices may hold; a client that is further behind is told to look again."""
LONGEST_ID: Final = 128
"""Characters of a request's id that the ids of its events may carry."""
PRIMED: Final = frozenset({"2025-11-25"})
"""Revisions whose clients take an event without data; older ones would read JSON in it (SEP-1699)."""


class CallLost(RpcError):
    """The answer to a call is not to be had any more: the process that made it has ended."""

    kind = "call_lost"

    def __init__(self) -> None:
        super().__init__(
            protocol.INTERNAL_ERROR,
            "The call was interrupted when the gateway was started anew, or its answer expired.",
            "Send it again; it may have been carried out.",
            type=CallLost.kind,
            retriable=True,
        )


class Shelf(Protocol):
    """Where streams without a reader outlive the process."""

    def keep(self, source: StreamSource) -> None:
        """Keep the further events of a stream."""

    def drop(self, stream: str) -> None:
        """Nobody will ask for it any more."""

    async def stream(self, ident: str, session: str) -> StreamRecord | None:
        """A stream with all its events. Raises RpcError where the store cannot be read."""


class Reader:
    """A connection on which a stream is being read."""

    __slots__ = ("position", "retry_ms", "stopped", "wake")

    def __init__(self, position: int) -> None:
        self.position = position
        self.wake = asyncio.Event()
        self.stopped = False
        self.retry_ms: int | None = None

    def stop(self, retry_ms: int | None = None) -> None:
        """Close the connection; the stream goes on without it."""
        self.stopped, self.retry_ms = True, retry_ms
        self.wake.set()


class EventStream:
    """The messages of one stream, each at a position, and the one connection that reads them now.

    :param ident: sealed: names the request it answers, opens for its session alone.
    :param request: the id of the call it answers, or None where it carries notices.
    """

    __slots__ = (
        "_log",
        "_read",
        "_saved",
        "closed",
        "events",
        "ident",
        "last",
        "reader",
        "request",
        "session",
        "shelved",
        "size",
    )

    def __init__(self, log: EventLog, session: Session, ident: str, request: Raw | None) -> None:
        self._log = log
        self.session = session
        self.ident = ident
        self.request = request
        self.events: deque[tuple[int, bytes]] = deque()
        self.last = 0
        self.reader: Reader | None = None
        self.closed = False
        self.size = 0
        """Bytes it holds."""
        self.shelved = False
        """Whether anything of it was put on the shelf, or is about to be."""
        self._read = 0
        self._saved = 0

    @property
    def delivered(self) -> bool:
        """Whether all of it was written to a reader, as far as we can tell."""
        return self.closed and self._read >= self.last

    def put(self, message: bytes) -> None:
        """Append a message; one that would wait as a twin of itself is not, where it carries notices."""
        if self.closed:
            return
        if self.request is None:
            if any(waiting == message for at, waiting in self.events if at > self._read):
                return
            if len(self.events) >= NOTICES:
                self._make_room()
        self._append(message)

    def _make_room(self) -> None:
        """Drop the oldest notice; where it was not read, all of them, for those that stand for any."""
        at, oldest = self.events.popleft()
        self.size -= len(oldest)
        if at > self._read:
            self.events.clear()
            self.size = 0
            for message in look_again(self.session.subscriptions):
                self._append(message)

    def finish(self, answer: bytes) -> None:
        """Append the message that ends the stream."""
        if not self.closed:
            self.closed = True
            self._append(answer)

    def close(self) -> None:
        """No more messages."""
        self.closed = True
        if self.reader is not None:
            self.reader.wake.set()

    def _append(self, message: bytes) -> None:
        while self.events and self.size + len(message) > STREAM_BYTES and self.events[0][0] <= self._read:
            self.size -= len(self.events.popleft()[1])
        if self.size + len(message) > STREAM_BYTES and not self.closed:
            return  # its reader is 16 MiB behind: notifications are dropped, the answer is not
        self.last += 1
        self.events.append((self.last, message))
        self.size += len(message)
        if self.reader is not None:
            self.reader.wake.set()
        else:
            self.save()
            self._log.left(self)

    def save(self) -> None:
        """Have what is not there yet put on the shelf, of a stream that answers a call."""
        if self.request is not None:
            self.shelved = True
            self._log.shelf.keep(self)

    def unsaved(self) -> StreamRecord:
        """What is to be put on the shelf now. It counts as there, until ``save_again`` says otherwise."""
        events = tuple(itertools.islice(self.events, self._index(self._saved), None))
        self._saved = self.last
        return StreamRecord(self.ident, self.session.ident, time.time() + KEEP, self.closed, events)

    def save_again(self, record: StreamRecord) -> None:
        """The shelf did not take it."""
        if record.events:
            self._saved = min(self._saved, record.events[0][0] - 1)

    def restore(self, record: StreamRecord) -> None:
        """Take up what an earlier process put on the shelf."""
        self.events = deque(record.events)
        self.size = sum(len(message) for _, message in record.events)
        self.last = self._saved = record.events[-1][0] if record.events else 0
        self.closed = record.done
        self.shelved = True

    def attach(self, position: int) -> Reader:
        """Have a connection read from after this position; one that reads already is sent away."""
        if self.reader is not None:
            self.reader.stop()
        self.reader = Reader(position)
        self._read = position
        self._log.taken(self)
        return self.reader

    def detach(self, reader: Reader) -> None:
        """A connection reads no more."""
        if self.reader is reader:
            self.reader = None
            if not self.delivered:
                self.save()
            self._log.left(self)

    def take(self, reader: Reader) -> bytes:
        """The events that a reader has not had, as text."""
        parts = []
        for at, message in itertools.islice(self.events, self._index(reader.position), None):
            reader.position = at
            parts.append(frame(self.ident, at, message))
        self._read = max(self._read, reader.position)
        return b"".join(parts)

    def _index(self, position: int) -> int:
        if not self.events:
            return 0
        return max(0, position - self.events[0][0] + 1)

    def opening(self) -> bytes:
        """What a new stream begins with: the event that says where to come back to."""
        if self.session.version not in PRIMED:
            return b""
        return b"id: %b.0\r\nretry: %d\r\ndata: \r\n\r\n" % (self.ident.encode(), RETRY_MS)


def frame(ident: str, position: int, message: bytes) -> bytes:
    """One message as a server-sent event that can be come back to."""
    if b"\n" in message or b"\r" in message:
        message = message.replace(b"\n", b" ").replace(b"\r", b" ")
    return b"id: %b.%d\r\nevent: message\r\ndata: %b\r\n\r\n" % (ident.encode(), position, message)


class EventLog:
    """The streams of this process, and the way to those of an earlier one.

    A stream's name is no capability: it is looked up among its own session's alone.
    """

    def __init__(self, sealer: Sealer, shelf: Shelf, clock: Callable[[], float] = time.monotonic) -> None:
        self._sealer = sealer
        self.shelf = shelf
        self._clock = clock
        self._streams: dict[str, EventStream] = {}
        self._waiting, self._delivered = _Idle(WAITING), _Idle(DELIVERED)

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, session: Session, request: Raw | None = None) -> EventStream:
        """A new stream, for the answer to a request or for notices."""
        payload = ""
        if request is not None:
            payload = bytes(request).decode() if len(bytes(request)) <= LONGEST_ID else "null"
        ident = self._sealer.seal(session.principal, session.ident, payload, MAX_LIFETIME)
        return EventStream(self, session, ident, request)

    async def resume(self, session: Session, event_id: str) -> tuple[EventStream, int]:
        """The stream an event was on, and the event's position. Raises RpcError."""
        ident, _, number = event_id.rpartition(".")
        payload = self._sealer.open(session.principal, session.ident, ident) if ident else None
        stream = self._streams.get(ident)
        genuine = payload is not None and number.isascii() and number.isdigit() and len(number) < 16
        if payload is None or not genuine or (stream is not None and int(number) > stream.last):
            raise RpcError(
                protocol.INVALID_PARAMS,
                "Last-Event-ID names no event of this session.",
                "Open a stream without it.",
                status=400,
            )
        position = int(number)
        if stream is not None:
            missed = stream.events[0][0] - 1 if stream.events else stream.last
            if stream.request is None and position < missed:
                _look_again(stream)
            return stream, position
        if not payload:
            stream = self.open(session)
            _look_again(stream)
            return stream, 0
        return await self._from_shelf(session, ident, payload, position)

    async def _from_shelf(
        self, session: Session, ident: str, payload: str, position: int
    ) -> tuple[EventStream, int]:
        request = msgspec.Raw(payload.encode())
        record = await self.shelf.stream(ident, session.ident)
        if (live := self._streams.get(ident)) is not None:
            return live, min(position, live.last)  # another request for it came first
        stream = EventStream(self, session, ident, request)
        if record is not None:
            stream.restore(record)
        if not stream.closed:
            stream.last = max(stream.last, position)
            stream.finish(jsonrpc.error(request, CallLost().to_error()))
        return stream, position

    # what streams tell of themselves

    def taken(self, stream: EventStream) -> None:
        """It is read."""
        self._streams[stream.ident] = stream
        self._forget_idle(stream)

    def _forget_idle(self, stream: EventStream) -> None:
        self._waiting.remove(stream.ident)
        self._delivered.remove(stream.ident)

    def left(self, stream: EventStream) -> None:
        """Nobody reads it any more, or a message was added that nobody reads."""
        if stream.ident not in self._streams:
            return
        self._forget_idle(stream)
        idle = self._delivered if stream.delivered else self._waiting
        idle.add(stream.ident, self._clock() + KEEP, stream.size)
        while idle.full and (ident := next(filter(self._may_go, idle.streams), None)) is not None:
            self._release(self._streams[ident])

    def _may_go(self, ident: str) -> bool:
        """Whether a stream is worth its memory no more: on the shelf, or of notices, or delivered."""
        stream = self._streams[ident]
        return stream.closed or stream.request is None

    def forget(self, stream: EventStream) -> None:
        """Nobody may come back to it."""
        self._release(stream)
        if stream.shelved:
            self.shelf.drop(stream.ident)

    def _release(self, stream: EventStream) -> None:
        self._forget_idle(stream)
        self._streams.pop(stream.ident, None)
        if stream.session.absent is stream:
            stream.session.absent = None

    def end(self, session: Session) -> None:
        """A session has ended: its streams go with it."""
        for stream in [stream for stream in self._streams.values() if stream.session is session]:
            stream.close()
            self.forget(stream)

    def expire(self) -> None:
        """Let go of streams that nobody came back to. A call still in flight keeps its stream."""
        now = self._clock()
        for idle in (self._waiting, self._delivered):
            for ident in [ident for ident, (until, _) in idle.streams.items() if until < now]:
                if self._may_go(ident):
                    self.forget(self._streams[ident])

    def close(self) -> None:
        """Put on the shelf what clients may come back for to the next process."""
        for ident in (*self._waiting.streams, *self._delivered.streams):
            self._streams[ident].save()


class _Idle:
    """Streams without a reader, the longest idle first: until when each is kept, and its size."""

    def __init__(self, bounds: tuple[int, int]) -> None:
        self.bounds = bounds
        self.size = 0
        self.streams: OrderedDict[str, tuple[float, int]] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether it is above one of its bounds."""
        return self.size > self.bounds[0] or len(self.streams) > self.bounds[1]

    def add(self, ident: str, until: float, size: int) -> None:
        """Take up a stream that is not in it."""
        self.streams[ident] = (until, size)
        self.size += size

    def remove(self, ident: str) -> None:
        """Leave out a stream that may be in it."""
        self.size -= self.streams.pop(ident, (0.0, 0))[1]


def _look_again(stream: EventStream) -> None:
    for message in look_again(stream.session.subscriptions):
        stream.put(message)
