"""The seam between scheduler and KV cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from inference.cache.pages import PagePool
from inference.sequence import Sequence


@dataclass(slots=True, eq=False)
class Node:
    """One shared page: `key` are its tokens, its place in the tree is the prefix before it.

    `locks` counts the sequences whose path goes through it. A node that is not `ready` is being computed
    by `owner`; the others on its path wait for it, or take it over if the owner leaves.
    """

    key: tuple[int, ...]
    page: int
    parent: Node | None
    children: dict[tuple[int, ...], Node] = field(default_factory=dict)
    locks: int = 0
    ready: bool = False
    owner: Sequence | None = None
    computed_by: int = -1  # arrival number of the sequence that filled it
    stamp: int = 0  # last use, on the cache's logical clock


@dataclass(slots=True)
class CacheStats:
    prompt_tokens: int = 0
    cached_tokens: int = 0
    evicted_pages: int = 0


class PrefixCache(ABC):
    """Who holds which page. All methods run on the engine's thread, between forward passes.

    A page is in exactly one place: free, private to one sequence, or in the shared tree.
    """

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.stats = CacheStats()

    @property
    @abstractmethod
    def available(self) -> int:
        """Pages that can be had now, free or by eviction."""

    @abstractmethod
    def admit(self, seq: Sequence, reserve: int) -> bool:
        """Give `seq` pages for all of its tokens, reusing what is there; False if fewer than
        `reserve` pages would be left, and then nothing has changed."""

    @abstractmethod
    def runnable(self, seq: Sequence) -> int:
        """Take over what others have computed, then say how many tokens `seq` may compute now
        (0: it waits for somebody who is computing the same prefix)."""

    @abstractmethod
    def grow(self, seq: Sequence, tokens: int) -> bool:
        """Make room for `tokens` tokens in all; False (and no change) if pages are short."""

    @abstractmethod
    def commit(self, seq: Sequence, computed: int) -> None:
        """Positions below `computed` now hold keys and values."""

    @abstractmethod
    def release(self, seq: Sequence, *, keep: bool = True) -> list[int]:
        """Take all pages from `seq`. With `keep` false nothing it computed stays for others
        (its values are not to be trusted). Returns the pages that went back to the pool."""

    @abstractmethod
    def check(self, running: Iterable[Sequence]) -> None:
        """Raise CacheIntegrityError unless every page is accounted for exactly once."""
