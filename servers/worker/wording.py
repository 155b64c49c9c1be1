"""Types written as text: annotations that cannot be evaluated, stub files, and docstrings.

``"int | None"``, ``"Optional[Sequence[str]]"``, ``"list of str"``, ``"array_like, optional"``,
``"{'a', 'b'}"`` and ``"datetime.date or str"`` all become the types of ``hints``.
"""

from __future__ import annotations

import ast
import re
from typing import Any

Type = dict[str, Any]

_NAMES = {
    "none": "none", "bool": "bool", "boolean": "bool", "int": "int", "integer": "int", "float": "float",
    "number": "float", "numeric": "float", "scalar": "float", "str": "str", "string": "str", "text": "str",
    "unicode": "str", "basestring": "str", "char": "str", "anystr": "str", "bytes": "bytes",
    "bytestring": "bytes", "bytearray": "bytes", "complex": "complex", "decimal": "decimal",
    "fraction": "fraction", "datetime": "datetime", "date": "date", "time": "time", "timedelta": "timedelta",
    "tzinfo": "tzinfo", "path": "path", "pathlike": "path", "strpath": "path", "uuid": "uuid", "pattern": "pattern",
    "ndarray": "ndarray", "array_like": "ndarray", "array-like": "ndarray", "arraylike": "ndarray",
    "array": "ndarray", "callable": "callable", "function": "callable", "func": "callable",
    "type": "class", "class": "class", "textio": "file", "binaryio": "file", "io": "file",
}  # fmt: skip
_LISTS = {
    "list", "sequence", "iterable", "iterator", "collection", "generator", "asynciterable", "asynciterator",
    "anyiterable", "lists",
}  # fmt: skip
_WRAPPERS = {"annotated", "final", "classvar", "required", "notrequired", "awaitable"}
_ANY: Type = {"k": "any"}


def describe(text: str) -> Type:
    """The type that a piece of text means; ``any`` where it cannot be told."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).strip().strip("`").strip()
    if not text:
        return _ANY
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return _prose(text)
    found = _node(tree)
    return found if found is not None else _prose(text)


def _prose(text: str) -> Type:
    """A docstring's own words: ``int or str, optional``, ``list of str``, ``{'a', 'b'}, default 'a'``."""
    text = re.sub(r"[,;]?\s*\b(optional|default\b.*|defaults\b.*|keyword.only)", "", text, flags=re.I)
    text = re.sub(r"\(.*?\)", "", text).strip(" ,.;`")
    choices = re.fullmatch(r"\{(.*)\}", text, flags=re.S)
    if choices:
        return _choices(choices.group(1))
    lowered = text.lower()
    parts = [part for part in re.split(r"\s+or\s+|\s*\|\s*|\s*/\s*|,\s*", lowered) if part]
    if len(parts) > 1:
        found = [_phrase(part) for part in parts]
        if all(each["k"] != "any" for each in found):
            return union(found)
        kinds = [each["k"] for each in found if each["k"] not in ("any", "none")]
        return {"k": "any", "hint": kinds} if kinds else _ANY
    return _phrase(lowered)


def _phrase(text: str) -> Type:
    text = re.sub(r"^(an?|the|any|single|numpy|np\.|some)\s+", "", text.strip())
    match = re.match(r"(list|sequence|iterable|tuple|set|array|lists|iterator)s?\s+of\s+(.*)", text)
    if match:
        kind = {"tuple": "tuple", "set": "set"}.get(match.group(1), "list")
        return {"k": kind, "of": _phrase(match.group(2).rstrip("s"))}
    name = text.split(".")[-1].strip(" `'\"")
    return _name(name) or _ANY


def _choices(inside: str) -> Type:
    try:
        values = ast.literal_eval(f"[{inside}]")
    except (ValueError, SyntaxError):
        return _ANY
    plain = [value for value in values if value is None or isinstance(value, (str, int, float, bool))]
    return {"k": "literal", "values": plain} if plain else _ANY


def _name(name: str) -> Type | None:
    lowered = name.lower()
    if lowered in _NAMES:
        return {"k": _NAMES[lowered]}
    if lowered in _LISTS:
        return (
            {"k": "list", "of": _ANY}
            if lowered in ("list", "lists")
            else {"k": "list", "of": _ANY, "text": True}
        )
    if lowered in ("dict", "mapping", "dictionary", "mutablemapping", "json object"):
        return {"k": "dict", "of": _ANY}
    if lowered == "tuple":
        return {"k": "tuple", "of": _ANY}
    if lowered in ("set", "frozenset"):
        return {"k": "set", "of": _ANY}
    return None


def _node(node: ast.expr) -> Type | None:
    if isinstance(node, ast.Constant):
        if node.value is None:
            return {"k": "none"}
        return describe(node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return _name(node.id)
    if isinstance(node, ast.Attribute):
        return _name(node.attr)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return union([_node(node.left) or _ANY, _node(node.right) or _ANY])
    if isinstance(node, ast.Subscript):
        return _subscript(node)
    return None


def _subscript(node: ast.Subscript) -> Type | None:
    base = node.value
    name = (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")).lower()
    inner = node.slice
    args = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    if name == "literal":
        values = [arg.value for arg in args if isinstance(arg, ast.Constant)]
        plain = [value for value in values if value is None or isinstance(value, (str, int, float, bool))]
        return {"k": "literal", "values": plain} if plain else _ANY
    types = [_node(arg) or _ANY for arg in args]
    if name == "optional":
        return union([types[0], {"k": "none"}])
    if name == "union":
        return union(types)
    if name in _WRAPPERS:
        return types[0]
    if name in ("coroutine", "generator") and len(types) == 3:
        return types[2] if name == "coroutine" else {"k": "list", "of": types[0]}
    if name == "tuple":
        if len(args) == 2 and isinstance(args[1], ast.Constant) and args[1].value is Ellipsis:
            return {"k": "tuple", "of": types[0]}
        return {"k": "tuple", "items": types}
    found = _name(name)
    if found is None:
        return None
    if "of" in found:
        if types[0]["k"] not in ("any", "str"):
            found.pop("text", None)
        return {**found, "of": types[-1] if found["k"] == "dict" else types[0]}
    return found


EXACT = {"timedelta", "datetime", "date", "time", "decimal", "fraction", "ndarray", "enum", "record", "uuid"}
"""Types whose values never pass for what JSON has: without being made they are of no use."""


def union(options: list[Type]) -> Type:
    """A union, flat and without repeats. With an unknown member it admits anything, but what has to be made is."""
    flat: list[Type] = []
    for option in options:
        for each in option["of"] if option["k"] == "union" else [option]:
            if each not in flat:
                flat.append(each)
    if any(each["k"] == "any" for each in flat):
        exact = [each for each in flat if each["k"] in EXACT]
        if exact and not any(each["k"] == "str" for each in flat):
            return {"k": "union", "of": [*(each for each in flat if each["k"] != "any"), _ANY]}
        kinds = [each["k"] for each in flat if each["k"] not in ("any", "none")]
        return {"k": "any", "hint": kinds} if kinds else _ANY
    return flat[0] if len(flat) == 1 else {"k": "union", "of": flat}
