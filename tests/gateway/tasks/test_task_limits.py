"""Tasks in the process: bounded in number and bytes, gone when their time is over, never going back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import jsonrpc
from gateway.bridge import tasks as bridge
from gateway.bridge.tasks import Tasks, TaskSite
from gateway.bridge.taskstate import Status, Suspended, Task
from gateway.errors import UpstreamUnavailable
from gateway.upstream.call import CallCancelled
from registry.errors import StoreError
from registry.store import Store
from registry.tasks import TaskRecords

T = TypeVar("T")
DONE = jsonrpc.result(b"1", b'{"content":[]}')


class House:
    """Tasks over a real store, a clock that is set by hand, and calls that end when they are told."""

    def __init__(self, tasks: Tasks, records: TaskRecords) -> None:
        self.tasks = tasks
        self.records = records
        self.now = 1000.0
        self.changed: list[str] = []
        self.calls: list[asyncio.Future[bytes]] = []
        self.disk_full = False
        self.abandoned: list[Suspended] = []

    async def attempt(self, site: TaskSite, server: str, params: Any, headers: str) -> bytes:
        call: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.calls.append(call)
        site.cancel = lambda reason: call.done() or call.set_exception(CallCancelled(reason))  # type: ignore[method-assign]
        return await call

    def abandon(self, server: str, waiting: Suspended) -> None:
        self.abandoned.append(waiting)

    async def call(self) -> bytes | Task:
        return await self.tasks.call(TaskSite("local"), "server", {}, "", lambda: True)


@asynccontextmanager
async def living(path: Path) -> AsyncIterator[House]:
    """A house, whose work ends with the block."""
    with Store.open(path / "store.db") as store:
        async with anyio.create_task_group() as group:

            async def stored(work: Callable[[], T]) -> T:
                if house.disk_full:
                    raise StoreError("The disk is full.")
                return await anyio.to_thread.run_sync(work)

            records = TaskRecords(store)
            tasks = Tasks(
                records, stored, group, lambda task: house.changed.append(task.status), lambda: house.now
            )
            house = House(tasks, records)
            tasks.endpoints[""] = house
            await tasks.start()
            yield house
            group.cancel_scope.cancel()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls become tasks at once."""
    monkeypatch.setattr(bridge, "PATIENCE", 0.01)


async def settled(check: Callable[[], object]) -> None:
    """Let the loop run until it is so."""
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.005)


pytestmark = pytest.mark.anyio


async def test_past_the_number_of_tasks_a_client_waits_for_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "MAX_TASKS", 2)
    async with living(tmp_path) as house:
        assert all([isinstance(await house.call(), Task) for _ in range(2)])
        third = asyncio.create_task(house.call())
        await settled(lambda: len(house.calls) == 3)
        await asyncio.sleep(0.05)
        assert not third.done()
        house.calls[2].set_result(DONE)
        assert await third == DONE


async def test_past_the_bytes_of_results_there_are_no_new_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "MAX_BYTES", 100)
    async with living(tmp_path) as house:
        first = await house.call()
        assert isinstance(first, Task)
        house.calls[0].set_result(jsonrpc.result(b"1", jsonrpc.encode({"content": "x" * 200})))
        await settled(lambda: not len(house.tasks))
        second = asyncio.create_task(house.call())
        await settled(lambda: len(house.calls) == 2)
        house.calls[1].set_result(DONE)
        assert await second == DONE


async def test_a_task_is_there_for_its_time_and_not_longer(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.calls[0].set_result(DONE)
        await settled(lambda: not len(house.tasks))
        house.now = task.expires_at - 0.001
        assert (await house.tasks.get(task.ident)) is not None
        house.now = task.expires_at
        assert (await house.tasks.get(task.ident)) is None


async def test_a_task_that_runs_past_its_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "SWEEP", 0.01)
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.now = task.expires_at
        await settled(lambda: house.calls[0].done() and not len(house.tasks))
        await settled(lambda: house.records.get(task.ident) is None)


