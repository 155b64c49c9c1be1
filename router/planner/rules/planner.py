"""Planning without a model: read, choose tools, fill their parameters, link their results.

planner = RulesPlanner(weights())
plan = planner.plan("The weather in Paris and London", candidates)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from registry.lexical.tokens import STOPWORDS
from router.errors import BadRequest
from router.plan import Ask, Definition, Plan, Step
from router.planner.rules.calls import options
from router.planner.rules.choose import (
    FALLS,
    FEATURES,
    GROWS,
    Sight,
    Similar,
    look,
    text_of,
    told_apart,
    verbs_of,
)
from router.planner.rules.fill import Filled, arguments_of, fill
from router.planner.rules.link import refs
from router.planner.rules.params import Param
from router.planner.rules.reading import Reading, read
from router.planner.rules.weights import Weights
from router.planner.sound import sound

MAYBE: Final = 0.12
"""The least probability at which a tool is looked at closer; the best one always is."""
MAX_MAYBE: Final = 8
REFUSE: Final = 0.4
"""The least probability that any tool fits at which one is called.

It is that of the tools together (noisy-or; Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988, 4.3.2):
several like tools make each of them unlikely, and none of them less fit.
"""
REFUSE_PEOPLE: Final = 0.55
"""The same where nothing is guessed: to a person a wrong plan is worse than none."""
CALL: Final = 0.4
"""The least at which other tools are called beside the likeliest.

