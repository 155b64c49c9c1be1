"""Adapters in the store: every one that was trained, and whether it was kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, insert, select

from registry import schema
from registry.counters import Counter, advance
from registry.feedback.adapter import Adapter, shipped
from registry.store import Store


class AdapterRecords:
    """The adapters of a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def next_version(self) -> int:
        """The number the next adapter gets; the shipped one is 0."""
        with self._store.reading() as connection:
            return (connection.execute(select(func.max(schema.adapters.c.version))).scalar() or 0) + 1

    def put(self, adapter: Adapter, report: Mapping[str, Any]) -> None:
        """Keep an adapter: from now on it is the current one of its model."""
        row = {
            "version": adapter.version,
            "model": adapter.model,
            "created_at": time.time(),
            "body": adapter.dump(),
            "report": json.dumps(dict(report)),
            "kept": 1,
        }
        with self._store.writing() as connection:
            connection.execute(insert(schema.adapters), row)
            advance(connection, Counter.ADAPTERS)

    def current(self, model: str) -> Adapter | None:
        """The latest adapter for a model's weights, else the shipped one, else None.

        :raises IndexDamaged: the stored adapter cannot be read.
        """
        table = schema.adapters.c
        latest = select(table.body).where(table.model == model.split("/", 1)[0], table.kept == 1)
        with self._store.reading() as connection:
            body = connection.execute(latest.order_by(table.version.desc()).limit(1)).scalar()
        return shipped(model) if body is None else Adapter.load(body)

    def drop(self, version: int) -> bool:
        """Stop using an adapter; the one before it is current again. Returns whether it was in use."""
        table = schema.adapters.c
        statement = schema.adapters.update().where(table.version == version, table.kept == 1).values(kept=0)
        with self._store.writing() as connection:
            advance(connection, Counter.ADAPTERS)
            return connection.execute(statement).rowcount > 0
