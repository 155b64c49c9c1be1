"""Results of pure tools, kept by (tool version, arguments)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_ONE: Final = 4 * 1024 * 1024


class ResultCache:
    """The least recently used results are dropped beyond ``max_bytes``; failures are not kept.

    Keys are digests of server, tool, version and arguments (`router.consent.digest`).
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._flying: dict[str, asyncio.Future[bytes]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str, make: Callable[[], Awaitable[bytes]]) -> tuple[bytes, bool]:
        """A result, and whether it was kept from before.

        Of several that want the same one at once, one makes it and the others wait for it; where that
        one fails or is cancelled, the next makes it.
        """
        while True:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found, True
            flying = self._flying.get(key)
            if flying is None:
                return await self._made(key, make), False
            await asyncio.wait([flying])

    async def _made(self, key: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        flying: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._flying[key] = flying
        try:
            body = await make()
            self._keep(key, body)
            return body
        finally:
            del self._flying[key]
            flying.cancel()

    def _keep(self, key: str, body: bytes) -> None:
        if len(body) > min(MAX_ONE, self._max_bytes):
            return
        self._kept[key] = body
        self._bytes += len(body)
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped)