async def test_a_task_that_is_cancelled_the_moment_it_is_one_gives_its_call_up(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.tasks.cancel(task)
        await settled(lambda: house.calls[0].done() and not len(house.tasks))
        assert house.records.get(task.ident).status == "cancelled"  # type: ignore[union-attr]


async def test_where_the_disk_is_full_a_call_is_answered_as_usual(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        house.disk_full = True
        waiting = asyncio.create_task(house.call())
        await settled(lambda: house.calls)
        await asyncio.sleep(0.05)
        house.calls[0].set_result(DONE)
        assert await waiting == DONE


async def test_a_result_that_cannot_be_written_down_is_still_served(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.disk_full = True
        house.calls[0].set_result(DONE)
        await settled(lambda: task.over)
        found = await house.tasks.get(task.ident)
        assert found is not None
        assert found.detailed("id")["result"] == msgspec.Raw(b'{"content":[]}')


async def test_a_client_that_leaves_before_it_has_a_task_cancels_the_call(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        bridge.PATIENCE = 10.0  # type: ignore[misc] # restored by the fixture
        waiting = asyncio.create_task(house.call())
        await settled(lambda: house.calls)
        waiting.cancel()
        await settled(lambda: house.calls[0].done())
        assert isinstance(house.calls[0].exception(), CallCancelled)


async def test_a_lost_call_fails_its_task_with_the_reason(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.calls[0].set_exception(UpstreamUnavailable("Server 'x' exited.", "Look at its log."))
        await settled(lambda: task.over)
        assert task.status is Status.FAILED
        error = jsonrpc.value(task.body)
        assert error["data"] == {
            "type": "upstream_unavailable",
            "retriable": True,
            "hint": "Look at its log.",
        }


async def test_a_server_that_asks_for_nothing_is_asked_again(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        again = jsonrpc.result(b"1", b'{"resultType":"input_required","requestState":"s"}')
        house.calls[0].set_result(again)
        await settled(lambda: len(house.calls) == 2)
        house.calls[1].set_result(DONE)
        await settled(lambda: task.over)
        assert task.status is Status.COMPLETED


@pytest.mark.parametrize("state", [None, "s", '\u2028 and "quotes"'])
async def test_a_task_that_waits_for_input_comes_back_from_the_store_as_it_was(
    tmp_path: Path, state: str | None
) -> None:
    asked: dict[str, Any] = {"resultType": "input_required", "inputRequests": {"k": {"method": "roots/list"}}}
    answer = jsonrpc.encode(asked if state is None else {**asked, "requestState": state})
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.calls[0].set_result(jsonrpc.result(b"1", answer))
        await settled(lambda: (r := house.records.get(task.ident)) is not None and r.body)
    async with living(tmp_path) as house:
        again = await house.tasks.get(task.ident)
        assert again is not None
        assert again.suspended == task.suspended
        assert again.detailed("id") == task.detailed("id")
        await house.tasks.update(again, {"k": msgspec.Raw(b"{}")})
        await settled(lambda: house.calls)
        house.calls[0].set_result(DONE)
        await settled(lambda: again.over)
        assert again.status is Status.COMPLETED


ASKED = jsonrpc.result(
    b"1", b'{"resultType":"input_required","inputRequests":{"k":{"method":"roots/list"}},"requestState":"s"}'
)


async def left_by_another(house: House) -> Task:
    """A task that waits for input, of a gateway that is dead: as a client's request finds it in the store."""
    left = Task("left", "server", house.now, house.now, house.now + 60)
    asked = jsonrpc.object_of(jsonrpc.shallow(ASKED)["result"])
    assert asked is not None
    left.suspend("local", {}, "", asked, True, house.now)
    assert house.records.put(left.record("dead"))
    found = await house.tasks.get("left")
    assert found is not None
    return found


async def test_answers_reach_a_task_that_was_taken_over_while_it_was_looked_for(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        found = await left_by_another(house)
        await house.tasks.follow()  # takes it over
        await house.tasks.update(found, {"k": msgspec.Raw(b"{}")})
        await settled(lambda: house.calls)
        house.calls[0].set_result(DONE)
        await settled(lambda: house.records.get("left").status == "completed")  # type: ignore[union-attr]


async def test_a_task_that_was_taken_over_while_it_was_looked_for_is_cancelled(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        found = await left_by_another(house)
        await house.tasks.follow()
        await house.tasks.give_up(found)
        await settled(lambda: house.records.get("left").status == "cancelled")  # type: ignore[union-attr]
        assert len(house.abandoned) == 1


async def test_what_begins_to_wait_for_input_as_the_gateway_ends_is_written_down(tmp_path: Path) -> None:
    async with living(tmp_path) as house:
        task = await house.call()
        assert isinstance(task, Task)
        house.disk_full = True
        house.calls[0].set_result(ASKED)
        await settled(lambda: task.status is Status.INPUT_REQUIRED)
        assert house.records.get(task.ident).status == "working"  # type: ignore[union-attr]
        house.disk_full = False
        await house.tasks.close()
        assert house.records.get(task.ident).status == "input_required"  # type: ignore[union-attr]


KEYS = st.sets(st.sampled_from(["a", "b", "a-2", "b-2", "c"]), min_size=1, max_size=3)


@given(st.lists(KEYS, min_size=1, max_size=5))
def test_a_key_never_comes_twice_in_a_tasks_life(rounds: list[set[str]]) -> None:
    task = Task("t", "server", 0.0, 0.0, 1.0)
    seen: set[str] = set()
    for asked in rounds:
        requests = {key: {"method": "elicitation/create"} for key in sorted(asked)}
        task.suspend("local", {}, "", {"inputRequests": jsonrpc.raw(requests)}, False, 0.0)
        assert task.suspended is not None
        shown = set(task.detailed("id")["inputRequests"])
        assert len(shown) == len(asked)
        assert not shown & seen
        assert set(task.suspended.keys.values()) == asked
        seen |= shown
        task.answer({key: msgspec.Raw(b"{}") for key in shown}, 0.0)
        assert task.status is Status.WORKING


@given(st.lists(st.sampled_from(list(Status)), max_size=6))
def test_a_status_that_is_final_stays(statuses: list[Status]) -> None:
    task = Task("t", "server", 0.0, 0.0, 1.0)
    final = None
    for status in statuses:
        taken = task.move(status, 1.0)
        assert taken is (final is None)
        if final is None and task.over:
            final = status
        assert final is None or task.status is final
        assert Task.of(task.record()).status is task.status
