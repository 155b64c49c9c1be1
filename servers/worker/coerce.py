"""JSON arguments as the Python values a callable needs.

Where the type is known (``hints``) the value is made exactly; where it is not, it goes in as it is, and
``alternatives`` says what else it might have been meant to be, for a call that was refused.
"""

from __future__ import annotations

import base64
import binascii
import builtins
import collections
import datetime
import decimal
import enum
import fractions
import importlib
import io
import math
import operator
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from .hints import ANY, Type
from .problems import BadArgument

_OPEN_MODULES = (builtins, operator, math, datetime, decimal, fractions, collections, pathlib, uuid)
_NOT_OFFERED = {"eval", "exec", "compile", "open", "input", "breakpoint", "__import__", "exit", "quit"}
_DURATION = re.compile(
    r"(?P<sign>-)?P(?:(?P<weeks>[\d.]+)W)?(?:(?P<days>[\d.]+)D)?"
    r"(?:T(?:(?P<hours>[\d.]+)H)?(?:(?P<minutes>[\d.]+)M)?(?:(?P<seconds>[\d.]+)S)?)?$"
)
Finder = Callable[[Any], Any]
"""Gives back the object behind a handle, or the value itself where it is none."""


def resolve(reference: str) -> Any:
    """The object that ``module:qualname`` names. Raises ImportError, AttributeError."""
    module, _, path = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split(".") if path else ():
        found = getattr(found, part)
    return found


def known(reference: str, home: str) -> Any:
    """A class or function a caller may name: of the service's own package, or a harmless one of Python's.

    :raises BadArgument: it is neither.
    """
    text = reference.strip()
    module, colon, path = text.partition(":")
    if not colon:
        module, _, path = text.rpartition(".")
    if path in _NOT_OFFERED:
        raise BadArgument(f"'{text}' is not offered")
    own = module.split(".")[0] == home
    try:
        if own:
            return resolve(f"{module}:{path}")
        for place in _OPEN_MODULES:
            if place.__name__ in (module, module.rpartition(".")[0]) or not module:
                found = getattr(place, path, None)
                if found is not None:
                    return found
    except (ImportError, AttributeError):
        pass
    raise BadArgument(f"'{text}' names no function or class; write it as 'module:name'")


