"""The search itself: a request in, ranked tools out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from registry.embed.encoder import Encoder
from registry.errors import BadFilter
from registry.lexical import query_terms
from registry.lexical.stem import stem
from registry.lexical.tokens import MARK
from registry.search import clauses, evidence, fusion
from registry.search.index import ToolIndex
from registry.search.scope import Scope, everything
from registry.tools import Statistics, ToolRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_LIMIT: Final = 100
MAX_REQUEST: Final = 4000
"""Characters of a request that are read."""
ALIKE: Final = 0.97
"""Cosine from which two tools of different servers and the same name are near-duplicates."""
_POOL: Final = 4
"""Candidates looked at for each one asked for, so that collapsing duplicates leaves a full page."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A tool that was found.

    :param score: from 0 to 1; it orders the hits of one request and means nothing across requests.
    :param words: the words it shares with the request, rarest first.
    :param cosine: to the part of the request it fits best; None where search was by words.
    :param clause: that part of the request.
    :param alike: near-duplicates of it on other servers, which are not listed beside it.
    """

    ref: ToolRef
    score: float
    words: tuple[str, ...]
    cosine: float | None
    clause: str
    alike: tuple[ToolRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a request.

    :param mode: ``hybrid``, or ``lexical`` where there are no vectors.
    :param pending: tools in scope that were judged by words alone because they are not embedded yet.
    """

    hits: tuple[Hit, ...]
    clauses: tuple[str, ...]
    mode: str
    pending: int = 0


