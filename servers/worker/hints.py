"""Python annotations as plain JSON "types", which a manifest can hold and a worker can act on.

A type is an object with a key ``k``:

=============  ==========================================================================
any, none      anything; null
bool int float str bytes decimal fraction complex datetime date time timedelta path uuid pattern
               scalars, each with one way to be written in JSON
ndarray        nested lists of numbers, or a number
list set dict  ``of``: the type of the items (of the values); ``text``: a string will do as a list;
               ``keys``: the type of the keys, where they are not strings
tuple          ``items``: one type each, or ``of``
literal        ``values``
enum           ``ref``, ``members``, ``values``, ``flag``
union          ``of``: a list of types
record         ``ref``, ``fields`` [{name, type, required}]: dataclass, NamedTuple, TypedDict
class          a type object, given as ``module:name``
callable       a function, given as ``module:name``
file           an open file, given as its text; ``binary``
object         ``ref``: an instance of a class, given by a handle
=============  ==========================================================================
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime
import decimal
import enum
import fractions
import inspect
import io
import os
import pathlib
import re
import types
import typing
import uuid
from typing import Any

from . import wording

Type = dict[str, Any]
ANY: Type = {"k": "any"}
_DEPTH = 5

_SCALARS: dict[Any, str] = {
    type(None): "none",
    None: "none",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    bytearray: "bytes",
    memoryview: "bytes",
    complex: "complex",
    decimal.Decimal: "decimal",
    fractions.Fraction: "fraction",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "timedelta",
    datetime.tzinfo: "tzinfo",
    pathlib.Path: "path",
    pathlib.PurePath: "path",
    os.PathLike: "path",
    uuid.UUID: "uuid",
    re.Pattern: "pattern",
    type: "class",
    object: "any",
    Any: "any",
    typing.Hashable: "any",
    abc.Hashable: "any",
    typing.Sized: "any",
    abc.Sized: "any",
    typing.SupportsFloat: "float",
    typing.SupportsInt: "int",
    typing.SupportsIndex: "int",
    typing.SupportsAbs: "float",
}
_FILES = (typing.IO, typing.TextIO, typing.BinaryIO, io.IOBase)
_LISTS = {
    list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Iterator, abc.Collection, abc.Reversible,
    abc.Generator, abc.AsyncIterable, abc.AsyncIterator,
}  # fmt: skip
_SETS = {set, frozenset, abc.Set, abc.MutableSet}
_DICTS = {dict, abc.Mapping, abc.MutableMapping}


def ref(thing: Any) -> str:
    """``module:qualname`` of a class or function."""
    return f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"


def describe(annotation: Any, depth: int = 0) -> Type:
    """The type an annotation means; ``any`` where it says nothing that JSON could carry."""
    if annotation is inspect.Parameter.empty or depth > _DEPTH:
        return ANY
    if isinstance(annotation, str):
        return wording.describe(annotation)
    if isinstance(annotation, typing.ForwardRef):
        return wording.describe(annotation.__forward_arg__)
    try:
        if annotation in _SCALARS:
            return {"k": _SCALARS[annotation]}
    except TypeError:
        return ANY
    if isinstance(annotation, typing.TypeVar):
        if annotation.__constraints__:
            return wording.union([describe(c, depth + 1) for c in annotation.__constraints__])
        return describe(annotation.__bound__, depth + 1) if annotation.__bound__ is not None else ANY
    if isinstance(annotation, typing.NewType):
        return describe(annotation.__supertype__, depth + 1)
    origin = typing.get_origin(annotation)
    if origin is not None:
        return _generic(annotation, origin, typing.get_args(annotation), depth)
    if inspect.isclass(annotation):
        return _class(annotation, depth)
    value = getattr(annotation, "__value__", None)  # PEP 695 alias
    return describe(value, depth + 1) if value is not None else ANY


def _generic(annotation: Any, origin: Any, args: tuple[Any, ...], depth: int) -> Type:
    if origin in (typing.Annotated, typing.Final, typing.ClassVar):
        return describe(args[0], depth) if args else ANY
    if getattr(origin, "__name__", "") in ("Required", "NotRequired", "ReadOnly", "Unpack"):
        return describe(args[0], depth) if args else ANY
    if origin is typing.Union or origin is types.UnionType:
        return wording.union([describe(arg, depth + 1) for arg in args])
    if origin is typing.Literal:
        return literal(args)
    if origin is type:
        return {"k": "class"}
    if origin is abc.Callable:
        return {"k": "callable"}
    if origin in (abc.Awaitable, abc.Coroutine):
        return describe(args[-1], depth + 1) if args else ANY
    if origin is tuple:
        if not args or (len(args) == 2 and args[1] is Ellipsis):
            return {"k": "tuple", "of": describe(args[0], depth + 1) if args else ANY}
        return {"k": "tuple", "items": [describe(arg, depth + 1) for arg in args]}
    if origin in _LISTS:
        return _list(origin, describe(args[0], depth + 1) if args else ANY)
    if origin in _SETS:
        return {"k": "set", "of": describe(args[0], depth + 1) if args else ANY}
    if origin in _DICTS:
        made: Type = {"k": "dict", "of": describe(args[1], depth + 1) if len(args) > 1 else ANY}
        keys = describe(args[0], depth + 1) if args else ANY
        return {**made, "keys": keys} if keys["k"] not in ("any", "str") else made
    if origin is typing.IO and args == (bytes,):
        return {"k": "file", "binary": True}
    if inspect.isclass(origin):
        return describe(origin, depth)
    return ANY


def _list(kind: Any, inner: Type) -> Type:
    """Items of a type; ``text`` where a string will do, too: it is an iterable of strings to Python."""
    made: Type = {"k": "list", "of": inner}
    return {**made, "text": True} if kind is not list and inner["k"] in ("any", "str") else made


def _class(cls: type, depth: int) -> Type:
    module = (cls.__module__ or "").split(".")[0]
    if module == "numpy" and cls.__name__ == "ndarray":
        return {"k": "ndarray"}
    if issubclass(cls, enum.Enum):
        return enumeration(cls)
    if cls in _LISTS:
        return _list(cls, ANY)
    if cls in _SETS:
        return {"k": "set", "of": ANY}
    if cls in _DICTS:
        return {"k": "dict", "of": ANY}
    if cls is tuple:
        return {"k": "tuple", "of": ANY}
    if cls in (abc.Callable, types.FunctionType):
        return {"k": "callable"}
    if cls is typing.BinaryIO or issubclass(cls, (io.RawIOBase, io.BufferedIOBase)):
        return {"k": "file", "binary": True}
    if cls in _FILES or issubclass(cls, io.IOBase):
        return {"k": "file"}
    if typing.is_typeddict(cls) or dataclasses.is_dataclass(cls) or hasattr(cls, "_fields"):
        fields = _fields(cls, depth)
        if fields is not None:
            return {"k": "record", "ref": ref(cls), "fields": fields}
    for base, kind in ((pathlib.PurePath, "path"), (bool, "bool"), (datetime.datetime, "datetime")):
        if issubclass(cls, base):
            return {"k": kind}
    if getattr(cls, "_is_protocol", False):
        return ANY
    if module == "builtins" or module == "typing":
        return ANY
    return {"k": "object", "ref": ref(cls)}


def _fields(cls: Any, depth: int) -> list[dict[str, Any]] | None:
    try:
        known = typing.get_type_hints(cls)
    except Exception:  # annotations of foreign code may name what is not there
        known = dict(getattr(cls, "__annotations__", {}))
    if typing.is_typeddict(cls):
        needed: frozenset[str] = getattr(cls, "__required_keys__", frozenset())
        return [
            {"name": name, "type": describe(hint, depth + 1), "required": name in needed}
            for name, hint in known.items()
        ]
    if dataclasses.is_dataclass(cls):
        return [
            {
                "name": field.name,
                "type": describe(known.get(field.name, field.type), depth + 1),
                "required": field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING,
            }
            for field in dataclasses.fields(cls)
            if field.init
        ]
    names = getattr(cls, "_fields", None)
    if not isinstance(names, tuple) or not issubclass(cls, tuple):
        return None
    defaults = getattr(cls, "_field_defaults", {})
    return [
        {"name": name, "type": describe(known.get(name, Any), depth + 1), "required": name not in defaults}
        for name in names
    ]


def enumeration(cls: type[enum.Enum]) -> Type:
    """The type of an enum: its members' names, and those values that are JSON."""
    members = list(cls.__members__)
    values = [m.value for m in cls if isinstance(m.value, (str, int, float, bool))]
    return {
        "k": "enum",
        "ref": ref(cls),
        "members": members[:200],
        "values": values[:200],
        "flag": issubclass(cls, enum.Flag) or (issubclass(cls, int) and all(_bit(v) for v in values)),
    }


def _bit(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def literal(values: typing.Iterable[Any]) -> Type:
    """One of some constants; those that JSON has."""
    kept = []
    for value in values:
        value = value.value if isinstance(value, enum.Enum) else value
        if value is None or isinstance(value, (str, int, float, bool)):
            kept.append(value)
    return {"k": "literal", "values": kept} if kept else ANY
