"""The journal's statements: runs, steps, events and results, read and written in transactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, and_, bindparam, delete, func, or_, select, update

from router.errors import JournalDamaged, RunLost, UnknownRun
from router.journal import schema
from router.journal.database import Database
from router.runs import Decision, Event, Run, RunStatus, StepState

_encode: Final = msgspec.json.encode
_TOUCH: Final = (
    update(schema.runs)
    .where(schema.runs.c.id == bindparam("of_run"), schema.runs.c.epoch == bindparam("of_epoch"))
    .values(updated_at=bindparam("updated_at"), lease=bindparam("lease"))
)
_BEGIN: Final = schema.runs.insert()
_PUT_EVENT: Final = schema.events.insert()
_ENDED: Final = [status.value for status in RunStatus if status.ended]


@dataclass(slots=True)
class Change:
    """What one owner writes about its run at once: all of it or nothing.

    :param begins: the run itself, with its first change.
    :param fields: columns of the run to set.
    :param results: (handle, body) of results too large to stand with their step.
    """

    run: str
    epoch: int
    begins: Run | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    states: list[StepState] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    results: list[tuple[str, bytes]] = field(default_factory=list)


class Records:
    """The records in a database. Blocking; raises JournalError."""

    def __init__(self, database: Database) -> None:
        self.database = database
        steps = database.insert(schema.steps)
        self._put_step = steps.on_conflict_do_update(
            index_elements=["run", "step"],
            # Not the decision: a person may have written it meanwhile.
            set_={"state": steps.excluded.state, "status": steps.excluded.status},
        )
        results = database.insert(schema.results)
        self._put_result = results.on_conflict_do_update(
            index_elements=["run", "handle"],
            set_={"size": results.excluded.size, "body": results.excluded.body},
        )

    # writing --------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change], *, now: float, lease: float) -> list[RunLost | None]:
        """Write a group of changes in one transaction; durable when this returns.

        :returns: for each change None, or why it was refused: its run has another owner by now.
        """
        fields: dict[tuple[str, int], dict[str, Any]] = {}
        for change in changes:
            fields.setdefault((change.run, change.epoch), {}).update(change.fields)
        begun = [_row(change.begins) for change in changes if change.begins is not None]
        with self.database.writing() as connection:
            self._many(connection, _BEGIN, begun)
            held = {key for key, set_ in fields.items() if self._touch(connection, key, set_, now, lease)}
            kept = [change for change in changes if (change.run, change.epoch) in held]
            self._many(connection, self._put_result, _result_rows(kept))
            self._many(connection, self._put_step, _step_rows(kept))
            self._many(connection, _PUT_EVENT, _event_rows(kept))
        return [
            None
            if (change.run, change.epoch) in held
            else RunLost(f"Run {change.run} is run by another process now.", "See: toolyard runs show.")
            for change in changes
        ]

    def _touch(
        self, connection: Connection, key: tuple[str, int], fields: dict[str, Any], now: float, lease: float
    ) -> bool:
        """Set columns of a run, and its lease. Returns whether this owner still has it."""
        statement, row = _TOUCH, {"of_run": key[0], "of_epoch": key[1], "updated_at": now, "lease": lease}
        if fields:
            statement = statement.values({name: bindparam(name) for name in fields})
        return connection.execute(statement, {**row, **fields}).rowcount > 0

    @staticmethod
    def _many(connection: Connection, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            connection.execute(statement, rows)

    def claim(self, run: str, owner: str, *, now: float, lease: float, force: bool) -> Run:
        """Become the owner of a run that nobody runs.

        :param force: also where its lease has not run out, because its owner is known to be dead.
        :raises UnknownRun: there is none of that id.
        :raises RunLost: another process runs it.
        """
        table = schema.runs.c
        free = or_(table.owner.is_(None), table.owner == owner, table.lease < now)
        statement = update(schema.runs).where(table.id == run)
        if not force:
            statement = statement.where(free)
        values = {"owner": owner, "epoch": table.epoch + 1, "lease": lease, "updated_at": now}
        with self.database.writing() as connection:
            done = connection.execute(statement.values(values)).rowcount
            found = self._run(connection, run)
        if not done:
            raise RunLost(
                f"Run {run} is run by another process ({found.owner}).", "Wait for it, or cancel it there."
            )
        return found

    def decide(self, run: str, step: str, decision: Decision) -> None:
        """Keep a person's word on a step. Raises UnknownRun."""
        table = schema.steps.c
        body = _encode(decision)
        where = and_(table.run == run, table.step == step)
        with self.database.writing() as connection:
            if not connection.execute(update(schema.steps).where(where).values(decision=body)).rowcount:
                raise UnknownRun(f"There is no step {step} in a run {run}.", "See: toolyard runs list.")

    def prune(self, *, before: float, keep: int) -> int:
        """Forget ended runs that are older than a moment or beyond the latest ``keep``. Returns how many."""
        table = schema.runs.c
        ended = table.status.in_(_ENDED)
        with self.database.writing() as connection:
            latest = select(table.id).where(ended).order_by(table.created_at.desc()).limit(keep)
            old = select(table.id).where(ended, or_(table.updated_at < before, table.id.not_in(latest)))
            gone = [row.id for row in connection.execute(old.limit(1000))]
            if gone:
                for other in (schema.steps, schema.events, schema.results):
                    connection.execute(delete(other).where(other.c.run.in_(gone)))
                connection.execute(delete(schema.runs).where(table.id.in_(gone)))
        return len(gone)

    # reading --------------------------------------------------------------------------------------

    def run(self, run: str) -> Run:
        """One run. Raises UnknownRun."""
        with self.database.reading() as connection:
            return self._run(connection, run)

    def _run(self, connection: Connection, run: str) -> Run:
        row = connection.execute(select(schema.runs).where(schema.runs.c.id == run)).one_or_none()
        if row is None:
            raise UnknownRun(f"There is no run {run[:64]!r}.", "See: toolyard runs list.")
        return _run(row)

    def runs(self, *, limit: int = 50, statuses: Iterable[RunStatus] = ()) -> list[Run]:
        """The latest runs, latest first."""
        table = schema.runs.c
        statement = select(schema.runs).order_by(table.created_at.desc(), table.id.desc()).limit(limit)
        wanted = [status.value for status in statuses]
        if wanted:
            statement = statement.where(table.status.in_(wanted))
        with self.database.reading() as connection:
            return [_run(row) for row in connection.execute(statement)]

    def orphans(self, *, now: float, force: bool, limit: int = 1000) -> list[str]:
        """The runs that were under way and whose owner is gone, oldest first.

        :param force: every run that is under way, because no other process can be running any.
        """
        table = schema.runs.c
        statement = select(table.id).where(table.status == RunStatus.RUNNING.value)
        if not force:
            statement = statement.where(or_(table.owner.is_(None), table.lease < now))
        with self.database.reading() as connection:
            return list(connection.execute(statement.order_by(table.created_at).limit(limit)).scalars())

    def steps(self, run: str) -> dict[str, StepState]:
        """Where every step of a run stands, by id."""
        table = schema.steps.c
        with self.database.reading() as connection:
            bodies = connection.execute(select(table.state).where(table.run == run)).scalars().all()
        states = [_decoded(body, StepState) for body in bodies]
        return {state.id: state for state in states}

    def decisions(self, run: str) -> dict[str, Decision]:
        """The word a person gave on steps of a run, by step."""
        table = schema.steps.c
        statement = select(table.step, table.decision).where(table.run == run, table.decision.is_not(None))
        with self.database.reading() as connection:
            return {row.step: _decoded(row.decision, Decision) for row in connection.execute(statement)}

    def events(self, run: str, *, after: int = 0, limit: int = 10_000) -> list[Event]:
        """What happened in a run, in order, from beyond a sequence number."""
        table = schema.events.c
        statement = select(table.body).where(table.run == run, table.seq > after).order_by(table.seq)
        with self.database.reading() as connection:
            bodies = connection.execute(statement.limit(limit)).scalars().all()
        return [_decoded(body, Event) for body in bodies]

    def last_seq(self, run: str) -> int:
        """The number of a run's last event; 0 where there is none."""
        table = schema.events.c
        with self.database.reading() as connection:
            statement = select(func.max(table.seq)).where(table.run == run)
            return connection.execute(statement).scalar_one_or_none() or 0

    def result(self, run: str, handle: str) -> bytes:
        """A large result by its handle. Raises UnknownRun."""
        table = schema.results.c
        statement = select(table.body).where(table.run == run, table.handle == handle)
        with self.database.reading() as connection:
            body = connection.execute(statement).scalar_one_or_none()
        if body is None:
            raise UnknownRun(f"There is no result {handle!r} in run {run}.", "See: toolyard runs show.")
        return bytes(body)


