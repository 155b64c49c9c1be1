"""How many calls are made at a time: in all, and of one server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

TOTAL: Final = 64
PER_SERVER: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls at a time.

    :param servers: by server, where one takes more or fewer than the others.
    """

    total: int = TOTAL
    per_server: int = PER_SERVER
    servers: Mapping[str, int] = field(default_factory=dict, hash=False)

    def of(self, server: str) -> int:
        """Calls at a time of one server."""
        return max(1, self.servers.get(server, self.per_server))


class Slots:
    """The places for calls, first come, first served. Shared by all runs of a process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total = asyncio.Semaphore(max(1, limits.total))
        self._servers: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def place(self, server: str) -> AsyncIterator[None]:
        """A place for one call.

        Its server's comes first, so that calls which wait for a busy server do not keep the places
        of others; places are taken in one order by all, so nobody waits in a circle.
        """
        own = self._servers.get(server)
        if own is None:
            own = self._servers[server] = asyncio.Semaphore(self._limits.of(server))
        async with own, self._total:
            yield