class Coercer:
    """Makes values for one call.

    :param home: the top-level package whose names a caller may use.
    :param find: what turns handles into objects.
    """

    def __init__(self, home: str, find: Finder) -> None:
        self._home = home
        self._find = find

    def make(self, value: Any, kind: Type, name: str) -> Any:
        """The Python value for a JSON value. Raises BadArgument, which names the parameter."""
        try:
            return self._make(value, kind)
        except BadArgument as problem:
            raise BadArgument(f"argument '{name}': {problem}") from None

    def _make(self, value: Any, kind: Type) -> Any:
        found = self._find(value)
        if found is not value:
            return found
        if isinstance(value, dict) and len(value) == 1:
            (tag,) = value
            if tag == "$ref":
                return known(str(value[tag]), self._home)
        handler = getattr(self, "_" + str(kind["k"]), None)
        return handler(value, kind) if handler else self._any(value, kind)

    def _any(self, value: Any, kind: Type) -> Any:
        if isinstance(value, list):
            return [self._make(item, ANY) for item in value]
        if isinstance(value, dict):
            return {key: self._make(item, ANY) for key, item in value.items()}
        return value

    def _none(self, value: Any, kind: Type) -> Any:
        if value is None:
            return None
        raise BadArgument("must be null")

    def _bool(self, value: Any, kind: Type) -> Any:
        if isinstance(value, (bool, int)):
            return bool(value)
        raise BadArgument(f"must be true or false, not {_short(value)}")

    def _int(self, value: Any, kind: Type) -> Any:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise BadArgument(f"must be an integer, not {_short(value)}")
        if isinstance(value, (int, float)):
            return int(value)
        raise BadArgument(f"must be an integer, not {_short(value)}")

    def _float(self, value: Any, kind: Type) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower().lstrip("+-") in ("inf", "infinity", "nan"):
            return float(value)
        raise BadArgument(f"must be a number, not {_short(value)}")

    def _str(self, value: Any, kind: Type) -> Any:
        if isinstance(value, str):
            return value
        raise BadArgument(f"must be a string, not {_short(value)}")

    def _bytes(self, value: Any, kind: Type) -> Any:
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            return bytes(value)
        if not isinstance(value, str):
            raise BadArgument(f"must be base64 text, not {_short(value)}")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise BadArgument(f"is not base64: {_short(value)}") from None

    def _complex(self, value: Any, kind: Type) -> Any:
        return self._scalar(complex, value, "a complex number such as '1+2j'")

    def _decimal(self, value: Any, kind: Type) -> Any:
        return self._scalar(decimal.Decimal, str(value), "a decimal number")

    def _fraction(self, value: Any, kind: Type) -> Any:
        return self._scalar(fractions.Fraction, str(value), "a fraction such as '3/4'")

    def _uuid(self, value: Any, kind: Type) -> Any:
        return self._scalar(uuid.UUID, value, "a UUID")

    def _path(self, value: Any, kind: Type) -> Any:
        return pathlib.Path(self._str(value, kind))

    def _tzinfo(self, value: Any, kind: Type) -> Any:
        return self._scalar(zoneinfo.ZoneInfo, self._str(value, kind), "a time zone such as 'Europe/Berlin'")

    def _scalar(self, maker: Callable[[Any], Any], value: Any, what: str) -> Any:
        try:
            return maker(value)
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, OSError, re.error):
            raise BadArgument(f"must be {what}, not {_short(value)}") from None

    def _datetime(self, value: Any, kind: Type) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.datetime.fromtimestamp(value, datetime.UTC)
        return self._scalar(datetime.datetime.fromisoformat, value, "a date and time in ISO 8601")

    def _date(self, value: Any, kind: Type) -> Any:
        try:
            return datetime.date.fromisoformat(value)
        except (ValueError, TypeError):
            return self._scalar(datetime.datetime.fromisoformat, value, "a date such as '2024-01-31'").date()

    def _time(self, value: Any, kind: Type) -> Any:
        return self._scalar(datetime.time.fromisoformat, value, "a time such as '13:45:00'")

    def _timedelta(self, value: Any, kind: Type) -> Any:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.timedelta(seconds=value)
        match = _DURATION.match(value) if isinstance(value, str) else None
        if match is None:
            raise BadArgument(f"must be seconds, or a duration such as 'PT1H30M', not {_short(value)}")
        parts = {k: float(v) for k, v in match.groupdict().items() if v and k != "sign"}
        made = datetime.timedelta(**parts)
        return -made if match["sign"] else made

    def _ndarray(self, value: Any, kind: Type) -> Any:
        if not isinstance(value, list):
            return value
        numpy = importlib.import_module("numpy")
        try:
            return numpy.array(value)
        except ValueError as error:
            raise BadArgument(f"is no array: {error}") from None

    def _list(self, value: Any, kind: Type) -> Any:
        if isinstance(value, str) and kind.get("text"):
            return value
        if not isinstance(value, list):
            raise BadArgument(f"must be a list, not {_short(value)}")
        return [self._make(item, kind.get("of", ANY)) for item in value]

    def _set(self, value: Any, kind: Type) -> Any:
        made = self._list(value, kind)
        try:
            return set(made)
        except TypeError:
            raise BadArgument("has items that cannot be in a set") from None

    def _tuple(self, value: Any, kind: Type) -> Any:
        if not isinstance(value, list):
            raise BadArgument(f"must be a list, not {_short(value)}")
        items = kind.get("items")
        if items is None:
            return tuple(self._make(item, kind.get("of", ANY)) for item in value)
        if len(items) != len(value):
            raise BadArgument(f"must have {len(items)} items, not {len(value)}")
        return tuple(self._make(item, each) for item, each in zip(value, items, strict=True))

    def _dict(self, value: Any, kind: Type) -> Any:
        if not isinstance(value, dict):
            raise BadArgument(f"must be an object, not {_short(value)}")
        made = {key: self._make(item, kind.get("of", ANY)) for key, item in value.items()}
        if kind.get("keys", ANY)["k"] in ("int", "float"):
            number = int if kind["keys"]["k"] == "int" else float
            return {self._scalar(number, key, "a number, as its key is"): item for key, item in made.items()}
        if "keys" in kind:
            return {self._make(key, kind["keys"]): item for key, item in made.items()}
        return made

    def _literal(self, value: Any, kind: Type) -> Any:
        if value in kind["values"]:
            return value
        raise BadArgument(f"must be one of {kind['values']}, not {_short(value)}")

    def _enum(self, value: Any, kind: Type) -> Any:
        cls = resolve(kind["ref"])
        return member(cls, value)

    def _union(self, value: Any, kind: Type) -> Any:
        problems = []
        for option in sorted(kind["of"], key=lambda each: _fit(value, each)):
            try:
                return self._make(value, option)
            except BadArgument as problem:
                problems.append(str(problem))
        raise BadArgument("; or ".join(dict.fromkeys(problems)))

    def _record(self, value: Any, kind: Type) -> Any:
        cls = resolve(kind["ref"])
        types = {field["name"]: field["type"] for field in kind["fields"]}
        if isinstance(value, list):
            if len(value) > len(types):
                raise BadArgument(f"has more than the fields {list(types)}")
            value = dict(zip(types, value, strict=False))
        if not isinstance(value, dict):
            raise BadArgument(f"must be an object with {list(types)}, not {_short(value)}")
        unknown = [name for name in value if name not in types]
        if unknown:
            raise BadArgument(f"has no field {unknown[0]!r}; its fields are {list(types)}")
        made = {name: self.make(item, types[name], name) for name, item in value.items()}
        try:
            return cls(**made)
        except TypeError as error:
            raise BadArgument(str(error)) from None

    def _class(self, value: Any, kind: Type) -> Any:
        found = known(self._str(value, kind), self._home)
        if not isinstance(found, type):
            nested = getattr(found, str(value).rpartition(".")[2], None)
            if not isinstance(nested, type):
                raise BadArgument(f"'{value}' is no class")
            return nested
        return found

    def _callable(self, value: Any, kind: Type) -> Any:
        found = known(self._str(value, kind), self._home)
        if not callable(found):
            raise BadArgument(f"'{value}' cannot be called")
        return found

    def _file(self, value: Any, kind: Type) -> Any:
        text: str = self._str(value, kind)
        return io.BytesIO(text.encode()) if kind.get("binary") else io.StringIO(text)

    def _pattern(self, value: Any, kind: Type) -> Any:
        return self._scalar(re.compile, value, "a regular expression")

    def _object(self, value: Any, kind: Type) -> Any:
        """An object given by value: its constructor's arguments, or text that its class can read."""
        if value is None:
            return None
        try:
            cls = resolve(kind["ref"])
        except (ImportError, AttributeError):
            return value
        attempts: list[Callable[[], Any]] = []
        if isinstance(value, dict):
            attempts.append(lambda: cls(**value))
        if isinstance(value, str):
            for reader in ("parse", "from_string", "from_str", "fromstring", "fromisoformat", "loads"):
                if hasattr(cls, reader):
                    attempts.append(lambda reader=reader: getattr(cls, reader)(value))  # type: ignore[misc]
        attempts.append(lambda: cls(value))
        if isinstance(value, list):
            attempts.append(lambda: cls(*value))
        for attempt in attempts:
            try:
                made = attempt()
            except Exception:  # whatever a foreign constructor raises, the next way is tried
                continue
            if isinstance(made, cls):
                return made
        return value


