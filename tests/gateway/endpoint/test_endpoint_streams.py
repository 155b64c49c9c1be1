"""Streams and calls that take time: cancelling, leaving, not reading, listening."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import STATELESS, WAIT, Client, Running, Wire, running_gateway, stdio, until

from gateway.endpoint.events import NOTICES

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with running_gateway([stdio()]) as running:
        await running.gateway.settled()
        yield running


async def peer_saw(client: Client) -> Any:
    return json.loads((await client.call("peer__seen"))["result"]["content"][0]["text"])


async def open_call(client: Client, name: str, arguments: Any, *, modern: bool, ident: Any = 5) -> Wire:
    """Start a call and return its connection."""
    wire = await Wire.open(client.port)
    params = {"name": name, "arguments": arguments}
    if modern:
        body, fields = client.modern("tools/call", params, ident)
    else:
        body, fields = json.dumps(client.message("tools/call", params, ident)).encode(), {}
    wire.send("POST", "/mcp", {**client.headers(), **fields}, body)
    return wire


async def stream(client: Client) -> Wire:
    """A GET stream of notices, open."""
    wire = await Wire.open(client.port)
    wire.send("GET", "/mcp", client.headers(Accept="text/event-stream"))
    assert (await wire.head()).status == 200
    await wire.chunk()
    return wire


async def test_a_stateless_client_that_leaves_cancels_its_call_at_the_server(running: Running) -> None:
    client = await running.session()
    wire = await open_call(client, "peer__never", {}, modern=True)
    await until(
        lambda: running.upstream().in_flight,
        what="the call itself, not what is asked of the server before it",
    )
    wire.abort()
    await until(lambda: running.pending() == 0, what="the call is forgotten")
    seen = await peer_saw(client)
    assert len(seen["cancelled"]) == 1


async def test_a_handshake_client_that_leaves_does_not_cancel_and_says_so_to_cancel(running: Running) -> None:
    client = await running.session()
    gate = running.root / "gate"
    wire = await open_call(client, "peer__hold", {"gate": str(gate)}, modern=False)
    await until(lambda: running.upstream().in_flight)
    wire.abort()
    assert (await client.request("ping")).status == 200  # by now it has seen the connection end, too
    gate.touch()
    await until(lambda: running.pending() == 0)
    assert (await peer_saw(client))["cancelled"] == []
    wire = await open_call(client, "peer__never", {}, modern=False, ident="mine")
    await until(lambda: running.pending() >= 1)
    params = {"requestId": "mine", "reason": "changed my mind"}
    await client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
    answer = await wire.answer()
    assert answer.json["id"] == "mine"
    assert "error" in answer.json
    assert len((await peer_saw(client))["cancelled"]) == 1
    await wire.close()


async def test_ending_a_session_gives_up_its_calls_and_ends_its_streams(running: Running) -> None:
    other = await running.session()
    client = await running.session()
    wires = [await open_call(client, "peer__never", {}, modern=False, ident=n) for n in range(5)]
    listening = await stream(client)
    await until(lambda: running.pending() >= 5)
    assert (await client.http("DELETE")).status == 204
    for wire in wires:
        assert (await wire.answer()).status == 200
    assert await listening.chunk() == b""
    await until(lambda: running.pending() == 0)
    assert len((await peer_saw(other))["cancelled"]) == 5


async def test_a_storm_of_cancelled_calls_leaves_nothing_behind(running: Running) -> None:
    client = await running.session()
    await peer_saw(client)

    async def give_up(number: int) -> None:
        wire = await open_call(client, "peer__never", {}, modern=True, ident=number)
        await asyncio.sleep(0)
        wire.abort()

    before = len(os.listdir("/proc/self/fd"))
    for start in range(0, 300, 50):
        await asyncio.gather(*(give_up(number) for number in range(start, start + 50)))
    await until(lambda: running.pending() == 0 and running.endpoint.active == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 4)
    assert (await client.call("peer__echo"))["result"]


async def test_a_list_change_reaches_get_streams_and_listeners(running: Running) -> None:
    client = await running.session()
    listening = await stream(client)
    modern = running.client()
    body, fields = modern.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "sub")
    wire = await Wire.open(running.port)
    wire.send("POST", "/mcp", {**modern.headers(), **fields}, body)
    head = await wire.head()
    assert head.headers["content-type"] == "text/event-stream"
    assert head.headers["x-accel-buffering"] == "no"
    acknowledged = await wire.event()
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}
    assert acknowledged["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "sub"}
    await running.gateway.roster.add(stdio("second"))
    assert (await listening.event())["method"] == "notifications/tools/list_changed"
    told = await wire.event()
    assert told["method"] == "notifications/tools/list_changed"
    assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "sub"}
    running.gateway.notices.close()
    last = await wire.event()
    assert last["id"] == "sub"
    assert last["result"]["resultType"] == "complete"
    assert await wire.chunk() == b""


async def test_a_session_has_a_bounded_number_of_streams(running: Running) -> None:
    client = await running.session()
    wires = [await stream(client) for _ in range(8)]
    answer = await client.http("GET", headers=client.headers(Accept="text/event-stream"))
    assert answer.status == 409
    wires[0].abort()
    session = next(iter(running.gateway.sessions))
    await until(lambda: len(session.outboxes) == 7)
    wires.append(await stream(client))
    for wire in wires:
        wire.abort()
    await until(lambda: not session.outboxes)


async def test_a_client_that_never_reads_its_stream_bounds_what_is_kept_for_it(running: Running) -> None:
    client = await running.session()
    wire = await stream(client)
    wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
    session = next(iter(running.gateway.sessions))
    for number in range(20_000):
        session.tell(
            b'{"jsonrpc":"2.0","method":"notifications/x","params":{"n":"%d%s"}}' % (number, b"x" * 500)
        )
        if number % 500 == 0:
            await asyncio.sleep(0)
    assert sum(len(stream.events) for stream in session.outboxes) <= NOTICES  # type: ignore[attr-defined]
    assert (await client.call("peer__echo"))["result"]
    wire.abort()
    await until(lambda: not session.outboxes)


def resident() -> int:
    """Resident memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


