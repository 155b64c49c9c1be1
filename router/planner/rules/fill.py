"""The arguments of one call: each parameter takes the likeliest value that is still free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from router.plan import Definition
from router.planner.rules.evidence import owner_of
from router.planner.rules.params import NONE, Param
from router.planner.rules.reading import Reading
from router.planner.rules.spans import Span
from router.planner.rules.trees import Trees
from router.planner.rules.values import Value, candidates
from router.schemas import value_allowed

OPTIONAL: Final = 0.1
"""The least probability at which a parameter that may be left out is given."""
NEEDED: Final = 0.03
"""The least at which a required one is given rather than asked for."""


SECRET: Final = 0.15
"""The least for keys, tokens and passwords, which are never guessed."""
_SECRETS: Final = frozenset(["token", "password", "passwd", "secret", "credenti", "passphras"])


def is_secret(param: Param) -> bool:
    """Whether a parameter takes a key, a token or a password."""
    names = set(param.names)
    return bool(names & _SECRETS) or ("key" in names and bool(names & {"api", "access", "privat", "auth"}))


@dataclass(frozen=True, slots=True)
class Given:
    """A value that a parameter got, and how sure that is."""

    param: Param
    value: Any
    span: Span | None
    probability: float


@dataclass(frozen=True, slots=True)
class Filled:
    """One call with its arguments.

    :param given: what its parameters got.
    :param missing: the required ones that got nothing.
    :param clauses: the clauses that it answers.
    """

    tool: Definition
    given: tuple[Given, ...]
    missing: tuple[Param, ...]
    clauses: frozenset[int]

    def of(self, param: Param) -> Given | None:
        """What a parameter got."""
        return next((given for given in self.given if given.param.path == param.path), None)


def fill(
    tool: Definition,
    clauses: frozenset[int],
    reading: Reading,
    model: Trees,
    only: frozenset[int] | None = None,
    least: float = NEEDED,
) -> Filled:
    """Fill a call from the request.

    :param clauses: those that the call answers; values may come from others too.
    :param only: the clauses that values may come from; None for all.
    :param least: the least probability at which a required parameter is given.
    """
    owner = owner_of(tool, clauses)
    offers: list[tuple[float, int, Value]] = []
    params = owner.params
    for index, param in enumerate(params):
        values = candidates(param, owner, reading)
        if only is not None:
            values = [v for v in values if v.span is None or reading.clause_at(v.span.start) in only]
        for probability, at in model.best([value.features for value in values]):
            if probability >= (max(least, SECRET if is_secret(param) else 0.0) if param.needed else OPTIONAL):
                offers.append((probability, index, values[at]))
    offers.sort(key=lambda offer: -offer[0])
    given: dict[int, Given] = {}
    taken: list[tuple[int, int]] = []
    for probability, index, value in offers:
        param, span = params[index], value.span
        if index in given or not value_allowed(value.value, param.schema):
            continue
        exclusive = span is not None and param.type != "boolean"
        if span is not None and exclusive and any(a < span.end and span.start < b for a, b in taken):
            continue
        given[index] = Given(param, value.value, span, probability)
        if span is not None and exclusive:
            taken.append((span.start, span.end))
    missing = tuple(param for index, param in enumerate(params) if param.needed and index not in given)
    return Filled(tool, tuple(given[index] for index in sorted(given)), missing, clauses)


def arguments_of(filled: Filled, extra: Mapping[tuple[str, ...], Any] | None = None) -> dict[str, Any]:
    """The arguments as the tool takes them, objects built around nested parameters.

    :param extra: values for parameters by path, which come first.
    """
    values = {given.param.path: given.value for given in filled.given}
    values.update(extra or {})
    out: dict[str, Any] = {}
    for path, value in values.items():
        if value is NONE:
            continue
        inner = out
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return out
