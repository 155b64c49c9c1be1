"""Streams that outlive their connection (2025-11-25, Transports: Resumability and Redelivery; SEP-1699)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from continuity_parts import Event, initialize, listen, start_call, stateful
from gateway_parts import Client, Running, Wire, remote, running_gateway, stdio, until

from gateway.endpoint import events

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_gateway([stateful(), stdio()], root=tmp_path) as running:
        await running.gateway.settled()
        yield running


async def broken_call(client: Client, running: Running, steps: int, goes_on: bool = True) -> str:
    """A call whose client lost its connection after the first progress. Returns the last event's id.

    :param goes_on: whether the server has gone on with it; else it waits for `gate`.
    """
    arguments = {"steps": steps, "gate": str(gate(running))}
    reading = await start_call(client, "memo__progress", arguments)
    primed = await reading.next()
    assert primed is not None
    assert primed.data == ""
    first = await reading.next()
    assert first is not None
    reading.wire.abort()
    (opened,) = running.gateway.events._streams.values()
    await until(lambda: opened.reader is None)
    if goes_on:
        gate(running).touch()
    return first.ident


def gate(running: Running) -> Path:
    """The file for which calls that name it wait after their first progress."""
    return running.root / "gate"


async def test_a_stream_begins_with_an_event_that_says_where_and_when_to_come_back(running: Running) -> None:
    client = await running.session()
    reading = await start_call(client, "memo__progress", {"steps": 2})
    first, *rest = await reading.rest()
    assert (first.data, first.retry) == ("", str(events.RETRY_MS))
    assert len({event.ident for event in [first, *rest]}) == 4
    assert rest[-1].message["id"] == 77
    assert [event.message["params"]["progress"] for event in rest[:-1]] == [0, 1]


async def test_a_call_goes_on_without_its_client_and_its_answer_waits(running: Running) -> None:
    client = await running.session()
    last = await broken_call(client, running, 5)
    await until(lambda: running.pending() == 0, what="the call ends by itself")
    rest = await (await listen(client, last)).rest()
    assert [event.message["params"]["progress"] for event in rest[:-1]] == [1, 2, 3, 4]
    assert rest[-1].message["result"]
    again = await (await listen(client, last)).rest()
    assert again == rest, "a client may come back as often as it likes"


async def test_a_client_that_comes_back_in_the_middle_hears_the_rest_as_it_comes(running: Running) -> None:
    client = await running.session()
    last = await broken_call(client, running, 8, goes_on=False)
    reading = await listen(client, last)
    gate(running).touch()
    rest = await reading.rest()
    assert [event.message["params"]["progress"] for event in rest[:-1]] == [1, 2, 3, 4, 5, 6, 7]
    assert rest[-1].message["id"] == 77


async def test_a_second_reader_of_a_stream_takes_it_over(running: Running) -> None:
    client = await running.session()
    reading = await start_call(client, "memo__progress", {"steps": 8, "gate": str(gate(running))})
    primed = await reading.next()
    assert primed is not None
    other = await listen(client, primed.ident)
    gate(running).touch()
    progress = [event.message for event in await other.rest()]
    assert len(progress) == 9
    assert len(await reading.rest()) < 9


async def test_nobody_elses_stream_is_replayed(running: Running) -> None:
    client, stranger = await running.session(), await running.session()
    last = await broken_call(client, running, 1)
    for forged in (last, last[:-1] + "999", "x.1", ".", last + "x", "é", last.replace(".", "")):
        answer = await stranger.http(
            "GET", headers=stranger.headers(Accept="text/event-stream", Last_Event_Id=forged)
        )
        assert answer.status == 400
        assert answer.json["error"]["code"] == -32602


async def test_streams_of_one_session_are_not_mixed(running: Running) -> None:
    client = await running.session()
    arguments = {"steps": 3, "gate": str(gate(running))}
    one = await start_call(client, "memo__progress", arguments, ident="one")
    primed = await one.next()
    two = await start_call(client, "peer__progress", {"steps": 3}, ident="two")
    await two.rest()
    assert primed is not None
    one.wire.abort()
    gate(running).touch()
    messages = [event.message for event in await (await listen(client, primed.ident)).rest()]
    assert messages[-1]["id"] == "one"
    assert "two" not in {message.get("id") for message in messages}


async def test_an_answer_that_waits_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        last = await broken_call(client, first, 3)
        await until(lambda: first.pending() == 0)
    async with running_gateway([stateful()], root=tmp_path) as second:
        client.port = second.port
        rest = await (await listen(client, last)).rest()
        assert rest[-1].message["result"]["content"][0]["text"] == '"done"'
        assert len(rest) == 3


async def test_a_call_that_was_lost_with_the_process_is_answered_with_a_retriable_error(
    tmp_path: Path,
) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        last = await broken_call(client, first, 2, goes_on=False)
        first.gateway.events.close = lambda: None  # type: ignore[method-assign] # as if killed
        first.gateway.sessions.give_up = lambda: None  # type: ignore[method-assign]
        first.gateway.clients.ledger.keep = lambda record: None  # type: ignore[method-assign]
    async with running_gateway([stateful()], root=tmp_path) as second:
        client.port = second.port
        rest = await (await listen(client, last)).rest()
        assert rest[-1].message["id"] == 77
        assert rest[-1].message["error"]["data"] == {"type": "call_lost", "retriable": True}


async def test_a_call_in_flight_when_the_gateway_ends_is_answered_with_a_retriable_error(
    tmp_path: Path,
) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        reading = await start_call(client, "memo__progress", {"gate": str(gate(first))})
        await reading.next()
    last = [event.message for event in await reading.rest()][-1]
    assert last["error"]["data"]["retriable"] is True
    assert last["error"]["data"]["type"] == "gateway_stopping"


async def test_a_listener_that_comes_back_hears_what_it_missed_on_its_stream(running: Running) -> None:
    client = await running.session()
    reading = await listen(client)
    primed = await reading.next()
    assert primed is not None
    assert primed.data == ""
    session = next(iter(running.gateway.sessions))
    reading.wire.abort()
    await until(lambda: not session.outboxes)
    for number in range(3):
        session.tell(b'{"jsonrpc":"2.0","method":"notifications/x","params":{"n":%d}}' % number)
    back = await listen(client, primed.ident)
    first, second = await back.next(), await back.next()
    assert first is not None
    assert second is not None
    assert [first.message["params"]["n"], second.message["params"]["n"]] == [0, 1]
    back.wire.abort()
    await until(lambda: not session.outboxes)
    again = await listen(client, first.ident)
    following = await again.next()
    assert following == second
    again.wire.abort()


async def test_a_listener_that_comes_back_after_a_restart_is_told_to_look_again(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        await client.call("memo__count")
        await client.request("resources/subscribe", {"uri": "memo://1"})
        reading = await listen(client)
        primed = await reading.next()
        assert primed is not None
    async with running_gateway([stateful()], root=tmp_path) as second:
        client.port = second.port
        back = await listen(client, primed.ident)
        told = [await back.next() for _ in range(5)]
        methods = [event.message["method"] for event in told if event is not None and event.data]
        assert "notifications/tools/list_changed" in methods
        assert "notifications/resources/updated" in methods
        back.wire.abort()


async def test_a_listener_that_is_far_behind_is_told_to_look_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "NOTICES", 5)
    client = await running.session()
    reading = await listen(client)
    primed = await reading.next()
    session = next(iter(running.gateway.sessions))
    reading.wire.abort()
    await until(lambda: not session.outboxes)
    for number in range(20):
        session.tell(b'{"jsonrpc":"2.0","method":"notifications/x","params":{"n":%d}}' % number)
    assert primed is not None
    back = await listen(client, primed.ident)
    told = [await back.next() for _ in range(3)]
    methods = {event.message["method"] for event in told if event is not None and event.data}
    assert "notifications/tools/list_changed" in methods
    back.wire.abort()


async def test_clients_of_earlier_revisions_get_no_event_without_data(running: Running) -> None:
    client = running.client()
    await initialize(client, version="2025-06-18")
    message = client.message("tools/call", {"name": "memo__progress", "_meta": {"progressToken": 1}})
    headers = client.headers(Mcp_Protocol_Version="2025-06-18")
    answer = await client.http("POST", headers=headers, body=json.dumps(message).encode())
    blocks = [block for block in answer.body.split(b"\r\n\r\n") if b"data:" in block]
    assert all(b"id: " in block for block in blocks)
    assert all(block.split(b"data:")[1].strip() for block in blocks)


async def test_a_client_that_names_event_streams_first_gets_its_answer_as_one(running: Running) -> None:
    client = await running.session()
    both = "text/event-stream, application/json"
    answer = await client.request("tools/list", Accept=both)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.events[0]["result"]["tools"]
    body, fields = client.modern("tools/list")
    answer = await client.http("POST", headers={**client.headers(Accept=both), **fields}, body=body)
    assert answer.headers["content-type"] == "text/event-stream"
    assert (await client.request("tools/list")).headers["content-type"] == "application/json"
    assert len(running.gateway.events) == 0


async def test_a_call_that_takes_long_becomes_a_stream_that_can_be_come_back_to(running: Running) -> None:
    client = await running.session()
    held = {"gate": str(gate(running))}
    starting = asyncio.create_task(start_call(client, "peer__hold", held, progress=False))
    await until(lambda: running.pending() >= 1)
    running.gateway.sessions.linger()
    assert len(running.gateway.events) == 0
    running.gateway.sessions.linger()
    reading = await starting
    primed = await reading.next()
    assert primed is not None
    reading.wire.abort()
    gate(running).touch()
    rest = await (await listen(client, primed.ident)).rest()
    assert rest[-1].message["result"]["content"][0]["text"] == "held"


async def test_a_very_long_request_id_does_not_make_event_ids_long(running: Running) -> None:
    client = await running.session()
    reading = await start_call(client, "memo__progress", {"steps": 1}, ident="x" * 100_000)
    events_read = await reading.rest()
    assert events_read[-1].message["id"] == "x" * 100_000
    assert max(len(event.ident) for event in events_read) < 400
    again = await (await listen(client, events_read[0].ident)).rest()
    assert again[-1].message["id"] == "x" * 100_000


async def test_a_session_that_ends_takes_its_streams_along(running: Running) -> None:
    client = await running.session()
    await broken_call(client, running, 3)
    assert len(running.gateway.events) == 1
    await client.http("DELETE")
    assert len(running.gateway.events) == 0
    await until(lambda: running.pending() == 0)
    await running.gateway.clients.ledger.close()
    with running.gateway.store.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM streams").scalar() == 0


async def test_streams_without_a_reader_expire_and_are_bounded(running: Running) -> None:
    client = await running.session()
    kept = running.gateway.events

    async def stream(number: int) -> None:
        await (await start_call(client, "memo__progress", {"steps": 2}, ident=number)).rest()
        await until(lambda: all(stream.reader is None for stream in kept._streams.values()))

    for number in range(6):
        await stream(number)
    assert len(kept) == 6
    kept._delivered.bounds = (1 << 20, 3)
    await stream(7)
    assert len(kept) == 3
    kept._delivered.bounds = (10, 3)
    await stream(8)
    assert (len(kept), kept._delivered.size) == (0, 0)
    kept._delivered.bounds = (1 << 20, 3)
    await stream(9)
    assert len(kept) == 1
    kept._clock = lambda: float("inf")
    kept.expire()
    assert len(kept) == 0


async def test_a_flood_for_a_client_that_left_is_bounded_and_cheap(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAM_BYTES", 200_000)
    client = await running.session()
    reading = await start_call(client, "memo__progress", {"steps": 20_000})
    await reading.next()
    reading.wire.abort()
    (opened,) = running.gateway.events._streams.values()
    await until(lambda: opened.closed)
    assert opened.size < 250_000
    assert json.loads(opened.events[-1][1])["result"]


async def test_an_answer_that_a_full_disk_did_not_take_is_written_later(running: Running) -> None:
    client = await running.session()
    with running.gateway.store.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON stream_events BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    await broken_call(client, running, 5)
    await until(lambda: running.pending() == 0)
    await running.gateway.clients.ledger.close()
    with running.gateway.store.writing() as connection:
        connection.exec_driver_sql("DROP TRIGGER full")
    await running.gateway.clients.ledger.close()
    with running.gateway.store.reading() as connection:
        rows = connection.exec_driver_sql("SELECT position FROM stream_events ORDER BY 1").fetchall()
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]


POLLING = b"id: e1\r\nretry: 10\r\ndata: \r\n\r\n"


async def polling_server(seen: list[str], answers: list[bytes]) -> asyncio.Server:
    """A server that closes the stream of a call at once, and gives the answer to who comes back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
                )
                body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
                message = json.loads(body) if body else {}
                writer.write(await answer(head, fields, message))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(head: bytes, fields: dict[bytes, bytes], message: Any) -> bytes:
        if head.startswith(b"GET"):
            last = fields.get(b"last-event-id", b"").decode()
            seen.append(last)
            if not last:
                return b"HTTP/1.1 405 no\r\nContent-Length: 0\r\n\r\n"
            return events_response(answers.pop(0))
        if "id" not in message:
            return b"HTTP/1.1 202 ok\r\nContent-Length: 0\r\n\r\n"
        ident, method = message["id"], message["method"]
        if method == "tools/call":
            answers.append(b"id: e2\r\ndata: \r\n\r\n")
            result = {"jsonrpc": "2.0", "id": ident, "result": {"content": []}}
            answers.append(b"id: e3\r\ndata: " + json.dumps(result).encode() + b"\r\n\r\n")
            return events_response(POLLING)
        value: Any = {"tools": [{"name": "poll", "inputSchema": {"type": "object"}}]}
        if method == "initialize":
            value = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "p"},
            }
        data = json.dumps({"jsonrpc": "2.0", "id": ident, "result": value}).encode()
        return (
            b"HTTP/1.1 200 ok\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
            + data
        )

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def events_response(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 ok\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


async def test_the_rest_of_a_servers_own_stream_is_asked_for_and_a_client_that_can_comes_back_too(
    tmp_path: Path,
) -> None:
    seen: list[str] = []
    server = await polling_server(seen, [])
    async with (
        server,
        running_gateway(
            [remote("far", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp")], root=tmp_path
        ) as running,
    ):
        client = await running.session()
        assert (await client.call("far__poll"))["result"] == {"content": []}, "held on to for such a client"
        assert [last for last in seen if last] == ["e1", "e2"]
        reading = await start_call(
            client, "far__poll", progress=False, Accept="text/event-stream, application/json"
        )
        parts = await reading.rest()
        assert parts[0].data == ""
        assert parts[-1].retry == "10"
        rest: list[Event] = []
        while not (rest and rest[-1].data):  # the server closes its stream twice
            rest = await (await listen(client, parts[0].ident)).rest()
        assert rest[-1].message["result"] == {"content": []}


async def test_a_stream_log_costs_nothing_where_calls_answer_in_json(running: Running) -> None:
    client = await running.session()
    wire = await Wire.open(running.port)
    for number in range(20):
        message = client.message("tools/call", {"name": "memo__count", "arguments": {}}, number)
        wire.send("POST", "/mcp", client.headers(), json.dumps(message).encode())
        assert (await wire.answer()).headers["content-type"] == "application/json"
    await wire.close()
    assert len(running.gateway.events) == 0
