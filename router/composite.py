"""Composite tools: plans that a person gave a name, called like any other tool.

What differs from use to use is a parameter; what a person fixed is part of the tool. They stand beside the
shapes of the memory, in the same table, and are never forgotten by themselves.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select, update

from router.errors import BadRequest
from router.journal import schema as tables
from router.journal.database import Database
from router.plan import Plan, from_json
from router.shapes import Shape

MAX_COMPOSITES: Final = 500
MAX_DESCRIPTION: Final = 2000
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,47}")


@dataclass(frozen=True, slots=True)
class Composite:
    """A plan with a name.

    :param fixed: values that are always the same, by the names of their slots.
    :param annotations: MCP annotations: the tool does what its steps do, all of it.
    :param returns: JSON Schema of its structured result, where one step gives that.
    :param run: the run it was made of.
    """

    name: str
    description: str
    shape: Shape
    fixed: dict[str, Any] = field(default_factory=dict, hash=False)
    annotations: dict[str, Any] = field(default_factory=dict, hash=False)
    returns: dict[str, Any] | None = field(default=None, hash=False)
    run: str = ""
    made_at: float = 0.0
    uses: int = 0

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the values it is called with."""
        whole = self.shape.schema
        kept = {name: rule for name, rule in whole["properties"].items() if name not in self.fixed}
        return {**whole, "properties": kept, "required": [n for n in whole["required"] if n in kept]}

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools it calls, each once, in its order."""
        return tuple(dict.fromkeys(step["tool"] for step in self.shape.plan))

    def plan(self, values: Mapping[str, Any]) -> Plan:
        """The plan with these values. Raises BadRequest."""
        if clash := sorted(self.fixed.keys() & values.keys()):
            raise BadRequest(f"{self.name} has no parameter {', '.join(clash)}.", "Leave it out.")
        return self.shape.filled({**self.fixed, **values}, self.description)

    def ends(self) -> tuple[str, ...]:
        """The ids of the steps that no other needs: what they return is the result."""
        plan = from_json(list(self.shape.plan))
        needed = {need for step in plan.steps for need in step.depends_on}
        return tuple(step.id for step in plan.steps if step.id not in needed)

    def definition(self) -> dict[str, Any]:
        """The tool as MCP lists it."""
        made: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "inputSchema": self.schema,
            "annotations": self.annotations,
        }
        return made if self.returns is None else {**made, "outputSchema": self.returns}


class Composites:
    """The composite tools in the journal's database. Blocking, for any thread; raises JournalError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Composite]:
        """All of them, by name."""
        table = tables.shapes.c
        statement = select(table.body, table.uses).where(table.name.is_not(None)).order_by(table.name)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [_read(body, uses) for body, uses in rows]

    def get(self, name: str) -> Composite | None:
        """One of them; None where there is none of that name."""
        table = tables.shapes.c
        with self._database.reading() as connection:
            row = connection.execute(select(table.body, table.uses).where(table.name == name)).one_or_none()
        return _read(*row) if row is not None else None

    def put(self, composite: Composite) -> None:
        """Keep a new one.

        :raises BadRequest: its name is taken or cannot be one, or there are too many.
        """
        if not _NAME.fullmatch(composite.name):
            raise BadRequest(
                f"{composite.name[:80]!r} cannot be a tool's name.",
                "Begin with a letter; letters, digits, _ and - may follow, 48 in all.",
            )
        table = tables.shapes
        with self._database.writing() as connection:
            names = set(connection.execute(select(table.c.name).where(table.c.name.is_not(None))).scalars())
            if composite.name in names:
                raise BadRequest(
                    f"There is a composite tool {composite.name} already.",
                    f"Choose another name, or run: toolyard runs demote {composite.name}.",
                )
            if len(names) >= MAX_COMPOSITES:
                raise BadRequest(f"There are {MAX_COMPOSITES} composite tools.", "Remove some.")
            row = {
                "key": hashlib.sha256(f"composite {composite.name}".encode()).hexdigest(),
                "body": msgspec.json.encode(composite),
                "uses": 0,
                "last_used": composite.made_at,
                "name": composite.name,
            }
            connection.execute(table.insert(), row)

    def used(self, name: str) -> None:
        """It was called."""
        table = tables.shapes
        change = {"uses": table.c.uses + 1, "last_used": time.time()}
        with self._database.writing() as connection:
            connection.execute(update(table).where(table.c.name == name).values(change))

    def remove(self, name: str) -> bool:
        """Forget one. Returns whether there was one of that name."""
        table = tables.shapes
        with self._database.writing() as connection:
            return bool(connection.execute(delete(table).where(table.c.name == name)).rowcount)


_DECODER: Final = msgspec.json.Decoder(Composite)
"""Made here once: msgspec crashes where two threads look at a dataclass for the first time at once."""


def _read(body: bytes, uses: int) -> Composite:
    return replace(_DECODER.decode(body), uses=uses)
