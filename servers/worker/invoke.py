"""Making one call: arguments to parameters, the ladder of second readings, and what came back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from .coerce import Coercer, resolve
from .hints import ANY, Type
from .problems import BadArgument
from .readings import combinations

_MISMATCH = re.compile(r"unexpected keyword|positional|keyword arg|takes no keyword|multiple values")
_MISREAD = (TypeError, AttributeError, ValueError, LookupError, OSError, ArithmeticError)


def split(
    parameters: list[dict[str, Any]], arguments: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Type]]:
    """Arguments by name, and their types; what ``**kwargs`` takes keeps its own names.

    :raises BadArgument: a required one is missing, or one is unknown.
    """
    by_name = {parameter["name"]: parameter for parameter in parameters}
    rest = next((p for p in parameters if p.get("kind") == "varkw"), None)
    kinds: dict[str, Type] = {}
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        parameter = by_name.get(name)
        if parameter is not None and parameter.get("kind") == "varkw" and isinstance(value, dict):
            flat.update(value)
        elif parameter is not None and parameter.get("kind") != "varkw":
            flat[name], kinds[name] = value, _type(parameter)
        elif rest is not None:
            flat[name] = value
        else:
            raise BadArgument(f"there is no parameter '{name}'; there are {list(by_name)}")
    for name, parameter in by_name.items():
        if parameter.get("required") and name not in flat:
            raise BadArgument(f"the parameter '{name}' is missing")
    return flat, kinds


def _type(parameter: dict[str, Any]) -> Type:
    kind: Type = parameter.get("type") or ANY
    if parameter.get("kind") == "varargs":
        return {"k": "list", "of": kind}
    if parameter.get("default") == "None" and kind["k"] not in ("any", "none"):
        return {"k": "union", "of": [kind, {"k": "none"}]}
    return kind


def call(
    function: Callable[..., Any],
    parameters: list[dict[str, Any]],
    arguments: dict[str, Any],
    coercer: Coercer,
    module: str,
    finish: Callable[[Any], Any] = lambda value: value,
) -> Any:
    """Call a function with JSON arguments, and with their second readings where it refuses the first.

    :param finish: what is done with the result while a refusal can still be answered: a generator raises late.
    :raises BadArgument: the arguments do not fit; anything else is the function's own.
    """
    flat, kinds = split(parameters, arguments)
    values = {name: coercer.make(value, kinds.get(name, ANY), name) for name, value in flat.items()}
    try:
        return finish(bind(function, parameters, values))
    except _MISREAD as first:
        if hasattr(function, "__wrapped__"):
            # a wrapper shows the names of what it wraps, and may itself look at positions alone
            try:
                return finish(in_order(function, parameters, values))
            except _MISREAD:
                pass
        for other in combinations(values, kinds, module, first):
            try:
                return finish(bind(function, parameters, other))
            except _MISREAD:
                continue
        raise first from None


def bind(function: Callable[..., Any], parameters: list[dict[str, Any]], values: dict[str, Any]) -> Any:
    """Call with each value where its parameter wants it; by position where the names turn out not to be real."""
    positional: list[Any] = []
    named = dict(values)
    extra = next(
        (p["name"] for p in parameters if p.get("kind") == "varargs" and values.get(p["name"])), None
    )
    gap = False
    for parameter in parameters:
        name, kind = parameter["name"], parameter.get("kind", "normal")
        if kind == "varargs":
            items = named.pop(name, None) or []
            positional += [items] if isinstance(items, str) else list(items)
            gap = True
        elif kind == "positional" or (kind == "normal" and extra is not None and not gap):
            if name not in named:
                if kind == "normal" and extra is not None and parameter.get("required") is False:
                    default = _default(function, name)
                    if default is not inspect.Parameter.empty:
                        positional.append(default)
                        continue
                gap = True
                continue
            if not gap:
                positional.append(named.pop(name))
    try:
        return function(*positional, **named)
    except TypeError as error:
        if positional or not named or not _MISMATCH.search(str(error)):
            raise
        ordered = [values[p["name"]] for p in parameters if p["name"] in values]
        if all(p.get("kind") in ("varargs", "varkw") for p in parameters):
            ordered = list(values.values())  # nobody knows its names: the order they came in is what there is
        if len(ordered) != len(values):
            raise
        return function(*ordered)  # wrappers and C functions whose real names are others


def in_order(function: Callable[..., Any], parameters: list[dict[str, Any]], values: dict[str, Any]) -> Any:
    """Call with all values by position that can be given so: those up to the first that is left out."""
    named = dict(values)
    positional: list[Any] = []
    for parameter in parameters:
        if parameter["name"] not in named or parameter.get("kind", "normal") not in ("normal", "positional"):
            break
        positional.append(named.pop(parameter["name"]))
    spread = next((p["name"] for p in parameters if p.get("kind") == "varargs" and p["name"] in named), None)
    if spread is not None:
        positional += named.pop(spread)
    return function(*positional, **named)


def _default(function: Callable[..., Any], name: str) -> Any:
    try:
        return inspect.signature(function).parameters[name].default
    except (ValueError, TypeError, KeyError):
        return inspect.Parameter.empty


def target(tool: dict[str, Any], instance: Any) -> Callable[..., Any]:
    """The callable behind a tool: by its import path, or a method of an instance that was made for it.

    :raises BadArgument: it is not there any more.
    """
    try:
        if instance is not None:
            found = getattr(instance, tool["qualname"].rpartition(".")[2])
        else:
            found = resolve(tool["qualname"])
    except (ImportError, AttributeError) as error:
        raise BadArgument(f"{tool['qualname']} cannot be reached: {error}") from error
    if callable(found):
        made: Callable[..., Any] = found
        return made
    return lambda: found
