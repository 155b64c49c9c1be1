"""No sharing at all: every sequence has its own pages. The yardstick for the radix cache."""

from __future__ import annotations

from collections.abc import Iterable

from inference.cache.base import PrefixCache
from inference.errors import CacheIntegrityError
from inference.sequence import Sequence


class NaiveCache(PrefixCache):
    @property
    def available(self) -> int:
        return self.pool.free

    def admit(self, seq: Sequence, reserve: int) -> bool:
        need = self.pool.pages_for(len(seq.tokens))
        if need + reserve > self.pool.free:
            return False
        seq.pages = [self.pool.take() for _ in range(need)]
        seq.computed = 0
        if not seq.preemptions:
            self.stats.prompt_tokens += seq.prompt_length
        return True

    def runnable(self, seq: Sequence) -> int:
        return seq.uncomputed

    def grow(self, seq: Sequence, tokens: int) -> bool:
        need = self.pool.pages_for(tokens) - len(seq.pages)
        if need > self.pool.free:
            return False
        seq.pages += [self.pool.take() for _ in range(need)]
        return True

    def commit(self, seq: Sequence, computed: int) -> None:
        seq.computed = computed

    def release(self, seq: Sequence, *, keep: bool = True) -> list[int]:
        freed, seq.pages, seq.computed = seq.pages, [], 0
        self.pool.give(freed)
        return freed

    def check(self, running: Iterable[Sequence]) -> None:
        held = [page for seq in running for page in seq.pages]
        if sorted(held + list(self.pool.free_pages())) != list(range(self.pool.count)):
            raise CacheIntegrityError("pages are lost or held twice")
