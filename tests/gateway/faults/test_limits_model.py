"""Slots and retry budgets: what holds for every order of events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamTimeout
from gateway.upstream.limits import Busy, Slots
from router.budget import BUDGET_RATIO, BUDGET_RESERVE, RetryBudget


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


@settings(max_examples=150)
@given(
    limit=st.integers(1, 4),
    queue=st.integers(0, 4),
    steps=st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel"]), st.integers(0, 20)), max_size=40),
)
def test_slots_are_never_exceeded_never_lost_and_given_in_turn(
    limit: int, queue: int, steps: Sequence[tuple[str, int]]
) -> None:
    async def play() -> None:
        slots = Slots("it", limit, queue)
        inside: list[int] = []
        refused: list[int] = []
        order: list[int] = []
        tasks: dict[int, asyncio.Task[None]] = {}

        async def enter(number: int) -> None:
            try:
                await slots.enter(100)
            except Busy:
                refused.append(number)
                return
            inside.append(number)
            order.append(number)

        waiting: list[int] = []
        for number, (step, pick) in enumerate(steps):
            if step == "enter":
                full = len(inside) >= limit
                expect_refusal = full and len(waiting) >= queue
                tasks[number] = asyncio.create_task(enter(number))
                await turns()
                assert (number in refused) == expect_refusal
                if full and not expect_refusal:
                    waiting.append(number)
            elif step == "leave" and inside:
                inside.pop(pick % len(inside))
                slots.leave()
                await turns()
                if waiting:
                    assert order[-1] == waiting.pop(0)
            elif step == "cancel" and waiting:
                tasks[waiting.pop(pick % len(waiting))].cancel()
                await turns()
            assert slots.in_use == len(inside) <= limit
            assert slots.waiting == len(waiting) <= queue
            assert not (waiting and len(inside) < limit)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for _ in inside:
            slots.leave()
        assert slots.in_use == slots.waiting == 0

    asyncio.run(play())


@pytest.mark.anyio
async def test_a_slot_that_arrives_as_its_waiter_gives_up_is_not_lost() -> None:
    slots = Slots("it", 1)
    await slots.enter(1)
    waiter = asyncio.create_task(slots.enter(100))
    await turns()
    slots.leave()  # the slot is the waiter's now, who is cancelled before it runs
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert slots.in_use == 0
    assert slots.try_enter()


@pytest.mark.anyio
async def test_waiting_too_long_is_a_typed_error_that_leaves_no_trace() -> None:
    slots = Slots("Server 'x'", 1)
    await slots.enter(1)
    with pytest.raises(UpstreamTimeout, match="busy"):
        await slots.enter(0.01)
    assert slots.waiting == 0
    assert slots.in_use == 1


@given(
    st.lists(
        st.one_of(st.just("call"), st.just("retry"), st.floats(0, 100, allow_nan=False)),
        max_size=400,
    )
)
def test_retries_stay_a_share_of_calls_plus_a_reserve_that_time_refills(steps: list[str | float]) -> None:
    now = [50.0]
    budget = RetryBudget(lambda: now[0])
    calls = granted = 0
    for step in steps:
        if step == "call":
            budget.deposit()
            calls += 1
        elif step == "retry":
            granted += budget.withdraw()
        else:
            now[0] += float(step)
        minutes = (now[0] - 50.0) / 60
        assert granted <= BUDGET_RESERVE * (1 + minutes) + BUDGET_RATIO * calls + 1e-6


def test_a_server_that_fails_every_call_is_asked_at_most_a_tenth_more_often() -> None:
    budget = RetryBudget(lambda: 0.0)
    granted = 0
    for _ in range(10_000):
        budget.deposit()
        granted += budget.withdraw()
    assert granted <= 10_000 * BUDGET_RATIO + BUDGET_RESERVE
