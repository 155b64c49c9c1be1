"""Which values a parameter could take in a request, and what speaks for each, as numbers (`evidence`)."""

# ruff: noqa: RUF001, SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from registry.lexical.tokens import STOPWORDS
from router.planner.rules.codes import coded, is_code
from router.planner.rules.evidence import Evidence, Owner
from router.planner.rules.forms import Offer, other_forms
from router.planner.rules.moments import Moment
from router.planner.rules.params import NONE, Param, kind_of
from router.planner.rules.reading import Reading
from router.planner.rules.spans import Span, stems_of
from router.schemas import value_allowed

_NEGATION: Final = frozenset(
    ("no not without never don't dont disable off exclude excluding avoid deny false").split()
)


@dataclass(frozen=True, slots=True)
class Value:
    """A value that a parameter could take.

    :param span: where it stands in the request; None for one that comes from the schema.
    :param features: one number for each of FEATURES.
    """

    value: Any
    span: Span | None
    features: tuple[float, ...]


def candidates(
    param: Param, owner: Owner, reading: Reading, keep: Callable[[Any], bool] = lambda value: True
) -> list[Value]:
    """Every value that a parameter could take, none of them twice.

    :param keep: which of them are wanted; what speaks for the others is not worked out.
    """
    context = Evidence(param, owner, reading)
    found: list[Offer] = []
    if param.enum:
        found += _enum(param, reading, owner)
    elif param.type == "boolean":
        found += _flags(param, reading, owner)
    elif param.type == "array":
        found += _rows(param, reading)
    elif param.type == "object":
        found += [
            (span.value, index, span, "list", 1.0)
            for index, span in enumerate(reading.spans)
            if isinstance(span.value, dict)
        ]
    else:
        # Where a code is wanted, and the request names what there is one for, the name is no value.
        only_codes = any(code.asked for code in coded(param, reading.text))
        for index, span in enumerate(reading.spans):
            value = cast(span, param)
            if value is not NONE and not (only_codes and not is_code(param, span.text)):
                found.append((value, index, span, span.kind, _as_wanted(span, value, param)))
        found += other_forms(param, reading)
    if param.default is not NONE:
        found.append((param.default, None, None, "default", 0.0))
    out: list[Value] = []
    seen: set[tuple[str, int | None]] = set()
    for value, at, place, kind, match in found:
        key = (repr(value), None if place is None else place.start)
        if key not in seen:
            seen.add(key)
            if keep(value):
                usual = param.default is not NONE and value == param.default
                out.append(Value(value, place, context.features(at, place, kind, match, usual)))
    return out


def cast(span: Span, param: Param) -> Any:
    """What a span is as a value of the parameter's type; NONE where it is none."""
    wanted = param.type
    if wanted in ("integer", "number"):
        if span.kind != "number":
            return NONE
        if wanted == "integer":
            return int(span.value) if float(span.value).is_integer() else NONE
        return span.value
    if wanted == "any" and span.kind == "number":
        return span.value
    if isinstance(span.value, Moment):
        written = span.value.written(param.form) if param.form else None
        return written if written is not None else span.text
    if span.kind == "list":
        # JSON is a value where nothing is said of the type, and a document as it stands for a text.
        return span.value if wanted == "any" else span.text if isinstance(span.value, dict) else NONE
    if span.kind == "quoted":
        return span.value
    return span.text.strip(" \"'`“”‘’")


def _as_wanted(span: Span, value: Any, param: Param) -> float:
    """Whether a moment stands as the parameter wants it written; 0 for all else."""
    if param.form is None or not isinstance(span.value, Moment):
        return 0.0
    return 1.0 if value == span.value.written(param.form) else -1.0


def _enum(param: Param, reading: Reading, owner: Owner) -> list[Offer]:
    found: list[Offer] = []
    lowered = reading.text.lower()
    stems = [word.stem for word in reading.words]
    for option in param.enum[:60]:
        text = str(option).lower()
        best: tuple[float, int, int] | None = None
        plain = text.replace("_", " ").replace("-", " ")
        for form in dict.fromkeys((text, plain)):
            if form and not isinstance(option, bool):
                for match in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", lowered):
                    own = reading.clause_at(match.start()) in owner.clauses
                    score = 1.0 + 0.1 * own
                    if best is None or score > best[0]:
                        best = (score, match.start(), match.end())
        if best is None:
            pieces = [piece for piece in stems_of(str(option)) if piece not in STOPWORDS or len(plain) < 4]
            places = [stems.index(piece) for piece in pieces if piece in stems]
            if places and pieces:
                word = reading.words[places[0]]
                best = (0.8 * len(places) / len(pieces), word.start, word.end)
        value = [option] if param.type == "array" else option
        if best is None:
            found.append((value, None, None, "enum", 0.0))
        else:
            span = Span(reading.text[best[1] : best[2]], "enum", best[1], best[2], option)
            found.append((value, None, span, "enum", best[0]))
    if not param.needed or param.default is not NONE:
        # An option that no word speaks for is no better than the default, or none.
        found = [offer for offer in found if offer[2] is not None]
    if param.type == "array":
        named = [option for (option,), _, span, _, match in found if span is not None and match >= 1]
        if len(named) > 1:
            found.append((named, None, None, "row", 1.0))
    return found


def _flags(param: Param, reading: Reading, owner: Owner) -> list[Offer]:
    wanted = {name for name in (*param.names, *param.about) if name not in STOPWORDS and len(name) > 2}
    own = (
        set(param.names)
        - STOPWORDS
        - {"is", "has", "includ", "enabl", "flag", "use", "with", "show", "allow"}
    )
    best, place, negated = 0.0, None, False
    hits = {word.stem for word in reading.words}
    overlap = len(own & hits) / max(1, len(own))
    for index, word in enumerate(reading.words):
        if word.stem in own or (word.stem in wanted and best == 0.0):
            score = 1.0 if word.stem in own else 0.4
            if score > best:
                best, place = score, word
                near = {w.lower for w in reading.words[max(0, index - 4) : index + 4]}
                negated = bool(near & _NEGATION)
    if place is None and (not param.needed or param.default is not NONE):
        return []
    span = None if place is None else Span(place.text, "flag", place.start, place.end, True)
    score = best * 0.5 + overlap * 0.5
    return [
        (True, None, span, "flag", -score if negated else score),
        (False, None, span if negated else None, "flag", score if negated else -score),
    ]


def _rows(param: Param, reading: Reading) -> list[Offer]:
    items = param.schema.get("items")
    rule = items if isinstance(items, dict) else {}
    inner = Param(
        param.path, kind_of(rule), False, rule, param.names, param.about, param.roles, (), NONE, param.form, 0
    )
    found: list[Offer] = []
    for row in reading.rows:
        values = [cast(span, inner) for span in row]
        if NONE not in values:
            whole = Span(reading.text[row[0].start : row[-1].end], "row", row[0].start, row[-1].end, values)
            found.append((values, None, whole, "row", float(len(row))))
    for index, span in enumerate(reading.spans):
        if span.kind == "list" and isinstance(span.value, dict):
            if value_allowed([span.value], param.schema):
                found.append(([span.value], index, span, "list", 1.0))
        elif span.kind == "list":
            if value_allowed(span.value, param.schema):
                found.append((span.value, index, span, "list", float(len(span.value))))
            elif inner.type == "string":
                found.append(
                    ([str(item) for item in span.value], index, span, "list", float(len(span.value)))
                )
        elif inner.type not in ("array", "object", "boolean"):
            value = cast(span, inner)
            if value is not NONE:
                found.append(([value], index, span, span.kind, 1.0))
    return found
