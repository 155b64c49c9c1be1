"""How often a tool is called: once, once for each of several clauses, or once for each of a row or a series.

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
from router.planner.rules.series import AND, several
from router.planner.rules.spans import Span, stems_of
from router.planner.rules.trees import Trees
from router.planner.rules.values import cast
from router.schemas import value_allowed

MAX_CALLS: Final = 12
_PAIR: Final = 2
_EACH: Final = frozenset(("each both respectively separately individually every well too same").split())
FEATURES: Final = (
    "by_row calls own base_mean base_least mean least sure needed numeric quoted "
    "named enum lists each zipped fresh series counted plural spare free alike"
).split()
GROWS: Final = frozenset("mean least sure each zipped fresh counted plural spare free".split())
"""Numbers that never speak against several calls the greater they are, whatever was learned from."""
FALLS: Final = frozenset("lists alike".split())
"""Numbers that never speak for them."""
_CODES: Final = frozenset("number id url email path quoted".split())
"""Kinds of spans whose rows are as plain as rows of names."""
_BETWEEN: Final = re.compile(r"\b(?:between|from)\s+(?:\S+\s+)?$", re.IGNORECASE)
"""What makes the ends of a range of two numbers: "between 3 and 7"."""


@dataclass(frozen=True, slots=True)
class Option:
    """A way to call a tool several times.

    :param plain: "Paris and London" stands where one name is wanted, and no other call takes either.
    """

    calls: tuple[Filled, ...]
    features: tuple[float, ...]
    plain: bool = False


def options(
    tool: Definition, base: Filled, reading: Reading, model: Trees, others: Sequence[Filled] = ()
) -> Iterator[Option]:
    """The ways to call a tool more than once.

    :param base: its one call.
    :param others: the calls of other tools.
    """
    if not base.given:
        return
    if len(base.clauses) > 1:
        split = _by_clause(tool, base, reading, model)
        most = max((sum(given.span is not None for given in call.given) for call in split), default=0)
        full = [call for call in split if sum(given.span is not None for given in call.given) == most]
        for calls in (split, full) if len(full) < len(split) else (split,):
            if len(calls) > 1:
                yield Option(tuple(calls), _features(base, calls, None, reading, 0, False, others))
    for given in base.given:
        if given.span is None or given.param.type in ("array", "object", "boolean"):
            continue
        for items, series in several(given.span, given.param, reading, MAX_CALLS):
            split, zipped = _by_items(base, given, items, reading)
            if len(split) > 1:
                features = _features(base, split, given, reading, zipped, series, others)
                yield Option(
                    tuple(split), features, not series and _plain(base, given, items, reading, others)
                )


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


def _by_items(
    base: Filled, given: Given, items: tuple[Span, ...], reading: Reading
) -> tuple[list[Filled], int]:
    aligned: list[tuple[Given, tuple[Span, ...]]] = [(given, items)]
    for other in base.given:
        if other is given or other.span is None or other.param.type in ("array", "object", "boolean"):
            continue
        for rest, _ in several(other.span, other.param, reading, MAX_CALLS):
            if len(rest) == len(items) and all(
                a.end <= b.start or b.end <= a.start for a in rest for b in items
            ):
                aligned.append((other, rest))
                break
    calls: list[Filled] = []
    for index in range(min(len(items), MAX_CALLS)):
        changed: dict[tuple[str, ...], Given] = {}
        for each, spans in aligned:
            span = spans[index]
            value = span.value if span.kind == "enum" else cast(span, each.param)
            if value is NONE or not value_allowed(value, each.param.schema):
                return [], 0
            changed[each.param.path] = replace(each, value=value, span=span)
        # What the row holds is no value of another parameter.
        inside = [
            g
            for g in base.given
            if g.param.path in changed
            or g.span is None
            or not any(s.start <= g.span.start and g.span.end <= s.end for s in items)
        ]
        calls.append(replace(base, given=tuple(changed.get(g.param.path, g) for g in inside)))
    return calls, len(aligned) - 1


def _plain(
    base: Filled, given: Given, row: Sequence[Span], reading: Reading, others: Sequence[Filled]
) -> bool:
    """Whether a value is one of a row, or a row of names as a whole, and nothing else could take one of them."""
    param, span = given.param, given.span
    text = reading.text
    if span is None or AND.fullmatch(text, row[-2].end, row[-1].start) is None:
        return False
    whole = span.start <= row[0].start and row[-1].end <= span.end
    one = any(item.start <= span.start and span.end <= item.end for item in row)
    names = param.type == "string" and all(item.text[:1].isupper() for item in row)
    codes = all(item.kind in _CODES for item in row) and not _BETWEEN.search(text, 0, row[0].start)
    if not (names and (whole or one)) and not (codes and one):
        return False
    alike = [p for p in params_of(base.tool) if p.path != param.path and p.needed and p.type == param.type]
    taken = [
        g.span
        for call in (base, *others)
        for g in call.given
        if g.span is not None and (call is not base or g.param.path != param.path)
    ]
    spare = not any(t.start < item.end and item.start < t.end for t in taken for item in row)
    return spare and not alike and "text" not in param.roles


def _features(
    base: Filled,
    split: list[Filled],
    given: Given | None,
    reading: Reading,
    zipped: int,
    series: bool,
    others: Sequence[Filled],
) -> tuple[float, ...]:
    def sure(call: Filled) -> list[float]:
        return [g.probability for g in call.given if g.span is not None] or [0.0]

    def least(call: Filled) -> float:
        return (
            0.0 if call.missing else min((g.probability for g in call.given if g.param.needed), default=0.5)
        )

    words = {word.lower for word in reading.words}
    spans = [g.span for call in split for g in call.given if g.span is not None]
    return (
        float(given is not None),
        float(len(split)),
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
        float(zipped),
        len({span.start for span in spans}) / max(1, len(spans)),
        float(series),
        float(_counted(split, reading)),
        float(given is not None and _plural(base, given, reading)),
        _free(split, given, (base,)),
        _free(split, given, others),
        float(_alike(base, given)) if given is not None else 0.0,
    )


def _free(split: Sequence[Filled], given: Given | None, others: Sequence[Filled]) -> float:
    """The share of the values of several calls that these others have no place for."""
    taken = [g.span for call in others for g in call.given if g.span is not None]
    spans = {
        (g.span.start, g.span.end)
        for call in split
        for g in call.given
        if g.span is not None and (given is None or g.param.path == given.param.path)
    }
    free = [span for span in spans if not any(t.start < span[1] and span[0] < t.end for t in taken)]
    return len(free) / max(1, len(spans))


def _alike(base: Filled, given: Given) -> int:
    """How many other parameters of the tool could take the value of this one."""
    others = [p for p in params_of(base.tool) if p.path != given.param.path and p.type == given.param.type]
    return sum(p.needed for p in others)


def _counted(split: Sequence[Filled], reading: Reading) -> bool:
    """Whether a request says how many there are, "four images", beside the values that the calls take."""
    taken = [g.span for call in split for g in call.given if g.span is not None]
    return any(
        span.kind == "number"
        and span.value == len(split)
        and not any(a.start <= span.start and span.end <= a.end for a in taken)
        for span in reading.spans
    ) or (len(split) == _PAIR and any(word.lower == "both" for word in reading.words))


def _plural(base: Filled, given: Given, reading: Reading) -> bool:
    """Whether a request says in the plural what the tool and the parameter are named for in the singular."""
    names = set(stems_of(base.tool.name)) | set(given.param.names)
    own = f"{base.tool.name} {given.param.name}".lower()
    return any(
        word.stem in names and word.lower.endswith("s") and word.lower not in own and word.lower != word.stem
        for word in reading.words
        if reading.clause_at(word.start) in base.clauses
    )