async def test_a_client_that_does_not_read_the_progress_it_asked_for_costs_bounded_memory(
    running: Running,
) -> None:
    client = await running.session()
    wire = await Wire.open(running.port)
    wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
    params = {"name": "peer__spam", "arguments": {"times": 4000}, "_meta": {"progressToken": 1}}
    before = resident()
    wire.send("POST", "/mcp", client.headers(), json.dumps(client.message("tools/call", params)).encode())
    await until(lambda: running.pending() >= 1)
    await until(lambda: running.upstream().in_flight == 0, what="80 MB of progress were taken")
    assert (await client.call("peer__echo"))["result"]
    assert resident() - before < 60
    wire.abort()
    await until(lambda: running.endpoint.active == 0)


async def test_progress_carries_the_callers_own_token_and_only_when_asked_for(running: Running) -> None:
    client = await running.session()
    params = {"name": "peer__progress", "arguments": {"steps": 2}}
    assert (await client.request("tools/call", params)).headers["content-type"] == "application/json"
    for token in ("t", 0, 12345678901234567890):
        answer = await client.request("tools/call", {**params, "_meta": {"progressToken": token}})
        *notes, last = answer.events
        assert [note["params"]["progressToken"] for note in notes] == [token, token]
        assert last["result"]


async def test_two_callers_with_the_same_token_each_get_their_own_progress(running: Running) -> None:
    async def caller(steps: int) -> int:
        client = await running.session()
        params = {"name": "peer__progress", "arguments": {"steps": steps}, "_meta": {"progressToken": 1}}
        return len((await client.request("tools/call", params)).events) - 1

    assert await asyncio.gather(*(caller(steps) for steps in range(1, 11))) == list(range(1, 11))


async def test_log_messages_come_to_whom_asked_for_them_and_from_the_level_asked_for(
    running: Running,
) -> None:
    client = running.client()
    assert (await client.modern_request("tools/call", {"name": "peer__log"})).headers[
        "content-type"
    ] == "application/json"
    body, fields = client.modern(
        "tools/call", {"name": "peer__log"}, **{"io.modelcontextprotocol/logLevel": "warning"}
    )
    answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
    assert [event["params"]["level"] for event in answer.events[:-1]] == ["error"]


async def test_sessions_that_are_never_ended_are_bounded_and_their_ids_stay_good(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoint.sessions.MAX_LIVE", 50)
    first = await running.session()
    for _ in range(120):
        await running.client().initialize()
    assert len(running.gateway.sessions) <= 51
    assert (await first.request("ping")).status == 200


async def test_many_calls_at_once_all_get_their_own_answer(running: Running) -> None:
    client = await running.session()

    async def one(number: int) -> bool:
        answer = await client.call("peer__echo", {"n": number})
        return json.loads(answer["result"]["content"][0]["text"]) == {"n": number}

    assert all(await asyncio.gather(*(one(number) for number in range(300))))


async def test_a_stateless_listener_that_leaves_is_forgotten(running: Running) -> None:
    client = running.client()
    body, fields = client.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    wires = []
    for _ in range(50):
        wire = await Wire.open(running.port)
        wire.send("POST", "/mcp", {**client.headers(), **fields}, body)
        wires.append(wire)
    await until(lambda: len(running.gateway.notices._listeners) == 50)
    for wire in wires:
        wire.abort()
    await until(lambda: not running.gateway.notices._listeners, WAIT)
    assert fields["MCP-Protocol-Version"] == STATELESS