These, SPLIT and OPTIONAL are chosen by tests.benchmarks.planning.thresholds, on requests of sources that the weights
never saw. REFUSE lies a little below what is best there: of a hundred requests that no tool fits three more are
taken for one, and of a hundred that one does, one more gets the right tools.
"""
SPLIT: Final = 0.35

CLOSER: Final = (
    *FEATURES,
    "chance",
    "lead",
    "order",
    "maybe",
    "chances",
    "needed_given",
    "needed_least",
    "needed_mean",
    "missing",
    "given",
    "surest",
    "sure_mean",
    "own_clauses",
    "spans",
    "told",
    "told_weight",
    "untold",
    "twins",
    "rival_lead",
)
"""What is told of a tool that is looked at closer."""
CLOSER_GROWS: Final = GROWS | {
    "chance",
    "lead",
    "needed_least",
    "needed_mean",
    "told",
    "told_weight",
    "rival_lead",
}
CLOSER_FALLS: Final = FALLS | {"order", "missing", "untold"}
_NOTHING_NEEDED: Final = 0.5
"""How sure the required values of a tool without any are: neither good nor bad."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A tool looked at closer.

    :param row: what speaks for calling it: one number for each of CLOSER.
    """

    tool: int
    filled: Filled
    row: tuple[float, ...]


class RulesPlanner:
    """A planner that needs no model.

    :param similar: closeness in meaning, where there is an encoder; words alone otherwise.
    :param guess: give a required parameter its likeliest value, however unlikely, and ask for it only
        where the request holds none of its type; and call a tool that fits only just. For measuring; a
        person is better asked.
    :param today: the day that "tomorrow" is reckoned from.
    """

    name = "rules"

    def __init__(
        self,
        weights: Weights,
        similar: Similar | None = None,
        *,
        guess: bool = False,
        today: Callable[[], date] = date.today,
    ) -> None:
        self._weights = weights
        self._guess = guess
        self._similar = similar
        self._today = today

    def plan(self, request: str, tools: Sequence[Definition]) -> Plan:
        """A plan over the candidates; one that would not pass the checks is never returned.

        :raises BadRequest: the request is empty.
        """
        if not request.strip():
            raise BadRequest("The request is empty.", "Say what is to be done.")
        if not tools:
            return Plan((), request, "There are no tools to plan with.")
        definitions = {tool.name: tool for tool in tools}
        tools = told_apart(tools)
        reading = read(request, self._today(), verbs_of(tools))
        sight = look(reading, tools, self._similar, self._weights.rarity)
        by_meaning = self._similar is not None
        calls: list[Filled] = []
        thoughts = think(reading, tools, sight, self._weights, by_meaning)
        chosen = self._chosen(thoughts, reading)
        for thought in chosen:
            base = thought.filled
            if self._guess and base.missing:
                base = fill(base.tool, base.clauses, reading, self._weights.values, least=0.0)
            others = [other.filled for other in chosen if other is not thought]
            calls += self._calls(base.tool, base, reading, others)
        calls.sort(key=_place)
        plan = build(request, calls, reading)
        if not plan.steps:
            return Plan((), request, "None of the tools fits the request.")
        return sound(plan, definitions)

    def _chosen(self, thoughts: Sequence[Thought], reading: Reading) -> list[Thought]:
        model = self._weights.calls if self._similar is not None else self._weights.calls_by_words
        rated = [(model.probability(thought.row), thought) for thought in thoughts]
        fits = 1 - math.prod(1 - probability for probability, _ in rated)
        if fits < (REFUSE if self._guess else REFUSE_PEOPLE):
            return []
        best = max(probability for probability, _ in rated)
        return distinct([pair for pair in rated if pair[0] >= min(CALL, best)], reading)

    def _calls(
        self, tool: Definition, base: Filled, reading: Reading, others: Sequence[Filled]
    ) -> list[Filled]:
        best = SPLIT
        calls: tuple[Filled, ...] = (base,)
        for option in options(tool, base, reading, self._weights.values, others):
            probability = self._weights.splits.probability(option.features)
            if probability >= best or (option.plain and calls == (base,)):
                best, calls = max(best, probability), option.calls
        return list(calls)


def think(
    reading: Reading,
    tools: Sequence[Definition],
    sight: Sight,
    weights: Weights,
    by_meaning: bool,
) -> list[Thought]:
    """Look closer at the tools that may be called: fill them, and gather what speaks for each; likeliest first."""
    model = weights.tools if by_meaning else weights.tools_by_words
    chance = [model.probability(row) for row in sight.rows]
    order = sorted(range(len(tools)), key=lambda t: -chance[t])
    maybe = [t for i, t in enumerate(order[:MAX_MAYBE]) if i == 0 or chance[t] >= MAYBE]
    owned = owners(sight.near, maybe)
    calls = {t: fill(tools[t], frozenset(owned[t]), reading, weights.values) for t in maybe}
    thoughts = []
    for t in maybe:
        twins = [o for o in maybe if o != t and _same_values(calls[o], calls[t])]
        rivals = [chance[o] for o in maybe if o != t and o not in twins]
        row = (
            *_row(t, maybe, chance, sight, calls[t]),
            *_explained(calls[t], reading, weights.rarity),
            float(len(twins)),
            chance[t] - max(rivals, default=0.0),
        )
        thoughts.append(Thought(t, calls[t], row))
    return thoughts


def distinct(rated: Sequence[tuple[float, Thought]], reading: Reading) -> list[Thought]:
    """Of tools that are two answers to one wish, the likeliest alone.

    Two tools answer one wish where they take the same values from it and one of them accounts for no word
    that the other does not account for, too: "the weather in Rome" is one call, however many tools give
    the weather, and "the weather and the air quality in Rome" is two.
    """
    kept: list[tuple[Thought, frozenset[int]]] = []
    for _, thought in sorted(rated, key=lambda pair: -pair[0]):
        told = _told(thought.filled, reading)
        doubles = (
            _same_values(thought.filled, other.filled) and (told <= known or known <= told)
            for other, known in kept
        )
        if not any(doubles):
            kept.append((thought, told))
    return [thought for thought, _ in kept]


def _same_values(a: Filled, b: Filled) -> bool:
    """Whether two calls answer a clause both, with the very same values of the request."""
    spans = {(g.span.start, g.span.end) for g in a.given if g.span is not None and g.param.type != "boolean"}
    others = {(g.span.start, g.span.end) for g in b.given if g.span is not None and g.param.type != "boolean"}
    return bool(spans) and spans == others and bool(a.clauses & b.clauses)


def owners(near: list[list[float]], maybe: Sequence[int]) -> dict[int, set[int]]:
    """The clauses of each tool: those it is nearest to, or else the one nearest to it."""
    own: dict[int, set[int]] = {t: set() for t in maybe}
    for clause, row in enumerate(near):
        own[max(maybe, key=lambda t: row[t])].add(clause)
    for t in maybe:
        if not own[t]:
            own[t].add(max(range(len(near)), key=lambda clause: near[clause][t]))
    return own


def _row(
    t: int, maybe: Sequence[int], chance: Sequence[float], sight: Sight, filled: Filled
) -> tuple[float, ...]:
    needed = [given.probability for given in filled.given if given.param.needed]
    sure = [given.probability for given in filled.given]
    others = [chance[o] for o in maybe if o != t]
    return (
        *sight.rows[t],
        chance[t],
        chance[t] - max(others, default=0.0),
        float(maybe.index(t)),
        float(len(maybe)),
        sum(chance[o] for o in maybe),
        float(len(needed)),
        min(needed, default=_NOTHING_NEEDED),
        sum(needed) / len(needed) if needed else _NOTHING_NEEDED,
        float(len(filled.missing)),
        float(len(sure)),
        max(sure, default=0.0),
        sum(sure) / len(sure) if sure else 0.0,
        float(len(filled.clauses)),
        float(sum(1 for given in filled.given if given.span is not None)),
    )


def _explained(filled: Filled, reading: Reading, rarity: Mapping[str, float]) -> tuple[float, float, float]:
    """How much of its clauses a call accounts for: shares of all words and of the telling ones; what is left."""
    seen = _told(filled, reading)
    own = [n for n in _telling(reading) if reading.clause_at(reading.words[n].start) in filled.clauses]
    weights = {n: rarity.get(reading.words[n].stem, 1.0) for n in own}
    total = math.fsum(weights.values())
    told = math.fsum(weight for n, weight in weights.items() if n in seen)
    return len(seen.intersection(own)) / max(1, len(own)), told / max(total, 0.1), total - told


def _telling(reading: Reading) -> list[int]:
    """The indices of a request's words that tell something."""
    return [n for n, w in enumerate(reading.words) if w.lower not in STOPWORDS and w.text[0].isalnum()]


