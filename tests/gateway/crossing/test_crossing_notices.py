"""Nothing that changes goes unheard: streams of notices that are replaced, refused, lost or slow to be read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gateway_parts import NEVER, WAIT, Client, Wire, remote, running_gateway, until
from hypothesis import given
from hypothesis import strategies as st
from stateless_peer import META, error_200, error_404, stateless_peer

from gateway.endpoint.outbox import LIST_CHANGES, OUTBOX, Outbox
from gateway.upstream import listening

pytestmark = pytest.mark.anyio
DONE = {"content": [], "resultType": "complete"}
TOOLS_CHANGED = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"


async def listen(client: Client, ident: Any = 1, **wanted: Any) -> Wire:
    """A client's own subscription, acknowledged."""
    wire = await Wire.open(client.port)
    body, fields = client.modern("subscriptions/listen", {"notifications": wanted}, ident)
    wire.send("POST", "/mcp", {**client.headers(), **fields}, body)
    assert (await wire.head()).status == 200
    first = await wire.event()
    assert first["method"] == "notifications/subscriptions/acknowledged"
    assert first["params"]["_meta"] == {META + "subscriptionId": ident}
    return wire


async def test_a_change_while_one_stream_replaces_another_is_heard_of() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]) as running:
        old = await peer.listened()
        await until(lambda: len(peer.sent("tools/list")) >= 1)
        waiting = asyncio.create_task(listen(running.client(), resourceSubscriptions=["x://y"]))
        new = await peer.listened(acknowledge=False)
        assert new.wanted["resourceSubscriptions"] == ["x://y"]
        assert old.open, "the old stream goes on until the new one is acknowledged"
        lists = len(peer.sent("tools/list"))
        old.tell(TOOLS_CHANGED)
        await until(lambda: len(peer.sent("tools/list")) > lists)
        assert not waiting.done(), "the client is told that it listens when the server does"
        new.acknowledge()
        wire = await waiting
        await until(lambda: not old.open)
        new.tell(UPDATED, uri="x://y")
        assert (await wire.event())["params"] == {"uri": "x://y", "_meta": {META + "subscriptionId": 1}}
        await wire.close()


async def test_what_two_streams_tell_is_told_once() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]) as running:
        old = await peer.listened()
        waiting = asyncio.create_task(listen(running.client(), resourceSubscriptions=["x://y"]))
        new = await peer.listened()
        wire = await waiting
        for count in (1, 2):
            new.tell(UPDATED, uri="x://y", count=count)
            new.tell(UPDATED, uri="x://y", count=-1, ident=old.ident)
            new.tell(UPDATED, uri="x://y", count=-2, ident=999)
            new.tell(UPDATED, uri="x://y", count=-3, ident="forged")
            assert (await wire.event())["params"]["count"] == count
        await wire.close()


@pytest.mark.parametrize("refuse", [error_200, error_404])
async def test_a_server_that_refuses_to_be_listened_to_is_not_waited_for(
    refuse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "ACKNOWLEDGED_WITHIN", 10 * WAIT)  # longer than a test lasts
    async with stateless_peer(DONE, refuse_listen=refuse) as peer:
        async with running_gateway([remote("far", peer.url)]) as running:
            client = running.client()
            assert (await client.modern_call("far__ask"))["result"] == DONE
            await client.initialize()
            answer = await client.request("resources/subscribe", {"uri": "x://y"})
            assert "does not tell of updates" in answer.json["error"]["message"]
        assert len(peer.sent("subscriptions/listen")) == 1, "and not asked again"


async def test_a_server_that_tells_of_lists_alone_promises_no_updates() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]) as running:
        await peer.listened()
        await running.gateway.settled()
        client = await running.session()
        waiting = asyncio.create_task(client.request("resources/subscribe", {"uri": "x://y"}))
        upstream = await peer.listened(acknowledge=False)
        upstream.tell("notifications/subscriptions/acknowledged", notifications={"toolsListChanged": True})
        assert "does not tell of updates" in (await waiting).json["error"]["message"]
        again = await peer.listened()
        assert "resourceSubscriptions" not in again.wanted
        lists = len(peer.sent("tools/list"))
        again.tell(TOOLS_CHANGED)
        await until(lambda: len(peer.sent("tools/list")) > lists)


async def test_after_a_lost_stream_everything_counts_as_changed() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]) as running:
        first = await peer.listened()
        waiting = asyncio.create_task(listen(running.client(), resourceSubscriptions=["x://y"]))
        second = await peer.listened()
        wire = await waiting
        lists = len(peer.sent("tools/list"))
        second.writer.close()
        third = await peer.listened()
        assert third.wanted == second.wanted != first.wanted
        assert (await wire.event())["params"]["uri"] == "x://y"
        await until(lambda: len(peer.sent("tools/list")) > lists)
        await wire.close()


async def test_a_stream_the_server_tears_down_by_a_notice_is_opened_again() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]):
        first = await peer.listened()
        first.tell("notifications/cancelled", requestId=first.ident)
        again = await peer.listened()
        assert again.ident != first.ident


async def test_each_listener_hears_what_it_asked_for_under_its_own_id() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]) as running:
        upstream = await peer.listened()
        client = running.client()
        tools = await listen(client, "a", toolsListChanged=True)
        other = await listen(client, 7, promptsListChanged=True, toolsListChanged=False)
        running.gateway.notices.lists_changed(set(running.gateway.catalog.entries))
        heard = await tools.event()
        assert (heard["method"], heard["params"]["_meta"]) == (TOOLS_CHANGED, {META + "subscriptionId": "a"})
        heard = await other.event()
        assert heard["method"] == "notifications/prompts/list_changed"
        assert heard["params"]["_meta"] == {META + "subscriptionId": 7}
        assert upstream.open
        for wire in (tools, other):
            await wire.close()


