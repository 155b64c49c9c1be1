"""Pacing on a made-up machine whose costs are known: what it learns, and what it then grants."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from inference.pace import Pace, StepCost, Work, prompt_pairs


class MadeUpMachine:
    """Seconds of a step: a constant, so much a token, a cached token read, and a pair; times some noise."""

    def __init__(
        self, *, noise: float = 0.1, speed: float = 1.0, hiccups: float = 0.02, granule: int = 1
    ) -> None:
        self.rng, self.granule = random.Random(1), granule
        self.noise, self.speed, self.hiccups = noise, speed, hiccups

    def exact(self, work: Work) -> float:
        rows = -(-work.tokens // self.granule) * self.granule
        return (6e-3 + 1e-3 * rows + 1e-6 * work.context + 2e-7 * work.pairs) / self.speed

    def step(self, work: Work) -> float:
        seconds = self.exact(work) * (1 + self.rng.uniform(-self.noise, self.noise))
        return seconds * 5 if self.rng.random() < self.hiccups else seconds


def serve(pace: Pace, machine: MadeUpMachine, *, readers: int, prompt: int) -> tuple[list[float], list[int]]:
    """Compute a prompt beside readers: how much each step was stretched, and the chunks."""
    stretches, chunks, start = [], [], 0
    while start < prompt:
        decodes = Work(readers, readers * (200 + len(chunks)))
        count = pace.grant(decodes, 512 - readers).take(start, prompt - start)
        work = Work(readers + count, decodes.context, prompt_pairs(start, count))
        pace.observe(work, machine.step(work))
        stretches.append(machine.exact(work) / machine.exact(decodes))
        chunks.append(count)
        start += count
    return stretches, chunks


def taught(machine: MadeUpMachine, stretch: float = 1.5) -> Pace:
    """A pace that has seen a prompt alone, and readers alone."""
    pace = Pace(stretch, machine.granule)
    work = Work(400, 0, prompt_pairs(0, 400))
    pace.observe(work, machine.step(work))
    for i in range(40):
        work = Work(4, 4 * (100 + i))
        pace.observe(work, machine.step(work))
    return pace


@pytest.mark.parametrize("stretch", [1.3, 1.5, 2.0])
def test_steps_stay_near_the_stretch_however_long_the_prompt_has_become(stretch: float) -> None:
    machine = MadeUpMachine()
    stretches, chunks = serve(taught(machine, stretch), machine, readers=4, prompt=8000)
    late = stretches[50:]
    assert statistics.median(late) == pytest.approx(stretch, abs=0.12)
    assert sorted(late)[int(len(late) * 0.99)] < stretch + 0.3
    assert statistics.mean(chunks[-64:]) < statistics.mean(chunks[:64]), "attention grows with the prefix"


def test_without_readers_a_prompt_takes_the_whole_budget() -> None:
    grant = taught(MadeUpMachine()).grant(Work(), 512)
    assert grant.take(0, 300) == 300
    assert grant.take(0, 300) == 212
    assert grant.tokens == 0


def test_a_prompt_goes_on_even_where_it_has_no_time() -> None:
    grant = taught(MadeUpMachine(), stretch=1.0).grant(Work(4, 400), 500)
    assert grant.take(2000, 3000) == 1
    assert grant.tokens == 0


def test_short_prompts_share_what_a_step_has_left() -> None:
    pace = taught(MadeUpMachine(noise=0.0, hiccups=0.0), stretch=1.7)
    grant = pace.grant(Work(4, 400), 500)  # 7 ms for prompts, a token costs 1 ms
    counts = []
    while grant.tokens:
        counts.append(grant.take(0, 2))
    assert len(counts) > 2
    assert sum(counts) in range(6, 9)


def test_what_a_step_carries_grows_little_by_little() -> None:
    pace = Pace(stretch=1e9)  # all the time there is
    carried = []
    for _ in range(20):
        carried.append(pace.grant(Work(4, 400), 500).take(0, 4000))
        pace.observe(Work(4 + carried[-1], 400), 0.01)
    assert carried[0] <= 8
    assert carried[-1] > 100
    largest = list(itertools.accumulate(carried, max))
    assert all(now <= max(8, 1.25 * before) for before, now in itertools.pairwise(largest))


def test_prompts_fill_the_rows_that_decodes_have_begun() -> None:
    machine = MadeUpMachine(granule=16)
    readers = 4
    stretches, chunks = serve(taught(machine, 1.3), machine, readers=readers, prompt=3000)
    settled = chunks[20:]
    assert sum((readers + count) % 16 == 0 for count in settled) > 0.8 * len(settled)
    assert statistics.median(stretches[20:]) < 1.3, "only attention costs; a granule more would be 1.7"
    _, chunks = serve(taught(machine, 1.9), machine, readers=readers, prompt=3000)
    assert statistics.median(chunks[20:]) == 28, "two granules but for the readers' four rows"


def test_a_machine_that_slows_down_is_followed() -> None:
    machine = MadeUpMachine(hiccups=0.0)
    pace = taught(machine, 1.5)
    serve(pace, machine, readers=4, prompt=2000)
    machine.speed = 0.3
    for i in range(60):
        work = Work(4, 4 * (300 + i))
        pace.observe(work, machine.step(work))
    stretches, _ = serve(pace, machine, readers=4, prompt=3000)
    assert statistics.median(stretches[150:]) == pytest.approx(1.5, abs=0.15)


def test_hours_of_mixed_steps_do_not_wash_away_what_a_decode_step_costs() -> None:
    machine = MadeUpMachine()
    cost = StepCost()
    for i in range(200):
        for work in (Work(4, 400 + i), Work(4 + i, 0, prompt_pairs(0, i))):
            cost.observe(work, machine.step(work))
    mixed = Work(12, 1000, prompt_pairs(500, 8))
    for _ in range(5000):
        cost.observe(mixed, machine.step(mixed))
    assert cost.seconds(mixed) == pytest.approx(machine.exact(mixed), rel=0.15)
    assert cost.seconds(Work(4, 1000)) == pytest.approx(machine.exact(Work(4, 1000)), rel=0.25)
