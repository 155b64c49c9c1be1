"""Every tool that is offered, as search holds it: words, vectors and the little that results need."""

from __future__ import annotations

import itertools
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING

from registry.document import ToolDocument, words_of
from registry.lexical import BM25Index, document_terms
from registry.tools import ToolRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from registry.vector.index import VectorIndex


_revisions = itertools.count()
"""Numbers for states of indexes: no two states of any two have the same."""


class ToolIndex:
    """The index of all tools, shared by all sessions and changed one tool at a time.

    Slots number the tools; a slot that was given up stays empty until the index is made anew. Hold
    ``lock`` around every use: changes and searches may come from different threads.
    """

    def __init__(self, vectors: VectorIndex | None = None) -> None:
        self.lock = threading.RLock()
        self.revision = next(_revisions)
        self.words = BM25Index()
        self.vectors = vectors
        self.server_numbers: array[int] = array("i")
        """By slot: the number of its server."""
        self.servers = 0
        """How many numbers are given to servers."""
        self._refs: list[ToolRef | None] = []
        self._prints: list[bytes] = []
        self._names: list[str] = []
        self._slot: dict[tuple[str, str], int] = {}
        self._server: dict[str, int] = {}

    def __len__(self) -> int:
        """Tools in the index."""
        return len(self._slot)

    @property
    def slots(self) -> int:
        """Slots given out so far, empty ones included."""
        return len(self._refs)

    def living(self) -> Iterator[tuple[int, ToolRef]]:
        """(slot, tool) of every tool."""
        return ((slot, ref) for slot, ref in enumerate(self._refs) if ref is not None)

    def ref(self, slot: int) -> ToolRef:
        """The tool of a slot. Raises KeyError where it is empty."""
        ref = self._refs[slot]
        if ref is None:
            raise KeyError(slot)
        return ref

    def slot(self, server: str, name: str) -> int | None:
        """The slot of a tool, or None."""
        return self._slot.get((server, name))

    def fingerprint(self, slot: int) -> bytes:
        """Equal for tools that say the same of themselves, whichever server they are of."""
        return self._prints[slot]

    def plain_name(self, slot: int) -> str:
        """The tool's name as lower-case words: near-duplicates share it."""
        return self._names[slot]

    def put(self, document: ToolDocument) -> int:
        """Add a tool, or replace the one of that server and name. Returns its slot."""
        with self.lock:
            self.remove(document.server, document.name)
            slot = self.words.add(document_terms(document))
            self._refs.append(ToolRef(document.server, document.name, document.hash))
            self._prints.append(_fingerprint(document))
            self._names.append(sys.intern(words_of(document.name).lower()))
            # A tool without a server stands alone: it must not lend its score to others without one.
            server = document.server or f"\x00{document.name}"
            self.server_numbers.append(self._server.setdefault(server, len(self._server)))
            self.servers = len(self._server)
            self._slot[document.server, document.name] = slot
            self.revision = next(_revisions)
            return slot

    def remove(self, server: str, name: str) -> bool:
        """Take a tool out. Returns whether it was there."""
        with self.lock:
            slot = self._slot.pop((server, name), None)
            if slot is None:
                return False
            self.words.remove(slot)
            if self.vectors is not None:
                self.vectors.remove([slot])
            self._refs[slot] = None
            self.revision = next(_revisions)
            return True

    def put_vectors(self, vectors: Mapping[tuple[str, str], NDArray[np.float32]]) -> int:
        """Set vectors by (server, definition hash), for the tools that are still at that version."""
        import numpy as np

        with self.lock:
            if self.vectors is None or not vectors:
                return 0
            slots = [slot for slot, ref in self.living() if (ref.server, ref.hash) in vectors]
            if slots:
                rows = [vectors[ref.server, ref.hash] for ref in (self.ref(slot) for slot in slots)]
                self.vectors.put(slots, np.stack(rows))
            return len(slots)

    def lacking(self) -> list[ToolRef]:
        """The tools that have no vector yet."""
        with self.lock:
            if self.vectors is None:
                return []
            has = self.vectors.has
            return [ref for slot, ref in self.living() if not has(slot)]

    def crowded(self) -> bool:
        """Whether so many slots are empty that a new index would be the better one."""
        return self.slots > 1000 and len(self) < 0.7 * self.slots

    def extend(self, documents: Iterable[ToolDocument]) -> None:
        """Add many tools."""
        for document in documents:
            self.put(document)


def _fingerprint(document: ToolDocument) -> bytes:
    parts = (
        words_of(document.name).lower(),
        document.description.lower(),
        " ".join(sorted(name for name, _ in document.parameters)),
    )
    return blake2b("\x00".join(parts).encode("utf-8", "replace"), digest_size=12).digest()