def _row(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "request": _encode(run.request),
        "plan": _encode(run.plan),
        "options": _encode(run.options),
        "status": run.status.value,
        "reason": _encode(run.reason),
        "revision": run.revision,
        "created_at": run.created_at,
        "updated_at": run.updated_at,
        "ended_at": run.ended_at,
        "owner": run.owner,
        "epoch": run.epoch,
        "lease": run.lease,
    }


def _run(row: Any) -> Run:
    fields = dict(row._mapping)
    for name, kind in (("request", str), ("plan", dict), ("options", dict), ("reason", str)):
        fields[name] = _decoded(fields[name], kind)
    return Run(**{**fields, "status": RunStatus(row.status)})


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise JournalDamaged(
            f"The journal holds a record that cannot be read: {error}.",
            "Put a backup of it in place, or move it away.",
        ) from error


def _result_rows(changes: list[Change]) -> list[dict[str, Any]]:
    return [
        {"run": change.run, "handle": handle, "size": len(body), "body": body}
        for change in changes
        for handle, body in change.results
    ]


def _step_rows(changes: list[Change]) -> list[dict[str, Any]]:
    # Of several states of one step in a group the last one stands; one statement may not set it twice.
    last = {(change.run, state.id): state for change in changes for state in change.states}
    return [
        {"run": run, "step": step, "state": _encode(state), "status": state.status.value}
        for (run, step), state in last.items()
    ]


def _event_rows(changes: list[Change]) -> list[dict[str, Any]]:
    return [
        {"run": change.run, "seq": event.seq, "at": event.at, "body": _encode(event)}
        for change in changes
        for event in change.events
    ]
