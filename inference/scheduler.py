"""Who computes what in the next step: one token budget, spent in Sarathi order.

Decodes first (each token of theirs is somebody reading), then prompts already begun, then the waiting
queue (Agrawal et al., "Sarathi-Serve", OSDI 2024; the same idea as DeepSpeed-FastGen's SplitFuse). Long
prompts are cut into chunks that fill what the decodes leave. When pages run out, the least urgent running
sequence gives its pages back and recomputes later (vLLM's preemption by recompute); what it had finished
stays in the radix tree, so the recomputation is usually a prefix hit.

No torch and no clock of its own: the caller passes the time, so every schedule can be replayed in a test.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from inference.cache.base import PrefixCache
from inference.errors import ContextTooLongError, QueueFullError
from inference.pace import Grant, Pace, Work, prompt_pairs
from inference.sequence import Finish, Request, Sequence, Status


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the scheduler; every queue and every step has one."""

    step_tokens: int = 512
    max_running: int = 64
    max_waiting: int = 512
    max_context: int = 32768

    def __post_init__(self) -> None:
        if self.max_running > self.step_tokens:
            raise ValueError(
                "step_tokens must be at least max_running: each decode needs a token of the budget"
            )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute `tokens[start : start + count]` of `seq`, then `draft` speculated tokens after them.

    `sample` says whether the chunk reaches the end of the known tokens, so that its logits are wanted.
    """

    seq: Sequence
    start: int
    count: int
    draft: tuple[int, ...] = ()

    @property
    def sample(self) -> bool:
        return self.start + self.count == len(self.seq.tokens)

    @property
    def size(self) -> int:
        return self.count + len(self.draft)


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass, and the sequences that ended without one."""

    chunks: tuple[Chunk, ...]
    expired: tuple[Sequence, ...]
    decode_tokens: int
    prompt_tokens: int
    work: Work


def _work(chunks: Iterable[Chunk]) -> Work:
    tokens = context = pairs = 0
    for chunk in chunks:
        tokens += chunk.size
        if chunk.seq.decoding:
            context += chunk.start + chunk.size
        else:
            pairs += prompt_pairs(chunk.start, chunk.size)
    return Work(tokens, context, pairs)


@dataclass(slots=True)
class SchedulerStats:
    preemptions: int = 0
    finished: dict[Finish, int] = field(default_factory=dict)


