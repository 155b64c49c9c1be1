"""What else a JSON value may have been meant to be, for calls that refused its plain reading.

Each reading has a label, so that two arguments that are misread in the same way are mended together.
"""

from __future__ import annotations

import datetime
import decimal
import io
import itertools
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from .coerce import known
from .hints import ANY, Type
from .problems import BadArgument

_NAMED = re.compile(r"[A-Za-z_][\w.]*[:.][A-Za-z_]\w*")
_MOST = 8


def readings(value: Any, kind: Type, module: str) -> Iterator[tuple[str, Any]]:
    """Other readings of one value, the likeliest first."""
    if kind["k"] == "list" and isinstance(value, list):
        yield from itertools.islice(readings(value, ANY, module), 3)
    elif isinstance(value, str):
        yield from _of_text(value, module)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield "timedelta", datetime.timedelta(seconds=value)
        yield "decimal", decimal.Decimal(str(value))
        yield "text", str(value)
    elif isinstance(value, list):
        yield from _of_list(value)


def _of_list(value: list[Any]) -> Iterator[tuple[str, Any]]:
    if value and all(isinstance(item, list) for item in value):
        yield "tuples", [tuple(item) for item in value]
    yield "tuple", tuple(tuple(item) if isinstance(item, list) else item for item in value)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        try:
            yield "array", numpy.array(value)
        except ValueError:
            pass
    try:
        yield "set", set(value)
    except TypeError:
        pass
    if value and all(isinstance(item, str) for item in value):
        yield "bytes", [item.encode() for item in value]
    yield "iterator", iter(value)


def _of_text(value: str, module: str) -> Iterator[tuple[str, Any]]:
    for label, reader in (
        ("datetime", datetime.datetime.fromisoformat),
        ("date", datetime.date.fromisoformat),
        ("time", datetime.time.fromisoformat),
    ):
        try:
            yield label, reader(value)
        except ValueError:
            continue
    if _NAMED.fullmatch(value):
        try:
            yield "named", known(value, module.split(".")[0])
        except BadArgument:
            pass
    place = sys.modules.get(module)
    named = getattr(place, value, None) if value.isidentifier() and not value.startswith("_") else None
    if named is not None and not isinstance(named, type(sys)):
        yield "named", named
    yield "bytes", value.encode()
    try:
        yield "decimal", decimal.Decimal(value)
    except decimal.InvalidOperation:
        pass
    yield "file", io.StringIO(value)
    yield "bytes file", io.BytesIO(value.encode())
    yield "path", pathlib.Path(value)


def combinations(
    values: dict[str, Any], kinds: dict[str, Type], module: str, failure: Exception, limit: int = 32
) -> Iterator[dict[str, Any]]:
    """Other readings of a whole set of arguments: one changed at a time, then all that read alike.

    :param failure: what the first reading raised. A value that was refused for what it says, not for
        what it is, gets no second reading, save that a list may have to be an array.
    """
    loose = [name for name in values if _loose(kinds.get(name, ANY))]
    if not isinstance(failure, (TypeError, AttributeError, OSError)):
        loose = [name for name in loose if isinstance(values[name], list)]
    columns = {
        name: list(itertools.islice(readings(values[name], kinds.get(name, ANY), module), _MOST))
        for name in loose
    }
    return itertools.islice(_changed(values, columns), limit)


def _changed(values: dict[str, Any], columns: dict[str, list[tuple[str, Any]]]) -> Iterator[dict[str, Any]]:
    labels = dict.fromkeys(label for column in columns.values() for label, _ in column)
    for label in labels:
        alike = {name: dict(column)[label] for name, column in columns.items() if label in dict(column)}
        if len(alike) > 1:
            yield {**values, **alike}
        for name, other in alike.items():
            yield {**values, name: other}


def _loose(kind: Type) -> bool:
    """Whether a type leaves open what the value should be."""
    k = kind["k"]
    if k in ("any", "object", "list"):
        return True
    return k == "union" and len([each for each in kind["of"] if each["k"] != "none"]) > 1
