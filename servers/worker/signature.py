"""Parameters of any callable, as far as it can be asked for them."""

from __future__ import annotations

import contextlib
import enum
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from . import hints

_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "normal",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_POSITIONAL: "varargs",
    inspect.Parameter.VAR_KEYWORD: "varkw",
}
_PLAIN = (str, int, float, bool, bytes, type(None))


class Unknown(Exception):
    """A callable that does not say what it takes."""


def parameters(function: Callable[..., Any], skip_first: bool = False) -> tuple[list[dict[str, Any]], Any]:
    """A callable's parameters and its return annotation.

    :param skip_first: whether the first one is ``self`` or ``cls`` of an unbound method.
    :raises Unknown: it has no signature, not even in its docstring.
    """
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        signature = _documented(function)
    else:
        if _says_nothing(signature):
            with contextlib.suppress(Unknown):
                signature = _documented(function)
    known = _hints(function)
    found = list(signature.parameters.values())
    if skip_first and found and found[0].kind not in (
        inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY,
    ):  # fmt: skip
        found = found[1:]
    return [_parameter(each, known) for each in found], known.get("return", signature.return_annotation)


def _hints(function: Any) -> dict[str, Any]:
    owner = function.__init__ if inspect.isclass(function) else inspect.unwrap(function)
    try:
        return typing.get_type_hints(owner, include_extras=False)
    except Exception:  # names that exist only for type checkers; each annotation is read as text instead
        return dict(getattr(owner, "__annotations__", {}) or {})


def _parameter(parameter: inspect.Parameter, known: dict[str, Any]) -> dict[str, Any]:
    kind = _KINDS[parameter.kind]
    annotation = known.get(parameter.name, parameter.annotation)
    described = hints.describe(annotation)
    made: dict[str, Any] = {"name": parameter.name, "kind": kind}
    default = parameter.default
    empty = inspect.Parameter.empty
    if kind in ("varargs", "varkw"):
        made["type"] = described
        return made
    made["required"] = default is empty
    if default is not empty:
        if isinstance(default, enum.Enum):
            made["default"] = default.name
            if described["k"] == "any":
                described = {"k": "union", "of": [hints.enumeration(type(default)), {"k": "any"}]}
        elif isinstance(default, _PLAIN) or (isinstance(default, (list, tuple, dict, set)) and not default):
            made["default"] = repr(default)[:200]
        if described == hints.ANY and default is not None and isinstance(default, (bool, int, float, str)):
            described = {"k": "any", "hint": [type(default).__name__]}
    made["type"] = described
    return made


def _says_nothing(signature: inspect.Signature) -> bool:
    """Whether it is ``(*args, **kwargs)``: what wrappers and constructors written in C show."""
    kinds = {each.kind for each in signature.parameters.values()}
    return kinds == {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def _documented(function: Any) -> inspect.Signature:
    """The signature that a C function's docstring opens with: ``name(a, b=1, *args) -> int``, ``name(a[, b])``.

    A class without a docstring of its own is documented by the class it extends.
    """
    classes = inspect.getmro(function) if inspect.isclass(function) else (function,)
    match = None
    for each in classes:
        doc, name = getattr(each, "__doc__", None) or "", re.escape(getattr(each, "__name__", "") or "")
        match = re.match(rf"\s*(?:[\w.]+\.)?{name}\(([^()]*)\)", doc) if name else None
        if match is not None or doc or "__init__" in getattr(each, "__dict__", {}):
            break
    if match is None:
        raise Unknown
    found: dict[str, inspect.Parameter] = {}
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    depth = 0
    for piece in match.group(1).split(","):
        part = piece.strip(" []\n\t")
        bracketed = depth + piece[: len(piece) - len(piece.lstrip(" ["))].count("[") > 0
        depth += piece.count("[") - piece.count("]")
        if not part or part in ("/", "..."):
            continue
        if part.startswith("*"):
            kind = inspect.Parameter.KEYWORD_ONLY
            if part in ("*", "**"):
                continue
            starred = inspect.Parameter.VAR_KEYWORD if part[1] == "*" else inspect.Parameter.VAR_POSITIONAL
            label = part.strip("* ")
            if label.isidentifier():
                found[label] = inspect.Parameter(label, starred)
            continue
        label, equals, default = part.partition("=")
        label = label.split(":")[0].strip()
        if not label.isidentifier():
            raise Unknown
        optional = equals or bracketed or any(each.default is not each.empty for each in found.values())
        found[label] = inspect.Parameter(
            label, kind, default=default.strip() if optional else inspect.Parameter.empty
        )
    try:
        return inspect.Signature(list(found.values()))
    except ValueError:
        raise Unknown from None
