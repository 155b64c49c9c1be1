"""Plans that worked, remembered by shape and not by value.

Shapes of requests like a new one are shown to a planner as examples (IC-Cache, arXiv 2501.12689).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import delete, select

from registry.lexical.tokens import query_terms
from router.journal import schema as tables
from router.journal.database import Database
from router.plan import Definition
from router.shapes import Shape

MAX_SHAPES: Final = 5_000
KEPT: Final = 60.0
"""Seconds after which shapes are read anew, as another process may have remembered some."""
_DECODER: Final = msgspec.json.Decoder(Shape)
"""Made here once: msgspec crashes where two threads look at a dataclass for the first time at once."""


class PlanMemory:
    """Shapes in the journal's database. Blocking, for any thread; raises JournalError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: tuple[float, list[tuple[frozenset[str], Shape]]] | None = None

    def remember(self, shape: Shape, *, now: float | None = None) -> None:
        """A plan of this shape has worked. Beyond MAX_SHAPES those unused for longest are forgotten."""
        table, moment = tables.shapes, time.time() if now is None else now
        statement = self._database.insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=["key"], set_={"uses": table.c.uses + 1, "last_used": moment}
        )
        oldest = (
            select(table.c.key)
            .where(table.c.name.is_(None))
            .order_by(table.c.last_used.desc())
            .offset(MAX_SHAPES)
            .limit(100)
        )
        body = msgspec.json.encode(replace(shape, uses=0))
        with self._database.writing() as connection:
            row = {"key": shape.key, "body": body, "uses": 1, "last_used": moment, "name": None}
            connection.execute(statement, row)
            connection.execute(
                delete(table).where(table.c.key.in_(connection.execute(oldest).scalars().all()))
            )
        self._read = None

    def forget(self) -> int:
        """Forget every shape. Returns how many there were."""
        table = tables.shapes
        with self._database.writing() as connection:
            gone = connection.execute(delete(table).where(table.c.name.is_(None))).rowcount
        self._read = None
        return int(gone)

    def shapes(self) -> list[Shape]:
        """All shapes, most used first."""
        table = tables.shapes.c
        statement = (
            select(table.body, table.uses)
            .where(table.name.is_(None))  # those with a name are composite tools
            .order_by(table.uses.desc(), table.last_used.desc())
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [replace(_DECODER.decode(body), uses=uses) for body, uses in rows]

    def alike(self, request: str, least: float = 0.0) -> list[Shape]:
        """The shapes whose requests have words in common with this one, those most like it first.

        Likeness is the share of stems in common (Jaccard); of equals the one used more.

        :param least: the likeness that a shape must have more than, or as much where it is over 0.
        """
        wanted = frozenset(query_terms(request))
        scored = []
        for terms, shape in self._known():
            common = len(wanted & terms)
            if common and (likeness := common / len(wanted | terms)) >= least:
                scored.append((likeness, shape.uses, shape.key, shape))
        scored.sort(key=lambda row: row[:3], reverse=True)
        return [row[3] for row in scored]

    def examples(self, request: str, tools: Sequence[Definition], limit: int = 3) -> list[Shape]:
        """The shapes most like a request among those that these tools can do, by their names."""
        names = {tool.hash: tool.name for tool in tools}
        found: list[Shape] = []
        for shape in self.alike(request):
            if len(found) == limit:
                break
            if (named := shape.named(names)) is not None:
                found.append(named)
        return found

    def _known(self) -> list[tuple[frozenset[str], Shape]]:
        kept = self._read
        if kept is None or (self._database.shared and time.monotonic() - kept[0] > KEPT):
            rows = [(frozenset(query_terms(shape.request)), shape) for shape in self.shapes()]
            kept = self._read = (time.monotonic(), rows)
        return kept[1]
