"""A radix tree of pages: sequences with one prefix share its keys and values.

RadixAttention (Zheng et al., "SGLang", NeurIPS 2024) with a stride of one page, and with one change: a
prompt's pages enter the tree when the sequence is *admitted*, marked as not ready and owned by it. A second
request with the same prefix, arriving while the first still computes, finds those nodes, locks them and
waits; page by page it takes over what the owner finishes. So simultaneous cold requests compute a common
prefix once. If the owner leaves (cancelled, preempted), a waiter takes its place.

Facts that the code leans on: a sequence locks the whole path from the root, so `locks` never grows
downwards; pages are computed in order, so a ready node has only ready ancestors. Hence every unlocked node
can be evicted leaf by leaf, and unlocked nodes that are not ready have no ready children and vanish at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from inference.cache.base import Node, PrefixCache
from inference.cache.pages import PagePool
from inference.errors import CacheIntegrityError
from inference.sequence import Sequence


class RadixCache(PrefixCache):
    def __init__(self, pool: PagePool) -> None:
        super().__init__(pool)
        self._roots: dict[str, Node] = {}
        self._unlocked = 0  # nodes with no lock: what eviction could free
        self._clock = 0
        self._lru: list[tuple[int, int, Node]] = []  # (stamp, tiebreak, leaf), entries may be stale
        self._pushes = 0

    @property
    def available(self) -> int:
        return self.pool.free + self._unlocked

    # ------------------------------------------------------------------ admission
    def admit(self, seq: Sequence, reserve: int) -> bool:
        size, tokens = self.pool.size, seq.tokens
        # The last token is always computed, since its logits are wanted: it never comes from the tree.
        shareable = (len(tokens) - 1) // size
        root = self._roots.get(seq.request.namespace)
        found: list[Node] = []
        node = root
        while node is not None and len(found) < shareable:
            start = len(found) * size
            node = node.children.get(tuple(tokens[start : start + size]))
            if node is not None:
                found.append(node)
        need = self.pool.pages_for(len(tokens)) - len(found)
        locked_now = sum(1 for n in found if n.locks == 0)
        if need + reserve > self.available - locked_now:
            return False
        if root is None:
            root = self._new_root(seq.request.namespace)
        root.locks += 1
        for n in found:
            self._lock(n)
        self._evict(need - self.pool.free)
        parent = found[-1] if found else root
        for i in range(len(found), shareable):
            child = Node(
                tuple(tokens[i * size : (i + 1) * size]), self.pool.take(), parent, owner=seq, locks=1
            )
            parent.children[child.key] = child
            found.append(child)
            parent = child
        seq.path = found
        seq.pages = [n.page for n in found]
        seq.pages += [self.pool.take() for _ in range(self.pool.pages_for(len(tokens)) - len(found))]
        seq.computed, seq.share = 0, True
        if not seq.preemptions:
            self.stats.prompt_tokens += seq.prompt_length
        self.runnable(seq)
        return True

    def runnable(self, seq: Sequence) -> int:
        size, path = self.pool.size, seq.path
        index = seq.computed // size
        while index < len(path) and path[index].ready:
            gained = (index + 1) * size - seq.computed
            seq.computed += gained
            if not seq.preemptions:
                seq.cached += gained
                self.stats.cached_tokens += gained
            index += 1
        end = index
        while end < len(path) and self._claim(path[end], seq):
            end += 1
        limit = len(seq.tokens) if end == len(path) else end * size
        return max(0, limit - seq.computed)

    @staticmethod
    def _claim(node: Node, seq: Sequence) -> bool:
        """Own a page to compute: one of ours, an orphan, or one whose owner is less urgent than we are
        (else an urgent request would wait behind a patient one: priority inversion)."""
        if node.owner is None or node.owner.request.priority > seq.request.priority:
            node.owner = seq
        return node.owner is seq

    # ------------------------------------------------------------------ running
    def grow(self, seq: Sequence, tokens: int) -> bool:
        need = self.pool.pages_for(tokens) - len(seq.pages)
        if need > self.available:
            return False
        if need > 0:
            self._evict(need - self.pool.free)
            seq.pages += [self.pool.take() for _ in range(need)]
        return True

    def commit(self, seq: Sequence, computed: int) -> None:
        size = self.pool.size
        for index in range(seq.computed // size, computed // size):
            if index < len(seq.path):
                node = seq.path[index]
                node.ready, node.owner, node.computed_by = True, None, seq.arrival
            elif seq.share:
                self._share(seq, index)
        seq.computed = computed

    def _share(self, seq: Sequence, index: int) -> None:
        """A private page is full: put it into the tree, or use the tree's copy if there is one."""
        size = self.pool.size
        parent = seq.path[-1] if seq.path else self._roots[seq.request.namespace]
        key = tuple(seq.tokens[index * size : (index + 1) * size])
        node = parent.children.get(key)
        if node is None:
            node = Node(key, seq.pages[index], parent, ready=True, locks=1, computed_by=seq.arrival)
            parent.children[key] = node
        elif node.ready:
            self._lock(node)
            self.pool.give([seq.pages[index]])
            seq.pages[index] = node.page
        else:  # somebody is computing it right now: keep ours, stay private from here on
            seq.share = False
            return
        seq.path.append(node)

    # ------------------------------------------------------------------ leaving
    def release(self, seq: Sequence, *, keep: bool = True) -> list[int]:
        freed = seq.pages[len(seq.path) :]
        self.pool.give(freed)
        self._clock += 1
        for node in reversed(seq.path):
            if node.owner is seq:
                node.owner = None
            node.locks -= 1
            node.stamp = self._clock
            if node.locks:
                continue
            self._unlocked += 1
            distrusted = not keep and node.computed_by == seq.arrival
            if not node.children and (not node.ready or distrusted):
                freed.append(self._remove(node))
            elif not node.children:
                self._push(node)
        self._roots[seq.request.namespace].locks -= 1
        seq.pages, seq.path, seq.computed = [], [], 0
        return freed

    def _lock(self, node: Node) -> None:
        if node.locks == 0:
            self._unlocked -= 1
        node.locks += 1

    def _push(self, node: Node) -> None:
        self._pushes += 1
        heapq.heappush(self._lru, (node.stamp, self._pushes, node))

    def _remove(self, node: Node) -> int:
        parent = node.parent
        assert parent is not None
        del parent.children[node.key]
        node.parent = None
        self._unlocked -= 1
        self.pool.give([node.page])
        return node.page

    def _evict(self, count: int) -> None:
        """Free `count` pages, least recently used leaves first."""
        while count > 0:
            if not self._lru:
                raise CacheIntegrityError("eviction found fewer pages than the books promise")
            stamp, _, node = heapq.heappop(self._lru)
            parent = node.parent
            if parent is None or node.locks or node.children or node.stamp != stamp:
                continue  # a stale entry: removed, used again, or no leaf any more
            self._remove(node)
            self.stats.evicted_pages += 1
            count -= 1
            if parent.parent is not None and not parent.children and not parent.locks:
                self._push(parent)

    def _new_root(self, namespace: str) -> Node:
        """Start a namespace; now and then forget those that hold nothing, so that tenants cost no memory."""
        if len(self._roots) >= 64:
            self._roots = {name: r for name, r in self._roots.items() if r.children or r.locks}
        root = self._roots[namespace] = Node((), -1, None, ready=True)
        return root

    # ------------------------------------------------------------------ books
    def nodes(self) -> Iterator[Node]:
        stack = [child for root in self._roots.values() for child in root.children.values()]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check(self, running: Iterable[Sequence]) -> None:
        running = list(running)
        locks: dict[int, int] = {}
        private: list[int] = []
        for seq in running:
            parent: Node | None = self._roots.get(seq.request.namespace)
            for i, node in enumerate(seq.path):
                locks[id(node)] = locks.get(id(node), 0) + 1
                if node.parent is not parent or node.page != seq.pages[i]:
                    raise CacheIntegrityError(f"{seq.request.id}: page {i} is not where its path says")
                parent = node
            private += seq.pages[len(seq.path) :]
            if self.pool.pages_for(seq.computed) > len(seq.pages):
                raise CacheIntegrityError(f"{seq.request.id}: computed {seq.computed} tokens without pages")
        in_tree, unlocked = [], 0
        for node in self.nodes():
            in_tree.append(node.page)
            unlocked += node.locks == 0
            if node.locks != locks.get(id(node), 0):
                raise CacheIntegrityError(
                    f"page {node.page}: {node.locks} locks, {locks.get(id(node), 0)} holders"
                )
            if node.ready and node.parent is not None and not node.parent.ready:
                raise CacheIntegrityError(f"page {node.page} is ready before its parent")
            if not node.ready and node.locks == 0:
                raise CacheIntegrityError(f"page {node.page} waits for nobody")
            if node.owner is not None and (node.ready or not any(node.owner is s for s in running)):
                raise CacheIntegrityError(f"page {node.page} is owned by a sequence that is not computing it")
        if unlocked != self._unlocked:
            raise CacheIntegrityError(f"{self._unlocked} unlocked pages in the books, {unlocked} in the tree")
        everything = sorted([*in_tree, *private, *self.pool.free_pages()])
        if everything != list(range(self.pool.count)):
            raise CacheIntegrityError("pages are lost or held twice")
