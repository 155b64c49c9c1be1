"""Vectors in the store: one per server, definition, and model; each with a checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.store import Store, upsert

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Key = tuple[str, str]
"""(server, definition hash): a tool's text names its server, so its vector belongs to both."""

_ROWS: Final = 200
"""Keys asked for in one statement; SQLite bounds the variables of one (SQLITE_MAX_VARIABLE_NUMBER)."""
_ALL: Final = 2000
"""From so many keys on, reading every vector of the model is quicker than asking for each."""


class VectorRecords:
    """The vectors of one model in a store. Every method is one transaction; all raise StoreError.

    A vector that is damaged (wrong size, wrong checksum, not finite, no length) is never returned: it
    counts as missing, and is embedded again.
    """

    def __init__(self, store: Store, model: str, dimension: int) -> None:
        self._store = store
        self.model = model
        self.dimension = dimension

    def get(self, keys: Iterable[Key]) -> tuple[dict[Key, NDArray[np.float32]], list[Key]]:
        """The sound vectors there are of these keys, and the keys whose vector is damaged."""
        wanted = list(dict.fromkeys(keys))
        table = schema.vectors.c
        columns = select(table.server, table.hash, table.dimension, table.checksum, table.vector)
        columns = columns.where(table.model == self.model)
        rows: list[tuple[str, str, int, int, bytes]] = []
        with self._store.reading() as connection:
            if len(wanted) >= _ALL:
                asked = set(wanted)
                rows = [tuple(r) for r in connection.execute(columns) if (r[0], r[1]) in asked]
            else:
                for start in range(0, len(wanted), _ROWS):
                    part = columns.where(tuple_(table.server, table.hash).in_(wanted[start : start + _ROWS]))
                    rows.extend(tuple(r) for r in connection.execute(part))
        found: dict[Key, NDArray[np.float32]] = {}
        damaged: list[Key] = []
        for server, digest, dimension, checksum, data in rows:
            vector = self._sound(dimension, checksum, data)
            if vector is None:
                damaged.append((server, digest))
            else:
                found[server, digest] = vector
        return found, damaged

    def put(self, keys: Sequence[Key], vectors: NDArray[np.float32]) -> None:
        """Keep vectors, ``[len(keys), dimension]``. Raises ValueError for wrong shapes or null vectors."""
        import numpy as np

        if vectors.shape != (len(keys), self.dimension):
            raise ValueError(f"vectors of shape {vectors.shape} for {len(keys)} keys of {self.dimension}")
        if not np.isfinite(vectors).all() or (keys and not np.linalg.norm(vectors, axis=1).min() > 0.5):
            raise ValueError("a vector is null or not finite")
        blobs = [row.tobytes() for row in np.ascontiguousarray(vectors, dtype="<f4")]
        rows = [
            {
                "server": server,
                "hash": digest,
                "model": self.model,
                "dimension": self.dimension,
                "checksum": zlib.crc32(blob),
                "vector": blob,
            }
            for (server, digest), blob in zip(keys, blobs, strict=True)
        ]
        if rows:
            with self._store.writing() as connection:
                connection.execute(upsert(insert(schema.vectors), "server", "hash", "model"), rows)

    def prune(self) -> int:
        """Delete vectors of versions that no server offers now, of this model. Returns how many."""
        table, tool = schema.vectors.c, schema.tools.c
        offered = select(tool.server).where(tool.server == table.server, tool.hash == table.hash).exists()
        with self._store.writing() as connection:
            done = connection.execute(delete(schema.vectors).where(table.model == self.model, ~offered))
            return done.rowcount

    def _sound(self, dimension: int, checksum: int, data: bytes) -> NDArray[np.float32] | None:
        import numpy as np

        if dimension != self.dimension or len(data) != 4 * dimension or zlib.crc32(data) != checksum:
            return None
        # `put` refuses null and infinite vectors, so a right checksum means a sound one.
        return np.frombuffer(data, dtype="<f4")
