"""Which definitions of tools are approved, and which are held back until they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Delete, and_, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.counters import Counter, advance
from registry.store import Store, upsert
from registry.tools import Pin, ToolRef

FIRST_USE: Final = "first use"
"""`Pin.approved_by` of what a server showed when it was seen for the first time."""
LATER_USE: Final = "later use"
"""Of a tool that a server which was known already began to offer: it is served, its annotations do not count."""
SUSPICIOUS: Final = "suspicious"
"""`Hold.reason`: the detector of poisoned definitions, or hidden characters."""
PERSON: Final = "person"
"""`Hold.reason`: a person withheld the tool, whatever its definition."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A tool that is not served until a person approves it.

    :param ref: the version that it was about.
    :param detail: why, for a person to read.
    :param since: seconds since the epoch.
    """

    ref: ToolRef
    reason: str
    detail: str
    since: float


class ApprovalRecords:
    """Pins and holds in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pins(self) -> list[Pin]:
        """Every approved version."""
        return self.both()[0]

    def holds(self) -> list[Hold]:
        """Every tool that is held back."""
        return self.both()[1]

    def both(self) -> tuple[list[Pin], list[Hold]]:
        """Every approved version, and every tool that is held back, as of one moment."""
        with self._store.reading() as connection:
            pinned = connection.execute(select(schema.tool_pins)).all()
            held = connection.execute(select(schema.tool_holds)).all()
        return (
            [Pin(ToolRef(*row[:3]), row.approved_at, row.approved_by) for row in pinned],
            [Hold(ToolRef(*row[:3]), row.reason, json.loads(row.detail), row.since) for row in held],
        )

    def judge(self, pins: Iterable[Pin], holds: Iterable[Hold]) -> None:
        """Record what was decided about a server's tools on sight: all of it, or none."""
        pinned = [_pin_row(pin) for pin in pins]
        held = [
            {
                **hold.ref._asdict(),
                "reason": hold.reason,
                "detail": json.dumps(hold.detail),
                "since": hold.since,
            }
            for hold in holds
        ]
        if not pinned and not held:
            return
        with self._store.writing() as connection:
            if pinned:
                connection.execute(upsert(insert(schema.tool_pins), "server", "name"), pinned)
            if held:
                connection.execute(upsert(insert(schema.tool_holds), "server", "name"), held)
            advance(connection, Counter.APPROVALS)

    def approve(self, pins: Iterable[Pin]) -> None:
        """Record approvals and end the holds on these tools: all of it, or none."""
        self._approve([(pin, None) for pin in pins], delete(schema.tool_holds))

    def adopt(self, approved: Iterable[tuple[Pin, bytes]]) -> None:
        """Record approvals given elsewhere, with their definitions, which may not have been seen here.

        What a person withheld here stays withheld.
        """
        self._approve(approved, delete(schema.tool_holds).where(schema.tool_holds.c.reason != PERSON))

    def _approve(self, approved: Iterable[tuple[Pin, bytes | None]], release: Delete) -> None:
        given = list(approved)
        if not given:
            return
        pinned = [_pin_row(pin) for pin, _ in given]
        bodies = [
            {**pin.ref._asdict(), "body": body, "first_seen": pin.approved_at, "last_seen": pin.approved_at}
            for pin, body in given
            if body is not None
        ]
        table = schema.tool_holds.c
        this = and_(table.server == bindparam("of_server"), table.name == bindparam("of_name"))
        with self._store.writing() as connection:
            if bodies:
                connection.execute(insert(schema.tool_versions).on_conflict_do_nothing(), bodies)
            connection.execute(upsert(insert(schema.tool_pins), "server", "name"), pinned)
            connection.execute(
                release.where(this),
                [{"of_server": row["server"], "of_name": row["name"]} for row in pinned],
            )
            advance(connection, Counter.APPROVALS)

    def forget(self, server: str) -> None:
        """Forget every pin and hold of a server: a person removed it."""
        with self._store.writing() as connection:
            for table in (schema.tool_pins, schema.tool_holds):
                connection.execute(delete(table).where(table.c.server == server))
            advance(connection, Counter.APPROVALS)


def _pin_row(pin: Pin) -> dict[str, object]:
    return {**pin.ref._asdict(), "approved_at": pin.approved_at, "approved_by": pin.approved_by}
