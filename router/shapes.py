"""The shape of a plan: its steps without its values.

What is kept of a plan is which tools it called, which arguments were given and which were references; of
the request, the words that the tools' own definitions use, and no others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from registry.lexical.tokens import STOPWORDS, query_terms
from router.errors import BadRequest
from router.plan import Definition, Plan, Ref, Step, from_json, to_json

SLOT: Final = "$slot"
MAX_WORDS: Final = 60
_WORD: Final = re.compile(r"[^\W\d_]+")


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
    """

    key: str
    request: str
    plan: tuple[dict[str, Any], ...] = field(hash=False)
    slots: tuple[Slot, ...]
    versions: dict[str, str] = field(hash=False)
    uses: int = 0

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the values that make a plan of it."""
        return {
            "type": "object",
            "properties": {slot.name: slot.schema for slot in self.slots},
            "required": [slot.name for slot in self.slots if slot.required],
            "additionalProperties": False,
        }

    def named(self, names: Mapping[str, str]) -> Shape | None:
        """The shape over tools of other names; None where one of its tools is not among them.

        :param names: by definition hash, so that a tool which has changed is another one.
        """
        if not all(version in names for version in self.versions.values()):
            return None
        steps = tuple({**step, "tool": names[self.versions[step["tool"]]]} for step in self.plan)
        versions = {names[version]: version for version in self.versions.values()}
        return replace(self, plan=steps, versions=versions)

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
    return parted(plan, tools)[0]


def parted(plan: Plan, tools: Mapping[str, Definition]) -> tuple[Shape, dict[str, Any]]:
    """The shape of a plan, and apart from it the values, by their slots."""
    numbers = {step.id: str(number) for number, step in enumerate(plan.steps, 1)}
    slots: list[Slot] = []
    values: dict[str, Any] = {}
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
        slots.append(Slot(slot, required, _alone(schema)))
        values[slot] = value
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
    words = known_words(plan.request, (tools[name] for name in versions))
    return Shape(key, words, body, tuple(slots), versions), values


def _alone(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that can stand without the document it is from.

    What points elsewhere in that document is left to the check against the tool itself.
    """
    if b'"$ref"' not in msgspec.json.encode(schema):
        return dict(schema)
    return {key: schema[key] for key in ("title", "description") if key in schema}


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
