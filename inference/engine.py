"""The engine: tokens in, tokens out, one step at a time.

A step is: schedule, build a batch, run the model, sample, write the results back. Nothing here waits, nothing
here knows of HTTP; `inference.service` gives it a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from inference.batch import Batch, wanted_rows
from inference.cache import NaiveCache, PagePool, RadixCache
from inference.pace import Pace
from inference.runner import ModelRunner
from inference.sampling import Row, Sampled, Sampler, TokenLogprob
from inference.scheduler import Chunk, Limits, Scheduler, Step
from inference.sequence import Finish, Request, Sequence
from inference.speculate import PromptLookup


@dataclass(frozen=True, slots=True)
class Output:
    """News of one request: tokens since the last news, and how it ended if it did."""

    request_id: str
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None
    cached: int = 0  # prompt tokens that came from the cache
    error: str | None = None


@dataclass(slots=True)
class EngineStats:
    steps: int = 0
    prompt_tokens: int = 0  # computed, not taken from the cache
    decode_tokens: int = 0
    forced_tokens: int = 0  # appended by jump-forward, without sampling
    forward_seconds: float = 0.0
    step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    max_running: int = 64
    max_waiting: int = 512
    step_tokens: int | None = None  # default and most: what the runner has buffers for
    prefix_cache: bool = True
    speculate: bool = True
    stretch: float = 1.9  # how much longer prompts may make a step in which others decode (pace.py)
    check_cache: bool = False  # verify the cache's books after every step (tests)
    seed: int | None = None


@dataclass(slots=True)
class _Rows:
    """The logit rows of a step, by chunk."""

    rows: list[Row] = field(default_factory=list)
    first: dict[Sequence, int] = field(default_factory=dict)


class Engine:
    def __init__(
        self,
        runner: ModelRunner,
        config: EngineConfig = EngineConfig(),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner, self.config, self.clock = runner, config, clock
        pool = PagePool(runner.pages, runner.page_size)
        cache = RadixCache(pool) if config.prefix_cache else NaiveCache(pool)
        room = runner.config.step_tokens
        if config.step_tokens is not None and config.step_tokens > room:
            raise ValueError(f"step_tokens {config.step_tokens} exceeds the runner's {room}")
        limits = Limits(config.step_tokens or room, config.max_running, config.max_waiting, runner.context)
        pace = Pace(config.stretch, runner.kernels.granule)
        self.scheduler = Scheduler(cache, limits, pace)
        self.sampler = Sampler(config.seed)
        self.speculator = PromptLookup() if config.speculate else None
        self.stats = EngineStats()
        self.eos = frozenset(runner.model_config.eos)
        self._sequences: dict[str, Sequence] = {}
        self._mask_words = -(-runner.model_config.vocabulary // 32)

    # ------------------------------------------------------------------ requests
    def add(self, request: Request) -> Sequence:
        """Queue a request. Raises what `Scheduler.add` raises."""
        seq = self.scheduler.add(request)
        self._sequences[request.id] = seq
        return seq

    def cancel(self, request_id: str) -> None:
        """End a request now, wherever it is; unknown or finished ones are left alone."""
        if (seq := self._sequences.get(request_id)) is not None:
            self._end(seq, Finish.CANCELLED)

    @property
    def idle(self) -> bool:
        return self.scheduler.idle

    def _end(self, seq: Sequence, reason: Finish, *, keep: bool = True) -> list[int]:
        self._sequences.pop(seq.request.id, None)
        if self.speculator:
            self.speculator.forget(seq)
        return self.scheduler.finish(seq, reason, keep=keep)

    # ------------------------------------------------------------------ a step
    def step(self) -> list[Output]:
        """Advance everything that can advance; returns what is new."""
        began = time.perf_counter()
        if self.speculator:
            self.speculator.propose(self.scheduler.running)
        step = self.scheduler.schedule(self.clock())
        outputs = []
        for seq in step.expired:
            self._end(seq, Finish.DEADLINE)
            outputs.append(Output(seq.request.id, (), finish=Finish.DEADLINE, cached=seq.cached))
        if step.chunks:
            outputs += self._compute(step, began)
        if self.config.check_cache:
            self.scheduler.cache.check(self.scheduler.running)
        return outputs

    def _compute(self, step: Step, began: float) -> list[Output]:
        batch = Batch.of(step, self.runner.page_size)
        wanted = self._rows(step.chunks)
        before = time.perf_counter()
        logits = self.runner.forward(batch)
        forward = time.perf_counter() - before
        sampled = self.sampler.sample(logits, wanted.rows) if wanted.rows else Sampled([], [], [])
        outputs = []
        for chunk in step.chunks:
            at = wanted.first.get(chunk.seq)
            if at is None:
                self.scheduler.commit(chunk)
            else:
                outputs.append(self._advance(chunk, sampled, at))
        self._account(step, forward, time.perf_counter() - began)
        return outputs

    def _rows(self, chunks: Iterable[Chunk]) -> _Rows:
        wanted = _Rows()
        for chunk in chunks:
            count = wanted_rows(chunk)
            if not count:
                continue
            seq, params = chunk.seq, chunk.seq.request.params
            wanted.first[seq] = len(wanted.rows)
            mask = None
            if seq.request.matcher is not None:
                mask = np.zeros(self._mask_words, np.int32)
                seq.request.matcher.fill(mask)
            position = len(seq.tokens)
            for i in range(count):
                early = seq.output_length + i < params.min_tokens and not params.ignore_eos and mask is None
                wanted.rows.append(Row(params, position + i, mask, tuple(self.eos) if early else ()))
        return wanted

    def _advance(self, chunk: Chunk, sampled: Sampled, at: int) -> Output:
        """Take the sampled tokens of one sequence, as far as its draft was right and nothing ends it."""
        seq, draft = chunk.seq, chunk.draft
        if not all(sampled.finite[at : at + 1 + len(draft)]):
            return self._poisoned(seq, chunk)
        new = [sampled.tokens[at]]
        accepted = 0
        while accepted < len(draft) and draft[accepted] == new[-1]:
            accepted += 1
            new.append(sampled.tokens[at + accepted])
        if self.speculator:
            self.speculator.result(seq, len(draft), accepted)
        finish, error = None, None
        for i, token in enumerate(new):
            finish, error = self._verdict(seq, token, seq.output_length + i + 1)
            if finish:
                new = new[: i + 1]
                break
        accepted = min(accepted, len(new) - 1)
        # Pages are shared under the tokens they hold, so accepted drafts must be in the sequence by then.
        seq.tokens += new[:accepted]
        self.scheduler.commit(chunk, accepted)
        self.scheduler.append(seq, new[accepted:])
        forced: list[int] = []
        # A forced token has no row of logits, so who wants log-probabilities computes it like any other.
        if seq.request.matcher is not None and finish is None and seq.request.params.logprobs is None:
            forced, finish = self._jump(seq)
        logprobs = tuple(p for p in sampled.logprobs[at : at + len(new)] if p is not None)
        if finish:
            self._end(seq, finish)
        return Output(seq.request.id, (*new, *forced), logprobs, finish, seq.cached, error)

    def _verdict(self, seq: Sequence, token: int, length: int) -> tuple[Finish | None, str | None]:
        """Whether a sequence ends with this token as its `length`th output."""
        params, matcher = seq.request.params, seq.request.matcher
        if matcher is not None:
            if token in self.eos:  # the mask allows it only where the output is complete
                return Finish.STOP, None
            if not matcher.accept(token):
                return (
                    Finish.ERROR,
                    matcher.fault or f"Token {token} is not allowed, although its mask was set.",
                )
            if matcher.done:
                return Finish.STOP, None
        if token in params.stop_token_ids or (token in self.eos and not params.ignore_eos):
            return Finish.STOP, None
        return (Finish.LENGTH, None) if length >= params.max_tokens else (None, None)

    def _jump(self, seq: Sequence) -> tuple[list[int], Finish | None]:
        """Append what the grammar forces: those tokens are computed together, and none is sampled."""
        matcher = seq.request.matcher
        assert matcher is not None
        room = seq.request.params.max_tokens - seq.output_length
        forced: list[int] = []
        for token in matcher.forced()[:room]:
            if not matcher.accept(token):
                break
            forced.append(token)
        if forced:
            self.scheduler.append(seq, forced)
            self.stats.forced_tokens += len(forced)
        if matcher.done:
            return forced, Finish.STOP
        return forced, Finish.LENGTH if len(forced) == room else None

    def _poisoned(self, seq: Sequence, chunk: Chunk) -> Output:
        """Logits are not finite: end this sequence alone, and let nobody reuse what it computed."""
        freed = self._end(seq, Finish.ERROR, keep=False)
        self.runner.scrub(freed)
        message = "The model produced values that are not finite for this request."
        return Output(seq.request.id, (), finish=Finish.ERROR, cached=seq.cached, error=message)

    def _account(self, step: Step, forward: float, total: float) -> None:
        s = self.stats
        s.steps += 1
        s.prompt_tokens += step.prompt_tokens
        s.decode_tokens += step.decode_tokens
        s.forward_seconds += forward
        s.step_seconds += total
        self.scheduler.pace.observe(step.work, total)
        if self.speculator and not step.prompt_tokens:
            self.speculator.observe(step.decode_tokens > len(step.chunks), total)

    # ------------------------------------------------------------------ without a server
    def generate(self, requests: Iterable[Request]) -> dict[str, list[int]]:
        """Run requests to their end; the output tokens of each, by request id."""
        results: dict[str, list[int]] = {}
        for request in requests:
            self.add(request)
            results[request.id] = []
        while not self.idle:
            for output in self.step():
                results[output.request_id] += output.tokens
        return results

    def logits(self, tokens: list[int]) -> Tensor:
        """Logits [T, vocabulary] after each token of one sequence, from an idle engine (evaluation)."""
        assert self.idle, "logits() borrows the page pool: run it while nothing else does"
        size = self.runner.page_size
        pages = np.arange(-(-len(tokens) // size), dtype=np.int32)
        position = np.arange(len(tokens), dtype=np.int32)
        starts = np.array([0, len(tokens)], np.int32)
        cache = self.scheduler.cache
        if cache.available != cache.pool.free:
            raise RuntimeError("logits() would overwrite cached prefixes; use a fresh engine")
        batch = Batch(
            np.array(tokens, np.int32), position, position.copy(), starts, pages[None], position.copy()
        )
        return self.runner.forward(batch).clone()
