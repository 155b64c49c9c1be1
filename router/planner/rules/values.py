"""Which values a parameter could take in a request, and what speaks for each, as numbers.

`FEATURES` names the columns. They say nothing about any one tool: types, roles, words in common and
places alone, so that a model learned over them serves tools it never saw.
"""

# ruff: noqa: RUF001, SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from registry.lexical.tokens import STOPWORDS
from router.planner.rules.moments import Moment
from router.planner.rules.params import NONE, Param, kind_of
from router.planner.rules.reading import Reading
from router.planner.rules.spans import NAMERS, Span, stems_of
from router.schemas import value_allowed

KINDS: Final = tuple(
    (
        "quoted url email path number date time datetime relative id name phrase tail line list "
        "enum default flag row"
    ).split()
)
TYPES: Final = ("string", "integer", "number", "boolean", "array", "enum", "object", "any")
_PREPOSITIONS: Final = {
    word: index
    for index, group in enumerate(
        (
            "in at near around inside",
            "on",
            "from since starting beginning",
            "to until till into towards",
            "for",
            "by",
            "with using via",
            "of",
            "is are was as be =",
            "named called titled entitled saying",
            ":",
            "about regarding on concerning",
            "between and or ,",
            "than over under above below",
        ),
        1,
    )
    for word in group.split()
}
ROLE_NAMES: Final = (
    "from to date time id email url path person place text count money language unit kind"
).split()
FEATURES: Final = (
    *(f"type_{name}" for name in TYPES),
    *(f"kind_{name}" for name in KINDS),
    *(f"role_{name}" for name in ROLE_NAMES),
    "needed",
    "words",
    "chars",
    "left_name",
    "right_name",
    "left_about",
    "right_about",
    "left_margin",
    "tight",
    "preposition",
    "from_from",
    "to_to",
    "kind_fits",
    "own",
    "distance",
    "clauses",
    "rank_gap",
    "rivals",
    "example_exact",
    "example_shape",
    "repeats_param",
    "repeats_tool",
    "whole_run",
    "capital",
    "digits",
    "unit_after",
    "match",
    "in_moment",
    "in_quote",
    "params",
    "alike_params",
    "has_default",
    "position",
)
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


@dataclass(frozen=True, slots=True)
class Owner:
    """The call whose parameters are filled.

    :param clauses: the clauses that it answers.
    """

    params: tuple[Param, ...]
    tool_stems: frozenset[str]
    clauses: frozenset[int]


def candidates(param: Param, owner: Owner, reading: Reading) -> list[Value]:
    """Every value that a parameter could take, none of them twice."""
    context = _Context(param, owner, reading)
    found: list[tuple[Any, int | None, Span | None, str, float]] = []
    if param.enum:
        found += _enum(param, reading, owner)
    elif param.type == "boolean":
        found += _flags(param, reading, owner)
    elif param.type == "array":
        found += _rows(param, reading)
    elif param.type != "object":
        for index, span in enumerate(reading.spans):
            value = cast(span, param)
            if value is not NONE:
                found.append((value, index, span, span.kind, 0.0))
                if param.type in ("number", "any") and span.kind == "number" and span.text[-1:] in "%t":
                    found.append((round(span.value / 100, 10), index, span, span.kind, 1.0))
    if param.default is not NONE:
        found.append((param.default, None, None, "default", 0.0))
    out: list[Value] = []
    seen: set[tuple[str, int | None]] = set()
    for value, at, place, kind, match in found:
        key = (repr(value), None if place is None else place.start)
        if key not in seen:
            seen.add(key)
            out.append(Value(value, place, context.features(at, place, kind, match)))
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
        return NONE
    if span.kind == "quoted":
        return span.value
    return span.text.strip(" \"'`“”‘’")


def _enum(
    param: Param, reading: Reading, owner: Owner
) -> list[tuple[Any, int | None, Span | None, str, float]]:
    found: list[tuple[Any, int | None, Span | None, str, float]] = []
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
    if param.type == "array":
        named = [option for (option,), _, span, _, match in found if span is not None and match >= 1]
        if len(named) > 1:
            found.append((named, None, None, "row", 1.0))
    return found


def _flags(
    param: Param, reading: Reading, owner: Owner
) -> list[tuple[Any, int | None, Span | None, str, float]]:
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
    span = None if place is None else Span(place.text, "flag", place.start, place.end, True)
    score = best * 0.5 + overlap * 0.5
    return [
        (True, None, span, "flag", -score if negated else score),
        (False, None, span if negated else None, "flag", score if negated else -score),
    ]


def _rows(param: Param, reading: Reading) -> list[tuple[Any, int | None, Span | None, str, float]]:
    items = param.schema.get("items")
    rule = items if isinstance(items, dict) else {}
    inner = Param(
        param.path, kind_of(rule), False, rule, param.names, param.about, param.roles, (), NONE, param.form, 0
    )
    found: list[tuple[Any, int | None, Span | None, str, float]] = []
    for row in reading.rows:
        values = [cast(span, inner) for span in row]
        if NONE not in values:
            whole = Span(reading.text[row[0].start : row[-1].end], "row", row[0].start, row[-1].end, values)
            found.append((values, None, whole, "row", float(len(row))))
    for index, span in enumerate(reading.spans):
        if span.kind == "list":
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


