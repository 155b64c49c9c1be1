"""What a tool says it returns: the JSON types at a path of its output schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

Types: TypeAlias = frozenset[str] | None
"""JSON types a value may have; None where nothing is known."""

MAX_HOPS: Final = 32
"""References inside a schema that are followed; a schema may refer to itself."""
MAX_BRANCHES: Final = 64
"""Alternatives kept at one level; beyond them nothing is claimed to be known."""


class NotThere(LookupError):
    """A path leads to nothing that the schema describes.

    :param depth: how many of its segments led somewhere.
    :param known: the keys there are instead.
    """

    def __init__(self, depth: int, known: tuple[str, ...]) -> None:
        super().__init__(depth)
        self.depth = depth
        self.known = known


def types_at(schema: Mapping[str, Any] | None, segments: tuple[str, ...]) -> Types:
    """The JSON types of what a path leads to; None where the schema leaves it open.

    A key that an object's ``properties`` do not list counts as absent, unless the schema says more may
    come (``additionalProperties`` or ``patternProperties`` written out): a plan is fixed before any
    result is seen, so it may rely on what is promised alone.

    :raises NotThere: the schema promises no such part.
    """
    parts = schemas_at(schema, segments)
    if parts is None:
        return None
    types: set[str] = set()
    for part in parts:
        found = _types(part)
        if found is None:
            return None
        types |= found
    return frozenset(types)


def schemas_at(schema: Mapping[str, Any] | None, segments: tuple[str, ...]) -> list[Mapping[str, Any]] | None:
    """The schemas of what a path leads to, one for each alternative; None where it is left open.

    :raises NotThere: the schema promises no such part.
    """
    if not schema:
        return None
    here = _branches([schema], schema)
    for depth, segment in enumerate(segments):
        if here is None:
            return None
        next_: list[Mapping[str, Any]] = []
        known: list[str] = []
        open_ = False
        for part in here:
            inside = _inside(part, segment)
            if inside is None:
                open_ = True
            elif inside is not _ABSENT:
                next_.append(inside)
            known += part.get("properties", {}) if isinstance(part.get("properties"), Mapping) else ()
        if open_:
            return None
        if not next_:
            raise NotThere(depth, tuple(dict.fromkeys(known)))
        here = _branches(next_, schema)
    return here


def fields(
    schema: Mapping[str, Any] | None, depth: int = 3
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every part that an output schema promises, with its path: the whole first, then level by level.

    Of a list, the first item stands for all.
    """
    if not schema:
        return
    level: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), schema)]
    for _ in range(depth + 1):
        below: list[tuple[tuple[str, ...], Mapping[str, Any]]] = []
        for path, part in level:
            yield path, part
            for branch in _branches([part], schema) or ():
                properties = branch.get("properties")
                if isinstance(properties, Mapping):
                    below += [
                        ((*path, key), sub) for key, sub in properties.items() if isinstance(sub, Mapping)
                    ]
                if isinstance(branch.get("items"), Mapping):
                    below.append(((*path, "0"), branch["items"]))
        level = below[:MAX_BRANCHES]


_ABSENT: Final[Mapping[str, Any]] = {"not": {}}


def _inside(schema: Mapping[str, Any], segment: str) -> Mapping[str, Any] | None:
    """The schema of one part; None where it is left open, _ABSENT where there is none."""
    if schema.get("properties") is None and schema.get("items") is None and schema.get("prefixItems") is None:
        types = _types(schema)
        return None if types is None or types & {"object", "array"} else _ABSENT
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and segment in properties:
        return _schema(properties[segment])
    if isinstance(properties, Mapping):
        more = schema.get("additionalProperties")
        if isinstance(more, Mapping) and more:
            return more
        if more is True or more == {} or schema.get("patternProperties"):
            return None
    if segment.isdecimal():
        first = schema.get("prefixItems")
        if isinstance(first, list) and int(segment) < len(first):
            return _schema(first[int(segment)])
        if "items" in schema:
            return _schema(schema["items"])
        if isinstance(first, list):
            return None
    return _ABSENT


def _schema(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value or None
    return _ABSENT if value is False else None


def _branches(parts: list[Mapping[str, Any]], root: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Schemas with their references followed and their alternatives apart; None for too many."""
    out: list[Mapping[str, Any]] = []
    todo = [(part, MAX_HOPS) for part in reversed(parts)]
    while todo:
        part, hops = todo.pop()
        if hops == 0 or len(out) + len(todo) > MAX_BRANCHES:
            return None
        pointer = part.get("$ref")
        if isinstance(pointer, str):
            target = _local(root, pointer)
            if target is None:
                return None
            todo.append((target, hops - 1))
            continue
        split = False
        for key in ("anyOf", "oneOf", "allOf"):
            options = part.get(key)
            if isinstance(options, list) and options:
                todo += [(option, hops - 1) for option in reversed(options) if isinstance(option, Mapping)]
                split = True
        if not split or "properties" in part or "items" in part:
            out.append(part)
    return out


def _local(root: Mapping[str, Any], pointer: str) -> Mapping[str, Any] | None:
    """What a JSON pointer inside the schema names; None for any other reference."""
    if not pointer.startswith("#"):
        return None
    value: Any = root
    for piece in pointer[1:].split("/")[1:]:
        key = piece.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value if isinstance(value, Mapping) else None


def _types(schema: Mapping[str, Any]) -> Types:
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset((kind,))
    if isinstance(kind, list) and kind:
        return frozenset(str(part) for part in kind)
    if isinstance(schema.get("properties"), Mapping):
        return frozenset(("object",))
    if isinstance(schema.get("enum"), list):
        return frozenset(map(type_of, schema["enum"]))
    return None


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list | tuple) else "object"
