"""Messages on their way to one stream of a client."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, Protocol

from gateway import jsonrpc

OUTBOX: Final = 1024
"""Notices that may wait for one stream of a client that reads slowly: one for each thing it may watch."""
LIST_CHANGES: Final = tuple(
    f"notifications/{kind}/list_changed" for kind in ("prompts", "resources", "tools")
)


class Box(Protocol):
    """One stream of a client's, seen from those who have something to tell it."""

    closed: bool

    def put(self, message: bytes) -> None:
        """Queue a message. Never blocks."""

    def close(self) -> None:
        """No more messages."""


class Outbox:
    """Notices on their way to one stream of a client.

    Notices say "look again", so one waits for each thing to look at. Should others fill the box, the
    oldest goes and the client is told that everything has changed: nothing is lost silently.
    """

    __slots__ = ("_arrived", "_waiting", "closed", "everything")

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, bytes] = OrderedDict()
        self._arrived = asyncio.Event()
        self.closed = False
        self.everything: tuple[bytes, ...] = tuple(map(jsonrpc.notification, LIST_CHANGES))

    def put(self, message: bytes, about: bytes | None = None) -> None:
        """Queue a message. Never blocks.

        :param about: what it says has changed; the last word on that is all that waits.
        """
        if len(self._waiting) >= OUTBOX and (about or message) not in self._waiting:
            self._waiting.popitem(last=False)
            for notice in self.everything:
                self._waiting.pop(notice, None)
                self._waiting[notice] = notice
        self._waiting[about or message] = message
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
        messages = list(self._waiting.values())
        self._waiting.clear()
        if not self.closed:
            self._arrived.clear()
        return messages