class _Context:
    """What is the same for all candidates of one parameter."""

    def __init__(self, param: Param, owner: Owner, reading: Reading) -> None:
        self.param, self.owner, self.reading = param, owner, reading
        self.names = {name: 1 for name in param.names if name not in STOPWORDS} or dict.fromkeys(
            param.names, 1
        )
        self.others = [
            {name for name in other.names if name not in STOPWORDS and name not in self.names}
            for other in owner.params
            if other is not param
        ]
        self.other_names = set().union(*self.others) if self.others else set()
        self.head = [
            *(float(param.type == name) for name in TYPES),
        ]
        self.roles = [float(name in param.roles) for name in ROLE_NAMES]
        self.lower_examples = {example.lower() for example in param.examples}
        self.shapes = {_shape(example) for example in param.examples}
        same = [other for other in owner.params if other.type == param.type]
        self.alike = float(len(same))
        self.order: dict[str, list[int]] = {}
        for index, span in enumerate(reading.spans):
            if reading.clause[index] in owner.clauses or not owner.clauses:
                self.order.setdefault(_family(span.kind), []).append(span.start)
        self.boxes = [
            (span.start, span.end, isinstance(span.value, Moment))
            for span in reading.spans
            if span.kind in ("quoted", "url", "email") or isinstance(span.value, Moment)
        ]

    def features(self, index: int | None, span: Span | None, kind: str, match: float) -> tuple[float, ...]:
        param, reading = self.param, self.reading
        row = self.head + [float(kind == name) for name in KINDS] + self.roles + [float(param.needed)]
        tail = (float(len(self.owner.params)), self.alike, float(param.default is not NONE))
        if span is None:
            return (
                *row,
                *([0.0] * 13),
                float(len(reading.clauses)),
                *([0.0] * 11),
                match,
                0.0,
                0.0,
                *tail,
                0.0,
            )
        words = reading.words
        if index is not None:
            first, last = reading.first[index], reading.last[index]
            clause = reading.clause[index]
        else:
            first = next((i for i, word in enumerate(words) if word.end > span.start), 0)
            last = next((i for i in range(first, len(words)) if words[i].start >= span.end), len(words))
            clause = reading.clause_at(span.start)
        about = param.about
        left_name = left_about = rival = 0.0
        for step in range(1, 9):
            at = first - step
            if at < 0 or words[at].lower in (".", "!", "?", ";"):
                break
            word = words[at].stem
            near = 1.0 / (1 + 0.35 * (step - 1))
            if word in self.names:
                left_name = max(left_name, near)
            elif word in self.other_names:
                rival = max(rival, near)
            elif word in about and word not in STOPWORDS:
                left_about += near
        right_name = right_about = 0.0
        for step in range(4):
            at = last + step
            if at >= len(words) or words[at].lower in (".", "!", "?", ";"):
                break
            word = words[at].stem
            near = 1.0 / (1 + step)
            if word in self.names:
                right_name = max(right_name, near)
            elif word in about and word not in STOPWORDS:
                right_about += near
        before = words[first - 1].lower if first > 0 else ""
        if before in ("the", "a", "an", "my", '"', "'", "“", "`", "‘") and first > 1:
            before = words[first - 2].lower
        preposition = float(_PREPOSITIONS.get(before, 0))
        after = words[last].lower if last < len(words) else "."
        stems = [words[i].stem for i in range(first, last)]
        content = [stem for stem in stems if stem not in STOPWORDS]
        size = max(1, len(content))
        own = clause in self.owner.clauses
        gap = (
            0.0 if own or not self.owner.clauses else float(min(abs(clause - c) for c in self.owner.clauses))
        )
        order = self.order.get(_family(kind), [])
        place = order.index(span.start) if span.start in order else -1
        text = span.text
        boxed = [
            moment
            for a, b, moment in self.boxes
            if a <= span.start and span.end <= b and (a, b) != (span.start, span.end)
        ]
        run = (
            first == 0
            or not words[first - 1].text[0].isalnum()
            or words[first - 1].lower in STOPWORDS
            or words[first - 1].lower in NAMERS
        ) and (not after[0].isalnum() or after in STOPWORDS)
        unit = float(last < len(words) and (words[last].stem in about or words[last].stem in self.names))
        return (
            *row,
            float(len(stems)),
            float(min(len(text), 200)),
            left_name,
            right_name,
            left_about,
            right_about,
            left_name - rival,
            float(first > 0 and words[first - 1].stem in self.names)
            + float(first > 1 and words[first - 2].stem in self.names),
            preposition,
            float("from" in param.roles and preposition == 3),
            float("to" in param.roles and preposition == 4),
            _fits(kind, param),
            float(own),
            gap,
            float(len(reading.clauses)),
            float(place - param.ordinal) if place >= 0 else -9.0,
            float(len(order)),
            float(text.lower() in self.lower_examples),
            float(_shape(text) in self.shapes),
            len([stem for stem in content if stem in self.names]) / size,
            len([stem for stem in content if stem in self.owner.tool_stems]) / size,
            float(run),
            float(text[:1].isupper()),
            float(any(char.isdigit() for char in text)),
            unit,
            match,
            float(any(boxed)),
            float(any(not moment for moment in boxed)),
            *tail,
            span.start / max(1, len(reading.text)),
        )


def _family(kind: str) -> str:
    return "text" if kind in ("name", "phrase", "tail", "line", "id") else kind


def _shape(text: str) -> str:
    return re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", re.sub(r"\d+", "0", text)))[:24]


def _fits(kind: str, param: Param) -> float:
    roles = param.roles
    if kind in ("date", "datetime", "relative"):
        return 1.0 if "date" in roles else 0.5 if "time" in roles or param.form else -1.0
    if kind == "time":
        return 1.0 if "time" in roles else 0.3 if param.form else -1.0
    if kind in ("email", "url", "path", "id"):
        return 1.0 if kind in roles else -1.0
    if "email" in roles or "url" in roles or "path" in roles:
        return -0.5
    return 0.0
