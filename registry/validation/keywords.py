"""JSON Schema validator classes that a hostile schema or instance cannot hang.

Made from the classes of ``jsonschema`` with the keywords replaced that are unbounded there: those
that run regular expressions, and ``uniqueItems``, which compares every pair. Each step into a
subschema looks at a deadline, which ends what the schema itself multiplies (``allOf`` of ``allOf``
…). Import this module lazily: ``jsonschema`` takes a tenth of a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, TypeAlias

import jsonschema
import msgspec
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.jsonschema import lookup_recursive_ref

from registry.validation import patterns

PATTERN_SECONDS: Final = 0.1
"""Wall time that one run of one pattern may take."""
MAX_MESSAGE: Final = 300
"""Characters of a problem's text; jsonschema quotes whole instances."""
MAX_UNEVALUATED: Final = 2000
"""Items of an array under ``unevaluatedItems``, whose check is quadratic."""

DEFAULT_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_BASES: Final[Mapping[str, Any]] = {
    DEFAULT_DIALECT: jsonschema.Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "http://json-schema.org/draft-07/schema": jsonschema.Draft7Validator,
    "http://json-schema.org/draft-06/schema": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-04/schema": jsonschema.Draft4Validator,
}
_BY_ADDRESS: Final = {uri.split("://", 1)[1]: uri for uri in _BASES}

Errors: TypeAlias = Iterator[ValidationError]
Wrap: TypeAlias = Callable[[str, Callable[..., Any]], Callable[..., Errors]]
_deadline: ContextVar[float] = ContextVar("validation_deadline")


class Stopped(Exception):
    """Validation ended before its result was known; the text says why."""


def run_until(cpu_seconds: float) -> None:
    """Give validation in this context so much CPU time of this thread from now on."""
    _deadline.set(time.thread_time() + cpu_seconds)


def _remaining() -> float:
    left = _deadline.get() - time.thread_time()
    if left <= 0:
        raise Stopped("checking took too long")
    return left


def dialect(schema: object) -> str | None:
    """The known dialect a schema is written in, 2020-12 where it does not say; None for another.

    ``http`` and ``https`` count as the same, and so do addresses with and without ``#``.
    """
    named = schema.get("$schema") if isinstance(schema, Mapping) else None
    if not isinstance(named, str):
        return DEFAULT_DIALECT
    return _BY_ADDRESS.get(named.removesuffix("#").split("://", 1)[-1])


def shorten(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 2] + " …"


def _search(pattern: str, text: str) -> bool:
    try:
        return patterns.search(pattern, text, min(_remaining(), PATTERN_SECONDS))
    except TimeoutError:
        raise Stopped(f"the pattern {shorten(repr(pattern))} took too long") from None
    except patterns.PatternError as error:
        raise Stopped(f"the pattern {shorten(repr(pattern))} cannot be used: {error}") from None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Errors:
    if isinstance(instance, str) and not _search(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, members: Mapping[str, Any], instance: Any, schema: Any) -> Errors:
    if isinstance(instance, dict):
        for pattern, subschema in members.items():
            for key, item in instance.items():
                if _search(pattern, key):
                    yield from validator.descend(item, subschema, path=key, schema_path=pattern)


def _additional_properties(validator: Any, subschema: Any, instance: Any, schema: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    known, matched = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [k for k in instance if k not in known and not any(_search(p, k) for p in matched)]
    if subschema is False:
        if extras:
            yield ValidationError(f"additional properties are not allowed: {_listed(extras)}")
        return
    for key in extras:
        yield from validator.descend(instance[key], subschema, path=key)


def _unevaluated_properties(validator: Any, subschema: Any, instance: Any, schema: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    others = {key: item for key, item in schema.items() if key != "unevaluatedProperties"}
    evaluated = _evaluated(validator, instance, others)
    extras = [key for key in instance if key not in evaluated]
    if subschema is False:
        if extras:
            yield ValidationError(f"unevaluated properties are not allowed: {_listed(extras)}")
        return
    for key in extras:
        yield from validator.descend(instance[key], subschema, path=key)


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:10]) + (" …" if len(names) > 10 else "")


