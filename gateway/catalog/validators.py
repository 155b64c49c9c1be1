"""Checking arguments against a tool's schema, for callers that may not have seen the schema.

Direct calls pass unchecked, as their server checks them itself; ``call_tool``, plans and
``toolyard call`` check first, so that a model gets told what to mend without a round trip.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway import jsonrpc

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_SCHEMA_DEPTH: Final = 64
MAX_SUBSCHEMAS: Final = 10_000
MAX_PROBLEMS: Final = 20
MAX_CONTEXT: Final = 100
"""Alternatives of an ``anyOf`` or ``oneOf`` among which the closest is looked for."""
COMPILE_SECONDS: Final = 1.0
"""CPU time for checking that a schema is one."""
CHECK_SECONDS: Final = 0.5
"""CPU time for checking one call's arguments."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A validator, or why there is none."""

    validator: Any = None
    problem: str | None = None


class ValidatorCache:
    """Validators by definition hash, the least recently used dropped beyond ``maxsize``."""

    def __init__(self, maxsize: int = 512, check_seconds: float = CHECK_SECONDS) -> None:
        self._maxsize = maxsize
        self._check_seconds = check_seconds
        self._cache: OrderedDict[tuple[str, bytes], _Compiled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cache)

    def check(self, definition: str, schema: bytes, arguments: bytes | dict[str, Any]) -> list[str]:
        """What is wrong with the arguments, each with its JSON path; empty when they are valid.

        :param definition: the hash of the tool's definition.
        :param schema: JSON of the schema, one of those in the definition.
        :param arguments: JSON, or the value it decodes to.

        Nothing is fetched and nothing runs without a bound: a schema that is not valid, refers
        outside itself or takes too long is itself the problem returned, and nothing is raised.
        """
        # A definition has an input and an output schema under one hash, so the bytes count too.
        key = (definition, schema)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = _compile(schema)
            while len(self._cache) > self._maxsize:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        if found.problem is not None:
            return [found.problem]
        if isinstance(arguments, bytes):
            if jsonrpc.too_deep(arguments):
                return [f"The arguments nest deeper than {jsonrpc.MAX_DEPTH} levels."]
            try:
                arguments = jsonrpc.value(arguments)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                return [f"The arguments are not JSON: {error}."]
        return _problems(found.validator, arguments, self._check_seconds)


def _compile(data: bytes) -> _Compiled:
    if len(data) > MAX_SCHEMA_BYTES:
        return _Compiled(problem=f"The tool's schema is larger than {MAX_SCHEMA_BYTES} bytes.")
    if jsonrpc.too_deep(data, MAX_SCHEMA_DEPTH):
        return _Compiled(problem=f"The tool's schema nests deeper than {MAX_SCHEMA_DEPTH} levels.")
    try:
        schema = jsonrpc.value(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _Compiled(problem=f"The tool's schema is not JSON: {error}.")
    if not isinstance(schema, dict | bool):
        return _Compiled(problem="The tool's schema is not an object.")
    if _objects(schema) > MAX_SUBSCHEMAS:
        return _Compiled(problem=f"The tool's schema has more than {MAX_SUBSCHEMAS} parts.")
    from registry.validation import keywords

    uri = keywords.dialect(schema)
    if uri is None:
        named = keywords.shorten(repr(schema["$schema"])) if isinstance(schema, dict) else ""
        return _Compiled(problem=f"The tool's schema is written in an unknown dialect, {named}.")
    meta = keywords.validator(keywords.guarded(uri).META_SCHEMA, uri)
    problems = _problems(meta, schema, COMPILE_SECONDS, limit=1)
    if problems:
        return _Compiled(problem=f"The tool's schema is not a valid JSON schema: {problems[0]}")
    return _Compiled(keywords.validator(schema, uri))


def _objects(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_objects, value.values()))
    return sum(map(_objects, value)) if isinstance(value, list) else 0


def _problems(validator: Any, instance: Any, cpu_seconds: float, limit: int = MAX_PROBLEMS) -> list[str]:
    """The problems of an instance; where checking was stopped, those found and why it was."""
    from referencing.exceptions import Unresolvable

    from registry.validation import keywords

    keywords.run_until(cpu_seconds)
    found: list[str] = []
    try:
        for error in islice(validator.iter_errors(instance), limit + 1):
            found.append(_told(error))
    except keywords.Stopped as stop:
        found.append(f"The check was stopped: {stop}.")
    except Unresolvable as error:
        ref = keywords.shorten(repr(error.ref))
        found.append(f"The tool's schema refers to {ref}, which is not in it; nothing is fetched.")
    except RecursionError:
        found.append(
            "The check was stopped: the tool's schema refers to itself without end, or too often for these arguments."
        )
    except (ArithmeticError, TypeError, ValueError, AttributeError, KeyError) as error:
        # jsonschema trusts schemas: dialects leave holes in their meta-schemas, and numbers may be huge.
        reason = keywords.shorten(f"{type(error).__name__}: {error}")
        found.append(f"The check was stopped: the schema and the arguments do not fit together ({reason}).")
    if len(found) > limit > 1:
        found[limit:] = ["There are more problems than these."]
    return found


def _told(error: ValidationError) -> str:
    from jsonschema.exceptions import best_match

    text = f"at {error.json_path}: {error.message}"
    if error.context and len(error.context) <= MAX_CONTEXT:
        closest = best_match([error])
        if closest is not None and closest is not error:
            text += f" (closest: at {closest.json_path}: {closest.message})"
    return text
