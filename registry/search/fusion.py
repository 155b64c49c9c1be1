"""From lexical scores and cosines to one score a tool.

Per text, both are scaled to [0, 1] over the tools in scope and added, 0.4 words to 0.6 meaning (Bruch,
Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", 2023: a convex combination of scaled
scores beats rank fusion). A request of several clauses scores each tool by the whole and by the
clause it fits best, so that each wish brings its own tool up.

The tools that belong together in a task often come from one server, so where a request has several
clauses a tool is lifted by how well its server answers all of them between its tools, measured by the
best there is for each clause, and to a high power: a server that has something good for every wish lifts
its tools above those of one that has the best for a single wish, and where the wishes need several
servers, none is lifted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.search.index import ToolIndex

LEXICAL: Final = 0.4
"""Weight of the words; the vectors have the rest."""
WHOLE: Final = 0.3
"""Weight of the whole request where it has clauses; the best clause has the rest."""
COVER: Final = 0.5
"""Weight of how well the same server answers all clauses, where there are several."""
STEEP: Final = 10
"""The power of that: a server that reaches 0.9 of the best for each clause has 0.35 of the lift, one of 0.7
next to none."""


class Fused(NamedTuple):
    """What a request comes to.

    :param score: of every slot, at most ``reach``; -1 outside the scope.
    :param texts: the score of every slot for each text, ``[texts, slots]``; row 0 is the whole request.
    :param reach: the highest score there could be.
    :param firsts: the best slot for each clause by itself, whatever its server; none for a single clause.
    """

    score: NDArray[np.float32]
    texts: NDArray[np.float32]
    reach: float
    firsts: tuple[int, ...]

    def row(self, slot: int) -> int:
        """The text that a slot fits best: a clause, where there are any."""
        return 0 if len(self.texts) == 1 else 1 + int(self.texts[1:, slot].argmax())


class FusedWords(NamedTuple):
    """The same by words alone: (score, row) of every slot that has a word in common."""

    found: dict[int, tuple[float, int]]
    reach: float
    firsts: tuple[int, ...]


def fuse(
    words: NDArray[np.float32],
    meaning: NDArray[np.float32],
    covered: NDArray[np.bool_],
    allowed: NDArray[np.bool_] | None,
    servers: NDArray[np.int32],
    count: int,
) -> Fused:
    """The score of every slot.

    :param words: BM25, ``[texts, slots]``; row 0 is the whole request, the others its clauses.
    :param meaning: cosines, of the same shape.
    :param covered: which slots have a vector; the others are judged by words alone.
    :param servers: the server's number by slot, below ``count``.
    """
    import numpy as np

    lexical = _scaled(words, allowed)
    both = _scaled(meaning, allowed)
    both *= 1.0 - LEXICAL
    both += LEXICAL * lexical
    if not covered.all():
        both = np.where(covered, both, lexical)
    if allowed is not None:
        both = np.where(allowed, both, np.float32(-1.0))
    whole = both[0]
    if len(both) == 1:
        return Fused(whole, both, 1.0, ())
    clauses = both[1:]
    parts = WHOLE * whole + (1.0 - WHOLE) * clauses
    covered_by = [
        np.clip(_best(clause, servers, count) / max(float(clause.max()), 1e-6), 0.0, 1.0)
        for clause in clauses
    ]
    lift = COVER * np.mean(covered_by, axis=0) ** STEEP
    score = parts.max(axis=0) + lift[servers].astype(np.float32)
    if allowed is not None:
        score = np.where(allowed, score, np.float32(-1.0))
    firsts = tuple(dict.fromkeys(int(slot) for slot in parts.argmax(axis=1)))
    return Fused(score, both, 1.0 + COVER, firsts)


def _best(scores: NDArray[np.float32], servers: NDArray[np.int32], count: int) -> NDArray[np.float32]:
    """The best score of each server's tools."""
    import numpy as np

    best = np.full(count, -1.0, dtype=np.float32)
    np.maximum.at(best, servers, scores)
    return best


def fuse_words(
    clauses: Sequence[Mapping[int, float]], index: ToolIndex, scope: frozenset[int] | None
) -> FusedWords:
    """The same by words alone, without numpy.

    :param clauses: BM25 by slot, one mapping a clause; the whole request is their sum.
    """
    whole: dict[int, float] = {}
    scaled: list[dict[int, float]] = []
    for found in clauses:
        mine = found if scope is None else {slot: s for slot, s in found.items() if slot in scope}
        for slot, score in mine.items():
            whole[slot] = whole.get(slot, 0.0) + score
        peak = max(mine.values(), default=1.0) or 1.0
        scaled.append({slot: score / peak for slot, score in mine.items()})
    peak = max(whole.values(), default=1.0) or 1.0
    whole = {slot: score / peak for slot, score in whole.items()}
    numbers = index.server_numbers
    if len(scaled) == 1:
        return FusedWords({slot: (score, 0) for slot, score in whole.items()}, 1.0, ())
    covered: dict[int, float] = {}
    for mine in scaled:
        for server, score in _best_words(mine, numbers).items():
            covered[server] = covered.get(server, 0.0) + score / len(scaled)
    lift = {server: COVER * share**STEEP for server, share in covered.items()}
    out: dict[int, tuple[float, int]] = {}
    for slot, score in whole.items():
        part, row = max((mine.get(slot, 0.0), row) for row, mine in enumerate(scaled, 1))
        out[slot] = WHOLE * score + (1.0 - WHOLE) * part + lift[numbers[slot]], row
    firsts = (
        max(mine, key=lambda slot: WHOLE * whole[slot] + (1.0 - WHOLE) * mine[slot])
        for mine in scaled
        if mine
    )
    return FusedWords(out, 1.0 + COVER, tuple(dict.fromkeys(firsts)))


def _best_words(scores: Mapping[int, float], numbers: Sequence[int]) -> dict[int, float]:
    best: dict[int, float] = {}
    for slot, score in scores.items():
        server = numbers[slot]
        best[server] = max(best.get(server, 0.0), score)
    return best


def _scaled(scores: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Each row to [0, 1] over what is allowed; a row that is all the same says nothing and becomes 0."""
    import numpy as np

    seen = scores if allowed is None else scores[:, allowed]
    low, high = seen.min(axis=1, keepdims=True), seen.max(axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (scores - low) / np.maximum(high - low, np.float32(1e-6))
    return scaled
