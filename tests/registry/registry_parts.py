"""Parts that several tests of the registry share."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from registry.lexical import query_terms


class WordEncoder:
    """A real, small encoder: the sum of one fixed random vector a stem. No model, no files."""

    model = "words@1"
    dimension = 32

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._one(text) for text in texts])

    encode_documents = encode_queries

    def _one(self, text: str) -> NDArray[np.float32]:
        total = np.full(self.dimension, 1e-3, dtype=np.float32)
        for term in query_terms(text):
            seed = int.from_bytes(term.encode()[-8:], "little")
            total += np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
        return (total / np.linalg.norm(total)).astype(np.float32)


def definition(name: str, description: str = "", **properties: object) -> bytes:
    schema = {"type": "object", "properties": properties}
    return json.dumps({"name": name, "description": description, "inputSchema": schema}).encode()
