"""What a parameter wants: its type, its role, its words, read from name, description and schema."""

# ruff: noqa: RUF001  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from registry.lexical.tokens import STOPWORDS
from router.outputs import type_of
from router.plan import Definition
from router.planner.rules.moments import form_of
from router.planner.rules.spans import stems_of

MAX_PARAMS: Final = 40
MAX_NESTED: Final = 2
"""Levels of objects inside the arguments that are filled; deeper ones stay out."""

ROLES: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(text.split())
    for name, text in {
        "from": "from origin source depart departur start begin pickup earliest since initi first lower min",
        "to": "to destin dest target end arriv return dropoff until latest final second upper max recipi receiv",
        "date": "date day birthday dob deadlin month year",
        "time": "time hour clock timestamp datetim schedul",
        "id": "id identifi code number uuid guid key token ticker symbol isbn account handl",
        "email": "email mail recipi",
        "url": "url link uri websit endpoint href",
        "path": "path file filenam directori folder dir filepath",
        "person": "name person user usernam author artist customer patient player employe actor owner contact",
        "place": "locat citi place countri state region address destin origin venu area town zip street",
        "text": "text messag content descript bodi comment note queri question prompt titl topic subject keyword search",
        "count": "count number num quantiti limit amount size max min total age durat year day page rate",
        "money": "price amount budget cost salari fee payment balanc loan incom invest rent deposit",
        "language": "languag lang local",
        "unit": "unit system scale metric",
        "kind": "type categori kind genr mode style format status level class prioriti gender sort order",
    }.items()
}
_EXAMPLES: Final = re.compile(
    r"(?:e\.?\s?g\.?|such as|for example|for instance|example:?|examples:?|like|one of:?|either|can be|options?:?|"
    r"valid values(?: are)?:?|possible values(?: are)?:?|values?:|in the format(?: of)?|formatted as|i\.e\.)[,:]?\s*\[?"
    r"([^()\[\]\n;]{1,200})",
    re.IGNORECASE,
)
_QUOTED: Final = re.compile(r"['\"`‘“]([^'\"`’”]{1,60})['\"`’”]")
_DEFAULT: Final = re.compile(
    r"(?:defaults? (?:value )?(?:is|to|=)|default:|by default(?: is| it is)?,?)\s*(?:to |is |set to )?['\"`]?([\w.+-]+(?: [\w.+-]+)??)['\"`]?(?=[\s.,;)]|$)",
    re.IGNORECASE,
)
NONE: Final = object()


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of a tool; a field of an object parameter counts as one of its own.

    :param path: the keys that lead to it in the arguments.
    :param type: its JSON type, ``enum`` for one of a few values, or ``any``.
    :param needed: it is required, and so is every object around it.
    :param examples: values that its description names.
    :param default: what its schema or its description gives as default; NONE where neither does.
    :param form: how dates and times are to be written, in strftime codes.
    """

    path: tuple[str, ...]
    type: str
    needed: bool
    schema: Mapping[str, Any]
    names: tuple[str, ...]
    about: frozenset[str]
    roles: frozenset[str]
    examples: tuple[str, ...]
    default: Any
    form: str | None
    ordinal: int

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def enum(self) -> tuple[Any, ...]:
        """The values it may have, where there are few."""
        found = self.schema.get("enum") or _items(self.schema).get("enum")
        return tuple(found) if isinstance(found, list) else ()


def _items(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    items = schema.get("items")
    return items if isinstance(items, Mapping) else {}


def params_of(tool: Definition) -> tuple[Param, ...]:
    """The parameters of a tool, those inside objects too, in the order of the schema."""
    found: list[Param] = []
    _walk(tool.input_schema, (), True, found, 0)
    return tuple(found)


def _walk(
    schema: Mapping[str, Any], path: tuple[str, ...], needed: bool, found: list[Param], depth: int
) -> None:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping):
        return
    listed = set(required) if isinstance(required, list) else set()
    for name, part in properties.items():
        if len(found) >= MAX_PARAMS:
            return
        rule = part if isinstance(part, Mapping) else {}
        own = needed and name in listed
        if kind_of(rule) == "object" and isinstance(rule.get("properties"), Mapping) and rule["properties"]:
            if depth < MAX_NESTED:
                _walk(rule, (*path, name), own, found, depth + 1)
            continue
        found.append(_param((*path, str(name)), rule, own, found))


def kind_of(schema: Mapping[str, Any]) -> str:
    """The one JSON type to aim at, null apart; ``any`` where nothing is said, or several."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [part for part in kind if part != "null"]
        kind = kinds[0] if len(kinds) == 1 else "number" if set(kinds) == {"integer", "number"} else None
        if len(kinds) > 1 and kind is None:
            return "any"
    if isinstance(kind, str):
        return kind
    for key in ("anyOf", "oneOf", "allOf"):
        options = schema.get(key)
        listed = [o for o in options if isinstance(o, Mapping)] if isinstance(options, list) else []
        found = {kind_of(option) for option in listed if option.get("type") != "null"}
        if found:
            return found.pop() if len(found) == 1 else "any"
    enum = schema.get("enum")
    if isinstance(enum, list) and enum:
        return type_of(enum[0])
    return "object" if "properties" in schema else "array" if "items" in schema else "any"


def _param(path: tuple[str, ...], schema: Mapping[str, Any], needed: bool, found: list[Param]) -> Param:
    kind = kind_of(schema)
    if kind in ("string", "integer", "number", "any") and isinstance(schema.get("enum"), list):
        kind = "enum"
    described = schema.get("description")
    text = described if isinstance(described, str) else ""
    names, about, examples, stated, form = _read(path[-1], text[:600])
    roles = frozenset(role for role, known in ROLES.items() if known.intersection(names))
    default = schema.get("default", NONE)
    if default is NONE and stated is not None:
        default = _cast(stated, kind)
    ordinal = sum(1 for other in found if other.type == kind)
    return Param(path, kind, needed, schema, names, about, roles, examples, default, form, ordinal)


@lru_cache(maxsize=8192)
def _read(
    name: str, text: str
) -> tuple[tuple[str, ...], frozenset[str], tuple[str, ...], str | None, str | None]:
    names = stems_of(name)
    about = frozenset(word for word in stems_of(text) if word not in STOPWORDS and len(word) > 1)
    examples: list[str] = []
    for match in _EXAMPLES.finditer(text):
        part = match.group(1)
        quoted = _QUOTED.findall(part)
        pieces = quoted or re.split(r",\s*|\s+or\s+|\s+and\s+|/", part)
        examples += [piece.strip(" .'\"`") for piece in pieces if 0 < len(piece.strip(" .'\"`")) <= 60]
    examples += [quoted for quoted in _QUOTED.findall(text) if quoted not in examples]
    stated = _DEFAULT.search(text)
    return (
        names,
        about,
        tuple(dict.fromkeys(examples))[:24],
        stated.group(1).strip() if stated else None,
        form_of(text),
    )


def _cast(text: str, kind: str) -> Any:
    lowered = text.lower().rstrip(".")
    if kind == "boolean":
        return {"true": True, "false": False}.get(lowered, NONE)
    if kind in ("integer", "number"):
        try:
            number = float(lowered)
        except ValueError:
            return NONE
        return int(number) if number.is_integer() else number
    return (
        text
        if kind in ("string", "enum", "any") and lowered not in ("none", "null", "current", "empty")
        else NONE
    )
