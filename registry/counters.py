"""Numbers that grow with every change of some records, by which gateways on one store stay in step.

A gateway keeps what it serves in memory. Where several share a store, each looks at these numbers now and
then (one small read), and reads anew what has changed since it looked last.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from registry import schema


class Counter(StrEnum):
    """The records that are counted."""

    TOOLS = "tools"
    """What is offered."""
    SERVERS = "servers"
    APPROVALS = "approvals"
    """Pins and holds of tools; leave to start a command is asked of the store each time."""
    TOOLSETS = "toolsets"
    TASKS = "tasks"
    KEYS = "keys"
    """Of the ring that seals what clients hold."""
    ADAPTERS = "adapters"


def advance(connection: Connection, counter: Counter) -> int:
    """Count a change, in the transaction that makes it. Returns the new number."""
    table = schema.counters
    statement = insert(table).values(name=str(counter), value=1)
    grown = statement.on_conflict_do_update(index_elements=["name"], set_={"value": table.c.value + 1})
    return int(connection.execute(grown.returning(table.c.value)).scalar_one())
