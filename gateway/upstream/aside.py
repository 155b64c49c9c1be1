"""Messages to a server that no caller waits for: answers to what it asked, and notices of cancelled calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.errors import UpstreamError

log = logging.getLogger("toolyard.upstream")

MOST: Final = 64
"""Messages under way at a time; what comes beyond is not sent."""
SECONDS: Final = 10.0
"""Given to each."""


class Aside:
    """Posts messages in the background, bounded in number and time. A failure is logged and nothing more.

    :param deliver: sends one message. Raises UpstreamError.
    """

    def __init__(self, server: str, deliver: Callable[[bytes], Awaitable[None]]) -> None:
        self._server = server
        self._deliver = deliver
        self._posts: set[asyncio.Task[None]] = set()
        self._closed = False

    def post(self, body: bytes) -> None:
        """Send a message some time soon."""
        if self._closed or len(self._posts) >= MOST:
            return
        task = asyncio.create_task(self._post(body), name=f"message to {self._server}")
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _post(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                await self._deliver(body)
        except (UpstreamError, TimeoutError) as error:
            log.debug("a message to server '%s' was not taken: %s", self._server, error)

    def stop(self) -> None:
        """Send nothing more; what is under way goes on."""
        self._closed = True

    async def close(self) -> None:
        """Give up what is under way, and send nothing more."""
        self.stop()
        posts = list(self._posts)
        for task in posts:
            task.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