async def test_an_update_that_says_too_much_is_told_by_its_uri_alone() -> None:
    async with stateless_peer(DONE) as peer, running_gateway([remote("far", peer.url)]) as running:
        await peer.listened()
        waiting = asyncio.create_task(listen(running.client(), resourceSubscriptions=["x://y"]))
        upstream = await peer.listened()
        wire = await waiting
        upstream.tell(UPDATED, uri="x://y", much="x" * (1 << 20))
        assert (await wire.event())["params"] == {"uri": "x://y", "_meta": {META + "subscriptionId": 1}}
        await wire.close()


# tasks of a server's own

TASKS = META + "tasks"
TAKES_TASKS = {META + "clientCapabilities": {"extensions": {TASKS: {}}}}
TASK = {"status": "working", "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z"}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call takes so long that the gateway makes a task of it: a task is the server's."""
    monkeypatch.setattr("gateway.bridge.tasks.PATIENCE", NEVER)
    monkeypatch.setattr("gateway.upstream.listening.ACKNOWLEDGED_WITHIN", NEVER)


async def task_of(client: Client) -> str:
    """The id under which a client is told of a task of the server's."""
    body, fields = client.modern("tools/call", {"name": "far__ask", "arguments": {}}, **TAKES_TASKS)
    answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
    return str(answer.json["result"]["taskId"])


async def listen_to_tasks(client: Client, *ids: str) -> tuple[Wire, list[str]]:
    """A subscription to tasks, and the ids that are agreed to."""
    wire = await Wire.open(client.port)
    body, fields = client.modern("subscriptions/listen", {"notifications": {"taskIds": ids}}, **TAKES_TASKS)
    wire.send("POST", "/mcp", {**client.headers(), **fields}, body)
    assert (await wire.head()).status == 200
    first = await wire.event()
    assert first["method"] == "notifications/subscriptions/acknowledged"
    return wire, first["params"]["notifications"].get("taskIds", [])


@pytest.mark.usefixtures("patient")
async def test_what_a_server_tells_of_its_own_task_reaches_who_listens_to_it() -> None:
    own = {"resultType": "task", "taskId": "own-1", **TASK}
    async with (
        stateless_peer(own, extensions={TASKS: {}}) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        await peer.listened()
        client = running.client()
        task = await task_of(client)
        assert task != "own-1"
        waiting = asyncio.create_task(listen_to_tasks(client, task, "no such id"))
        upstream = await peer.listened(acknowledge=False)
        assert upstream.wanted["taskIds"] == ["own-1"]
        assert upstream.capabilities["extensions"] == {TASKS: {}}
        upstream.acknowledge()
        wire, agreed = await waiting
        assert agreed == [task]
        ended = {**TASK, "status": "completed", "result": {"content": [], "x": 1}}
        upstream.tell("notifications/tasks", taskId="another", **ended)
        upstream.tell("notifications/tasks", taskId="own-1", **ended)
        heard = await wire.event()
        assert heard["method"] == "notifications/tasks"
        assert heard["params"].pop("_meta")[META + "subscriptionId"] is not None
        assert heard["params"] == {"taskId": task, **ended}
        await wire.close()
        await until(lambda: not running.upstream("far").task_watches._told)


@pytest.mark.usefixtures("patient")
async def test_a_server_that_does_not_agree_to_tell_of_its_tasks_is_polled_by_its_clients() -> None:
    own = {"resultType": "task", "taskId": "own-1", **TASK}
    async with (
        stateless_peer(own, extensions={TASKS: {}}) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        await peer.listened()
        client = running.client()
        waiting = asyncio.create_task(listen_to_tasks(client, await task_of(client)))
        upstream = await peer.listened(acknowledge=False)
        upstream.tell("notifications/subscriptions/acknowledged", notifications={"toolsListChanged": True})
        wire, agreed = await waiting
        assert agreed == []
        await wire.close()


async def test_a_task_is_told_to_nobody_but_its_own_caller() -> None:
    own = {"resultType": "task", "taskId": "own-1", **TASK}
    async with (
        stateless_peer(own, extensions={TASKS: {}}) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        await peer.listened()
        task = await task_of(running.client())
        wire, agreed = await listen_to_tasks(running.client(), "own-1", task[:-2] + "AA", task.swapcase())
        assert agreed == []
        assert peer.listeners.empty(), "the server was not even asked"
        await wire.close()


# the box of one slow client


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=200))
def test_the_last_word_on_each_thing_waits_for_a_client_that_is_slow(told: list[tuple[int, int]]) -> None:
    async def run() -> None:
        box = Outbox()
        for thing, word in told:
            box.put(b"%d says %d" % (thing, word), b"thing %d" % thing)
        last = dict(told)
        if last:
            assert {tuple(map(int, m.split(b" says "))) for m in await box.take(WAIT)} == set(last.items())

    asyncio.run(run())


async def test_a_client_far_behind_is_told_that_everything_has_changed() -> None:
    box = Outbox()
    for number in range(3 * OUTBOX):
        box.put(b"%d" % number)
    waiting = await box.take(WAIT)
    assert len(waiting) <= OUTBOX + len(LIST_CHANGES)
    assert {method for method in LIST_CHANGES if any(method.encode() in m for m in waiting)} == set(
        LIST_CHANGES
    )
