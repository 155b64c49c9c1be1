"""The audit log: who called which tool when, how it ended and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Final

from sqlalchemy import delete, func, insert, select

from registry import schema
from registry.store import Store

KEEP: Final = 50_000
"""Calls that are kept, about 15 MB; the oldest go first."""
_TEXT: Final = 1000
"""Characters of a client's name and of a call's arguments that are kept."""


@dataclass(frozen=True, slots=True)
class AuditedCall:
    """One call of a tool.

    :param at: when it was made, in seconds since the epoch.
    :param client: what the client called itself.
    :param outcome: ``ok``, ``tool_error``, or the kind of error that came instead of a result.
    :param seconds: how long it took.
    :param arguments: their shape as JSON, without any value; empty where there was none to keep.
    """

    at: float
    client: str
    server: str
    name: str
    outcome: str
    seconds: float
    arguments: str = ""


class AuditRecords:
    """The audit log in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, calls: Sequence[AuditedCall], keep: int = KEEP) -> None:
        """Append calls, and delete the oldest beyond ``keep``."""
        if not calls:
            return
        names = [field.name for field in fields(AuditedCall)]
        rows = [dict(zip(names, astuple(call), strict=True)) for call in calls[-keep:]]
        for row in rows:
            row["client"], row["outcome"] = row["client"][:_TEXT], row["outcome"][:64]
            row["arguments"] = row["arguments"][:_TEXT]
        table = schema.audit
        with self._store.writing() as connection:
            connection.execute(insert(table), rows)
            last = connection.execute(select(func.max(table.c.id))).scalar_one()
            connection.execute(delete(table).where(table.c.id <= last - keep))

    def latest(
        self, limit: int = 50, server: str | None = None, name: str | None = None
    ) -> list[AuditedCall]:
        """The latest calls, of one server or one tool where given, the latest first."""
        table = schema.audit.c
        statement = select(*(table[field.name] for field in fields(AuditedCall)))
        if server is not None:
            statement = statement.where(table.server == server)
        if name is not None:
            statement = statement.where(table.name == name)
        with self._store.reading() as connection:
            rows = connection.execute(statement.order_by(table.id.desc()).limit(limit)).all()
        return [AuditedCall(*row) for row in rows]
