"""What must outlive this process of sessions and streams, written in groups off the call path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from gateway import protocol
from gateway.errors import RpcError
from registry.continuity import ContinuityRecords, SessionRecord, StreamRecord
from registry.errors import RegistryError

log = logging.getLogger("toolyard")
T = TypeVar("T")

GROUP: Final = 0.03
"""Seconds in which writes are collected before they go to disk together."""
TRY_AGAIN: Final = 5.0
"""Seconds between attempts to write to a disk that does not take it."""
PRUNE_EVERY: Final = 3600.0
PRUNE_AFTER: Final = 16 * 1024 * 1024
"""Bytes of events written, and seconds, after which what is kept is held to its bounds."""
WAIT: Final = 2.0
"""Seconds a caller waits for its wish to be on disk, before it is told yes although it is not yet."""


class Stored(Protocol):
    """Does store work in a worker thread, one piece at a time."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class StreamSource(Protocol):
    """A stream whose events are to outlive the process."""

    ident: str

    def unsaved(self) -> StreamRecord:
        """What is to be written now; it counts as written."""

    def save_again(self, record: StreamRecord) -> None:
        """It was not written."""


class Ledger:
    """Queues records and writes them in groups; reads what is queued or stored.

    A full disk delays writing and loses nothing while the process lives; it is said in the log.
    """

    def __init__(self, records: ContinuityRecords, stored: Stored) -> None:
        self._records = records
        self._stored = stored
        self._sessions: dict[str, SessionRecord] = {}
        self._streams: dict[str, StreamSource] = {}
        self._gone: set[str] = set()
        self._dirty = asyncio.Event()
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Lock = asyncio.Lock()
        self._failing = False
        self._unpruned = PRUNE_AFTER
        self._pruned_at = 0.0

    def note(self, record: SessionRecord) -> None:
        """Write this session's record soon."""
        self._sessions[record.ident] = record
        self._dirty.set()

    async def noted(self, record: SessionRecord) -> None:
        """Write this session's record, and return when it is on disk (or the disk is slow to take it)."""
        self.note(record)
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._written], timeout=WAIT)

    def keep(self, source: StreamSource) -> None:
        """Write this stream's new events soon."""
        self._streams[source.ident] = source
        self._dirty.set()

    def drop(self, stream: str) -> None:
        """Nobody will ask for this stream any more."""
        self._streams.pop(stream, None)
        self._gone.add(stream)
        self._dirty.set()

    async def session(self, ident: str) -> SessionRecord | None:
        """What is known of a session. Raises RpcError (503) where the store cannot be read."""
        if (waiting := self._sessions.get(ident)) is not None:
            return waiting
        return await self._read(partial(self._records.session, ident))

    async def stream(self, ident: str, session: str) -> StreamRecord | None:
        """A stream that an earlier process kept. Raises RpcError (503) as ``session``."""
        await self._flush()
        return await self._read(partial(self._records.stream, ident, session))

    async def _read(self, work: Callable[[], T]) -> T:
        try:
            return await self._stored(work)
        except RegistryError as error:
            raise RpcError(protocol.INTERNAL_ERROR, error.message, error.hint, status=503) from error

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if self._unpruned >= PRUNE_AFTER or time.monotonic() - self._pruned_at > PRUNE_EVERY:
                self._unpruned, self._pruned_at = 0, time.monotonic()
                await self._try(partial(self._records.prune, time.time()))
            await self._dirty.wait()
            await asyncio.sleep(TRY_AGAIN if self._failing else GROUP)
            await self._flush()

    async def close(self) -> None:
        """Write what waits."""
        await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            if not (self._sessions or self._streams or self._gone):
                self._settle()
                return
            self._dirty.clear()
            sessions, self._sessions = self._sessions, {}
            streams, self._streams = self._streams, {}
            gone, self._gone = self._gone, set()
            written, self._written = self._written, None
            events = {ident: source.unsaved() for ident, source in streams.items()}
            save = partial(self._records.save, list(sessions.values()), list(events.values()), gone)
            self._unpruned += sum(len(body) for record in events.values() for _, body in record.events)
            if not await self._try(save):
                self._sessions = {**sessions, **self._sessions}
                for ident, record in events.items():
                    streams[ident].save_again(record)
                self._streams = {**streams, **self._streams}
                self._gone |= gone
                self._dirty.set()
            if written is not None and not written.done():
                written.set_result(None)

    def _settle(self) -> None:
        self._dirty.clear()
        written, self._written = self._written, None
        if written is not None and not written.done():
            written.set_result(None)

    async def _try(self, work: Callable[[], Any]) -> bool:
        try:
            await self._stored(work)
        except RegistryError as error:
            if not self._failing:
                log.warning("what clients asked for would not outlive a restart now: %s", error)
            self._failing = True
            return False
        if self._failing:
            log.warning("what clients ask for outlives a restart again")
        self._failing = False
        return True