def member(cls: type[enum.Enum], value: Any) -> Any:
    """An enum's member by name (in any case), by value, or for flags by names joined with ``|``."""
    if isinstance(value, str):
        if value in cls.__members__:
            return cls.__members__[value]
        if "|" in value:
            return _joined([member(cls, part.strip()) for part in value.split("|")])
        for name, each in cls.__members__.items():
            if name.lower() == value.lower().replace("-", "_").replace(" ", "_"):
                return each
    if isinstance(value, list) and value:
        return _joined([member(cls, part) for part in value])
    try:
        return cls(value)
    except (ValueError, TypeError):
        raise BadArgument(f"must be one of {list(cls.__members__)[:30]}, not {_short(value)}") from None


def _joined(members: list[Any]) -> Any:
    made = members[0]
    for each in members[1:]:
        made = made | each
    return made


def _fit(value: Any, kind: Type) -> int:
    """How well a JSON value fits a type of a union at first sight; less is better."""
    k = kind["k"]
    exact = {
        str: ("literal", "enum", "str", "datetime", "date", "time", "path", "decimal", "bytes"),
        bool: ("bool", "literal"),
        int: ("int", "float", "literal", "enum", "decimal", "timedelta"),
        float: ("float", "literal", "enum", "decimal", "timedelta"),
        list: ("record", "tuple", "list", "set", "ndarray"),
        dict: ("record", "dict"),
        type(None): ("none",),
    }.get(type(value), ())
    if isinstance(value, str) and k == "str":
        return 10  # text that is also a member or an instant is that first, unless it is plain text
    if isinstance(value, str) and k in ("datetime", "date", "time"):
        return 5
    if isinstance(value, str) and k in ("literal", "enum"):
        return 1
    return 20 + exact.index(k) if k in exact else 60


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
