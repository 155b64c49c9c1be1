"""A task belongs to the gateway that makes its call; every other on the same store can be asked about it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from postgres_server import PostgresServer
from replica_parts import Pair, gateway
from task_parts import Client, accept, text
from yard import WAIT

from gateway import following
from gateway.following import Follower
from registry.replicas import ReplicaRecords
from registry.store import Store
from registry.tasks import TaskRecord, TaskRecords

T = TypeVar("T")


def test_a_task_is_read_answered_and_cancelled_at_another_gateway_than_its_own(pair: Pair) -> None:
    here, there = Client(pair.one.url), Client(pair.other.url)
    done = here.start("new__slow_compute", label="far")
    assert text(there.result(done)) == "computed far"
    asked = here.start("new__confirm_delete", filename="a.txt")
    [key] = there.when(asked, "input_required")["inputRequests"]
    there.update(asked, **{key: accept(confirm=True)})
    assert text(there.result(asked)) == "deleted a.txt"
    endless = here.start("old__wait", label="endless")
    there.cancel(endless)
    assert there.when(endless, "cancelled")["status"] == "cancelled"
    assert here.get(endless)["status"] == "cancelled"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_restart_of_one_gateway_touches_no_task_of_the_other(
    pair: Pair, tmp_path: Path, how: signal.Signals
) -> None:
    mine, its = Client(pair.one.url), Client(pair.other.url)
    kept = mine.start("old__wait", label="kept")
    lost = its.start("old__wait", label="lost")
    pair.other.process.send_signal(how)
    pair.other.process.wait(WAIT)
    with gateway(tmp_path / "other", pair.servers) as again:
        client = Client(again.url)
        client.ready(of=2)
        assert client.when(lost, "failed")["error"]["data"]["type"] == "task_lost"
        assert client.get(kept)["status"] == "working"
        client.cancel(kept)
        assert mine.when(kept, "cancelled")["status"] == "cancelled"


def test_a_gateway_that_ends_leaves_what_waits_for_input_to_the_others(pair: Pair) -> None:
    here, there = Client(pair.one.url), Client(pair.other.url)
    task = here.start("new__confirm_delete", filename="b.txt")
    [key] = here.when(task, "input_required")["inputRequests"]
    assert pair.one.end() == 0
    there.update(task, **{key: accept(confirm=True)})
    assert text(there.result(task)) == "deleted b.txt"


def test_a_gateway_that_has_left_does_not_say_that_it_lives(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("EVERY", "BEAT"):
        monkeypatch.setattr(following, pause, 0.0)

    async def come_and_go(store: Store) -> list[list[str]]:
        turn = anyio.CapacityLimiter(1)

        async def stored(work: Callable[[], T]) -> T:
            return await anyio.to_thread.run_sync(work, limiter=turn)

        records, counted = ReplicaRecords(store), store.counters
        looks = 0

        def look() -> dict[str, int]:
            nonlocal looks
            looks += 1
            return counted()

        monkeypatch.setattr(store, "counters", look)
        follower = Follower(store, "one", stored)
        async with anyio.create_task_group() as group:
            await follower.start()
            group.start_soon(follower.run)
            before = await stored(records.alive)
            await follower.close()
            seen = looks
            with anyio.fail_after(30):
                while looks < seen + 3:  # it goes on to follow, and would have said so by now
                    await anyio.sleep(0.01)
            after = await stored(records.alive)
            group.cancel_scope.cancel()
        return [before, after]

    with Store.open(server.database()) as store:
        assert anyio.run(come_and_go, store) == [["one"], []]


TASK = TaskRecord("a", "server", "working", None, 1.0, 1.0, 9e9, b"", "one")


def test_a_dead_gateways_tasks_go_to_one_of_the_others_and_what_it_says_later_is_not_heard(
    server: PostgresServer,
) -> None:
    place = server.database()
    with Store.open(place) as first, Store.open(place) as second:
        patient, strict = ReplicaRecords(first), TaskRecords(first, lease=0.0)
        for ident in ("one", "two", "three"):
            patient.beat(ident)
        ours, theirs = TaskRecords(first), TaskRecords(second)
        assert ours.put(TASK)
        assert theirs.claim("two") == []  # it lives
        assert [task.owner for task in strict.claim("two")] == [
            "two"
        ]  # it was silent for longer than a lease
        patient.leave("one")
        assert theirs.claim("three") == []  # it has an owner that lives
        assert not ours.put(TASK)  # the first owner has woken up
        found = theirs.get("a")
        assert found is not None
        assert found.owner == "two"


def test_messages_stay_until_the_owner_took_them_and_go_with_their_task(server: PostgresServer) -> None:
    with Store.open(server.database()) as store:
        records = TaskRecords(store)
        records.put(TASK)
        records.send("a", "answers", b"{}")
        records.send("nothing", "answers", b"{}")
        assert records.messages("two") == []
        [message] = records.messages("one")
        assert records.messages("one") == [message]
        records.took([message])
        assert records.messages("one") == []
        records.send("a", "cancel")
        records.remove("a")
        assert records.messages("one") == []
