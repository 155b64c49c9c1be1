"""From lexical scores and cosines to one score a tool.

Per text, both are scaled to [0, 1] over the tools in scope and added, 0.4 words to 0.6 meaning (Bruch,
Gai, Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", 2023: a convex combination of scaled
scores beats rank fusion). A request of several clauses scores each tool by the whole and by the
clause it fits best, so that each wish brings its own tool up. What a tool's server is worth to the
whole request lifts the tool a little: the tools that belong together in a task come from one server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.search.index import ToolIndex

LEXICAL: Final = 0.4
"""Weight of the words; the vectors have the rest."""
WHOLE: Final = 0.3
"""Weight of the whole request where it has clauses; the best clause has the rest."""
SERVER: Final = 0.2
"""Weight of the best tool of the same server for the whole request."""


def fuse(
    words: NDArray[np.float32],
    meaning: NDArray[np.float32],
    covered: NDArray[np.bool_],
    allowed: NDArray[np.bool_] | None,
    servers: NDArray[np.int32],
    count: int,
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The score of every slot, -1 outside the scope, and the row (text) it fits best.

    :param words: BM25, ``[texts, slots]``; row 0 is the whole request, the others its clauses.
    :param meaning: cosines, of the same shape.
    :param covered: which slots have a vector; the others are judged by words alone.
    :param servers: the server's number by slot, below ``count``.
    """
    import numpy as np

    lexical = _scaled(words, allowed)
    both = LEXICAL * lexical + (1.0 - LEXICAL) * _scaled(meaning, allowed)
    if not covered.all():
        both = np.where(covered, both, lexical)
    if allowed is not None:
        both = np.where(allowed, both, np.float32(-1.0))
    whole = both[0]
    if len(both) == 1:
        score, best = whole, np.zeros(both.shape[1], dtype=np.intp)
    else:
        best = both[1:].argmax(axis=0) + 1
        score = WHOLE * whole + (1.0 - WHOLE) * both[1:].max(axis=0)
    top = np.full(count, -1.0, dtype=np.float32)
    np.maximum.at(top, servers, whole)
    score = (score + SERVER * top[servers]) / (1.0 + SERVER)
    if allowed is not None:
        score = np.where(allowed, score, np.float32(-1.0))
    return score, best


def fuse_words(
    clauses: Sequence[Mapping[int, float]], index: ToolIndex, scope: frozenset[int] | None
) -> dict[int, tuple[float, int]]:
    """The same by words alone, without numpy: (score, best row) of every slot that has a word in common.

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
    top: dict[int, float] = {}
    for slot, score in whole.items():
        server = index.server_numbers[slot]
        top[server] = max(top.get(server, 0.0), score / peak)
    out: dict[int, tuple[float, int]] = {}
    for slot, score in whole.items():
        if len(scaled) == 1:
            value, row = score / peak, 0
        else:
            part, row = max((mine.get(slot, 0.0), row) for row, mine in enumerate(scaled, 1))
            value = WHOLE * score / peak + (1.0 - WHOLE) * part
        out[slot] = (value + SERVER * top[index.server_numbers[slot]]) / (1.0 + SERVER), row
    return out


def _scaled(scores: NDArray[np.float32], allowed: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Each row to [0, 1] over what is allowed; a row that is all the same says nothing and becomes 0."""
    import numpy as np

    seen = scores if allowed is None else scores[:, allowed]
    low, high = seen.min(axis=1, keepdims=True), seen.max(axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (scores - low) / np.maximum(high - low, np.float32(1e-6))
    return scaled
