"""Words to stems: *booking*, *books* and *booked* to *book* (Porter's second English stemmer)."""

from __future__ import annotations

import threading
from functools import lru_cache

import snowballstemmer

_stemmer = snowballstemmer.stemmer("english")
_lock = threading.Lock()  # a stemmer works on its own state


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The stem of a lower-case word; a word of another script comes back as it is."""
    with _lock:
        return str(_stemmer.stemWord(word))
