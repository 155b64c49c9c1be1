"""Plans that worked, remembered by shape and not by value.

What is kept of a plan is which tools it called, which arguments were given and which were references; of
the request, the words that the tools' own definitions use, and no others. Shapes of requests like a new
one are shown to a planner as examples (IC-Cache, arXiv 2501.12689); one that is used often can be
promoted to a tool of its own, whose parameters are the values that differ from use to use.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select, update

from registry.lexical.tokens import STOPWORDS, query_terms
from router.errors import BadRequest
from router.journal import schema as tables
from router.journal.database import Database
from router.plan import Definition, Plan, Ref, Step, from_json, to_json

SLOT: Final = "$slot"
MAX_SHAPES: Final = 5_000
MAX_WORDS: Final = 60
_WORD: Final = re.compile(r"[^\W\d_]+")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Slot:
    """A value that was given, and is not kept.

    :param name: unique in the shape: the argument's, numbered where two have the same one.
    :param required: whether the tool cannot be called without it.
    :param schema: what the tool's input schema says of it.
    """

    name: str
    required: bool
    schema: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Shape:
    """A plan without its values.

    :param key: of the steps and the versions of their tools; two plans that differ in values alone share it.
    :param request: the words of the request that its tools' definitions use, too.
    :param plan: the steps as JSON, with ``{"$slot": NAME}`` where a value was.
    :param versions: definition hashes of its tools, by name.
    :param name: of the composite tool it was promoted to.
    """

    key: str
    request: str
    plan: tuple[dict[str, Any], ...] = field(hash=False)
    slots: tuple[Slot, ...]
    versions: dict[str, str] = field(hash=False)
    uses: int = 0
    name: str | None = None

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the values that make a plan of it."""
        return {
            "type": "object",
            "properties": {slot.name: slot.schema for slot in self.slots},
            "required": [slot.name for slot in self.slots if slot.required],
            "additionalProperties": False,
        }

    def holds(self, tools: Mapping[str, Definition]) -> bool:
        """Whether its tools are still there, and still what they were."""
        return all(name in tools and tools[name].hash == version for name, version in self.versions.items())

    def filled(self, values: Mapping[str, Any], request: str = "") -> Plan:
        """The plan with these values. A slot that is not required may be left out. Raises BadRequest."""
        known = {slot.name for slot in self.slots}
        missing = [slot.name for slot in self.slots if slot.required and slot.name not in values]
        if missing or not known.issuperset(values):
            extra = sorted(set(values) - known)
            raise BadRequest(
                f"The plan needs {', '.join(missing) or 'nothing more'} and has no {', '.join(extra) or 'others'}.",
                f"Its values are: {', '.join(sorted(known)) or 'none'}.",
            )
        bare = from_json(list(self.plan))
        steps = tuple(replace(step, arguments=_put(step.arguments, values)) for step in bare.steps)
        return Plan(steps, request)


