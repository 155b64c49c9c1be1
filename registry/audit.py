"""The audit log: who called which tool when, how it ended and how long it took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from sqlalchemy import delete, func, insert, select

from registry import schema
from registry.errors import StoreDamaged
from registry.store import Store

KEEP: Final = 50_000
"""Calls that are kept, about 10 MB; the oldest go first."""
_SLACK: Final = 1.1
"""How far beyond that the log may grow before it is trimmed."""


class AuditedCall(msgspec.Struct, array_like=True, frozen=True, gc=False):
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


_group: Final = msgspec.json.Decoder(list[AuditedCall])


class AuditRecords:
    """The audit log in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store, keep: int = KEEP) -> None:
        self._store = store
        self._keep = keep
        self._held: int | None = None

    def add(self, calls: Sequence[AuditedCall]) -> None:
        """Append a group of calls, and now and then delete the oldest beyond what is kept."""
        if not calls:
            return
        table = schema.audit
        row = {"at": calls[0].at, "calls": len(calls), "body": msgspec.json.encode(calls)}
        with self._store.writing() as connection:
            connection.execute(insert(table), row)
            if self._held is None:
                held = connection.execute(select(func.sum(table.c.calls))).scalar_one()
            else:
                held = self._held + len(calls)
            if held > self._keep * _SLACK:
                newest = connection.execute(select(table.c.id, table.c.calls).order_by(table.c.id.desc()))
                held, last = 0, 0
                for ident, count in newest:
                    held, last = held + count, ident
                    if held >= self._keep:
                        break
                connection.execute(delete(table).where(table.c.id < last))
        self._held = held

    def latest(
        self, limit: int = 50, server: str | None = None, name: str | None = None
    ) -> list[AuditedCall]:
        """The latest calls, of one server or one tool where given, the latest first."""
        found: list[AuditedCall] = []
        for call in self._newest():
            if server in (None, call.server) and name in (None, call.name):
                found.append(call)
                if len(found) == limit:
                    break
        return found

    def _newest(self) -> Iterator[AuditedCall]:
        table = schema.audit.c
        before = None
        while True:
            statement = select(table.id, table.body).order_by(table.id.desc()).limit(100)
            if before is not None:
                statement = statement.where(table.id < before)
            with self._store.reading() as connection:
                rows = connection.execute(statement).all()
            if not rows:
                return
            for ident, body in rows:
                before = ident
                try:
                    calls = _group.decode(body)
                except msgspec.MsgspecError as error:
                    raise StoreDamaged(
                        f"Group {ident} of the audit log cannot be read: {error}.",
                        "Put a backup in its place.",
                    ) from error
                yield from reversed(calls)
