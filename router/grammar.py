"""What may be written next in a plan, as a JSON Schema: real tools, real parameters, legal values, earlier steps.

    schema = next_step(tools, plan_so_far)  # {"next": {"tool", "arguments", "after"?}} or {"next": null}

A plan is written one step at a time. When a step is written the tools of the earlier ones are known, so
its grammar names exactly the parts of their results that may stand for each parameter; a grammar for
the whole plan could not (what step 1 returns depends on the tool that was chosen for it).

Every schema here is narrow on purpose: strings, lists, objects and numbers are bounded, so that any
output ends, and only keywords are used that grammar libraries hold to (llguidance: no ``not``, ``if``,
``uniqueItems``, ``propertyNames``, no overlapping ``oneOf``). What is left out so is checked afterwards
(`router.planner.sound`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from router.outputs import NotThere, Types, fields, type_of, types_at
from router.plan import Definition, Plan, Step, join_path
from router.schemas import compatible, value_allowed

LONGEST: Final = 240
"""Characters of a string, at most."""
LENGTHS: Final = 60
"""Strings may have a multiple of so many characters, so that requests of like length share a compiled grammar."""
MOST_ITEMS: Final = 12
"""Items of a list, and keys of an object whose keys are free."""
MOST_LEVELS: Final = 5
"""Objects and lists inside each other; deeper values can be referred to or asked for, not written."""
MOST_PATHS: Final = 48
"""Parts of one result that may be referred to."""
MOST_COPIES: Final = 400
"""Strings that may be copied from a request."""
COPIED_WORDS: Final = 8

_FORMATS: Final = frozenset({"date", "date-time", "email", "ipv4", "ipv6", "uuid"})
_LARGEST: Final = 10**12
_DECIMALS: Final = 1e-6
_KEY: Final = r"^[A-Za-z_][A-Za-z0-9_. -]{0,39}$"
_MARKS: Final = frozenset({"$ref", "$ask", "$literal"})
_BEYOND_REGULAR: Final = re.compile(r"\(\?(?!:)|\\[1-9bBkpPAZzGK]|[*+?}][+]|\(\*")
"""Look-around, back-references, boundaries, possessive quantifiers: not in a regular language, or not in all."""
_SCALARS: Final = ("string", "number", "boolean", "null")
_EVERY: Final = (*_SCALARS, "array", "object")


def copies(request: str, words: int = COPIED_WORDS, most: int = MOST_COPIES) -> tuple[str, ...]:
    """What strings may be copied from a request: its words and their runs, shorter ones first."""
    found = [(m.start(), m.end()) for m in re.finditer(r"\S+", request)]
    out: dict[str, None] = {}
    for length in range(1, words + 1):
        for at in range(len(found) - length + 1):
            text = request[found[at][0] : found[at + length - 1][1]]
            for form in (text, text.strip(".,;:!?\"'()[]{}“”")):
                if form:
                    out[form] = None
            if len(out) >= most:
                return tuple(out)[:most]
    return tuple(out)


def next_step(
    tools: Sequence[Definition], plan: Plan, *, copied: Sequence[str] | None = None, end: bool = True
) -> dict[str, Any]:
    """The schema of the next step of a plan, or of its end.

    :param plan: the steps that there are; they may be referred to.
    :param copied: where given, strings that are free otherwise are one of these (see `copies`).
    :param end: whether the plan may end here.
    """
    # Values come from the request: none is longer than all of it, and a model that rambles is cut short.
    longest = min(LONGEST, LENGTHS * max(1, -(-len(plan.request) // LENGTHS)))
    writer = _Writer({tool.name: tool for tool in tools}, plan.steps, copied, longest)
    calls = [writer.step(tool) for tool in sorted(tools, key=lambda tool: tool.name)]
    choices = [call for call in calls if call is not None]
    if end or not choices:
        choices.append({"type": "null"})
    schema: dict[str, Any] = _object({"next": {"anyOf": choices}}, ["next"])
    if writer.defs:
        schema["$defs"] = writer.defs
    return schema


def question(tool: Definition, path: Sequence[str]) -> str:
    """What a person is asked for a parameter that nobody gave."""
    return f"What is {'.'.join(path)} for {tool.name}?"


def _object(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the schemas of one step; ``defs`` holds what several of them share."""

    tools: Mapping[str, Definition]
    steps: Sequence[Step]
    copied: Sequence[str] | None
    longest: int
    defs: dict[str, Any] = field(default_factory=dict)

    def step(self, tool: Definition) -> dict[str, Any] | None:
        """A call of a tool; None where no arguments can be written for it."""
        root = tool.input_schema
        forms = self._arguments(tool, root)
        if not forms:
            return None
        arguments = forms[0] if len(forms) == 1 else {"anyOf": forms}
        parts: dict[str, Any] = {"tool": {"const": tool.name}, "arguments": arguments}
        if self.steps:
            ids = {"enum": [step.id for step in self.steps]}
            parts["after"] = {"type": "array", "items": ids, "maxItems": len(self.steps)}
        return _object(parts, ["tool", "arguments"])

    def _arguments(self, tool: Definition, root: Mapping[str, Any]) -> list[dict[str, Any]]:
        rule = _resolved(root, root) or {}
        if not rule.get("properties") and not any(key in rule for key in ("anyOf", "oneOf", "allOf")):
            bare = self._properties(tool, rule, root, (), 0)
            return [bare] if bare is not None else []
        return self._values(tool, {**rule, "type": "object"}, root, (), 0)

    def _properties(
        self,
        tool: Definition,
        schema: Mapping[str, Any],
        root: Mapping[str, Any],
        path: tuple[str, ...],
        level: int,
    ) -> dict[str, Any] | None:
        """An object with known properties; None where a required one can have no value."""
        known = schema.get("properties")
        needed = schema.get("required")
        required = (
            [name for name in needed if isinstance(name, str)] if isinstance(needed, list | tuple) else []
        )
        parts: dict[str, Any] = {}
        for name, rule in {**(known if isinstance(known, Mapping) else {})}.items():
            if level and name in _MARKS:
                continue  # it would read as a reference
            value = self._open(tool, rule, root, (*path, name), level, name in required)
            if value is not None:
                parts[name] = value
        for name in required:
            if name not in parts:
                if level and name in _MARKS:
                    return None
                parts[name] = self._ask(tool, (*path, name))
        return _object(parts, required)

    def _open(
        self,
        tool: Definition,
        rule: Any,
        root: Mapping[str, Any],
        path: tuple[str, ...],
        level: int,
        ask: bool,
    ) -> dict[str, Any] | None:
        """A value, or what stands for one: a part of an earlier result, or a question."""
        options = [*self._values(tool, rule, root, path, level), *self._refs(rule, root)]
        if ask:
            options.append(self._ask(tool, path))
        if not options:
            return None
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _ask(self, tool: Definition, path: Sequence[str]) -> dict[str, Any]:
        return _object({"$ask": {"const": question(tool, path)}}, ["$ask"])

    # ------------------------------------------------------------------ references
    def _refs(self, rule: Any, root: Mapping[str, Any]) -> list[dict[str, Any]]:
        if not self.steps or rule is False:
            return []
        wanted = _wanted(rule, root)
        key = "refs-" + ("-".join(sorted(wanted)) if wanted is not None else "any")
        if key not in self.defs:
            options = [part for step in self.steps for part in self._parts(step, wanted)]
            self.defs[key] = {"anyOf": options} if options else {}
        return [{"$ref": f"#/$defs/{key}"}] if self.defs[key] else []

    def _parts(self, step: Step, wanted: Types) -> list[dict[str, Any]]:
        """The parts of a step's result that have one of the types."""
        output = self.tools[step.tool].output_schema
        paths: list[str] = []
        for segments, _ in fields(output):
            try:
                types = types_at(output, segments)
            except NotThere:
                continue
            if (types is None or wanted is None or compatible(types, wanted)) and len(paths) < MOST_PATHS:
                paths.append(join_path(segments))
        if not output:
            paths = [""]
        out = []
        if "" in paths:
            out.append(_object({"$ref": {"const": step.id}}, ["$ref"]))
        named = [path for path in dict.fromkeys(paths) if path]
        if named:
            out.append(_object({"$ref": {"const": step.id}, "path": {"enum": named}}, ["$ref", "path"]))
        return out

    # ------------------------------------------------------------------ values
    def _values(
        self, tool: Definition, rule: Any, root: Mapping[str, Any], path: tuple[str, ...], level: int
    ) -> list[dict[str, Any]]:
        """The schemas whose values may be written where a rule stands; none where nothing may."""
        rule = _resolved(rule, root)
        if rule is None or level > MOST_LEVELS:
            return []
        if "const" in rule or isinstance(rule.get("enum"), list):
            values = [rule["const"]] if "const" in rule else rule["enum"]
            legal = [v for v in values if _plain(v) and value_allowed(v, _rooted(rule, root))]
            return [{"enum": legal}] if legal else []
        for key in ("anyOf", "oneOf", "allOf"):
            branches = rule.get(key)
            if isinstance(branches, list | tuple) and branches:
                shared = {k: v for k, v in rule.items() if k != key}
                merged = [_merged(shared, _resolved(branch, root)) for branch in branches]
                if key == "allOf":
                    whole: dict[str, Any] | None = shared
                    for branch in branches:
                        whole = _merged(whole or {}, _resolved(branch, root))
                    merged = [whole]
                return [
                    option
                    for branch in merged
                    if branch is not None
                    for option in self._values(tool, branch, root, path, level + 1)
                ]
        out = []
        for kind in _kinds(rule):
            value = self._value(kind, tool, rule, root, path, level)
            if value is not None:
                out.append(value)
        return out

    def _value(
        self,
        kind: str,
        tool: Definition,
        rule: Mapping[str, Any],
        root: Mapping[str, Any],
        path: tuple[str, ...],
        level: int,
    ) -> dict[str, Any] | None:
        if kind == "string":
            return self._string(rule, root)
        if kind in ("integer", "number"):
            return _number(kind, rule)
        if kind == "array":
            return self._list(tool, rule, root, path, level)
        if kind == "object":
            if isinstance(rule.get("properties"), Mapping) and rule["properties"]:
                return self._properties(tool, rule, root, path, level + 1)
            return self._free(tool, rule, root, path, level)
        return {"type": kind}

    def _string(self, rule: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any] | None:
        low = _whole(rule.get("minLength"), 0)
        high = _whole(rule.get("maxLength"), max(self.longest, low))
        limited = any(key in rule for key in ("minLength", "maxLength", "pattern"))
        if self.copied is not None:
            if not limited and "default" not in rule:
                if "copied" not in self.defs:
                    self.defs["copied"] = {"enum": list(self.copied)} if self.copied else {}
                return {"$ref": "#/$defs/copied"} if self.copied else None
            offers = [*self.copied, rule.get("default")]
            fitting = [s for s in offers if isinstance(s, str) and value_allowed(s, _rooted(rule, root))]
            return {"enum": list(dict.fromkeys(fitting))} if fitting else None
        if low > max(high, LONGEST):
            return None
        value: dict[str, Any] = {"type": "string", "maxLength": min(high, max(self.longest, low))}
        if low:
            value["minLength"] = low
        pattern = rule.get("pattern")
        if isinstance(pattern, str):
            if _BEYOND_REGULAR.search(pattern) or not _compiles(pattern):
                return None
            value["pattern"] = pattern
        elif rule.get("format") in _FORMATS:
            value = {"type": "string", "format": rule["format"]}
        return value

    def _list(
        self,
        tool: Definition,
        rule: Mapping[str, Any],
        root: Mapping[str, Any],
        path: tuple[str, ...],
        level: int,
    ) -> dict[str, Any] | None:
        low, high = _whole(rule.get("minItems"), 0), _whole(rule.get("maxItems"), MOST_ITEMS)
        if low > min(high, MOST_ITEMS) or "prefixItems" in rule or isinstance(rule.get("items"), list):
            return None
        items = self._open(tool, rule.get("items", {}), root, path, level + 1, ask=False)
        value = {"type": "array", "maxItems": min(high, MOST_ITEMS) if items is not None else 0}
        if items is not None:
            value["items"] = items
        if low:
            if items is None:
                return None
            value["minItems"] = low
        return value

    def _free(
        self,
        tool: Definition,
        rule: Mapping[str, Any],
        root: Mapping[str, Any],
        path: tuple[str, ...],
        level: int,
    ) -> dict[str, Any] | None:
        """An object whose keys are free: no more of them than MOST_ITEMS, and plain ones."""
        if rule.get("required") or _whole(rule.get("minProperties"), 0) > 0:
            return None
        inner = rule.get("additionalProperties", True)
        if inner is False or rule.get("patternProperties"):
            return _object({}, ())
        value = self._open(tool, {} if inner is True else inner, root, path, level + 1, ask=False)
        if value is None:
            return _object({}, ())
        return {
            "type": "object",
            "patternProperties": {_KEY: value},
            "additionalProperties": False,
            "maxProperties": min(_whole(rule.get("maxProperties"), MOST_ITEMS), MOST_ITEMS),
        }


