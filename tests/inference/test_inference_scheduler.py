"""Scheduler and cache, without a model: a fake memory notes which prefix each KV slot was computed for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cache import NaiveCache, PagePool, PrefixCache, RadixCache
from inference.errors import CacheIntegrityError, ContextTooLongError, QueueFullError
from inference.scheduler import Limits, Scheduler, Step
from inference.sequence import Finish, Request, SamplingParams, Sequence, Status

SIZE = 4


def next_token(tokens: list[int]) -> int:
    """The 'model': a deterministic function of the whole prefix."""
    return hash(tuple(tokens)) % 3


class Machine:
    """Runs a scheduler against a memory of slots; slot -> the prefix whose last token it holds."""

    def __init__(self, pages: int, cache: type[PrefixCache] = RadixCache, **limits: int) -> None:
        self.scheduler = Scheduler(
            cache(PagePool(pages, SIZE)), Limits(**{"step_tokens": 16, "max_running": 8, **limits})
        )
        self.memory: dict[int, int] = {}
        self.computed_tokens = 0
        self.now = 0.0

    def step(self) -> Step:
        self.now += 1.0
        step = self.scheduler.schedule(self.now)
        self.scheduler.cache.check(self.scheduler.running)
        seen = set()
        for chunk in step.chunks:
            seq = chunk.seq
            assert seq.status is Status.RUNNING
            assert seq not in seen
            seen.add(seq)
            assert chunk.start == seq.computed
            known = seq.tokens + list(chunk.draft)
            for i in range(chunk.start + chunk.size):  # everything before the chunk must already be right
                slot = seq.pages[i // SIZE] * SIZE + i % SIZE
                want = hash((seq.request.namespace, tuple(known[: i + 1])))
                if i < chunk.start:
                    assert self.memory[slot] == want, f"{seq.request.id}: position {i} holds a foreign prefix"
                else:
                    self.memory[slot] = want
            self.computed_tokens += chunk.size
        assert sum(c.size for c in step.chunks) <= self.scheduler.limits.step_tokens
        for chunk in step.chunks:
            self.finish_chunk(chunk.seq, chunk.draft, chunk)
        self.scheduler.cache.check(self.scheduler.running)
        return step

    def finish_chunk(self, seq: Sequence, draft: tuple[int, ...], chunk) -> None:
        if not chunk.sample:
            self.scheduler.commit(chunk)
            return
        tokens, accepted = list(seq.tokens), 0
        new = [next_token(tokens)]
        while accepted < len(draft) and draft[accepted] == new[-1]:
            accepted += 1
            new.append(next_token(tokens + new))
        room = seq.request.params.max_tokens - seq.output_length
        new = new[:room]
        accepted = min(accepted, len(new) - 1)
        # the drafted tokens that were accepted are part of the sequence when their pages are shared
        seq.tokens += new[:accepted]
        self.scheduler.commit(chunk, accepted)
        self.scheduler.append(seq, new[accepted:])
        if seq.output_length >= seq.request.params.max_tokens:
            self.scheduler.finish(seq, Finish.LENGTH)

    def run(self, limit: int = 3000) -> None:
        for _ in range(limit):
            if self.scheduler.idle:
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")


def expected(prompt: tuple[int, ...], n: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(next_token(tokens))
    return tokens


def request(name: str, prompt: list[int], n: int = 4, **kw) -> Request:
    return Request(name, tuple(prompt), SamplingParams(max_tokens=n), **kw)


@st.composite
def events(draw: st.DrawFn) -> list[tuple]:
    """Arrivals with a lot of common prefixes, cancellations, steps, drafts."""
    out = []
    for i in range(draw(st.integers(1, 12))):
        stem = draw(st.sampled_from([[], [1] * 8, [1] * 21, [1] * 8 + [2] * 9]))
        tail = draw(st.lists(st.integers(0, 2), min_size=1, max_size=10))
        out.append(
            (
                "add",
                stem + tail,
                draw(st.integers(1, 9)),
                draw(st.sampled_from(["", "tenant"])),
                draw(st.integers(0, 2)),
                draw(st.sampled_from([None, None, 25.0])),
            )
        )
        for _ in range(draw(st.integers(0, 3))):
            out.append(
                draw(st.sampled_from([("step",), ("step",), ("cancel", i), ("draft",), ("distrust", i)]))
            )
    return out


@pytest.mark.parametrize("cache", [RadixCache, NaiveCache])
@settings(max_examples=150)
@given(plan=events(), pages=st.integers(11, 40), budget=st.integers(8, 24))
def test_any_schedule_computes_every_sequence_as_if_it_were_alone(cache, plan, pages, budget) -> None:
    machine = Machine(pages, cache, step_tokens=budget)
    s = machine.scheduler
    seqs: list[Sequence] = []
    for event in plan:
        if event[0] == "add":
            _, prompt, n, namespace, priority, deadline = event
            r = request(str(len(seqs)), prompt, n, namespace=namespace, priority=priority, deadline=deadline)
            seqs.append(s.add(r))
        elif event[0] == "step":
            machine.step()
        elif event[0] == "draft":
            for seq in s.running:
                if seq.decoding:
                    seq.draft = [next_token(seq.tokens), 1, 2]
        else:
            s.finish(seqs[event[1]], Finish.CANCELLED, keep=event[0] == "cancel")
            s.cache.check(s.running)
    machine.run()
    for seq in seqs:
        assert seq.status is Status.FINISHED
        want = expected(seq.request.prompt, seq.request.params.max_tokens)
        assert seq.tokens == want[: len(seq.tokens)]
        if seq.finish is Finish.LENGTH:
            assert len(seq.tokens) == len(want)
    assert s.cache.available == s.cache.pool.count, "pages leaked"


def test_simultaneous_cold_requests_compute_their_common_prefix_once() -> None:
    machine = Machine(200, step_tokens=16)
    stem = [1] * 96
    for i in range(8):
        machine.scheduler.add(request(str(i), [*stem, i, i, i], 1))
    machine.run()
    assert machine.computed_tokens == 96 + 8 * 3


def test_a_waiter_takes_over_when_the_one_who_computes_the_prefix_is_cancelled() -> None:
    machine = Machine(100, step_tokens=8)
    first = machine.scheduler.add(request("a", [1] * 41))
    machine.scheduler.add(request("b", [1] * 41))
    machine.step()
    assert first.computed == 8
    machine.scheduler.finish(first, Finish.CANCELLED)
    machine.run()
    assert machine.computed_tokens == 41 + 3, "what the first had finished was not computed again"


def test_an_urgent_request_does_not_wait_behind_a_patient_owner_of_its_prefix() -> None:
    machine = Machine(100, step_tokens=8)
    patient = machine.scheduler.add(request("patient", [1] * 41, priority=5))
    machine.step()
    urgent = machine.scheduler.add(request("urgent", [1] * 41, priority=0))
    while not urgent.decoding:
        machine.step()
    assert not patient.decoding or patient.computed >= 40
    machine.run()


def test_decodes_are_scheduled_before_prompts_and_prompts_are_cut_to_the_budget() -> None:
    machine = Machine(200, step_tokens=16)
    talker = machine.scheduler.add(request("talker", [1, 2, 3], 30))
    machine.step()
    machine.scheduler.add(request("long", [2] * 100, 2))
    for _ in range(4):
        step = machine.step()
        assert step.chunks[0].seq is talker
        assert step.chunks[0].size == 1
        assert 0 < step.prompt_tokens <= 15


def test_when_pages_run_out_the_least_urgent_recomputes_later() -> None:
    machine = Machine(12, step_tokens=16)
    keep = machine.scheduler.add(request("keep", [1] * 8, 24, priority=0))
    give = machine.scheduler.add(request("give", [2] * 8, 24, priority=1))
    machine.run()
    assert keep.preemptions == 0
    assert give.preemptions >= 1
    assert give.tokens == expected(give.request.prompt, 24)


def test_a_more_urgent_arrival_displaces_a_less_urgent_runner_when_slots_are_full() -> None:
    machine = Machine(100, max_running=1)
    low = machine.scheduler.add(request("low", [1] * 4, 40, priority=3))
    machine.step()
    high = machine.scheduler.add(request("high", [2] * 4, 4, priority=0))
    for _ in range(8):
        machine.step()
    assert high.status is Status.FINISHED
    assert low.status is Status.RUNNING
    machine.run()


def test_a_deadline_ends_a_request_waiting_or_running() -> None:
    machine = Machine(40)
    seq = machine.scheduler.add(request("late", [1] * 4, 30, deadline=3.0))
    machine.step()
    machine.step()
    step = machine.step()
    assert step.expired == (seq,)
    assert seq.finish is Finish.DEADLINE
    assert machine.scheduler.cache.available == 40


def test_least_recently_used_prefixes_are_evicted_first() -> None:
    machine = Machine(12, step_tokens=64)
    for name, token in (("old", 1), ("new", 2)):
        machine.scheduler.add(request(name, [token] * 17, 1))
        machine.run()
    machine.scheduler.add(request("big", [3] * 21, 1))
    machine.run()
    new = machine.scheduler.add(request("new again", [2] * 17, 1))
    machine.step()
    assert new.cached == 16
    assert machine.scheduler.cache.stats.evicted_pages > 0


def test_a_request_that_could_never_fit_is_refused_at_once() -> None:
    machine = Machine(4)
    with pytest.raises(ContextTooLongError, match="--kv-tokens"):
        machine.scheduler.add(request("big", [1] * 16, 4))
    with pytest.raises(ContextTooLongError, match="empty"):
        machine.scheduler.add(request("empty", [], 4))


def test_a_full_queue_says_when_to_come_back() -> None:
    machine = Machine(40, max_waiting=2, max_running=3)
    for i in range(5):
        machine.scheduler.add(request(str(i), [1]))
    with pytest.raises(QueueFullError) as caught:
        machine.scheduler.add(request("5", [1]))
    assert caught.value.retry_after > 0


def test_namespaces_share_nothing() -> None:
    machine = Machine(100)
    for tenant in ("a", "b"):
        machine.scheduler.add(request(tenant, [1] * 17, 1, namespace=tenant))
    machine.run()
    assert machine.computed_tokens == 34


def test_the_integrity_check_finds_a_lost_page() -> None:
    machine = Machine(20)
    seq = machine.scheduler.add(request("a", [1] * 10))
    machine.step()
    seq.pages.pop()
    with pytest.raises(CacheIntegrityError):
        machine.scheduler.cache.check(machine.scheduler.running)


def test_scheduler_and_cache_import_no_torch() -> None:
    code = "import sys, inference.scheduler, inference.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