def _evaluated(validator: Any, instance: dict[str, Any], schema: Any) -> set[str]:
    """The properties that some keyword of the schema applies to (2020-12 Core, 11.3)."""
    _remaining()
    if not isinstance(schema, dict):
        return set()
    keys: set[str] = set()

    def within(subschema: Any) -> None:
        keys.update(_evaluated(validator, instance, subschema))

    for resolved in _resolved(validator, schema):
        inner = validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
        keys |= _evaluated(inner, instance, resolved.contents)
    keys |= instance.keys() & schema.get("properties", {}).keys()
    for pattern in schema.get("patternProperties", {}):
        keys |= {key for key in instance if _search(pattern, key)}
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in schema:
            rest = schema[keyword]
            keys |= {key for key, item in instance.items() if _valid(validator, item, rest)}
    for key, subschema in schema.get("dependentSchemas", {}).items():
        if key in instance:
            within(subschema)
    for keyword in ("allOf", "oneOf", "anyOf"):
        for subschema in schema.get(keyword, ()):
            if _valid(validator, instance, subschema):
                within(subschema)
    if "if" in schema:
        if _valid(validator, instance, schema["if"]):
            within(schema["if"])
            within(schema.get("then"))
        else:
            within(schema.get("else"))
    return keys


def _resolved(validator: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(schema.get(keyword), str):
            yield validator._resolver.lookup(schema[keyword])
    if "$recursiveRef" in schema:
        yield lookup_recursive_ref(validator._resolver)


def _valid(validator: Any, instance: Any, schema: Any) -> bool:
    return next(validator.descend(instance, schema), None) is None


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Errors:
    if not wanted or not isinstance(instance, list):
        return
    seen: dict[bytes, int] = {}
    for index, item in enumerate(instance):
        first = seen.setdefault(msgspec.json.encode(_normal(item), order="deterministic"), index)
        if first != index:
            yield ValidationError(f"items {first} and {index} are the same")
            return


def _normal(value: Any) -> Any:
    """The value with 1.0 written as 1, so that equal numbers are spelled alike."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    return value


def _bounded(original: Callable[..., Errors]) -> Callable[..., Errors]:
    def unevaluated_items(validator: Any, subschema: Any, instance: Any, schema: Any) -> Errors:
        if isinstance(instance, list) and len(instance) > MAX_UNEVALUATED:
            raise Stopped(f"an array under 'unevaluatedItems' has more than {MAX_UNEVALUATED} items")
        yield from original(validator, subschema, instance, schema) or ()

    return unevaluated_items


_REPLACED: Final[Mapping[str, Any]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "unevaluatedProperties": _unevaluated_properties,
    "uniqueItems": _unique_items,
}


@cache
def guarded(uri: str, wrap: Wrap | None = None) -> Any:
    """The validator class for a known dialect.

    :param wrap: what to put around each keyword, given its name; a function of a module, as classes
        are kept by it.
    """
    base = _BASES[uri]
    replaced = {name: keyword for name, keyword in _REPLACED.items() if name in base.VALIDATORS}
    if "unevaluatedItems" in base.VALIDATORS:
        replaced["unevaluatedItems"] = _bounded(base.VALIDATORS["unevaluatedItems"])
    if wrap is not None:
        replaced = {name: wrap(name, keyword) for name, keyword in {**base.VALIDATORS, **replaced}.items()}
    extend: Any = jsonschema.validators.extend
    cls: Any = extend(base, replaced)
    plain_descend, plain_errors = cls.descend, cls.iter_errors

    def evolve(self: Any, **changes: Any) -> Any:
        # The original takes the unguarded class for a subschema that has a $schema of its own.
        schema = changes.get("schema", self.schema)
        inner = (
            guarded(known, wrap) if "$schema" in _keys(schema) and (known := dialect(schema)) else type(self)
        )
        return inner(
            schema=schema, registry=self._registry, _resolver=changes.get("_resolver", self._resolver)
        )

    def descend(
        self: Any, instance: Any, schema: Any, path: Any = None, schema_path: Any = None, resolver: Any = None
    ) -> Errors:
        _remaining()
        if schema is False:
            error = ValidationError("nothing is allowed here", instance=instance, schema=schema)
            if path is not None:
                error.path.appendleft(path)
            yield error
            return
        for error in plain_descend(self, instance, schema, path, schema_path, resolver):
            error.message = shorten(error.message)
            yield error

    def iter_errors(self: Any, instance: Any) -> Errors:
        _remaining()
        for error in plain_errors(self, instance):
            error.message = shorten(error.message)
            yield error

    cls.evolve, cls.descend, cls.iter_errors = evolve, descend, iter_errors
    return cls


def _keys(schema: object) -> Mapping[str, Any]:
    return schema if isinstance(schema, dict) else {}


def validator(schema: Any, uri: str, wrap: Wrap | None = None) -> Any:
    """A validator for a schema of a known dialect, with no way to fetch anything."""
    return guarded(uri, wrap)(schema, registry=Registry())
