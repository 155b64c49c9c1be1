"""The store's records of tasks: calls that go on after their client was given a handle.

A task belongs to the gateway that makes its call. Another gateway on the same store reads how it stands,
leaves messages for its owner, and takes it over where the owner is dead (`registry.replicas`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.counters import Counter, advance
from registry.replicas import LEASE, living
from registry.store import Store

UNFINISHED = ("working", "input_required")


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as it stood when it was last written.

    :param status: as the specification names it: working, input_required, completed, failed, cancelled.
    :param message: what a person or model may be told of that status.
    :param created_at: seconds since the epoch, as ``updated_at`` and ``expires_at``.
    :param body: JSON whose meaning depends on the status; empty while working.
    :param owner: the gateway that makes its call.
    """

    ident: str
    server: str
    status: str
    message: str | None
    created_at: float
    updated_at: float
    expires_at: float
    body: bytes
    owner: str = ""


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """What came for a task at another gateway than its owner."""

    ident: int
    task: str
    kind: str
    body: bytes


_FIELDS = tuple(schema.tasks.c[name] for name in TaskRecord.__dataclass_fields__)


class TaskRecords:
    """Tasks in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store, lease: float = LEASE) -> None:
        self._store = store
        self._lease = lease

    def put(self, record: TaskRecord) -> bool:
        """Write a task, new or changed. Returns False, and writes nothing, where it has another owner by now."""
        table = schema.tasks
        with self._store.writing() as connection:
            row = {**asdict(record), "revision": advance(connection, Counter.TASKS)}
            statement = insert(table).values(row)
            changed = {name: statement.excluded[name] for name in row if name != "ident"}
            written = statement.on_conflict_do_update(
                index_elements=["ident"], set_=changed, where=table.c.owner == record.owner
            )
            return connection.execute(written.returning(table.c.ident)).first() is not None

    def get(self, ident: str) -> TaskRecord | None:
        """A task, expired or not; None for one that is not kept."""
        statement = select(*_FIELDS).where(schema.tasks.c.ident == ident)
        with self._store.reading() as connection:
            row = connection.execute(statement).one_or_none()
        return TaskRecord(*row) if row is not None else None

    def since(self, revision: int, idents: Collection[str]) -> tuple[int, list[TaskRecord]]:
        """Those of some tasks that were written after a revision; the latest revision there is."""
        table = schema.tasks.c
        statement = select(*_FIELDS).where(table.revision > revision, table.ident.in_(sorted(idents)))
        with self._store.reading() as connection:
            latest = connection.execute(select(func.coalesce(func.max(table.revision), 0))).scalar_one()
            rows = connection.execute(statement.order_by(table.revision)).all() if idents else []
        return max(revision, int(latest)), [TaskRecord(*row) for row in rows]

    def of_status(self, *statuses: str) -> list[TaskRecord]:
        """The tasks that stand at one of these, oldest first."""
        table = schema.tasks.c
        statement = select(*_FIELDS).where(table.status.in_(statuses))
        with self._store.reading() as connection:
            rows = connection.execute(statement.order_by(table.created_at, table.ident)).all()
        return [TaskRecord(*row) for row in rows]

    def claim(self, owner: str, *, started: bool = False) -> list[TaskRecord]:
        """Take over the unfinished tasks of gateways that are dead. Returns them, oldest first.

        Whoever comes first has them: of two that claim at once, one gets none.

        :param started: take those of the same id, too: they are what its last process left.
        """
        table = schema.tasks

        def left(connection: Connection) -> ColumnElement[bool]:
            theirs = {*living(connection, self._lease), owner} - ({owner} if started else set())
            return and_(table.c.status.in_(UNFINISHED), table.c.owner.not_in(sorted(theirs)))

        with self._store.reading() as connection:  # mostly there is nothing, and nobody need wait for us
            if not connection.execute(select(func.count()).where(left(connection))).scalar_one():
                return []
        with self._store.writing() as connection:
            these = left(connection)
            rows = connection.execute(
                select(*_FIELDS).where(these).order_by(table.c.created_at, table.c.ident)
            ).all()
            connection.execute(update(table).where(these).values(owner=owner))
        return [replace(TaskRecord(*row), owner=owner) for row in rows]

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

    # messages to a task's owner -------------------------------------------------------------------

    def send(self, task: str, kind: str, body: bytes = b"") -> None:
        """Leave a message for the owner of a task; for one that is not kept, nothing is left."""
        with self._store.writing() as connection:
            known = select(schema.tasks.c.ident).where(schema.tasks.c.ident == task)
            if connection.execute(known).one_or_none() is not None:
                row = {"task": task, "kind": kind, "body": body}
                connection.execute(insert(schema.task_messages), row)
                advance(connection, Counter.TASKS)

    def messages(self, owner: str) -> list[TaskMessage]:
        """What is left for the tasks of an owner, in the order it came. It stays until `took`."""
        message, task = schema.task_messages.c, schema.tasks.c
        statement = (
            select(message.id, message.task, message.kind, message.body)
            .join_from(schema.task_messages, schema.tasks, message.task == task.ident)
            .where(task.owner == owner)
            .order_by(message.id)
        )
        with self._store.reading() as connection:
            return [TaskMessage(*row) for row in connection.execute(statement)]

    def took(self, messages: Iterable[TaskMessage]) -> None:
        """Messages have been taken: forget them."""
        idents = [message.ident for message in messages]
        if idents:
            table = schema.task_messages
            with self._store.writing() as connection:
                connection.execute(delete(table).where(table.c.id.in_(idents)))
