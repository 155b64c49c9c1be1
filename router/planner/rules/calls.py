"""How often a tool is called: once, once for each of several clauses, or once for each of a row.

"The weather in Paris and London" is two calls of a tool that takes one city, "compare Paris and
London" is one call of a tool that takes a list. What tells them apart is learned over FEATURES.
"""

# ruff: noqa: SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from router.plan import Definition
from router.planner.rules.fill import Filled, Given, arguments_of, fill
from router.planner.rules.params import NONE, params_of
from router.planner.rules.reading import Reading
from router.planner.rules.spans import Span
from router.planner.rules.trees import Trees
from router.planner.rules.values import cast
from router.schemas import value_allowed

MAX_CALLS: Final = 12
_AND: Final = re.compile(r",?\s+(?:and|&)\s+", re.IGNORECASE)
_EACH: Final = frozenset(("each both respectively separately individually every well too same").split())
FEATURES: Final = (
    "by_row calls clauses own base_mean base_least mean least sure needed numeric quoted "
    "named enum lists each near_least near_most rows zipped words given fresh"
).split()


@dataclass(frozen=True, slots=True)
class Option:
    """A way to call a tool several times.

    :param plain: the one call would take "Paris and London" where one name is wanted.
    """

    calls: tuple[Filled, ...]
    features: tuple[float, ...]
    plain: bool = False


def options(
    tool: Definition, base: Filled, near: list[float], reading: Reading, model: Trees
) -> Iterator[Option]:
    """The ways to call a tool more than once.

    :param base: its one call.
    :param near: how near each clause is to the tool.
    """
    if not base.given:
        return
    if len(base.clauses) > 1:
        split = _by_clause(tool, base, reading, model)
        if len(split) > 1:
            yield Option(tuple(split), _features(base, split, None, near, reading, 0))
    for given in base.given:
        if given.span is None or given.param.type in ("array", "object", "boolean"):
            continue
        row = _row_of(given.span, reading)
        if row is not None:
            split, zipped = _by_row(base, given, row, reading)
            if len(split) > 1:
                features = _features(base, split, given, near, reading, zipped)
                yield Option(tuple(split), features, _plain(base, given, row, reading))


def _by_clause(tool: Definition, base: Filled, reading: Reading, model: Trees) -> list[Filled]:
    calls: list[Filled] = []
    for clause in sorted(base.clauses)[:MAX_CALLS]:
        own = fill(tool, frozenset((clause,)), reading, model, only=frozenset((clause,)))
        if not any(given.span is not None for given in own.given):
            continue
        shared = [given for given in base.given if own.of(given.param) is None and given.param.needed]
        missing = tuple(p for p in own.missing if not any(g.param.path == p.path for g in shared))
        call = replace(own, given=(*own.given, *shared), missing=missing)
        if all(arguments_of(call) != arguments_of(other) for other in calls):
            calls.append(call)
    return calls


def _row_of(span: Span, reading: Reading) -> tuple[Span, ...] | None:
    """The row that a span is an item of, or that it is as a whole."""
    for row in reading.rows:
        whole = row[0].start == span.start and row[-1].end == span.end
        if whole or any(item.start == span.start and item.end == span.end for item in row):
            return row
    return None


def _by_row(base: Filled, given: Given, row: tuple[Span, ...], reading: Reading) -> tuple[list[Filled], int]:
    aligned: list[tuple[Given, tuple[Span, ...]]] = [(given, row)]
    for other in base.given:
        if other is not given and other.span is not None:
            rest = _row_of(other.span, reading)
            if rest is not None and rest is not row and len(rest) == len(row):
                aligned.append((other, rest))
    calls: list[Filled] = []
    for index in range(min(len(row), MAX_CALLS)):
        changed: dict[tuple[str, ...], Given] = {}
        for each, spans in aligned:
            value = cast(spans[index], each.param)
            if value is NONE or not value_allowed(value, each.param.schema):
                return [], 0
            changed[each.param.path] = replace(each, value=value, span=spans[index])
        # What the row holds is no value of another parameter.
        inside = [
            g
            for g in base.given
            if g.param.path in changed
            or g.span is None
            or not any(s.start <= g.span.start and g.span.end <= s.end for s in row)
        ]
        calls.append(replace(base, given=tuple(changed.get(g.param.path, g) for g in inside)))
    return calls, len(aligned) - 1


def _plain(base: Filled, given: Given, row: Sequence[Span], reading: Reading) -> bool:
    """Whether a value is a whole row of names, and no other parameter could take one of them."""
    param, span = given.param, given.span
    names = param.type == "string" and all(item.text[:1].isupper() for item in row)
    joined = _AND.fullmatch(reading.text, row[-2].end, row[-1].start) is not None
    whole = span is not None and span.start <= row[0].start and row[-1].end <= span.end
    others = [p for p in params_of(base.tool) if p.path != param.path and p.needed and p.type == param.type]
    return names and joined and whole and not others and "text" not in param.roles


def _features(
    base: Filled, split: list[Filled], given: Given | None, near: list[float], reading: Reading, zipped: int
) -> tuple[float, ...]:
    def sure(call: Filled) -> list[float]:
        return [g.probability for g in call.given if g.span is not None] or [0.0]

    def least(call: Filled) -> float:
        return (
            0.0 if call.missing else min((g.probability for g in call.given if g.param.needed), default=0.5)
        )

    own = [near[clause] for clause in base.clauses] or [0.0]
    words = {word.lower for word in reading.words}
    spans = [g.span for call in split for g in call.given if g.span is not None]
    return (
        float(given is not None),
        float(len(split)),
        float(len(reading.clauses)),
        float(len(base.clauses)),
        sum(sure(base)) / len(sure(base)),
        least(base),
        sum(sum(sure(call)) / len(sure(call)) for call in split) / len(split),
        min(map(least, split)),
        given.probability if given is not None else 0.0,
        float(given.param.needed) if given is not None else 0.0,
        float(given.param.type in ("integer", "number")) if given is not None else 0.0,
        float(given.span is not None and given.span.kind == "quoted") if given is not None else 0.0,
        float(given.span is not None and given.span.kind == "name") if given is not None else 0.0,
        float(given.param.type == "enum") if given is not None else 0.0,
        float(any(g.param.type == "array" for g in base.given)),
        float(len(words & _EACH)),
        min(own),
        max(own),
        float(len(reading.rows)),
        float(zipped),
        float(len(reading.words)),
        float(len(base.given)),
        len({span.start for span in spans}) / max(1, len(spans)),
    )
