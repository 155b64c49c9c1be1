"""Which gateways are alive on a store, and until when what one of them has begun is its own.

Each says now and then that it lives. One that has been silent for `LEASE` counts as dead, and what it
left behind goes to whoever takes it first. The database's clock alone counts: those of machines differ.
"""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.counters import Counter, advance
from registry.store import Store, upsert

LEASE: Final = 30.0
"""Seconds of silence after which a gateway counts as dead."""


class ReplicaRecords:
    """The gateways of a store, by the id each keeps in its state directory. All methods raise StoreError."""

    def __init__(self, store: Store, lease: float = LEASE) -> None:
        self._store = store
        self._lease = lease

    def beat(self, ident: str) -> None:
        """Say that a gateway lives. Of those that are long dead nothing is kept."""
        table = schema.replicas
        with self._store.writing() as connection:
            at = now(connection)
            connection.execute(upsert(insert(table), "ident"), {"ident": ident, "seen_at": at})
            connection.execute(delete(table).where(table.c.seen_at < at - 100 * self._lease))

    def leave(self, ident: str) -> None:
        """A gateway ends: what it leaves may be taken at once."""
        with self._store.writing() as connection:
            connection.execute(delete(schema.replicas).where(schema.replicas.c.ident == ident))
            advance(connection, Counter.TASKS)

    def alive(self) -> list[str]:
        """The gateways that were heard of within the lease."""
        with self._store.reading() as connection:
            return living(connection, self._lease)


def living(connection: Connection, lease: float) -> list[str]:
    """The gateways that were heard of within the lease, in a transaction."""
    table = schema.replicas.c
    heard = select(table.ident).where(table.seen_at > now(connection) - lease)
    return list(connection.execute(heard.order_by(table.ident)).scalars())


def now(connection: Connection) -> float:
    """The time of the database, in seconds since the epoch."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
    return time.time()
