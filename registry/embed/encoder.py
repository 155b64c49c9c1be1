"""The seam of embedding: what search and sync need of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Encoder(Protocol):
    """Turns texts into unit vectors. Safe to call from any thread."""

    @property
    def model(self) -> str:
        """Which model at which weights and text format: vectors of different ones do not compare."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of requests, ``[len(texts), dimension]``, float32."""

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of tools' texts, ``[len(texts), dimension]``, float32."""
