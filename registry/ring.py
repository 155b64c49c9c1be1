"""The keys that seal what passes through clients' hands: the newest seals, all of them open."""

from __future__ import annotations

import itertools
import secrets
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, select

from registry import schema
from registry.counters import Counter, advance
from registry.store import Store

KEY_ID_BYTES: Final = 4
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SealKey:
    """One key of the ring.

    :param ident: names it in a token; no secret.
    :param created_at: seconds since the epoch.
    """

    ident: bytes
    secret: bytes
    created_at: float

    def __repr__(self) -> str:
        return f"SealKey({self.ident.hex()})"


class RingRecords:
    """The key ring in a store. Every method is one transaction; all raise StoreError.

    :param lifetime: seconds the longest-lived token is good for: a key that was replaced longer ago than
        that has nothing left to open, and is removed.
    """

    def __init__(self, store: Store, lifetime: float) -> None:
        self._store = store
        self._lifetime = lifetime

    def ring(self) -> list[SealKey]:
        """The ring, newest first; the first key is made on first use."""
        with self._store.reading() as connection:
            found = _read(connection)
        if found and not self._outlived(found):
            return found
        with self._store.writing() as connection:
            if not _read(connection):
                _add(connection)
            advance(connection, Counter.KEYS)
            return self._pruned(connection)

    def rotate(self) -> list[SealKey]:
        """Add a key, which seals from now on. Returns the ring."""
        with self._store.writing() as connection:
            _add(connection)
            advance(connection, Counter.KEYS)
            return self._pruned(connection)

    def retire(self, ident: bytes) -> bool:
        """Remove a key: what it sealed opens no more. Returns whether there was one of that name.

        The last key is replaced by a new one.
        """
        with self._store.writing() as connection:
            table = schema.seal_keys
            known = connection.execute(delete(table).where(table.c.ident == ident)).rowcount > 0
            if not _read(connection):
                _add(connection)
            advance(connection, Counter.KEYS)
        return known

    def _outlived(self, ring: list[SealKey]) -> list[SealKey]:
        now = time.time()
        pairs = itertools.pairwise(ring)
        return [key for newer, key in pairs if now - newer.created_at > self._lifetime]

    def _pruned(self, connection: Connection) -> list[SealKey]:
        ring = _read(connection)
        gone = {key.ident for key in self._outlived(ring)}
        if gone:
            table = schema.seal_keys
            connection.execute(delete(table).where(table.c.ident.in_(gone)))
        return [key for key in ring if key.ident not in gone]


def _read(connection: Connection) -> list[SealKey]:
    table = schema.seal_keys.c
    rows = connection.execute(
        select(table.ident, table.secret, table.created_at).order_by(table.created_at.desc(), table.ident)
    )
    return [SealKey(bytes(row.ident), bytes(row.secret), row.created_at) for row in rows]


def _add(connection: Connection) -> None:
    newest = max((key.created_at for key in _read(connection)), default=0.0)
    row = {
        "ident": secrets.token_bytes(KEY_ID_BYTES),
        "secret": secrets.token_bytes(SECRET_BYTES),
        "created_at": max(time.time(), newest + 1e-3),  # a clock that was set back must not hide it
    }
    connection.execute(schema.seal_keys.insert(), row)