class Searcher:
    """Searches one index. Safe for threads; the encoder works outside the index's lock.

    :param encoder: None for search by words.
    :param adapt: turns query vectors before they are compared (see `registry.feedback`).
    :param known: what is known of calls, by (server, name); asked once per search.
    """

    def __init__(
        self,
        index: ToolIndex,
        encoder: Encoder | None = None,
        *,
        adapt: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
        known: Callable[[], Mapping[tuple[str, str], Statistics]] = dict,
    ) -> None:
        self.index = index
        self.encoder = encoder
        self.adapt = adapt
        self._known = known
        self._everything = everything()

    def find(
        self,
        request: str,
        limit: int = 10,
        scope: Scope | None = None,
        *,
        split: bool = True,
        collapse: bool = True,
    ) -> Found:
        """The tools that answer a request, best first, at most ``limit``.

        :param scope: what the caller may find; None for everything.
        :param split: whether a request of several wishes is cut into clauses.
        :param collapse: whether near-duplicates are listed once.
        :raises BadFilter: ``limit`` is not between 1 and MAX_LIMIT.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise BadFilter(f"A search for {limit} tools was asked.", f"Ask for 1 to {MAX_LIMIT}.")
        request = request[:MAX_REQUEST].strip()
        parts = clauses.split(request) if split else [request]
        texts = parts if len(parts) == 1 else [request, *parts]
        vectors = self._vectors(parts)
        terms = [query_terms(part) for part in parts]
        with self.index.lock:
            if not len(self.index) or not request:
                return Found((), tuple(parts), "lexical" if vectors is None else "hybrid")
            if vectors is None:
                return self._by_words(texts, parts, terms, limit, scope, collapse)
            return self._by_both(texts, parts, terms, vectors, limit, scope, collapse)

    def _vectors(self, parts: Sequence[str]) -> NDArray[np.float32] | None:
        """A row for each clause. None without vectors."""
        if self.encoder is None or self.index.vectors is None or not len(self.index.vectors):
            return None
        rows = self.encoder.encode_queries(parts)
        return rows if self.adapt is None else self.adapt(rows)

    def _by_both(
        self,
        texts: Sequence[str],
        parts: Sequence[str],
        terms: Sequence[list[str]],
        vectors: NDArray[np.float32],
        limit: int,
        scope: Scope | None,
        collapse: bool,
    ) -> Found:
        import numpy as np

        index, store = self.index, self.index.vectors
        assert store is not None
        slots = index.slots
        allowed = (scope or self._everything).mask(index)
        if not allowed.any():
            return Found((), tuple(parts), "hybrid")
        by_clause = [index.words.dense_scores(part) for part in terms]
        whole = by_clause if len(by_clause) == 1 else [np.sum(by_clause, axis=0), *by_clause]
        inside = None if allowed.all() else allowed
        # The whole as the mean of its clauses by length: 0.2 points of NDCG below encoding it, at half the time.
        lengths = np.array([len(part) for part in parts], dtype=np.float32) if len(parts) > 1 else None
        cosines = store.scores(vectors, slots, inside, mean=lengths)
        covered = store.covered(slots)
        servers = np.frombuffer(index.server_numbers, dtype=np.int32)
        fused = fusion.fuse(np.stack(whole), cosines, covered, inside, servers, index.servers)
        count = min(slots, max(50, _POOL * limit))
        pool = {*np.argpartition(-fused.score, count - 1)[:count].tolist(), *fused.firsts}
        ranked = [
            (float(fused.score[slot]), (row := fused.row(slot)), float(cosines[row, slot]), slot)
            for slot in pool
            if allowed[slot]
        ]
        hits = self._choose(ranked, fused.reach, fused.firsts, texts, terms, limit, collapse)
        return Found(hits, tuple(parts), "hybrid", int((allowed & ~covered).sum()))

    def _by_words(
        self,
        texts: Sequence[str],
        parts: Sequence[str],
        terms: Sequence[list[str]],
        limit: int,
        scope: Scope | None,
        collapse: bool,
    ) -> Found:
        index = self.index
        inside = None if scope is None else scope.slots(index)
        fused = fusion.fuse_words([index.words.scores(part) for part in terms], index, inside)
        best = sorted(fused.found, key=lambda slot: -fused.found[slot][0])[: max(50, _POOL * limit)]
        pool = dict.fromkeys((*best, *fused.firsts))
        ranked = [(*fused.found[slot], None, slot) for slot in pool]
        hits = self._choose(ranked, fused.reach, fused.firsts, texts, terms, limit, collapse)
        return Found(hits, tuple(parts), "lexical")

    def _choose(
        self,
        ranked: Sequence[tuple[float, int, float | None, int]],
        reach: float,
        firsts: Sequence[int],
        texts: Sequence[str],
        terms: Sequence[list[str]],
        limit: int,
        collapse: bool,
    ) -> tuple[Hit, ...]:
        """Evidence, order, near-duplicates: the page. The best tool of every clause has a place on it."""
        index, known = self.index, self._known()
        judged = []
        for score, row, cosine, slot in ranked:
            ref = index.ref(slot)
            judged.append((score + evidence.bonus(known, ref.server, ref.name), ref, row, cosine, slot))
        judged.sort(key=lambda item: (-item[0], item[1]))
        chosen: list[_Judged] = []
        alike: dict[int, list[ToolRef]] = {}
        namesakes: dict[str, list[int]] = {}
        shown: dict[int, int] = {}  # by slot: the one that stands for it
        for item in judged:
            same = namesakes.setdefault(index.plain_name(item[4]), []) if collapse else []
            twin = next((slot for slot in same if self._alike(slot, item[4])), None)
            shown[item[4]] = item[4] if twin is None else twin
            if twin is not None:
                alike.setdefault(twin, []).append(item[1])
            elif len(chosen) < limit or item[4] in firsts:
                chosen.append(item)
                same.append(item[4])
        chosen = _page(chosen, {shown[slot] for slot in firsts}, limit)
        every = [term for part in terms for term in part]
        return tuple(
            Hit(
                ref=ref,
                score=round(min(1.0, max(0.0, score / reach)), 4),
                words=_shown(index.words.matched(slot, every))[:6],
                cosine=None if cosine is None else round(cosine, 4),
                clause=texts[row],
                alike=tuple(alike.get(slot, ())),
            )
            for score, ref, row, cosine, slot in chosen
        )

    def _alike(self, one: int, other: int) -> bool:
        """Whether two tools of one name are the same in all but their server."""
        index = self.index
        if index.ref(one).server == index.ref(other).server:
            return False
        if index.fingerprint(one) == index.fingerprint(other):
            return True
        vectors = index.vectors
        if vectors is None or not (vectors.has(one) and vectors.has(other)):
            return False
        return float(vectors.vector(one) @ vectors.vector(other)) >= ALIKE


def _shown(terms: Sequence[str]) -> tuple[str, ...]:
    """Shared terms as a person reads them: words, and the stems of those that are shared in another form."""
    words = {term for term in terms if not term.startswith(MARK)}
    told = {MARK + stem(word) for word in words}
    return tuple(term.removeprefix(MARK) for term in terms if term not in told)


_Judged = tuple[float, ToolRef, int, float | None, int]


def _page(ordered: list[_Judged], wanted: set[int], limit: int) -> list[_Judged]:
    """The best ``limit``, where the last make room for wanted ones that come after; the best of all stays."""
    page, after = ordered[:limit], [item for item in ordered[limit:] if item[4] in wanted]
    for place in range(len(page) - 1, 0, -1):
        if not after:
            break
        if page[place][4] not in wanted:
            page.pop(place)
            page.append(after.pop(0))
    return page
