"""How much one server is asked at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from gateway.errors import UpstreamError, UpstreamTimeout

CONCURRENT: Final = 512
"""Calls one server serves at a time, unless its entry says otherwise (``maxConcurrency``)."""
QUEUED: Final = 4096
"""Calls that may wait for one server."""


class Busy(UpstreamError):
    """Too many calls wait for a server already."""

    kind = "upstream_busy"


class Slots:
    """A bounded number of calls in flight and a bounded, fair queue before them."""

    __slots__ = ("_free", "_limit", "_queue", "_waiters", "_what")

    def __init__(self, what: str, limit: int = CONCURRENT, queue: int = QUEUED) -> None:
        self._what = what
        self._limit = self._free = limit
        self._queue = queue
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def in_use(self) -> int:
        """Calls in flight."""
        return self._limit - self._free

    @property
    def limit(self) -> int:
        """Calls that may be in flight."""
        return self._limit

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiters)

    def try_enter(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self._free and not self._waiters:
            self._free -= 1
            return True
        return False

    async def enter(self, timeout: float) -> None:
        """Take a slot, waiting in turn. Raises Busy where the queue is full, UpstreamTimeout."""
        if self.try_enter():
            return
        if len(self._waiters) >= self._queue:
            raise Busy(f"{self._what} has {self._queue:,} calls waiting.", "Try again later.")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            self._give_up(waiter)
            raise UpstreamTimeout(
                f"{self._what} was busy with {self._limit} other calls for {timeout:g} s.", "Try again later."
            ) from None
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif waiter.done() and not waiter.cancelled():
            self.leave()  # the slot arrived at the same moment

    def leave(self) -> None:
        """Give a slot back: to the first who waits, else to whoever comes."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1
