"""Several gateways on one store: each takes over what the others have changed, and shows that it lives.

What a gateway serves it holds in memory. Once a second it reads the store's counters; for each that has
moved since, whoever keeps those records reads them anew. A gateway whose store is its own has nobody to
follow and does none of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError
from gateway.registering import StoreWork
from registry.counters import Counter
from registry.errors import RegistryError
from registry.replicas import LEASE, ReplicaRecords
from registry.store import Store

log = logging.getLogger("toolyard")

EVERY: Final = 1.0
"""Seconds between two looks at the counters: how long others may serve what has changed."""
BEAT: Final = LEASE / 6
"""Seconds between two signs of life."""

Handler = Callable[[], Awaitable[object]]


def identity(path: Path) -> str:
    """The id of the gateway on a state directory, made on first use and kept in this file. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        known = path.read_text(encoding="ascii", errors="replace").strip()
        if re.fullmatch(r"[0-9a-f]{32}", known):
            return known
    made = secrets.token_hex(16)
    path.write_text(made + "\n", encoding="ascii")
    return made


class Follower:
    """Keeps one gateway in step with the others on its store.

    :param ident: of this gateway; the same after a restart.
    :param stored: does store work in a worker thread.
    """

    def __init__(self, store: Store, ident: str, stored: StoreWork) -> None:
        self._store = store
        self._ident = ident
        self._stored = stored
        self._records = ReplicaRecords(store)
        self._handlers: dict[Counter, list[Handler]] = {}
        self._seen: dict[str, int] = {}
        self._left = False

    @property
    def owner(self) -> str:
        """What marks work in the store as this gateway's: "" where nobody else could have begun it."""
        return self._ident if self._store.shared else ""

    def on(self, counter: Counter, handler: Handler) -> None:
        """Have this done whenever the counter has moved; it may be by a change of our own."""
        self._handlers.setdefault(counter, []).append(handler)

    async def start(self) -> None:
        """Remember where the counters stand: before anything is read, so that no change is missed. Raises StoreError."""
        if self._store.shared:
            self._seen = await self._stored(self._store.counters)
            await self._stored(self._beat)

    def _beat(self) -> None:
        """Say that this gateway lives, unless it has said that it ends: store work comes one piece at a time."""
        if not self._left:
            self._records.beat(self._ident)

    async def run(self) -> None:
        """Follow, for ever. A store that is away is waited for."""
        if not self._store.shared:
            return
        loop = asyncio.get_running_loop()
        beaten, away = loop.time(), False
        while True:
            await asyncio.sleep(EVERY)
            try:
                if loop.time() - beaten >= BEAT:
                    await self._stored(self._beat)
                    beaten = loop.time()
                await self._look()
            except RegistryError as error:
                if not away:
                    log.error("other gateways cannot be followed for now: %s", error)
                away = True
            else:
                away = False

    async def _look(self) -> None:
        now = await self._stored(self._store.counters)
        for counter, handlers in self._handlers.items():
            if now.get(counter, 0) == self._seen.get(counter, 0):
                continue
            for handler in handlers:
                try:
                    await handler()
                except RegistryError:
                    raise  # looked at again: the counter is not marked as seen
                except GatewayError as error:
                    log.error("what another gateway changed cannot be taken over: %s", error)
                except Exception:
                    log.exception("what another gateway changed could not be taken over")
            self._seen[counter] = now.get(counter, 0)

    async def close(self) -> None:
        """We end: others may take what is left at once."""
        if self._store.shared:
            self._left = True
            try:
                await self._stored(lambda: self._records.leave(self._ident))
            except RegistryError as error:
                log.warning("other gateways will not know for %g s that this one has ended: %s", LEASE, error)
