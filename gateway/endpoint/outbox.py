"""Messages on their way to one stream of a client."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, Protocol

OUTBOX: Final = 256
"""Notices that may wait for one stream of a client that reads slowly."""


class Box(Protocol):
    """One stream of a client's, seen from those who have something to tell it."""

    closed: bool

    def put(self, message: bytes) -> None:
        """Queue a message. Never blocks."""

    def close(self) -> None:
        """No more messages."""


class Outbox:
    """Notices on their way to one stream of a client.

    Notices say "look again", so a notice that already waits is not queued twice; when the box is
    full the oldest go, and the client still learns that there is something to look at.
    """

    __slots__ = ("_arrived", "_waiting", "closed")

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, None] = OrderedDict()
        self._arrived = asyncio.Event()
        self.closed = False

    def put(self, message: bytes) -> None:
        """Queue a message. Never blocks."""
        if message in self._waiting:
            return
        if len(self._waiting) >= OUTBOX:
            self._waiting.popitem(last=False)
        self._waiting[message] = None
        self._arrived.set()

    def close(self) -> None:
        """No more messages; ``take`` returns an empty list once the box is drained."""
        self.closed = True
        self._arrived.set()

    async def take(self, timeout: float) -> list[bytes]:
        """What has arrived, waiting up to ``timeout`` seconds for something."""
        if not self._waiting and not self.closed:
            try:
                async with asyncio.timeout(timeout):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        messages = list(self._waiting)
        self._waiting.clear()
        if not self.closed:
            self._arrived.clear()
        return messages
