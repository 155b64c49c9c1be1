"""Arguments to try a tool with: from its doctests, the README, and made by type and name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from servers.convert.docstrings import Example
from servers.manifest.records import Parameter, Tool
from servers.worker.hints import Type


@dataclass(frozen=True, slots=True)
class Trial:
    """One call to make, and where its arguments come from."""

    arguments: dict[str, Any]
    source: str


_BY_KIND: Final[dict[str, tuple[Any, Any]]] = {
    "bool": (True, False), "int": (3, 5), "float": (2.5, 4.0), "str": ("hello world", "a longer example, of seven words."),
    "bytes": ("aGVsbG8=", "d29ybGQ="), "decimal": ("12.50", "3.75"), "fraction": ("3/4", "1/2"),
    "complex": ("1+2j", "3+1j"), "datetime": ("2024-01-31T12:30:00", "2023-06-15T08:00:00"),
    "date": ("2024-01-31", "2023-06-15"), "time": ("12:30:00", "08:15:00"), "timedelta": (3600, 90),
    "tzinfo": ("UTC", "Europe/Berlin"), "path": ("input.txt", "input.txt"),
    "uuid": ("12345678-1234-5678-1234-567812345678", "87654321-1234-5678-1234-567812345678"),
    "ndarray": ([1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 5.0, 7.0]), "none": (None, None),
    "class": ("builtins:str", "builtins:int"), "callable": ("builtins:str", "builtins:repr"),
    "file": ("hello\nworld\n", "one\ntwo\n"), "any": ("hello", "world"), "dict": ({"a": 1, "b": 2}, {"a": 3}),
}  # fmt: skip
_BY_NAME: Final[tuple[tuple[str, tuple[Any, Any]], ...]] = (
    (r"^(n|k|m|count|size|num|number|length|width|height|depth|step|limit|year|index|order|precision|digits)$|_(count|size|length|width)$", (3, 5)),
    (r"^(x|y|z|a|b|value|val|amount|rate|epsilon|tolerance|distance|angle|radius|weight|price)$", (2, 7)),
    (r"(iterable|seq|sequence|items|values|array|arr|list|data|numbers|points|collection|src|lst|elements|itr)s?$", ([3, 1, 2], [5, 4, 4])),
    (r"(dict|mapping|obj|object|coll|record|row|json|params|kwargs|config)s?$", ({"a": 1, "b": 2}, {"a": 3})),
    (r"point|coord|latlon|position", ([45.5, 4.25], [48.75, 2.5])),
    (r"^(lat|latitude|lon|lng|longitude)$", (45.5, 12.25)),
    (r"cron|expr_format|schedule", ("*/5 * * * *", "0 12 * * 1")),
    (r"version|^ver$", ("1.2.3", "2.0.1")),
    (r"colou?r|^hex$|hex_value", ("#336699", "#ff0000")),
    (r"^lang(uage)?$|language_code", ("en", "de")),
    (r"durationstr|^duration$", ("PT1H30M", "P2D")),
    (r"datetimestr", ("2024-01-31T12:30:00", "2023-06-15T08:00:00")),
    (r"^(month|hours?|months|weeks)$", (2, 11)),
    (r"^(minutes?|seconds?|microseconds?|days|years|fold)$", (1, 0)),
    (r"^(date|day)$|(^|_)date(str|string)?$|datestr|testdate", ("2024-01-31", "2023-06-15")),
    (r"^(dt|datetime|when|start|stop|end|time|timestamp)$|_(time|dt)$", ("2024-01-31T12:30:00", "2023-06-15T08:00:00")),
    (r"locale", ("en_US", "de_DE")),
    (r"(url|uri|link)$", ("https://example.com/a?b=c", "https://example.org/")),
    (r"(html|xml|markup)", ("<p>Hello <b>world</b></p>", "<div>one</div>")),
    (r"(json)$", ('{"a": 1}', "[1, 2]")),
    (r"(email)", ("alice@example.com", "bob@example.org")),
    (r"(path|file|filename|fname)$", ("input.txt", "input.txt")),
    (r"^(code|source|src)$", ("x = 1\nprint(x)\n", "def f():\n    return 2\n")),
    (r"(sql|query)$", ("select 1", "select a from b")),
    (r"(pattern|regex)$", ("h.*o", "[a-z]+")),
    (r"(sep|separator|delimiter|char|prefix|suffix)", ("-", "_")),
    (r"(text|string|word|name|sentence|s|str|title|content|phrase|password|expr|expression|key)s?$", ("hello world", "a longer example, of seven words.")),
)  # fmt: skip
_NOTATIONS: Final = (
    "2024-01-31T12:30:00", "42", "1.5", "https://example.com/a?b=c", '{"a": 1}', "<p>Hello <b>world</b></p>", "1.2.3",
    "a = 1", "UTC", "en", "#336699", "alice@example.com", "1 hour", "x**2 + 1", "a.b", "*.txt", "SGVsbG8=", "192.0.2.1",
    "12:30:00", "PT1H30M", "*/5 * * * *", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", "[1, 2]",
)  # fmt: skip
"""Tried where plain words are refused: dates, numbers, addresses, markup, versions, code, patterns."""
_FILES: Final = {"input.txt": "hello world\nsecond line\n"}


def trials(tool: Tool, examples: Sequence[Example], most: int = 4) -> Iterator[Trial]:
    """What to try a tool with, the most trustworthy first; the last two differ in every made argument."""
    if tool.kind == "cli":
        yield Trial({"argv": [*tool.qualname.split(" ")[1:], "--help"]}, "help")
        return
    made = 0
    for example in examples:
        arguments = _from_example(tool, example)
        if arguments is not None:
            yield Trial(_with_files(tool, arguments), example.source)
            made += 1
            if made >= most - 1:
                break
    for variant in (0, 1):
        yield Trial(_with_files(tool, made_up(tool, variant)), "typed")
    spread = [p for p in tool.parameters if p.kind == "varargs" and p.type.get("k", "any") == "any"]
    if spread and made == 0:
        for numbers in ([0.5], [3, 2]):
            yield Trial({**made_up(tool, 0), spread[0].name: numbers}, "typed")
    required = [p for p in tool.parameters if p.required and p.type.get("k") == "any"]
    if required and made == 0:
        for value in ([3, 1, 2], {"a": 1, "b": 2}, 5):
            arguments = made_up(tool, 0)
            arguments[required[0].name] = value
            yield Trial(_with_files(tool, arguments), "typed")
    yield from _probes(tool)


def _probes(tool: Tool) -> Iterator[Trial]:
    """The one text that a tool wants, or what its object is made of, in the notations that texts are often in."""
    for parameters, inside in ((tool.parameters, None), (tool.constructor, tool.init_property)):
        wanted = [p for p in parameters if p.required and p.type.get("k") in ("str", "any")]
        if len(wanted) != 1 or wanted[0].type.get("hint", ["str"]) != ["str"]:
            continue
        for text in _NOTATIONS:
            arguments = made_up(tool, 0)
            (arguments if inside is None else arguments[inside])[wanted[0].name] = text
            yield Trial(arguments, "typed")


def _with_files(tool: Tool, arguments: dict[str, Any]) -> dict[str, Any]:
    if tool.files_property and "input.txt" in str(arguments):
        return {**arguments, tool.files_property: _FILES}
    return arguments


def _from_example(tool: Tool, example: Example) -> dict[str, Any] | None:
    arguments = _bound(tool.parameters, example.positional, example.named)
    if arguments is None:
        return None
    if tool.init_property is not None:
        given = example.init or ((), {})
        init = _bound(tool.constructor, *given)
        if init is None or not _complete(tool.constructor, init):
            init = _values(tool.constructor, 0)
        arguments[tool.init_property] = init
    return arguments if _complete(tool.parameters, arguments) else None


def _complete(parameters: Sequence[Parameter], arguments: dict[str, Any]) -> bool:
    return all(parameter.name in arguments for parameter in parameters if parameter.required)


def _bound(
    parameters: Sequence[Parameter], positional: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any] | None:
    made: dict[str, Any] = {}
    left = list(positional)
    for parameter in parameters:
        if parameter.kind == "varargs":
            if left:
                made[parameter.name] = left
            left = []
        elif parameter.kind in ("positional", "normal") and left:
            made[parameter.name] = _written(left.pop(0), parameter.type)
    if left:
        return None
    names = {parameter.name: parameter for parameter in parameters}
    open_ended = any(parameter.kind == "varkw" for parameter in parameters)
    for name, value in named.items():
        if name not in names and not open_ended:
            return None
        made[name] = _written(value, names[name].type) if name in names else value
    return made


def _written(value: Any, kind: Type) -> Any:
    """An example's value as the schema wants it: bytes are base64 there."""
    if kind.get("k") == "bytes" and isinstance(value, str):
        import base64

        return base64.b64encode(value.encode()).decode()
    return value


