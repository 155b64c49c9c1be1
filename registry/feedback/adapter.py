"""The query-side adapter: one matrix that moves requests towards the tools that answer them.

Tools' vectors stay as they are, so a new adapter needs no index to be built again. A request q becomes
the unit vector of ``q + q W``: with W = 0 nothing changes, and a little training moves little.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from registry.errors import IndexDamaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAGIC: Final = b"TYADAPT1"


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """A trained matrix.

    :param model: the encoder it belongs to; for another it means nothing.
    :param matrix: W, ``[dimension, dimension]``, float32.
    :param version: 0 for the one that is shipped, then 1, 2 … as they were trained.
    """

    model: str
    matrix: NDArray[np.float32]
    version: int = 0

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Adapted unit vectors, ``[n, dimension]``."""
        import numpy as np

        moved = rows + rows @ self.matrix
        unit: NDArray[np.float32] = moved / np.maximum(
            np.linalg.norm(moved, axis=1, keepdims=True), np.float32(1e-9)
        )
        return unit

    def dump(self) -> bytes:
        """As bytes: a header, the matrix in float16, and a checksum over both."""
        import numpy as np

        header = json.dumps({"model": self.model, "size": len(self.matrix), "version": self.version}).encode()
        data = _MAGIC + len(header).to_bytes(4, "little") + header
        data += np.ascontiguousarray(self.matrix, dtype="<f2").tobytes()
        return data + zlib.crc32(data).to_bytes(4, "little")

    @classmethod
    def load(cls, data: bytes) -> Adapter:
        """From what `dump` made. Raises IndexDamaged."""
        import numpy as np

        try:
            if data[:8] != _MAGIC or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
                raise ValueError("its checksum does not fit")
            end = 12 + int.from_bytes(data[8:12], "little")
            header = json.loads(data[12:end])
            size = int(header["size"])
            matrix = np.frombuffer(data[end:-4], dtype="<f2").reshape(size, size).astype(np.float32)
            if not np.isfinite(matrix).all():
                raise ValueError("it holds numbers that are not finite")
            return cls(str(header["model"]), matrix, int(header["version"]))
        except (ValueError, KeyError, TypeError) as error:
            raise IndexDamaged(
                f"A query adapter cannot be read: {error}.", "Search goes on without it; train it again."
            ) from error


def shipped(model: str) -> Adapter | None:
    """The general adapter that comes with the product, where it is for this model's weights.

    Trained on Seal-Tools (Apache-2.0), MetaTool (MIT) and StableToolBench (Apache-2.0); see
    ``tests/benchmarks/retrieval``, which makes it.
    """
    path = Path(__file__).parent / "general.adapter"
    if not path.is_file():
        return None
    adapter = Adapter.load(path.read_bytes())
    return adapter if adapter.model == model.split("/", 1)[0] else None
