"""What speaks for a value of a parameter, as numbers.

`FEATURES` names the columns. They say nothing about any one tool: types, roles, words in common and
places alone, so that a model learned over them serves tools it never saw.
"""

# ruff: noqa: SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from registry.lexical.tokens import STOPWORDS
from router.planner.rules.params import NONE, Param
from router.planner.rules.places import FROM, TO, shape
from router.planner.rules.reading import Reading
from router.planner.rules.spans import Span
from router.planner.rules.units import unit_after, unit_wanted

KINDS: Final = tuple(
    (
        "quoted url email path number date time datetime relative id name phrase tail line list "
        "enum default flag row"
    ).split()
)
TYPES: Final = ("string", "integer", "number", "boolean", "array", "enum", "object", "any")
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
    "same_unit",
)


@dataclass(frozen=True, slots=True)
class Owner:
    """The call whose parameters are filled.

    :param clauses: the clauses that it answers.
    """

    params: tuple[Param, ...]
    tool_stems: frozenset[str]
    clauses: frozenset[int]


class Evidence:
    """What is the same for all candidates of one parameter."""

    def __init__(self, param: Param, owner: Owner, reading: Reading) -> None:
        self.param, self.owner, self.reading = param, owner, reading
        self.unit = unit_wanted((*param.names, *sorted(param.about)))
        self.names = {name: 1 for name in param.names if name not in STOPWORDS} or dict.fromkeys(
            param.names, 1
        )
        self.about = param.about - STOPWORDS
        self.other_names = {
            name
            for other in owner.params
            if other is not param
            for name in other.names
            if name not in STOPWORDS and name not in self.names
        }
        self.heads: dict[str, tuple[float, ...]] = {}
        self.lower_examples = {example.lower() for example in param.examples}
        self.shapes = {shape(example) for example in param.examples}
        alike = sum(1 for other in owner.params if other.type == param.type)
        self.tail = (float(len(owner.params)), float(alike), float(param.default is not NONE))
        self.order: dict[str, list[int]] = {}
        for index, span in enumerate(reading.spans):
            if reading.clause[index] in owner.clauses or not owner.clauses:
                self.order.setdefault(_family(span.kind), []).append(span.start)
        self.ranks = {
            (family, start): rank
            for family, starts in self.order.items()
            for rank, start in reversed(list(enumerate(starts)))
        }

    def features(self, index: int | None, span: Span | None, kind: str, match: float) -> tuple[float, ...]:
        """One number for each of FEATURES.

        :param index: of the span among those of the reading; None where it is none of them.
        :param kind: one of KINDS; ``match`` how well an option fits what the request says.
        """
        param, reading, names = self.param, self.reading, self.names
        row = self.heads.get(kind)
        if row is None:
            row = self.heads[kind] = (
                # Where nothing is said of the type, a text is what is mostly wanted.
                *(float(name == param.type or (name, param.type) == ("string", "any")) for name in TYPES),
                *(float(kind == name) for name in KINDS),
                *(float(name in param.roles) for name in ROLE_NAMES),
                float(param.needed),
            )
        if span is None:
            zeros = (*([0.0] * 13), float(len(reading.clauses)), *([0.0] * 11))
            return (*row, *zeros, match, 0.0, 0.0, *self.tail, 0.0, 0.0)
        place = reading.place(span)
        clause = reading.clause_at(span.start) if index is None else reading.clause[index]
        left_name = left_about = rival = right_name = right_about = 0.0
        for stem, near in place.left:
            if stem in names:
                left_name = max(left_name, near)
            elif stem in self.other_names:
                rival = max(rival, near)
            elif stem in self.about:
                left_about += near
        for stem, near in place.right:
            if stem in names:
                right_name = max(right_name, near)
            elif stem in self.about:
                right_about += near
        clauses = self.owner.clauses
        own = clause in clauses or not clauses
        family = _family(kind)
        order = self.order.get(family, ())
        rank = self.ranks.get((family, span.start))
        size = max(1, len(place.content))
        in_moment, in_quote = reading.boxed(span)
        return (
            *row,
            float(place.words),
            float(min(len(span.text), 200)),
            left_name,
            right_name,
            left_about,
            right_about,
            left_name - rival,
            float(sum(stem in names for stem in place.beside)),
            float(place.preposition),
            float("from" in param.roles and place.preposition == FROM),
            float("to" in param.roles and place.preposition == TO),
            _fits(kind, param),
            float(clause in clauses),
            0.0 if own else float(min(abs(clause - c) for c in clauses)),
            float(len(reading.clauses)),
            -9.0 if rank is None else float(rank - param.ordinal),
            float(len(order)),
            float(place.lower in self.lower_examples),
            float(place.shape in self.shapes),
            sum(stem in names for stem in place.content) / size,
            sum(stem in self.owner.tool_stems for stem in place.content) / size,
            float(place.whole),
            place.capital,
            place.digits,
            float(place.after in param.about or place.after in names),
            match,
            in_moment,
            in_quote,
            *self.tail,
            span.start / max(1, len(reading.text)),
            self._unit(span, kind),
        )

    def _unit(self, span: Span, kind: str) -> float:
        """Whether a number is in the unit that the parameter is in; 0 where one of them says nothing."""
        if kind != "number" or self.unit is None:
            return 0.0
        said = unit_after(self.reading.text, span.end)
        if said is None:
            return 0.0
        return 1.0 if said == self.unit else -0.5 if said.dimension == self.unit.dimension else -1.0


def _family(kind: str) -> str:
    return "text" if kind in ("name", "phrase", "tail", "line", "id") else kind


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
