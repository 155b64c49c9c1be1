"""What speaks for a value of a parameter, as numbers.

`FEATURES` names the columns. They say nothing about any one tool: types, roles, words in common and
places alone, so that a model learned over them serves tools it never saw.
"""

# ruff: noqa: SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from registry.lexical.tokens import STOPWORDS
from router.plan import Definition
from router.planner.rules.choose import text_of
from router.planner.rules.params import NONE, Param, params_of
from router.planner.rules.places import ALONE, FROM, TO, Place, shape
from router.planner.rules.reading import Reading, Sentence
from router.planner.rules.spans import Span, stems_of
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
WORDS: Final = (
    "left_name",
    "right_name",
    "left_about",
    "right_about",
    "left_margin",
    "tight",
    "asserted",
    "repeats_param",
    "repeats_tool",
    "repeats_about",
    "repeats_others",
    "unit_after",
)
"""What the words of a span and around it have in common with those of the tool."""
FEATURES: Final = (
    *(f"type_{name}" for name in TYPES),
    *(f"kind_{name}" for name in KINDS),
    *(f"role_{name}" for name in ROLE_NAMES),
    "needed",
    "needed_share",
    "params",
    "alike_params",
    "has_default",
    "clauses",
    "kind_fits",
    "match",
    "usual",
    *ALONE,
    *WORDS,
    "news",
    "sentence_own",
    "sentence_margin",
    "from_from",
    "to_to",
    "own",
    "distance",
    "rank_gap",
    "rivals",
    "example_exact",
    "example_shape",
    "same_unit",
)
GROWS: Final = frozenset(
    "left_name left_about left_margin tight asserted news sentence_own sentence_margin own whole_run "
    "example_exact example_shape match kind_fits same_unit".split()
)
"""Numbers that never speak against a value the greater they are, whatever was learned from."""
FALLS: Final = frozenset("repeats_param repeats_tool repeats_about repeats_others distance".split())
"""Numbers that never speak for it."""
_NO_WORDS: Final = (0.0,) * len(WORDS)
_NO_SPAN: Final = (0.0,) * (len(FEATURES) - FEATURES.index("usual") - 1)


ABOUT: Final = 0.3
"""What a word of a parameter's description tells, beside one of its name."""


def owner_of(tool: Definition, clauses: frozenset[int]) -> Owner:
    """The call of a tool that answers these clauses."""
    text = text_of(tool)
    return Owner(params_of(tool), frozenset(stems_of(tool.name)), text.about | text.params, clauses)


@dataclass(frozen=True, slots=True)
class Owner:
    """The call whose parameters are filled.

    :param tool_stems: of the tool's name; ``about`` those of its description and its parameters.
    :param clauses: the clauses that it answers.
    :param heard: by the index of a sentence, what `named` found in it.
    """

    params: tuple[Param, ...]
    tool_stems: frozenset[str]
    about: frozenset[str]
    clauses: frozenset[int]
    heard: dict[int, tuple[tuple[float, float], ...]] = field(default_factory=dict, compare=False, repr=False)
    weights: list[dict[str, float]] = field(default_factory=list, compare=False, repr=False)

    def named(self, index: int, sentence: Sentence) -> tuple[tuple[float, float], ...]:
        """How much of each parameter a sentence names, 0 to 1, and how much more than of any other.

        A word that several have tells less of each.
        """
        found = self.heard.get(index)
        if found is None:
            if not self.weights:
                self.weights.extend(_telling(self.params))
            shares = [
                sum(weight for stem, weight in weights.items() if stem in sentence.stems)
                for weights in self.weights
            ]
            first, second, *_ = [*sorted(shares, reverse=True), 0.0, 0.0]
            found = self.heard[index] = tuple(
                (share, share - (second if share == first else first)) for share in shares
            )
        return found


def _telling(params: Sequence[Param]) -> Iterator[dict[str, float]]:
    """For each parameter the shares of its words in what tells it from the others."""
    counts = Counter(stem for param in params for stem in {*param.names, *param.about})
    for param in params:
        raw = {stem: ABOUT / counts[stem] for stem in sorted(param.about - STOPWORDS)}
        raw |= {stem: 1 / counts[stem] for stem in param.names if stem not in STOPWORDS}
        total = math.fsum(raw.values()) or 1.0
        yield {stem: weight / total for stem, weight in raw.items()}


