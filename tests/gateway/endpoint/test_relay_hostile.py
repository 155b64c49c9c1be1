"""A client on a byte stream (``toolyard stdio``) that sends what it should not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import HANDSHAKE, WAIT, Running, meta, running_gateway, stdio, until

from gateway.paths import StateDir
from gateway.serve import Relays

pytestmark = pytest.mark.anyio
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def relays(root: Path) -> AsyncIterator[tuple[Running, StateDir]]:
    async with running_gateway([stdio()]) as running:
        state = StateDir.at(root)
        state.create()
        async with Relays(running.gateway).listening(state):
            await running.gateway.settled()
            yield running, state


async def connect(state: StateDir, hello: bytes = b'{"toolyard":1,"served":null,"pid":1}\n') -> Streams:
    reader, writer = await asyncio.open_unix_connection(state.relay_socket, limit=1 << 25)
    writer.write(hello)
    return reader, writer


def send(writer: asyncio.StreamWriter, message: Any) -> None:
    writer.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")


async def receive(reader: asyncio.StreamReader) -> Any:
    return json.loads(await asyncio.wait_for(reader.readuntil(b"\n"), WAIT))


async def initialize(streams: Streams, version: str = HANDSHAKE) -> None:
    reader, writer = streams
    send(writer, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": version}})
    assert (await receive(reader))["result"]
    send(writer, {"jsonrpc": "2.0", "method": "notifications/initialized"})


@pytest.mark.parametrize(
    "hello", [b"\n", b"{}\n", b"[1]\n", b'{"toolyard":2}\n', b"\xff\n", b"GET / HTTP/1.1\r\n\r\n"]
)
async def test_a_stranger_on_the_socket_is_turned_away(tmp_path: Path, hello: bytes) -> None:
    async with relays(tmp_path) as (_, state):
        reader, writer = await connect(state, hello)
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()


async def test_garbage_between_good_lines_gets_an_error_each_and_harms_nothing(tmp_path: Path) -> None:
    async with relays(tmp_path) as (_, state):
        reader, writer = streams = await connect(state)
        send(writer, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert (await receive(reader))["error"]["code"] == -32600
        await initialize(streams)
        for line, code in (
            (b"{", -32700),
            (b"\xff\xfe", -32700),
            (b'{"a":' * 1000, -32700),
            (b"42", -32600),
            (b"[]", -32600),
            (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
            (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
            (b'{"jsonrpc":"2.0","id":5}', -32600),
            (b'{"jsonrpc":"2.0","id":5,"method":"initialize","params":{"protocolVersion":"x"}}', -32600),
            (b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":[]}', -32602),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"peer__echo","_meta":5}}',
                -32602,
            ),
            (b'{"jsonrpc":"2.0","id":5,"method":"nope"}', -32601),
        ):
            writer.write(b"\n   \n")
            send(writer, line)
            assert (await receive(reader))["error"]["code"] == code, line
        for silent in (
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": 5},
            {"jsonrpc": "2.0", "method": "notifications/cancelled"},
            {"jsonrpc": "2.0", "method": "notifications/nothing", "params": []},
            {"jsonrpc": "2.0", "id": 9, "result": {}},
        ):
            send(writer, silent)
        send(writer, {"jsonrpc": "2.0", "id": 6, "method": "ping"})
        assert await receive(reader) == {"jsonrpc": "2.0", "id": 6, "result": {}}
        writer.close()


async def test_a_line_over_the_limit_is_refused_and_the_next_one_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.serve.MAX_LINE", 100_000)
    async with relays(tmp_path) as (_, state):
        reader, writer = streams = await connect(state)
        await initialize(streams)
        for size in (100_001, 350_000, 1_000_000):
            send(writer, b"x" * size)
            assert (await receive(reader))["error"]["code"] == -32700
            send(writer, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
            assert (await receive(reader))["result"] == {}
        writer.close()


async def test_both_eras_share_a_stream_and_leaving_gives_up_what_is_in_flight(tmp_path: Path) -> None:
    async with relays(tmp_path) as (running, state):
        reader, writer = streams = await connect(state)
        await initialize(streams)
        never = {"name": "peer__never", "arguments": {}}
        for number in range(10):
            send(writer, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": never})
            params = {**never, "_meta": meta()}
            send(writer, {"jsonrpc": "2.0", "id": f"m{number}", "method": "tools/call", "params": params})
        listen = {"_meta": meta(), "notifications": {"toolsListChanged": True}}
        send(writer, {"jsonrpc": "2.0", "id": "sub", "method": "subscriptions/listen", "params": listen})
        assert (await receive(reader))["method"] == "notifications/subscriptions/acknowledged"
        await until(lambda: running.upstream().in_flight == 20)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "m3"}}
        send(writer, cancel)
        await until(lambda: running.upstream().in_flight == 19)
        send(writer, {**cancel, "params": {"requestId": 3}})
        await until(lambda: running.upstream().in_flight == 18)
        send(writer, {"jsonrpc": "2.0", "id": "m4", "method": "tools/list", "params": {"_meta": meta()}})
        assert (await receive(reader))["error"]["code"] == -32600  # that id is in flight
        for taken in ("m5", "sub"):
            again = {"jsonrpc": "2.0", "id": taken, "method": "subscriptions/listen", "params": listen}
            send(writer, again)
            assert (await receive(reader))["error"]["code"] == -32600
        writer.transport.abort()
        await until(lambda: running.pending() == 0)
        assert not running.gateway.notices._listeners


async def test_a_client_that_does_not_read_is_not_waited_for_by_others(tmp_path: Path) -> None:
    async with relays(tmp_path) as (running, state):
        _, deaf = streams = await connect(state)
        await initialize(streams)
        big = {"name": "peer__big", "arguments": {"bytes": 1 << 20}}
        for number in range(40):
            send(deaf, {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": big})
        reader, writer = other = await connect(state)
        await initialize(other)
        send(writer, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert (await receive(reader))["result"] == {}
        deaf.transport.abort()
        writer.close()
        await until(lambda: running.pending() == 0)


async def test_the_answers_to_a_batch_are_one_array_once_all_are_there(tmp_path: Path) -> None:
    async with relays(tmp_path) as (_, state):
        reader, writer = streams = await connect(state)
        await initialize(streams, "2025-03-26")
        slow = {"name": "peer__sleep", "arguments": {"seconds": 0.3}}
        send(
            writer,
            [
                {"jsonrpc": "2.0", "id": "slow", "method": "tools/call", "params": slow},
                {"jsonrpc": "2.0", "method": "notifications/none"},
                {"jsonrpc": "2.0", "id": [], "method": "ping"},
                {"jsonrpc": "2.0", "id": 2, "method": "ping"},
            ],
        )
        answers = await receive(reader)
        assert isinstance(answers, list)
        assert {str(one.get("id")): one.get("error", {}).get("code") for one in answers} == {
            "slow": None,
            "2": None,
            "None": -32600,
        }
        assert "id" not in next(one for one in answers if "error" in one), "never null (MCP, Messages)"
        send(writer, [{"jsonrpc": "2.0", "method": "notifications/none"}])
        send(writer, {"jsonrpc": "2.0", "id": 3, "method": "ping"})
        assert (await receive(reader))["id"] == 3, "nothing answers notifications"
        writer.close()