class Scheduler:
    def __init__(self, cache: PrefixCache, limits: Limits = Limits(), pace: Pace | None = None) -> None:
        self.cache = cache
        self.limits = limits
        self.pace = pace or Pace()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []  # both sorted by urgency
        self.stats = SchedulerStats()
        self._arrivals = 0

    # ------------------------------------------------------------------ coming and going
    def add(self, request: Request) -> Sequence:
        """Queue a request.

        :raises ContextTooLongError: it could never run here, however long it waits.
        :raises QueueFullError: too many wait already.
        """
        self.admissible(request)
        # Together, since a burst waits as a whole until the next step gives the free slots away.
        if len(self.waiting) + len(self.running) >= self.limits.max_waiting + self.limits.max_running:
            raise QueueFullError(
                f"{len(self.waiting)} requests wait already. Try again later.", retry_after=1.0
            )
        seq = Sequence(request, self._arrivals)
        self._arrivals += 1
        insort(self.waiting, seq, key=lambda s: s.urgency)
        return seq

    def admissible(self, request: Request) -> None:
        """Whether a request could ever run here. Reads only constants, so any thread may ask.

        :raises ContextTooLongError: it could not, however long it waits.
        """
        total = len(request.prompt) + request.params.max_tokens
        if not request.prompt:
            raise ContextTooLongError("The prompt is empty: send at least one token.")
        if total > self.limits.max_context:
            raise ContextTooLongError(
                f"{len(request.prompt)} prompt tokens and {request.params.max_tokens} output tokens exceed "
                f"the context of {self.limits.max_context} tokens. Shorten the prompt or lower max_tokens."
            )
        capacity = self.cache.pool.count * self.cache.pool.size
        if total > capacity:
            raise ContextTooLongError(
                f"{total} tokens do not fit the KV cache of {capacity} tokens. Shorten the prompt, lower "
                "max_tokens, or start the server with a larger --kv-tokens."
            )

    def finish(self, seq: Sequence, reason: Finish, *, keep: bool = True) -> list[int]:
        """End a sequence at once and free its pages; returns the pages that became free.

        `keep` false throws away what it computed, instead of leaving it to later prefix hits.
        """
        if seq.status is Status.FINISHED:
            return []
        freed: list[int] = []
        if seq.status is Status.RUNNING:
            self.running.remove(seq)
            freed = self.cache.release(seq, keep=keep)
        else:
            self.waiting.remove(seq)
        seq.status, seq.finish = Status.FINISHED, reason
        self.stats.finished[reason] = self.stats.finished.get(reason, 0) + 1
        return freed

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting

    # ------------------------------------------------------------------ one step
    def schedule(self, now: float) -> Step:
        """Choose the next step's work. `now` is on the clock of the requests' deadlines."""
        expired = self._expire(now)
        chunks: dict[Sequence, Chunk] = {}
        budget = self.limits.step_tokens

        decodes = [s for s in self.running if s.decoding]
        spare = budget - len(decodes)  # what drafts may use beyond the one token that each decode is due
        for seq in decodes:
            if seq.status is not Status.RUNNING:
                continue  # preempted by a more urgent one in this very loop
            count = min(seq.uncomputed, spare + 1)
            if not self._make_room(seq, seq.computed + count, chunks):
                continue
            draft = tuple(seq.draft[: max(0, spare - count + 1)])
            if count < seq.uncomputed or not self.cache.grow(seq, seq.computed + count + len(draft)):
                draft = ()
            chunks[seq] = Chunk(seq, seq.computed, count, draft)
            spare -= count - 1 + len(draft)
        decode_work = _work(chunks.values())

        grant = self.pace.grant(decode_work, spare)
        for seq in list(self.running):
            if not seq.decoding and seq.status is Status.RUNNING and grant.tokens > 0:
                self._prefill(seq, grant, chunks)
        while self.waiting and len(self.running) < self.limits.max_running and grant.tokens > 0:
            seq = self.waiting[0]
            if not self._admit(seq, chunks):
                break  # strictly in order: skipping the head would starve large requests
            self._prefill(seq, grant, chunks)
        self._take_slot_from_less_urgent(chunks)
        work = _work(chunks.values())
        prompt_tokens = sum(c.size for s, c in chunks.items() if not s.decoding)
        return Step(tuple(chunks.values()), tuple(expired), work.tokens - prompt_tokens, prompt_tokens, work)

    def commit(self, chunk: Chunk, accepted: int = 0) -> None:
        """The chunk is computed, and `accepted` of its drafted tokens are now in `seq.tokens`."""
        self.cache.commit(chunk.seq, chunk.start + chunk.count + accepted)

    def append(self, seq: Sequence, tokens: list[int]) -> None:
        """Add sampled (or grammar-forced) tokens to a sequence."""
        seq.tokens += tokens
        seq.decoding = True
        seq.draft.clear()

    # ------------------------------------------------------------------ parts of a step
    def _expire(self, now: float) -> list[Sequence]:
        late = [
            s
            for s in (*self.running, *self.waiting)
            if s.request.deadline is not None and s.request.deadline <= now
        ]
        for seq in late:
            self.finish(seq, Finish.DEADLINE)
        return late

    def _prefill(self, seq: Sequence, grant: Grant, chunks: dict[Sequence, Chunk]) -> None:
        runnable = self.cache.runnable(seq)  # first: it moves `computed` past what others have done
        if runnable and (count := grant.take(seq.computed, runnable)):
            chunks[seq] = Chunk(seq, seq.computed, count)

    def _admit(self, seq: Sequence, chunks: dict[Sequence, Chunk]) -> bool:
        # Keep a page for each running sequence: admitting into the last page would preempt at once.
        while not self.cache.admit(seq, reserve=len(self.running)):
            victim = self.running[-1] if self.running else None
            if victim is None or victim.request.priority <= seq.request.priority:
                return False
            self._preempt(victim, chunks)
        self.waiting.remove(seq)
        seq.status = Status.RUNNING
        insort(self.running, seq, key=lambda s: s.urgency)
        return True

    def _take_slot_from_less_urgent(self, chunks: dict[Sequence, Chunk]) -> None:
        """With all slots taken, a strictly more urgent request displaces the least urgent one (next step)."""
        if (
            self.waiting
            and len(self.running) >= self.limits.max_running
            and self.running[-1].request.priority > self.waiting[0].request.priority
        ):
            self._preempt(self.running[-1], chunks)

    def _make_room(self, seq: Sequence, tokens: int, chunks: dict[Sequence, Chunk]) -> bool:
        """Pages for `tokens` tokens, preempting the least urgent; False if `seq` itself had to go."""
        while not self.cache.grow(seq, tokens):
            victim = self.running[-1]
            self._preempt(victim, chunks)
            if victim is seq:
                return False
        return True

    def _preempt(self, seq: Sequence, chunks: dict[Sequence, Chunk]) -> None:
        chunks.pop(seq, None)
        self.running.remove(seq)
        self.cache.release(seq)
        seq.status, seq.decoding = Status.WAITING, False
        seq.preemptions += 1
        seq.draft.clear()
        self.stats.preemptions += 1
        insort(self.waiting, seq, key=lambda s: s.urgency)