def made_up(tool: Tool, variant: int) -> dict[str, Any]:
    """Values for the required parameters, by type and then by name."""
    arguments = _values(tool.parameters, variant)
    if tool.init_property is not None:
        arguments[tool.init_property] = _values(tool.constructor, variant)
    return arguments


def _values(parameters: Sequence[Parameter], variant: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind == "varargs":
            made[parameter.name] = [_value(parameter, variant)]
        elif parameter.required and parameter.kind != "varkw":
            value = _value(parameter, variant)
            if variant == 0 and value in made.values():
                value = _value(
                    parameter, 1
                )  # two texts to compare are to differ; the other variant has them alike
            made[parameter.name] = value
    if "day" in made and {"year", "month"} <= {each.name for each in parameters}:
        made["day"] = (15, 28)[variant]  # of a month; alone, a day is a date
    return made


def _value(parameter: Parameter, variant: int) -> Any:
    kind = parameter.type or {"k": "any"}
    if kind["k"] in ("any", "str", "object") or (
        kind["k"] == "list" and kind.get("of", {}).get("k") == "any"
    ):
        for pattern, values in _BY_NAME:
            if re.search(pattern, parameter.name.lower()):
                value = values[variant]
                if kind["k"] in ("any", "object") or isinstance(value, str) == (kind["k"] == "str"):
                    return value
    if kind["k"] == "any" and kind.get("values"):
        return kind["values"][variant % len(kind["values"])]
    return of_kind(kind, variant)


def of_kind(kind: Type, variant: int, depth: int = 0) -> Any:
    """A value of a type."""
    k = kind["k"]
    if k == "any" and kind.get("hint"):
        k = kind["hint"][0]
    if k == "union":
        return of_kind(kind["of"][0], variant, depth)
    if k in ("list", "set", "tuple"):
        if "items" in kind:
            return [of_kind(each, variant, depth + 1) for each in kind["items"]]
        inner = kind.get("of", {"k": "any"})
        if inner["k"] == "any":
            return [3, 1, 2] if variant == 0 else [5, 4]
        return [of_kind(inner, variant, depth + 1), of_kind(inner, 1, depth + 1)]
    if k == "dict":
        inner = kind.get("of", {"k": "any"})
        return {"a": of_kind(inner, variant, depth + 1)} if inner["k"] != "any" else _BY_KIND["dict"][variant]
    if k == "literal":
        return kind["values"][variant % len(kind["values"])]
    if k == "enum":
        return kind["members"][variant % len(kind["members"])] if kind["members"] else None
    if k == "record":
        return {
            field["name"]: of_kind(field["type"], variant, depth + 1)
            for field in kind["fields"]
            if field["required"] and depth < 4
        }
    return _BY_KIND.get(k, _BY_KIND["any"])[variant]
