"""One ``subscriptions/listen`` with a stateless server, kept in flight without a gap.

Nothing is replayed on such a stream (2026-07-28, Subscriptions). So when other resources are to be
watched, the new stream is opened and acknowledged before the old one ends; and when a stream was
lost, all it could have told of counts as changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from gateway import jsonrpc, protocol
from gateway.errors import UpstreamError
from gateway.jsonrpc import Shallow
from gateway.upstream.call import Reply
from gateway.upstream.peer import stateless_meta

log = logging.getLogger("toolyard.upstream")

ACKNOWLEDGED_WITHIN: Final = 2.0
"""Seconds that a server's first use waits for it to say that it listens."""
RETRY: Final = (1.0, 60.0)
"""Shortest and longest pause before a stream that was lost is opened again."""
_REFUSALS: Final = frozenset(
    {protocol.METHOD_NOT_FOUND, protocol.INVALID_PARAMS, protocol.INVALID_REQUEST} | protocol.MODERN_ERRORS
)

Listen: TypeAlias = Callable[[int, Shallow], Awaitable[Reply]]
"""Sends ``subscriptions/listen`` with an id and params, and waits until the stream ends. Being
cancelled ends it. Raises NoStream, or UpstreamError where it was lost."""


class NoStream(UpstreamError):
    """The server offers no such stream; asking again is of no use."""

    kind = "no_stream"
    retriable = False


class Listening:
    """What one connection listens to.

    :param new_id: gives a request id that no request had before.
    :param missed: called when a stream was lost and is back: there may have been changes meanwhile.
    """

    def __init__(
        self, server: str, new_id: Callable[[], int], listen: Listen, missed: Callable[[], None]
    ) -> None:
        self._server = server
        self._new_id = new_id
        self._listen = listen
        self._missed = missed
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._streams: dict[int, asyncio.Task[Reply]] = {}
        self._last = 0
        self._acknowledged = 0
        self._settled = 0
        self._task: asyncio.Task[None] | None = None
        self.watched: set[str] = set()
        self.tasks: set[str] = set()
        """Tasks of the server's own to hear of."""
        self._agreed: frozenset[str] = frozenset()
        self._updates = True

    async def start(self) -> None:
        """Begin, and wait a moment for the server to say that it listens."""
        self._task = asyncio.create_task(self._run(), name=f"listen {self._server}")
        self._task.add_done_callback(lambda _: self._news.set())
        await self._settles(0)

    async def watch(self, uri: str) -> bool:
        """Listen to updates of a resource too, and wait until the server says that it does.

        Returns whether it may: not where it has said that it tells of none.
        """
        if uri not in self.watched:
            self.watched.add(uri)
            self._changed.set()
        await self._settles(self._last)
        return self._updates and self._task is not None and not self._task.done()

    def unwatch(self, uri: str) -> None:
        """End that."""
        if uri in self.watched:
            self.watched.discard(uri)
            self._changed.set()

    async def watch_tasks(self, tasks: Iterable[str]) -> frozenset[str]:
        """Listen to changes of tasks too: those of all such that the server agrees to tell of."""
        if not self.tasks.issuperset(tasks):
            self.tasks.update(tasks)
            self._changed.set()
            await self._settles(self._last)
        return self._agreed

    def unwatch_task(self, task: str) -> None:
        """End that; the stream is not replaced for it, as it would be with each task that ends."""
        self.tasks.discard(task)

    async def _settles(self, after: int) -> None:
        """Wait until a stream opened after this one is acknowledged, or known to be none."""
        assert self._task is not None
        try:
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN):
                while self._settled <= after and not self._task.done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.info("server '%s' has not acknowledged what is listened to", self._server)

    def acknowledged(
        self, ident: int | None, tasks: Iterable[str] = (), resources: Iterable[str] = ()
    ) -> None:
        """The server says that it listens, and of which tasks and resources it will tell."""
        if ident in self._streams:
            self._agreed = frozenset(tasks)
            # Of some it may speak by another spelling of their URI; of none at all, it means it.
            self._updates = bool(list(resources)) or not self.watched
            self._acknowledged = max(self._acknowledged, ident)
            self._settle(ident)

    def hears(self, ident: int | None) -> bool:
        """Whether a notice tagged with this id is news: not of a stream that another has replaced.

        Streams overlap while one replaces the other, and the server tells both.
        """
        return ident is None or (ident in self._streams and ident >= self._acknowledged)

    def ended(self, ident: int | None) -> None:
        """The server tears a stream down (2026-07-28, Cancellation)."""
        stream = self._streams.get(ident) if ident is not None else None
        if stream is not None:
            stream.cancel()

    def _settle(self, ident: int) -> None:
        self._settled = max(self._settled, ident)
        self._news.set()

    def _params(self) -> Shallow:
        """The params of our ``subscriptions/listen`` (2026-07-28, Subscriptions)."""
        wanted: dict[str, Any] = {
            "toolsListChanged": True,
            "promptsListChanged": True,
            "resourcesListChanged": True,
        }
        if self.watched:
            wanted["resourceSubscriptions"] = sorted(self.watched)
        meta: dict[str, Any] = dict(stateless_meta())
        if self.tasks:
            wanted["taskIds"] = sorted(self.tasks)
            meta[protocol.META_CLIENT_CAPABILITIES] = {"extensions": {protocol.TASKS_EXTENSION: {}}}
        return {"_meta": jsonrpc.raw(meta), "notifications": jsonrpc.raw(wanted)}

    async def _stream(self, ident: int, params: Shallow) -> Reply:
        try:
            return await self._listen(ident, params)
        finally:
            self._streams.pop(ident, None)
            self._settle(ident)

    def _open(self) -> tuple[int, asyncio.Task[Reply]]:
        self._changed.clear()
        ident = self._last = self._new_id()
        stream = asyncio.create_task(self._stream(ident, self._params()), name=f"stream of {self._server}")
        self._streams[ident] = stream
        return ident, stream

    async def _run(self) -> None:
        pause, longest = RETRY
        lost = False
        old: asyncio.Task[Reply] | None = None
        try:
            while True:
                ident, stream = self._open()
                await self._acknowledges(ident, stream)
                if old is not None:
                    await _end(old)
                    old = None
                if lost and not stream.done():
                    self._missed()
                    lost, pause = False, RETRY[0]
                change = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait({stream, change}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
                if not stream.done():
                    old = stream
                    continue
                if _refused(stream, self._server):
                    return
                lost = True
                try:
                    async with asyncio.timeout(pause):
                        await self._changed.wait()
                except TimeoutError:
                    pause = min(pause * 2, longest)
        finally:
            for stream in list(self._streams.values()):
                await _end(stream)

    async def _acknowledges(self, ident: int, stream: asyncio.Task[Reply]) -> None:
        deadline = asyncio.get_running_loop().time() + ACKNOWLEDGED_WITHIN
        while self._acknowledged < ident and not stream.done():
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return

    async def close(self) -> None:
        """End every stream."""
        if self._task is not None:
            await _end(self._task)


def _refused(stream: asyncio.Task[Reply], server: str) -> bool:
    """Whether a stream that has ended says that there is no use in opening another."""
    if stream.cancelled():
        return False
    failure = stream.exception()
    if failure is None:
        reply = stream.result()
        return reply.error is not None and jsonrpc.error_code(reply.error) in _REFUSALS
    if not isinstance(failure, UpstreamError):
        raise failure
    log.debug("notification stream of %s: %s", server, failure)
    return isinstance(failure, NoStream)


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