def _told(filled: Filled, reading: Reading) -> frozenset[int]:
    """The indices of the words that a call accounts for: by the words of its tool, or as values."""
    text = text_of(filled.tool)
    known = text.name | text.about | text.params
    spans = [given.span for given in filled.given if given.span is not None]
    return frozenset(
        n
        for n in _telling(reading)
        if (word := reading.words[n]).stem in known
        or any(span.start <= word.start < span.end for span in spans)
    )


def _place(call: Filled) -> tuple[int, int]:
    return min(call.clauses, default=0), min((g.span.start for g in call.given if g.span), default=0)


def build(request: str, calls: Sequence[Filled], reading: Reading) -> Plan:
    """The plan that calls make: numbered, linked, with a question for each value nobody gave."""
    ids = [str(number) for number in range(1, len(calls) + 1)]
    steps = []
    for id_, call, links in zip(ids, calls, refs(calls, ids, reading), strict=True):
        extra: dict[tuple[str, ...], Any] = {
            param.path: Ask(_question(call.tool, param)) for param in call.missing
        }
        extra.update(links)
        needs = dict.fromkeys(ref.step for ref in links.values())
        steps.append(Step(id_, call.tool.name, arguments_of(call, extra), tuple(needs)))
    return Plan(tuple(steps), request)


def _question(tool: Definition, param: Param) -> str:
    described = param.schema.get("description")
    hint = (
        f" ({' '.join(described.split())[:120]})" if isinstance(described, str) and described.strip() else ""
    )
    return f"What is {param.name} for {tool.name}?{hint}"