class Evidence:
    """What is the same for all candidates of one parameter."""

    def __init__(self, param: Param, owner: Owner, reading: Reading) -> None:
        self.param, self.owner, self.reading = param, owner, reading
        self.unit = unit_wanted((*param.names, *sorted(param.about)))
        self.names = frozenset(param.names) - STOPWORDS or frozenset(param.names)
        self.about = param.about - STOPWORDS
        self.other_names = (
            frozenset(name for other in owner.params if other is not param for name in other.names)
            - STOPWORDS
            - self.names
        )
        self.known = self.names | self.about | self.other_names | owner.tool_stems | owner.about
        own = owner.clauses or range(len(reading.clauses))
        told = owner.tool_stems | owner.about
        self.news = sum(stem not in told for at in own for stem in reading.clauses[at].stems)
        """Words of the call's clauses that are none of the tool's."""
        self.lower_examples = {example.lower() for example in param.examples}
        self.shapes = {shape(example) for example in param.examples}
        self.at = next((at for at, other in enumerate(owner.params) if other.path == param.path), 0)
        self.order: dict[str, list[int]] = {}
        for index, span in enumerate(reading.spans):
            if reading.clause[index] in owner.clauses or not owner.clauses:
                self.order.setdefault(_family(span.kind), []).append(span.start)
        self.ranks = {
            (family, start): rank
            for family, starts in self.order.items()
            for rank, start in reversed(list(enumerate(starts)))
        }
        self.heads: dict[str, tuple[float, ...]] = {}

    def _head(self, kind: str) -> tuple[float, ...]:
        """What is the same for all values of a kind."""
        param, params = self.param, self.owner.params
        return (
            # Where nothing is said of the type, a text is what is mostly wanted.
            *(float(name == param.type or (name, param.type) == ("string", "any")) for name in TYPES),
            *(float(kind == name) for name in KINDS),
            *(float(name in param.roles) for name in ROLE_NAMES),
            float(param.needed),
            sum(other.needed for other in params) / max(1, len(params)),
            float(len(params)),
            float(sum(1 for other in params if other.type == param.type)),
            float(param.default is not NONE),
            float(len(self.reading.clauses)),
            _fits(kind, param),
        )

    def features(
        self, index: int | None, span: Span | None, kind: str, match: float, usual: bool
    ) -> tuple[float, ...]:
        """One number for each of FEATURES.

        :param index: of the span among those of the reading; None where it is none of them.
        :param kind: one of KINDS; ``match`` how well an option fits what the request says.
        :param usual: whether the value is the parameter's default.
        """
        param, reading = self.param, self.reading
        head = self.heads.get(kind)
        if head is None:
            head = self.heads[kind] = self._head(kind)
        if span is None:
            return (*head, match, float(usual), *_NO_SPAN)
        place = reading.place(span)
        clause = reading.clause_at(span.start) if index is None else reading.clause[index]
        clauses = self.owner.clauses
        family = _family(kind)
        rank = self.ranks.get((family, span.start))
        return (
            *head,
            match,
            float(usual),
            *place.alone,
            *(_NO_WORDS if self.known.isdisjoint(place.around) else self._words(place)),
            self._news(place),
            *self.owner.named(place.sentence, reading.sentences[place.sentence])[self.at],
            float(place.preposition == FROM and "from" in param.roles),
            float(place.preposition == TO and "to" in param.roles),
            float(clause in clauses),
            0.0 if clause in clauses or not clauses else float(min(abs(clause - c) for c in clauses)),
            -9.0 if rank is None else float(rank - param.ordinal),
            float(len(self.order.get(family, ()))),
            float(place.lower in self.lower_examples),
            float(place.shape in self.shapes),
            self._unit(span, kind),
        )

    def _news(self, place: Place) -> float:
        """The share that a span has in what the request says beside what the tool says of itself."""
        owner = self.owner
        new = sum(stem not in owner.tool_stems and stem not in owner.about for stem in place.content)
        return min(1.0, new / max(1, self.news))

    def _words(self, place: Place) -> tuple[float, ...]:
        """One number for each of WORDS."""
        names = self.names
        left_name = left_about = rival = right_name = right_about = 0.0
        before = set()
        for stem, near in place.left:
            if stem in names:
                left_name = max(left_name, near)
                before.add(stem)
            elif stem in self.other_names:
                rival = max(rival, near)
            elif stem in self.about:
                left_about += near
        for stem, near in place.right:
            if stem in names:
                right_name = max(right_name, near)
            elif stem in self.about:
                right_about += near
        size = max(1, len(place.content))
        return (
            left_name,
            right_name,
            left_about,
            right_about,
            left_name - rival,
            float(sum(stem in names for stem in place.beside)),
            len(before) / max(1, len(names)) if place.stated else 0.0,
            sum(stem in names for stem in place.content) / size,
            sum(stem in self.owner.tool_stems for stem in place.content) / size,
            sum(stem in self.owner.about for stem in place.content) / size,
            sum(stem in self.other_names for stem in place.content) / size,
            float(place.after in self.about or place.after in names),
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
    if not roles or roles == {"text"}:
        return 0.0
    if kind in ("date", "datetime", "relative"):
        return 1.0 if "date" in roles else 0.5 if "time" in roles or param.form else -1.0
    if kind == "time":
        return 1.0 if "time" in roles else 0.3 if param.form else -1.0
    if kind in ("email", "url", "path", "id"):
        return 1.0 if kind in roles else -1.0
    if "email" in roles or "url" in roles or "path" in roles:
        return -0.5
    return 0.0
