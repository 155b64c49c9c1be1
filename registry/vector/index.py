"""Vectors by slot, and the cosine of every one of them to a query.

Up to FLAT_LIMIT tools the search is exact: one product of the matrix with the query takes 1 ms at
15,000 tools of 384 dimensions on one core, and gives the fusion every score, where FAISS's flat
search takes 5 ms for the best 200 and importing it 43 MB. Above, FAISS's inverted file (IVF; Jégou,
Douze, Schmid, "Product Quantization for Nearest Neighbor Search", 2011) looks at the nearest lists only.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT_LIMIT: Final = 50_000
"""Rows from which a search goes through FAISS."""
NEIGHBOURS: Final = 1000
"""Rows that an IVF search returns; all others count as being as far as the last of them."""
_BLOCK: Final = 512
"""Rows multiplied at a time: 0.8 MB at 384 dimensions."""
_PROBED: Final = 0.12
"""Share of the lists that is looked at: recall@20 above 0.99 on tool vectors (see README)."""


def _faiss() -> Any:
    # Typed as Any: its methods are made at import, and its stubs name other arguments.
    return importlib.import_module("faiss")


class VectorIndex:
    """Unit vectors by slot number. Not safe for threads, as `BM25Index` is not."""

    def __init__(self, dimension: int, *, flat_limit: int = FLAT_LIMIT) -> None:
        self.dimension = dimension
        self._flat_limit = flat_limit
        self._rows: NDArray[np.float32] = np.zeros((0, dimension), dtype=np.float32)
        self._has: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._ivf: Any = None
        self._ivf_covers: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def __len__(self) -> int:
        """Slots that have a vector."""
        return int(self._has.sum())

    @property
    def approximate(self) -> bool:
        """Whether searches go through FAISS's inverted file."""
        return self._ivf is not None

    def has(self, slot: int) -> bool:
        return 0 <= slot < len(self._has) and bool(self._has[slot])

    def vector(self, slot: int) -> NDArray[np.float32]:
        """The vector of a slot that has one."""
        row: NDArray[np.float32] = self._rows[slot]
        return row

    def put(self, slots: Iterable[int], vectors: NDArray[np.float32]) -> None:
        """Set the vectors of slots; unit vectors, ``[n, dimension]``."""
        numbers = np.fromiter(slots, dtype=np.int64)
        if not len(numbers):
            return
        self._grow(int(numbers.max()) + 1)
        self._rows[numbers] = vectors
        self._has[numbers] = True
        self._ivf_covers[numbers] = False

    def remove(self, slots: Iterable[int]) -> None:
        """Take the vectors of slots out; a slot without one is passed over."""
        for slot in slots:
            if self.has(slot):
                self._has[slot] = False
                self._rows[slot] = 0.0
                self._ivf_covers[slot] = False

    def matrix(self, slots: int) -> NDArray[np.float32]:
        """The vectors of the first ``slots`` slots, zeros where there is none. A view: do not change it."""
        self._grow(slots)
        return self._rows[:slots]

    def covered(self, slots: int) -> NDArray[np.bool_]:
        """Which of the first ``slots`` slots have a vector. A view."""
        self._grow(slots)
        return self._has[:slots]

    def scores(
        self,
        queries: NDArray[np.float32],
        slots: int,
        allowed: NDArray[np.bool_] | None = None,
        *,
        mean: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Cosines, ``[len(queries), slots]``; a slot without a vector has the lowest score of its row.

        :param allowed: the slots that may be found; it matters to an approximate search, which then
            looks for its neighbours among these alone.
        :param mean: weights of the queries. With them there is one more row, the first, for their mean.
        """
        self._grow(slots)
        if mean is not None:
            mean = mean / np.maximum(np.linalg.norm(mean @ queries), np.float32(1e-9))
        if self._ivf is None:
            out = self._exact(queries, slots, mean)
        else:
            rows = queries if mean is None else np.vstack([(mean @ queries)[None], queries])
            out = self._near(rows, slots, allowed)
        missing = ~self._has[:slots]
        if missing.any():
            out[:, missing] = out[:, ~missing].min(axis=1, keepdims=True) if not missing.all() else 0.0
        return out

    def wanting(self) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """The slots and vectors to build an inverted file of; None where it would not pay or is there.

        It takes seconds to build: call `inverted` with these outside the lock, then `adopt` inside it.
        """
        count = len(self)
        newer = count - int((self._has & self._ivf_covers).sum())
        if count < self._flat_limit or (self._ivf is not None and newer < 0.2 * count):
            return None
        ids = np.flatnonzero(self._has).astype(np.int64)
        return ids, self._rows[ids]

    def adopt(self, ivf: Any, ids: NDArray[np.int64]) -> None:
        """Search through a FAISS index whose ids are slots, whose vectors are those of the slots ``ids``.

        A slot that was emptied meanwhile stays empty: slots are given out once, and never for another tool.
        """
        ivf.nprobe = max(1, int(_PROBED * ivf.nlist))
        self._ivf = ivf
        self._ivf_covers[:] = False
        self._ivf_covers[ids] = True

    def _exact(
        self, queries: NDArray[np.float32], slots: int, mean: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        # Block by block, so that a block stays in the processor's cache for all the queries; and vector by
        # vector, because BLAS multiplies by a few columns slower than by so many vectors.
        first = 0 if mean is None else 1
        out = np.empty((first + len(queries), slots), dtype=np.float32)
        for start in range(0, slots, _BLOCK):
            block = self._rows[start : min(slots, start + _BLOCK)]
            for row, query in enumerate(queries, first):
                np.dot(block, query, out=out[row, start : start + len(block)])
        if mean is not None:
            np.dot(mean, out[1:], out=out[0])  # a product is linear: no need to read the rows once more
        return out

    def _near(
        self, queries: NDArray[np.float32], slots: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        faiss = _faiss()
        may = self._ivf_covers[:slots] if allowed is None else self._ivf_covers[:slots] & allowed
        selector = faiss.IDSelectorBitmap(np.packbits(may, bitorder="little"))
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=self._ivf.nprobe)
        found, ids = self._ivf.search(queries, NEIGHBOURS, params=parameters)
        newer = np.flatnonzero(self._has[:slots] & ~self._ivf_covers[:slots])
        out = np.empty((len(queries), slots), dtype=np.float32)
        for row, query in enumerate(queries):
            hits = ids[row] >= 0
            out[row] = found[row][hits].min() if hits.any() else 0.0
            out[row, ids[row][hits]] = found[row][hits]
            if len(newer):
                out[row, newer] = self._rows[newer] @ query
        return out

    def _grow(self, slots: int) -> None:
        have = len(self._has)
        if slots <= have:
            return
        size = max(slots, have + have // 4 if have else slots)
        rows = np.zeros((size, self.dimension), dtype=np.float32)
        rows[:have] = self._rows
        self._rows = rows
        for name in ("_has", "_ivf_covers"):
            mask = np.zeros(size, dtype=np.bool_)
            mask[:have] = getattr(self, name)
            setattr(self, name, mask)


def inverted(ids: NDArray[np.int64], rows: NDArray[np.float32]) -> Any:
    """A FAISS inverted file over rows, 4 sqrt(n) lists. 16 s of CPU for 65,000 rows of 384.

    :raises ImportError: faiss is not installed.
    """
    faiss = _faiss()
    count, dimension = rows.shape
    lists = int(4 * np.sqrt(count))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(rows[np.sort(np.random.default_rng(0).permutation(count)[: 64 * lists])])
    index.add_with_ids(rows, ids)
    return index
