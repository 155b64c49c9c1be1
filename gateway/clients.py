"""The clients of a gateway, whichever endpoint they came to, and what all of them share: keys, ledger, streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from gateway import jsonrpc
from gateway.endpoint.events import EventLog
from gateway.endpoint.sessions import Session, SessionGone, Sessions
from gateway.errors import GatewayError, NotFound
from gateway.jsonrpc import Shallow
from gateway.ledger import Ledger
from gateway.registering import StoreWork
from gateway.sealing import MAX_LIFETIME, KeyRing, Purpose, Sealer
from gateway.upstream.private import Home, StateLost
from registry.continuity import ContinuityRecords
from registry.ring import RingRecords, SealKey
from registry.store import Store

PLAIN: Final = ""
"""The endpoint that shows every tool; the others have the name of their toolset."""


class Clients:
    """The sessions of every endpoint. Iterating yields those that are live.

    :param stored: does store work in a worker thread.
    """

    def __init__(self, store: Store, stored: StoreWork) -> None:
        self._stored = stored
        self._ring_records = RingRecords(store, MAX_LIFETIME)
        self.ring = KeyRing(self._ring_records.ring())
        self.ledger = Ledger(ContinuityRecords(store), stored)
        self.events = EventLog(Sealer(Purpose.EVENT, self.ring), self.ledger)
        self._endpoints: dict[str, Sessions] = {}
        self.on_recall: list[Callable[[Session], None]] = []
        """Are told of a session that comes back with wishes of its own."""
        self.on_end: list[Callable[[Session], None]] = [self.events.end]
        """Are told of a session that has ended for good."""

    def __iter__(self) -> Iterator[Session]:
        for sessions in self._endpoints.values():
            yield from sessions

    def __len__(self) -> int:
        return sum(map(len, self._endpoints.values()))

    def open(self, endpoint: str = PLAIN) -> Sessions:
        """The sessions of a new endpoint; their ids are good there alone."""
        sealer = Sealer(Purpose.SESSION, self.ring, endpoint=endpoint)
        sessions = self._endpoints[endpoint] = Sessions(sealer, self.ledger, toolset=endpoint)
        sessions.on_recall, sessions.on_end = self.on_recall, self.on_end
        return sessions

    def end(self, endpoint: str) -> None:
        """An endpoint is no more: its sessions end for good."""
        sessions = self._endpoints.pop(endpoint)
        for session in sessions:
            sessions.end(session)

    # what servers with a session of its own ask of their owner

    async def binding(self, home: Home) -> None:
        """A server is about to keep state for this session; returns when that would be known after a crash."""
        if isinstance(home, Session) and (sessions := self._endpoints.get(home.toolset)) is not None:
            await sessions.remember(home)

    def unbound(self, home: Home, server: str) -> GatewayError:
        """A session calls a server whose state for it is gone: what it is told."""
        said = f"What server '{server}' kept for this session is gone."
        if isinstance(home, Session) and home.token:
            if (
                sessions := self._endpoints.get(home.toolset)
            ) is not None:  # else it has ended with its toolset
                sessions.end(home, calls=False)
            return SessionGone(said)
        home.lost.discard(server)  # a stream cannot be told 404: it is told once, and begins anew
        return StateLost(said, "The next call begins anew.")

    @staticmethod
    def on_private(home: Home, message: Shallow) -> None:
        """A notification outside any call, for this session alone; lists come from the shared connection."""
        if jsonrpc.text(message.get("method")) == "notifications/resources/updated" and isinstance(
            home, Session
        ):
            uri = jsonrpc.text((jsonrpc.object_of(message.get("params")) or {}).get("uri"))
            if uri in home.subscriptions:
                home.tell(jsonrpc.encode(message))

    # as time goes by

    def watch(self) -> None:
        """Called now and then: streams expire, calls in flight see that time goes by."""
        self.events.expire()
        for sessions in self._endpoints.values():
            sessions.linger()

    def close_streams(self) -> None:
        """End every stream on which clients listen; the ids stay good for the next process."""
        for sessions in self._endpoints.values():
            sessions.close()

    def give_up(self) -> None:
        """Answer every call that is still in flight: we end before it does."""
        for sessions in self._endpoints.values():
            sessions.give_up()

    async def close(self) -> None:
        """Write down what clients may come back for."""
        self.events.close()
        await self.ledger.close()

    # keys

    async def follow(self) -> None:
        """Another gateway has changed the ring: seal and open as it says. Raises StoreError."""
        self.ring.replace(await self._stored(self._ring_records.ring))
        for sessions in self._endpoints.values():
            sessions.end_unsealed()

    async def keys(self, rotate: bool = False, retire: bytes | None = None) -> list[SealKey]:
        """The key ring, newest first, after a change where one is asked for. Raises NotFound, StoreError.

        :param rotate: add a key, which seals from now on.
        :param retire: the name of one to remove: what it sealed opens no more.
        """
        if rotate:
            await self._stored(self._ring_records.rotate)
        if retire is not None and not await self._stored(partial(self._ring_records.retire, retire)):
            raise NotFound(f"There is no key {retire.hex()}.", "See: toolyard keys list.")
        found = await self._stored(self._ring_records.ring)
        self.ring.replace(found)
        if retire is not None:
            for sessions in self._endpoints.values():
                sessions.end_unsealed()
        return found
