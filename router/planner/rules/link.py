"""Which earlier result feeds a parameter: by output schema, by words in common, by how the request says it."""

# ruff: noqa: SIM905  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from registry.lexical.tokens import STOPWORDS
from router.outputs import fields
from router.plan import Definition, Ref, join_path
from router.planner.rules.fill import Filled
from router.planner.rules.params import Param
from router.planner.rules.reading import Reading
from router.planner.rules.spans import stems_of
from router.schemas import reference_allowed

THRESHOLD: Final = 0.62
"""The least score at which a reference is taken for a parameter that got nothing."""
DOUBT: Final = 0.45
"""How much more it takes against a value of the request, times how sure that value is."""

_RESULT: Final = re.compile(
    r"\b(?:results?|outputs?|returned|obtained|retrieved|generated|produced|resulting|found|fetched|given|received|"
    r"computed|calculated|from (?:the )?(?:previous|first|second|third|last|above|that|earlier)|you (?:get|got|find|found)|"
    r"(?:previous|first|second|last|earlier) (?:step|call|one|result|answer))\b",
    re.IGNORECASE,
)
_PRONOUN: Final = re.compile(
    r"\b(?:it|its|that|those|this|these|them|their|the same|whose|which)\b", re.IGNORECASE
)
PLAIN: Final = 1.0
"""What it counts that a clause has no value of its own, speaks of a result, and there is but one it can mean."""

_GENERIC: Final = frozenset(
    ("id name number code key data info inform result valu output list item status").split()
)


@dataclass(frozen=True, slots=True)
class Link:
    """A reference that may stand for a parameter's value.

    :param source: the position of the call it comes from.
    """

    source: int
    path: str
    score: float


@lru_cache(maxsize=2048)
def _stems(text: str) -> frozenset[str]:
    return frozenset(stem for stem in stems_of(text) if stem not in STOPWORDS)


def best_link(param: Param, call: Filled, at: int, calls: Sequence[Filled], reading: Reading) -> Link | None:
    """The likeliest result of an earlier call for a parameter; None where none fits at all.

    A call is earlier when it stands before in the list: the calls are in the order of the request.
    """
    own = " ".join(reading.text[c.start : c.end] for i, c in enumerate(reading.clauses) if i in call.clauses)
    said = 0.3 if _RESULT.search(own) else 0.15 if _PRONOUN.search(own) else 0.0
    spoken = _stems(own[:600])
    open_ = param.needed and said >= 0.3 and not _own_value(param, call, reading)
    best: Link | None = None
    for source in range(at):
        earlier = calls[source]
        if earlier.tool.name == call.tool.name:
            continue
        offers = _offers(param, earlier.tool)
        plain = PLAIN if open_ and len(offers) == 1 and offers[0][0] else 0.0
        for segments, schema, score in offers:
            if not reference_allowed(earlier.tool, segments, param.schema):
                continue
            total = score + said + plain + _spoken(segments, schema, spoken, param)
            if best is None or total > best.score or (plain and total == best.score):
                best = Link(source, join_path(segments), total)
    return best


def _own_value(param: Param, call: Filled, reading: Reading) -> bool:
    """Whether the clauses of a call name a value for a parameter, and not just a result by "it"."""
    given = call.of(param)
    if given is None or given.span is None:
        return False
    own = stems_of(call.tool.name)
    words = reading.text[given.span.start : given.span.end].split()
    text = " ".join(word for word in words if stems_of(word)[:1] != own[:1]).removeprefix("the ")
    named = _RESULT.fullmatch(text) or _PRONOUN.fullmatch(text)
    return named is None and reading.clause_at(given.span.start) in call.clauses


def _spoken(segments: tuple[str, ...], schema: Any, spoken: frozenset[str], param: Param) -> float:
    """How much of the field's name the clause says: "book it with the confirmation code"."""
    if not segments:
        return 0.0
    names = _stems(next((s for s in reversed(segments) if not s.isdecimal()), ""))
    return 0.25 * len(names & spoken) / len(names) if names else 0.0


def _offers(param: Param, tool: Definition) -> list[tuple[tuple[str, ...], Any, float]]:
    """The parts of a tool's result with how well their words fit a parameter, from 0 to 0.8."""
    wanted = frozenset(param.names) - STOPWORDS or frozenset(param.names)
    noun = wanted - _GENERIC
    if tool.output_schema is None:
        about = _stems(tool.name)
        shared = len(noun & about) / len(noun) if noun else 0.0
        return [((), None, 0.45 * shared)]
    found = []
    for segments, schema in fields(tool.output_schema):
        if not segments:
            continue
        name = next((segment for segment in reversed(segments) if not segment.isdecimal()), "")
        names = _stems(name)
        described = schema.get("description")
        about = _stems(described[:300]) if isinstance(described, str) else frozenset()
        around = names | _stems(tool.name) | about
        union = names | wanted
        overlap = len(names & wanted) / len(union) if union else 0.0
        if names & wanted and not (names & wanted) - _GENERIC and noun and not noun & around:
            overlap *= 0.4  # "order_id" is no "user_id"
        close = len(wanted & around) / len(wanted) if wanted else 0.0
        told = len(param.about & about) / max(4, len(param.about | about)) if about else 0.0
        found.append((segments, schema, 0.4 * overlap + 0.2 * close + 0.2 * told))
    return found


def refs(calls: Sequence[Filled], ids: Sequence[str], reading: Reading) -> list[dict[tuple[str, ...], Ref]]:
    """For each call the references its parameters take, by the path of the parameter."""
    out: list[dict[tuple[str, ...], Ref]] = []
    for at, call in enumerate(calls):
        taken: dict[tuple[str, ...], Ref] = {}
        weak = [(given.param, given.probability) for given in call.given if given.param.type != "boolean"]
        for param, probability in [*((p, 0.0) for p in call.missing), *weak]:
            link = best_link(param, call, at, calls, reading)
            if link is not None and link.score >= THRESHOLD + DOUBT * probability:
                taken[param.path] = Ref(ids[link.source], link.path)
        out.append(taken)
    return out
