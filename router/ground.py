"""From a request to candidate tools, wish by wish: what the planner chooses from.

    grounding = ground("Book a flight to Rome and tell me the weather", service.find)
    for wish in grounding.wishes:
        print(wish.text, [c.tool for c in wish.candidates])

Search is handed in as a callable, so the router knows neither store nor index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from registry.search.clauses import split
from registry.search.engine import Found, Hit
from registry.search.scope import Scope
from registry.tools import ToolRef
from router.errors import BadRequest

DEFAULT_LIMIT: Final = 10
PER_WISH: Final = 3
"""Candidates that each wish of a request is sure of, however strong the others are."""
MAX_LIMIT: Final = 50


class Find(Protocol):
    """Search, as `registry.search.service.SearchService.find` does it."""

    def __call__(self, request: str, limit: int = 10, scope: Scope | None = None) -> Found: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tool that may answer a wish.

    :param score: from 0 to 1; it orders the candidates of one wish.
    :param why: one sentence for a person, and for a model that has to choose.
    :param alike: the same tool on other servers, to fall back on.
    """

    tool: ToolRef
    score: float
    why: str
    alike: tuple[ToolRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing that a request asks for, and the tools that may do it, best first."""

    text: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Grounding:
    """A request with its candidates.

    :param candidates: all of them, each once, best first.
    :param wishes: the same by the part of the request they answer, in the request's order.
    :param mode: ``hybrid`` or ``lexical``.
    """

    request: str
    candidates: tuple[Candidate, ...]
    wishes: tuple[Wish, ...]
    mode: str


def ground(
    request: str,
    find: Find,
    *,
    limit: int = DEFAULT_LIMIT,
    per_wish: int = PER_WISH,
    scope: Scope | None = None,
) -> Grounding:
    """The candidate tools of a request and of each wish in it.

    The whole request is searched once, which ranks tools that serve it as a whole; then each wish is
    searched alone where the first search gave it fewer than ``per_wish`` tools, so that no wish is
    left without a choice because another was louder. At most one search a wish, and eight wishes.

    :param limit: candidates in all, between 1 and MAX_LIMIT; wishes may add theirs beyond it.
    :param scope: what the caller may use.
    :raises BadRequest: the request is empty, or a bound is out of range.
    :raises RegistryError: search failed.
    """
    if not request.strip():
        raise BadRequest("The request is empty.", "Say what is to be done.")
    if not 1 <= limit <= MAX_LIMIT or not 0 <= per_wish <= limit:
        raise BadRequest(
            f"{limit} candidates with {per_wish} a wish were asked.",
            f"Ask for 1 to {MAX_LIMIT}, and no more a wish.",
        )
    found = find(request, limit, scope)
    kept: dict[tuple[str, str], Hit] = {hit.ref[:2]: hit for hit in found.hits}
    texts = found.clauses or tuple(split(request))
    by_wish: dict[str, list[Hit]] = {text: [] for text in texts}
    for hit in found.hits:
        by_wish.get(hit.clause, by_wish[texts[0]] if len(texts) == 1 else []).append(hit)
    if len(texts) > 1:
        for text, hits in by_wish.items():
            if len(hits) < per_wish:
                hits.extend(_more(find(text, per_wish, scope), hits, per_wish))
    wishes = tuple(Wish(text, tuple(map(_candidate, hits))) for text, hits in by_wish.items())
    for hits in by_wish.values():
        for hit in hits:
            kept.setdefault(hit.ref[:2], hit)
    return Grounding(request, tuple(map(_candidate, kept.values())), wishes, found.mode)


def _more(found: Found, have: Sequence[Hit], wanted: int) -> list[Hit]:
    known = {hit.ref[:2] for hit in have}
    return [hit for hit in found.hits if hit.ref[:2] not in known][: wanted - len(have)]


def _candidate(hit: Hit) -> Candidate:
    return Candidate(hit.ref, hit.score, explain(hit), hit.alike)


def explain(hit: Hit) -> str:
    """Why a tool was found, in one sentence."""
    reasons = []
    if hit.words:
        reasons.append(f"shares the words {', '.join(hit.words)}")
    if hit.cosine is not None:
        reasons.append(f"is {_closeness(hit.cosine)} in meaning ({hit.cosine:.2f})")
    return f"It {' and '.join(reasons)}."


_BANDS: Final[Mapping[float, str]] = {0.6: "very near", 0.4: "near", 0.2: "related"}


def _closeness(cosine: float) -> str:
    return next((text for least, text in _BANDS.items() if cosine >= least), "far")