def _put(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        if SLOT in value:
            return values[value[SLOT]]
        kept = {k: v for k, v in value.items() if not (_is_slot(v) and v[SLOT] not in values)}
        return {key: _put(inner, values) for key, inner in kept.items()}
    return [_put(inner, values) for inner in value] if isinstance(value, list) else value


def _is_slot(value: Any) -> bool:
    return isinstance(value, Mapping) and SLOT in value


def shape_of(plan: Plan, tools: Mapping[str, Definition]) -> Shape:
    """The shape of a plan whose tools are these. Steps are numbered, arguments sorted."""
    numbers = {step.id: str(number) for number, step in enumerate(plan.steps, 1)}
    slots: list[Slot] = []
    taken: dict[str, int] = {}

    def cut(name: str, value: Any, schema: Mapping[str, Any], required: bool) -> Any:
        if isinstance(value, Ref):
            return Ref(numbers[value.step], value.path)
        if isinstance(value, Mapping) and any(isinstance(part, Ref) for part in value.values()):
            return {k: cut(k, value[k], _part(schema, k), required) for k in sorted(value)}
        if isinstance(value, list | tuple) and any(isinstance(part, Ref) for part in value):
            items = schema.get("items")
            inner = items if isinstance(items, Mapping) else {}
            return [cut(name, part, inner, required) for part in value]
        taken[name] = taken.get(name, 0) + 1
        slot = name if taken[name] == 1 else f"{name}_{taken[name]}"
        slots.append(Slot(slot, required, dict(schema)))
        return {SLOT: slot}

    steps = []
    for step in plan.steps:
        schema = tools[step.tool].input_schema
        needed = schema.get("required")
        required = set(needed) if isinstance(needed, list) else set()
        arguments = {
            key: cut(key, step.arguments[key], _part(schema, key), key in required)
            for key in sorted(step.arguments)
        }
        needs = sorted((numbers[need] for need in step.depends_on), key=int)
        steps.append(Step(numbers[step.id], step.tool, arguments, tuple(needs)))
    body = tuple(to_json(Plan(tuple(steps)))["plan"])
    versions = {step.tool: tools[step.tool].hash for step in plan.steps}
    key = hashlib.sha256(msgspec.json.encode([body, versions], order="deterministic")).hexdigest()
    return Shape(
        key, known_words(plan.request, (tools[name] for name in versions)), body, tuple(slots), versions
    )


def _part(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    properties = schema.get("properties")
    found = properties.get(key) if isinstance(properties, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def known_words(request: str, tools: Iterable[Definition]) -> str:
    """The words of a request that the definitions of its tools use, too, or that everybody uses.

    A name, an address or a number of somebody's is in no definition, so none of them is kept.
    """
    texts = [f"{tool.name} {tool.description} {' '.join(_keys(tool.input_schema))}" for tool in tools]
    known = STOPWORDS.union(query_terms(" ".join(texts)))
    words = _WORD.findall(request)[:MAX_WORDS]
    return " ".join(word.lower() for word in words if word.lower() in known or known & set(query_terms(word)))


def _keys(schema: Mapping[str, Any]) -> list[str]:
    properties = schema.get("properties")
    return list(properties) if isinstance(properties, Mapping) else []


class PlanMemory:
    """Shapes in the journal's database. Blocking; raises JournalError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remember(self, shape: Shape, *, now: float | None = None) -> None:
        """A plan of this shape has worked. Beyond MAX_SHAPES those unused for longest are forgotten."""
        table, moment = tables.shapes, time.time() if now is None else now
        statement = self._database.insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=["key"], set_={"uses": table.c.uses + 1, "last_used": moment}
        )
        body = msgspec.json.encode(replace(shape, uses=0, name=None))
        oldest = (
            select(table.c.key)
            .where(table.c.name.is_(None))
            .order_by(table.c.last_used.desc())
            .offset(MAX_SHAPES)
            .limit(100)
        )
        with self._database.writing() as connection:
            row = {"key": shape.key, "body": body, "uses": 1, "last_used": moment, "name": None}
            connection.execute(statement, row)
            connection.execute(
                delete(table).where(table.c.key.in_(connection.execute(oldest).scalars().all()))
            )

    def shapes(self, tools: Mapping[str, Definition] | None = None) -> list[Shape]:
        """All shapes, or those that can be used with these tools; most used first."""
        table = tables.shapes.c
        statement = select(table.body, table.uses, table.name).order_by(
            table.uses.desc(), table.last_used.desc()
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        found = [
            replace(msgspec.json.decode(body, type=Shape), uses=uses, name=name) for body, uses, name in rows
        ]
        return found if tools is None else [shape for shape in found if shape.holds(tools)]

    def examples(self, request: str, tools: Mapping[str, Definition], limit: int = 3) -> list[Shape]:
        """The shapes whose requests are most like this one, among those that these tools can do.

        Likeness is the share of stems in common (Jaccard); of equals the one used more.
        """
        wanted = set(query_terms(request))
        scored = []
        for shape in self.shapes(tools):
            terms = set(query_terms(shape.request))
            common = len(wanted & terms)
            if common:
                scored.append((common / len(wanted | terms), shape.uses, shape.key, shape))
        scored.sort(key=lambda row: row[:3], reverse=True)
        return [row[3] for row in scored[:limit]]

    def promote(self, key: str, name: str, description: str) -> Definition:
        """Give a shape a name, under which it is a tool. Returns the tool's definition.

        :raises BadRequest: there is no such shape, or the name is taken or cannot be one.
        """
        table = tables.shapes
        if not _NAME.fullmatch(name):
            raise BadRequest(f"{name!r} cannot be a tool's name.", "Use letters, digits, dots, _ and -.")
        with self._database.writing() as connection:
            owner = connection.execute(select(table.c.key).where(table.c.name == name)).scalar_one_or_none()
            if owner not in (None, key):
                raise BadRequest(f"There is a composite tool {name} already.", "Choose another name.")
            body = connection.execute(select(table.c.body).where(table.c.key == key)).scalar_one_or_none()
            if body is None:
                raise BadRequest(f"No plan of the shape {key[:12]} is remembered.", "List the shapes again.")
            connection.execute(update(table).where(table.c.key == key).values(name=name))
        return composite(replace(msgspec.json.decode(body, type=Shape), name=name), description)


def composite(shape: Shape, description: str = "") -> Definition:
    """The tool that a promoted shape is: called with its slots' values, it runs the plan."""
    assert shape.name is not None
    steps = ", then ".join(step["tool"] for step in shape.plan)
    return Definition(
        name=shape.name,
        description=description or f"Calls {steps}.",
        input_schema=shape.schema,
        hash=shape.key,
    )