def _kinds(rule: Mapping[str, Any]) -> tuple[str, ...]:
    kind = rule.get("type")
    if isinstance(kind, str):
        return (kind,) if kind in (*_EVERY, "integer") else ()
    if isinstance(kind, list | tuple):
        return tuple(str(one) for one in kind if one in (*_EVERY, "integer"))
    if isinstance(rule.get("properties"), Mapping):
        return ("object",)
    return ("array",) if "items" in rule else _SCALARS


def _number(kind: str, rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """A number between bounds; a fraction has at most six digits, so that it ends."""
    low, high = _bound(rule, "inimum", -_LARGEST), _bound(rule, "aximum", _LARGEST)
    step = rule.get("multipleOf")
    value: dict[str, Any] = {"type": kind, **low, **high}
    least, most = next(iter(low.values())), next(iter(high.values()))
    if least > most or (least == most and not {"minimum", "maximum"} <= set(value)):
        return None
    if isinstance(step, int | float) and not isinstance(step, bool) and step > 0:
        value["multipleOf"] = step
    elif kind == "number":
        value["multipleOf"] = _DECIMALS
    return value


def _bound(rule: Mapping[str, Any], end: str, otherwise: int) -> dict[str, Any]:
    """``minimum`` or ``exclusiveMinimum`` (the tighter is not looked for), as drafts 4 and later write them."""
    plain, strict = rule.get("m" + end), rule.get("exclusiveM" + end)
    if isinstance(strict, int | float) and not isinstance(strict, bool):
        return {"exclusiveM" + end: strict}
    if isinstance(plain, int | float) and not isinstance(plain, bool):
        return {("exclusiveM" if strict is True else "m") + end: plain}
    return {"m" + end: otherwise}


def _resolved(rule: Any, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A rule with its reference followed; None where nothing may stand or the reference leads nowhere."""
    for _ in range(16):
        if rule is True:
            return {}
        if not isinstance(rule, Mapping):
            return None
        pointer = rule.get("$ref")
        if not isinstance(pointer, str):
            return rule
        rule = _local(pointer, root)
    return None


def _local(pointer: str, root: Mapping[str, Any]) -> Any:
    if not pointer.startswith("#"):
        return None
    value: Any = root
    for piece in pointer[1:].split("/")[1:]:
        key = piece.replace("~1", "/").replace("~0", "~")
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _rooted(rule: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A rule that can be checked by itself: with the definitions that it may refer to."""
    shared = {key: root[key] for key in ("$schema", "$defs", "definitions") if key in root}
    return {**shared, **rule}


def _merged(shared: Mapping[str, Any], branch: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A rule and one of its branches as one rule."""
    if branch is None:
        return None
    out = {**shared, **branch}
    ours, theirs = shared.get("properties"), branch.get("properties")
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        out["properties"] = {**ours, **theirs}
    if isinstance(shared.get("required"), list) and isinstance(branch.get("required"), list):
        out["required"] = list(dict.fromkeys([*shared["required"], *branch["required"]]))
    return out


def _wanted(rule: Any, root: Mapping[str, Any]) -> Types:
    if not isinstance(rule, Mapping):
        return None
    try:
        return types_at(_rooted(rule, root), ())
    except NotThere:
        return None


def _plain(value: Any) -> bool:
    """Whether a value reads as itself in a plan."""
    if type_of(value) == "object":
        return not (_MARKS & set(value)) and all(map(_plain, value.values()))
    return not isinstance(value, list) or all(map(_plain, value))


def _whole(value: Any, otherwise: int) -> int:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
