"""Status notifications of the tasks that a stateless server has of its own (SEP-2663, Task Status Notifications)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

from gateway import jsonrpc, protocol
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection

Tell: TypeAlias = Callable[[Shallow], None]
"""Takes the params of a ``notifications/tasks``."""


class TaskWatches:
    """Who is to hear of which task of one server, on whatever connection it has.

    :param connections: gives the live ones.
    """

    def __init__(self, connections: Callable[[], Iterable[Connection]]) -> None:
        self._connections = connections
        self._told: dict[str, list[Tell]] = {}

    async def add(self, task: str, tell: Tell) -> bool:
        """Have changes of a task told. Returns whether the server has agreed to that."""
        self._told.setdefault(task, []).append(tell)
        able = [connection for connection in self._connections() if _able(connection)]
        agreed = await asyncio.gather(*(self._watch(connection) for connection in able))
        return any(task in tasks for tasks in agreed)

    def remove(self, task: str, tell: Tell) -> None:
        """End that."""
        tells = self._told.get(task, [])
        if tell in tells:
            tells.remove(tell)
        if not tells and self._told.pop(task, None) is not None:
            for connection in self._connections():
                connection.unwatch_task(task)

    async def renew(self, connection: Connection) -> None:
        """Have a new connection tell of what the one before it told of."""
        if self._told and _able(connection):
            await self._watch(connection)

    async def _watch(self, connection: Connection) -> frozenset[str]:
        connection.on_task = self._tell
        return await connection.watch_tasks(self._told)

    def _tell(self, params: Shallow) -> None:
        for tell in list(self._told.get(jsonrpc.text(params.get("taskId")) or "", ())):
            tell(params)


def _able(connection: Connection) -> bool:
    peer = connection.peer
    return (
        peer is not None and peer.era is Era.STATELESS and peer.offers("extensions", protocol.TASKS_EXTENSION)
    )
