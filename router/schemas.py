"""A step's arguments against its tool's input schema, while some values are still to come.

A reference or a question stands in the arguments as something of a known or unknown JSON type. It
passes wherever a value of that type could pass; what only the value can decide (``not``, ``if``, which
of ``oneOf``) is left to the check before the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from router.errors import BadArguments, BadSchema, PlanError
from router.outputs import NotThere, Types, type_of, types_at
from router.plan import Ask, Definition, Ref, Step

MAX_PROBLEMS: Final = 5
"""Problems reported for one step."""
CHECK_SECONDS: Final = 0.5
"""CPU time for one step's arguments."""
COMPILE_SECONDS: Final = 1.0
"""CPU time for finding out whether a schema is one."""


class Open:
    """A value to come.

    :param types: the JSON types it may have; None where that is not known.
    """

    __slots__ = ("text", "types")

    def __init__(self, types: Types, text: str) -> None:
        self.types = types
        self.text = text

    def __repr__(self) -> str:
        return self.text


def argument_problems(
    step: Step, tool: Definition, types: Mapping[tuple[str, str], Types] | None = None
) -> list[PlanError]:
    """What the tool's input schema does not allow in a step's arguments.

    :param types: the JSON types of what the step references, by (step, path).
    """
    instance = _stand_in(step.arguments, types or {})
    return [
        BadSchema(message, "Have the tool's server mend its schema.", step=step.id)
        if at is None
        else BadArguments(
            f"Step {step.id}: {message}{f' (at {at})' if at else ''}.",
            "Give what the tool's input schema asks for.",
            step=step.id,
            path=at,
            schema_path=rule,
        )
        for message, at, rule in _problems(tool.input_schema, instance, tool.name)
    ]


def value_allowed(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value, with Ref and Ask for values to come, can stand where a schema is.

    A schema that cannot be used allows nothing.
    """
    return not _problems(schema, _stand_in(value, {}), "the schema")


def _stand_in(value: Any, types: Mapping[tuple[str, str], Types]) -> Any:
    if isinstance(value, Ref):
        return Open(types.get((value.step, value.path)), f"the result of step {value.step}")
    if isinstance(value, Ask):
        return Open(None, "an answer to come")
    if isinstance(value, Mapping):
        return {key: _stand_in(part, types) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_stand_in(part, types) for part in value]
    return value


def _problems(schema: Mapping[str, Any], instance: Any, name: str) -> list[tuple[str, str | None, str]]:
    """(what is wrong, where in the instance, the broken rule); where is None for the schema's own faults."""
    from referencing.exceptions import Unresolvable

    from registry.validation import keywords

    try:
        data = msgspec.json.encode(schema, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        return [(f"The input schema of {name} is not JSON: {error}.", None, "")]
    uri, fault = _usable(data)
    if fault:
        return [(f"The input schema of {name} cannot be used: {fault}.", None, "")]
    keywords.run_until(CHECK_SECONDS)
    validator = keywords.validator(schema if isinstance(schema, dict) else dict(schema), uri, _wrap)
    found: list[tuple[str, str | None, str]] = []
    try:
        for broken in validator.iter_errors(instance):
            found.append(
                (broken.message, _pointer(broken.absolute_path), _pointer(broken.absolute_schema_path))
            )
            if len(found) == MAX_PROBLEMS:
                break
    except keywords.Stopped as error:
        found.append((f"The input schema of {name} cannot be used: {error}.", None, ""))
    except (Unresolvable, RecursionError) as error:
        found.append((f"The input schema of {name} refers to what is not there: {error}.", None, ""))
    return found


@lru_cache(maxsize=1024)
def _usable(data: bytes) -> tuple[str, str]:
    """The dialect of a schema, and why it cannot be used or nothing."""
    from registry.validation import keywords

    schema = msgspec.json.decode(data)
    uri = keywords.dialect(schema)
    if uri is None:
        return "", "it is written in an unknown dialect"
    meta = keywords.validator(keywords.guarded(uri).META_SCHEMA, uri)
    keywords.run_until(COMPILE_SECONDS)
    try:
        first = next(meta.iter_errors(schema), None)
    except (keywords.Stopped, RecursionError) as stopped:
        return uri, str(stopped)
    return uri, f"it is not valid: {first.message}" if first is not None else ""


def _pointer(parts: Any) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def _wrap(name: str, keyword: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    special = _OPEN.get(name)

    def checked(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if special is not None and _has_open(instance):
            yield from special(validator, rule, instance, schema, keyword)
        else:
            yield from keyword(validator, rule, instance, schema) or ()

    return checked


def _has_open(value: Any) -> bool:
    if isinstance(value, Open):
        return True
    if isinstance(value, dict):
        return any(map(_has_open, value.values()))
    return isinstance(value, list) and any(map(_has_open, value))


def _type(validator: Any, rule: Any, instance: Any, schema: Any, keyword: Any) -> Iterator[Any]:
    if not isinstance(instance, Open):
        yield from keyword(validator, rule, instance, schema) or ()
        return
    wanted = frozenset((rule,) if isinstance(rule, str) else rule)
    if instance.types is not None and not compatible(instance.types, wanted):
        from jsonschema.exceptions import ValidationError

        is_ = " or ".join(sorted(instance.types))
        yield ValidationError(f"{instance!r} is {is_}, not {' or '.join(sorted(wanted))}")


def _enum(validator: Any, rule: Any, instance: Any, schema: Any, keyword: Any) -> Iterator[Any]:
    if isinstance(instance, Open):
        wanted = [type_of(value) for value in (rule if isinstance(rule, list) else [rule])]
        yield from _type(validator, wanted, instance, schema, keyword)


def _one_of(validator: Any, rule: Any, instance: Any, schema: Any, keyword: Any) -> Iterator[Any]:
    first = None
    for index, option in enumerate(rule):
        error = next(validator.descend(instance, option, schema_path=index), None)
        if error is None:
            return
        first = first or error
    if first is not None:
        yield first


def _later(validator: Any, rule: Any, instance: Any, schema: Any, keyword: Any) -> Iterator[Any]:
    """Only the value can tell."""
    yield from ()


_OPEN: Final[Mapping[str, Callable[..., Iterator[Any]]]] = {
    "type": _type,
    "enum": _enum,
    "const": lambda validator, rule, *rest: _enum(validator, [rule], *rest),
    "oneOf": _one_of,
    "not": _later,
    "if": _later,
    "contains": _later,
    "uniqueItems": _later,
}


def compatible(types: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether two sets of JSON types have values in common; a number may be an integer."""
    numbers = {"number", "integer"}
    return bool(types & wanted) or bool(types & numbers and wanted & numbers)


def reference_allowed(tool: Definition, segments: tuple[str, ...], schema: Mapping[str, Any]) -> bool:
    """Whether a part of a tool's result may stand where a schema is, by its type."""
    try:
        types = types_at(tool.output_schema, segments)
    except NotThere:
        return False
    wanted = types_at(schema, ())
    return types is None or wanted is None or compatible(types, wanted)
