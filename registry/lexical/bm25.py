"""BM25 over an inverted index that takes additions and removals one by one.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
Lucene's idf, ``ln(1 + (N - df + 0.5) / (df + 0.5))``, which is never negative. Nothing is
precomputed that a change of the collection would spoil: a posting holds term frequencies, and the
weights come out at query time from counts that are kept current.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K1: Final = 1.2
"""How soon repeats of a term stop counting."""
B: Final = 0.75
"""How much a long document's terms are discounted."""


class BM25Index:
    """Documents by slot number: 0, 1, 2 … in the order added; a removed slot stays empty.

    Not safe for threads; whoever changes it while others search holds a lock around both.
    """

    def __init__(self, *, k1: float = K1, b: float = B) -> None:
        self._k1 = k1
        self._b = b
        self._ids: dict[str, int] = {}
        self._slots: list[array[int]] = []  # by term: the slots that have it, ascending
        self._counts: list[array[float]] = []  # by term: how often, beside _slots
        self._alive: list[int] = []  # by term: living documents that have it
        self._terms: list[array[int] | None] = []  # by slot: its terms; None once removed
        self._lengths: array[float] = array("f")
        self._total = 0.0
        self._living = 0
        self._norms: array[float] | None = None

    def __len__(self) -> int:
        """Living documents."""
        return self._living

    @property
    def slots(self) -> int:
        """Slots given out so far, removed ones included."""
        return len(self._terms)

    def add(self, counts: Mapping[str, float]) -> int:
        """Add a document by its terms and their frequencies. Returns its slot."""
        slot = len(self._terms)
        own: array[int] = array("I")
        for term, count in counts.items():
            number = self._ids.get(term)
            if number is None:
                number = self._ids[term] = len(self._slots)
                self._slots.append(array("I"))
                self._counts.append(array("f"))
                self._alive.append(0)
            self._slots[number].append(slot)
            self._counts[number].append(count)
            self._alive[number] += 1
            own.append(number)
        length = sum(counts.values())
        self._terms.append(own)
        self._lengths.append(length)
        self._total += length
        self._living += 1
        self._norms = None
        return slot

    def remove(self, slot: int) -> None:
        """Take a document out. Raises KeyError where there is none."""
        own = self._terms[slot] if 0 <= slot < len(self._terms) else None
        if own is None:
            raise KeyError(slot)
        for number in own:
            self._alive[number] -= 1
        self._terms[slot] = None
        self._total -= self._lengths[slot]
        self._living -= 1
        self._norms = None

    def alive(self, slot: int) -> bool:
        return 0 <= slot < len(self._terms) and self._terms[slot] is not None

    def scores(self, terms: Iterable[str]) -> dict[int, float]:
        """The score of every living document that has one of the terms. Plain Python."""
        norms = self._current_norms()
        found: dict[int, float] = {}
        for number, weight in self._weights(terms):
            for slot, count in zip(self._slots[number], self._counts[number], strict=True):
                found[slot] = found.get(slot, 0.0) + weight * count / (count + norms[slot])
        if self._living < len(self._terms):
            found = {slot: score for slot, score in found.items() if self._terms[slot] is not None}
        return found

    def dense_scores(self, terms: Iterable[str]) -> NDArray[np.float32]:
        """The score of every slot, 0 where no term matches or the slot is empty. Needs numpy."""
        import numpy as np

        norms = np.frombuffer(self._current_norms(), dtype=np.float32)
        out = np.zeros(len(self._terms), dtype=np.float32)
        for number, weight in self._weights(terms):
            slots = np.frombuffer(self._slots[number], dtype=np.uint32)
            counts = np.frombuffer(self._counts[number], dtype=np.float32)
            # A term has each slot once, so this plain indexed addition adds everything.
            out[slots] += np.float32(weight) * counts / (counts + norms[slots])
        if self._living < len(self._terms):
            out[[slot for slot, own in enumerate(self._terms) if own is None]] = 0.0
        return out

    def matched(self, slot: int, terms: Sequence[str]) -> list[str]:
        """Those of the terms that the document has, most telling first."""
        own = self._terms[slot]
        has = frozenset(own) if own is not None else frozenset()
        found = {term for term in terms if self._ids.get(term) in has}
        return sorted(found, key=lambda term: (self._alive[self._ids[term]], term))

    def _weights(self, terms: Iterable[str]) -> list[tuple[int, float]]:
        """(term number, idf times its number of repeats in the query) of the terms that are known."""
        weights = []
        for term, repeats in Counter(terms).items():
            number = self._ids.get(term)
            if number is None or not self._alive[number]:
                continue
            df = self._alive[number]
            idf = math.log(1.0 + (self._living - df + 0.5) / (df + 0.5))
            weights.append((number, idf * repeats * (self._k1 + 1.0)))
        return weights

    def _current_norms(self) -> array[float]:
        """By slot: k1 times the relative length; the part of BM25 that no query changes."""
        if self._norms is None:
            average = self._total / self._living if self._living and self._total > 0 else 1.0
            k1, b = self._k1, self._b
            self._norms = array("f", (k1 * (1.0 - b + b * length / average) for length in self._lengths))
        return self._norms
