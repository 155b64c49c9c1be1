"""A fixed pool of KV pages (PagedAttention: Kwon et al., SOSP 2023)."""

from __future__ import annotations

from collections.abc import Iterable

from inference.errors import CacheIntegrityError


class PagePool:
    """Hands out page numbers `0 .. count-1`; a page holds `size` consecutive tokens of one sequence.

    A stack, so that a page just freed (and still warm in the CPU's caches) is the next one used.
    """

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError(f"a page pool needs at least one page of one token, got {count} x {size}")
        self.count = count
        self.size = size
        self._free = list(range(count - 1, -1, -1))
        self._is_free = bytearray(b"\x01" * count)

    @property
    def free(self) -> int:
        return len(self._free)

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.size)

    def take(self) -> int:
        if not self._free:
            raise CacheIntegrityError("took a page from an empty pool; callers check `free` first")
        page = self._free.pop()
        self._is_free[page] = 0
        return page

    def give(self, pages: Iterable[int]) -> None:
        for page in pages:
            if self._is_free[page]:
                raise CacheIntegrityError(f"page {page} was freed twice")
            self._is_free[page] = 1
            self._free.append(page)

    def free_pages(self) -> set[int]:
        """The free pages, for the integrity check."""
        return set(self._free)
