"""Which feedback no adapter learns from: what it is judged by, and what search is measured on."""

from __future__ import annotations

import zlib


def held_back(request: str) -> bool:
    """A fifth of all requests, told by their text: the same request is always on the same side."""
    return zlib.crc32(request.strip().lower().encode("utf-8", "replace")) % 5 == 0
