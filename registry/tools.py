"""The store's records of tools: what is offered now, every version there ever was, pins, statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import and_, bindparam, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.counters import Counter, advance
from registry.store import Store, upsert


class ToolRef(NamedTuple):
    """A tool as its server knows it, at one version."""

    server: str
    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class ToolVersion:
    """One version of a tool.

    :param body: the definition, byte for byte as the server sent it when it was first seen.
    :param first_seen: when it was first offered, in seconds since the epoch.
    :param last_seen: when it last became what is offered: later than ``first_seen`` where it came back.
    """

    ref: ToolRef
    body: bytes
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class Pin:
    """The version of a tool that was approved, when, and by whom (``first use`` or a person)."""

    ref: ToolRef
    approved_at: float
    approved_by: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """What calls of a tool came to so far. ``seconds`` and ``cost`` are sums over ``calls``."""

    calls: int = 0
    successes: int = 0
    seconds: float = 0.0
    cost: float = 0.0


class ToolRecords:
    """Tools in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # what is offered ------------------------------------------------------------------------------

    def current(self, server: str | None = None) -> list[ToolRef]:
        """What is offered now, by one server or by all."""
        table = schema.tools.c
        statement = select(table.server, table.name, table.hash).order_by(table.server, table.name)
        if server is not None:
            statement = statement.where(table.server == server)
        with self._store.reading() as connection:
            return [ToolRef(*row) for row in connection.execute(statement)]

    def definitions(self, wanted: Collection[ToolRef] | None = None) -> list[tuple[ToolRef, bytes]]:
        """What is offered now, each with its definition.

        :param wanted: these alone, of what is offered.
        """
        tool, version = schema.tools.c, schema.tool_versions.c
        same = and_(tool.server == version.server, tool.name == version.name, tool.hash == version.hash)
        statement = (
            select(tool.server, tool.name, tool.hash, version.body)
            .join_from(schema.tools, schema.tool_versions, same)
            .order_by(tool.server, tool.name)
        )
        if wanted is not None and len(wanted) <= 500:
            statement = statement.where(tool.hash.in_(sorted({ref.hash for ref in wanted})))
        with self._store.reading() as connection:
            found = [(ToolRef(a, b, c), body) for a, b, c, body in connection.execute(statement)]
        return found if wanted is None else [pair for pair in found if pair[0] in wanted]

    def history(self, server: str, name: str) -> list[ToolVersion]:
        """Every version a tool ever had, oldest first."""
        table = schema.tool_versions.c
        statement = select(table.hash, table.body, table.first_seen, table.last_seen)
        statement = statement.where(table.server == server, table.name == name)
        with self._store.reading() as connection:
            rows = connection.execute(statement.order_by(table.first_seen, table.hash)).all()
        return [ToolVersion(ToolRef(server, name, row[0]), *row[1:]) for row in rows]

    def versions(self) -> list[ToolVersion]:
        """Every version of every tool."""
        table = schema.tool_versions
        with self._store.reading() as connection:
            rows = connection.execute(
                select(table).order_by(table.c.server, table.c.name, table.c.first_seen)
            ).all()
        return [ToolVersion(ToolRef(*row[:3]), *row[3:]) for row in rows]

    def change(
        self, put: Iterable[tuple[ToolRef, bytes]], removed: Iterable[tuple[str, str]] = (), *, now: float
    ) -> int | None:
        """Set what is offered: new or changed definitions, and the (server, name) of what is gone.

        Returns the `generation` that it made, None where there was nothing to set.
        """
        written = list(put)
        gone = [{"of_server": server, "of_name": name} for server, name in removed]
        if not written and not gone:
            return None
        with self._store.writing() as connection:
            if written:
                versions = insert(schema.tool_versions)
                connection.execute(
                    versions.on_conflict_do_update(
                        index_elements=["server", "name", "hash"],
                        set_={"last_seen": versions.excluded.last_seen},
                    ),
                    [{**ref._asdict(), "body": b, "first_seen": now, "last_seen": now} for ref, b in written],
                )
                connection.execute(
                    upsert(insert(schema.tools), "server", "name"), [ref._asdict() for ref, _ in written]
                )
            if gone:
                table = schema.tools.c
                this = and_(table.server == bindparam("of_server"), table.name == bindparam("of_name"))
                connection.execute(delete(schema.tools).where(this), gone)
            return advance(connection, Counter.TOOLS)

    def generation(self) -> int:
        """A number that grows with every change of what is offered; replicas compare it to theirs."""
        statement = select(schema.counters.c.value).where(schema.counters.c.name == str(Counter.TOOLS))
        with self._store.reading() as connection:
            return connection.execute(statement).scalar_one_or_none() or 0

    # pins -----------------------------------------------------------------------------------------

    def pins(self) -> dict[tuple[str, str], Pin]:
        """The approved version of every tool that has one, by (server, name)."""
        with self._store.reading() as connection:
            rows = connection.execute(select(schema.tool_pins)).all()
        return {(r.server, r.name): Pin(ToolRef(*r[:3]), r.approved_at, r.approved_by) for r in rows}

    def pin(self, pins: Iterable[Pin]) -> None:
        """Record approvals: all of them or, where the process dies, none."""
        rows = [
            {**pin.ref._asdict(), "approved_at": pin.approved_at, "approved_by": pin.approved_by}
            for pin in pins
        ]
        if rows:
            with self._store.writing() as connection:
                connection.execute(upsert(insert(schema.tool_pins), "server", "name"), rows)

    def unpin(self, server: str, name: str) -> bool:
        """Take an approval back. Returns whether there was one."""
        table = schema.tool_pins.c
        with self._store.writing() as connection:
            done = connection.execute(
                delete(schema.tool_pins).where(table.server == server, table.name == name)
            )
            return done.rowcount > 0

    # statistics and feedback ----------------------------------------------------------------------

    def statistics(self) -> dict[tuple[str, str], Statistics]:
        """What calls came to, by (server, name)."""
        with self._store.reading() as connection:
            rows = connection.execute(select(schema.tool_statistics)).all()
        return {(row.server, row.name): Statistics(*row[2:]) for row in rows}

    def count(self, calls: Sequence[tuple[str, str, Statistics]]) -> None:
        """Add a group of calls, as (server, name, what they came to). One transaction for the group."""
        if not calls:
            return
        table = schema.tool_statistics
        statement = insert(table)
        sums = {n: table.c[n] + statement.excluded[n] for n in ("calls", "successes", "seconds", "cost")}
        rows = [
            {
                "server": server,
                "name": name,
                "calls": add.calls,
                "successes": add.successes,
                "seconds": add.seconds,
                "cost": add.cost,
            }
            for server, name, add in calls
        ]
        with self._store.writing() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["server", "name"], set_=sums), rows
            )

    def put_feedback(self, rows: Iterable[tuple[str, str, str]], *, now: float) -> None:
        """Keep that a request was answered by a tool: (request, server, name). Redact before."""
        kept = [{"at": now, "request": r, "server": s, "name": n} for r, s, n in rows]
        if kept:
            with self._store.writing() as connection:
                connection.execute(insert(schema.feedback), kept)

    def feedback(self, limit: int = 50_000) -> list[tuple[str, str, str]]:
        """(request, server, name), the latest ``limit`` of them, oldest first."""
        table = schema.feedback.c
        latest = select(table.request, table.server, table.name).order_by(table.id.desc()).limit(limit)
        with self._store.reading() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(latest)][::-1]

    def forget_feedback(self) -> int:
        """Delete all feedback. Returns how many there were."""
        with self._store.writing() as connection:
            count = connection.execute(select(func.count()).select_from(schema.feedback)).scalar_one()
            connection.execute(delete(schema.feedback))
            return count
