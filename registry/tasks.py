"""The store's records of tasks: calls that go on after their client was given a handle."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.store import Store, upsert


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as it stood when it was last written.

    :param status: as the specification names it: working, input_required, completed, failed, cancelled.
    :param message: what a person or model may be told of that status.
    :param created_at: seconds since the epoch, as ``updated_at`` and ``expires_at``.
    :param body: JSON whose meaning depends on the status; empty while working.
    """

    ident: str
    server: str
    status: str
    message: str | None
    created_at: float
    updated_at: float
    expires_at: float
    body: bytes


class TaskRecords:
    """Tasks in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, record: TaskRecord) -> None:
        """Write a task, new or changed."""
        with self._store.writing() as connection:
            connection.execute(upsert(insert(schema.tasks), "ident"), asdict(record))

    def get(self, ident: str) -> TaskRecord | None:
        """A task, expired or not; None for one that is not kept."""
        statement = select(schema.tasks).where(schema.tasks.c.ident == ident)
        with self._store.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return TaskRecord(*row) if row is not None else None

    def of_status(self, *statuses: str) -> list[TaskRecord]:
        """The tasks that stand at one of these, oldest first."""
        table = schema.tasks.c
        statement = select(schema.tasks).where(table.status.in_(statuses))
        with self._store.reading() as connection:
            rows = connection.execute(statement.order_by(table.created_at, table.ident)).all()
        return [TaskRecord(*row) for row in rows]

    def remove(self, ident: str) -> None:
        """Forget a task."""
        with self._store.writing() as connection:
            connection.execute(delete(schema.tasks).where(schema.tasks.c.ident == ident))

    def expire(self, now: float) -> int:
        """Forget the tasks whose time is over. Returns how many there were."""
        with self._store.writing() as connection:
            done = connection.execute(delete(schema.tasks).where(schema.tasks.c.expires_at <= now))
            return done.rowcount

    def size(self) -> tuple[int, int]:
        """How many tasks are kept, and the bytes of their bodies."""
        table = schema.tasks.c
        statement = select(func.count(), func.coalesce(func.sum(func.length(table.body)), 0))
        with self._store.reading() as connection:
            count, size = connection.execute(statement).one()
        return int(count), int(size)
