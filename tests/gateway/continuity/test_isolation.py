"""Servers with state: a process for each session that calls them, and none that is handed on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from continuity_parts import initialize, listen, said, stateful
from gateway_parts import NEVER, WAIT, Client, Running, alive, running_gateway, until

from gateway.config.entry import read_entry
from gateway.endpoint.relay import StreamClient
from gateway.errors import ConfigError
from gateway.upstream import private
from gateway.upstream.health import SUSPECT
from gateway.upstream.isolation import isolated, known_stateful
from registry.model import ServerSpec, Transport

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    specs = [stateful("memo", "asks", isolation="session", maxSessions=3), stateful("common")]
    async with running_gateway(specs, root=tmp_path) as running:
        await running.gateway.settled()
        yield running


def private_pids(running: Running, name: str = "memo") -> set[int]:
    entries = running.upstream(name).private._entries.values()
    return {entry.connection.pid for entry in entries if entry.connection is not None}


async def test_each_session_has_a_process_of_its_own_and_keeps_it(running: Running) -> None:
    one, other = await running.session(), await running.session()
    first, count = said(await one.call("memo__count"))
    assert count == 1
    assert said(await one.call("memo__count")) == [first, 2]
    second, count = said(await other.call("memo__count"))
    assert (count, second == first) == (1, False)
    assert running.upstream("memo").pid not in (first, second), "lists come from a connection of their own"


async def test_a_process_is_started_by_the_first_call_and_not_by_lists(running: Running) -> None:
    client = await running.session()
    assert "memo__count" in await client.names()
    assert len(running.upstream("memo").private) == 0
    await asyncio.gather(*(client.call("memo__count") for _ in range(5)))
    assert len(running.upstream("memo").private) == 1


async def test_sessions_of_a_shared_server_share_it(running: Running) -> None:
    one, other = await running.session(), await running.session()
    assert said(await one.call("common__count"))[0] == said(await other.call("common__count"))[0]
    assert running.upstream("common").private is None


async def test_a_process_ends_with_its_session(running: Running) -> None:
    client = await running.session()
    pid, _ = said(await client.call("memo__count"))
    assert (await client.http("DELETE")).status == 204
    await until(lambda: not alive(pid))
    assert len(running.upstream("memo").private) == 0


async def test_a_session_whose_process_died_gets_404_and_begins_anew(running: Running) -> None:
    client, other = await running.session(), await running.session()
    pid, _ = said(await client.call("memo__count"))
    await other.call("memo__count")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: len(running.upstream("memo").private) == 1)
    assert (await client.request("ping")).status == 200, "only what is gone is refused"
    assert said(await client.call("common__count"))
    gone = await client.request("tools/call", {"name": "memo__count"}, ident="x")
    assert gone.status == 404
    assert gone.json["id"] == "x"
    assert (await client.request("ping")).status == 404
    assert said(await other.call("memo__count"))[1] == 2
    await client.initialize()
    assert said(await client.call("memo__count"))[1] == 1


async def test_a_process_that_answers_no_ping_is_ended_and_its_session_begins_anew(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.health.PING_TIMEOUT", 0.2)
    monkeypatch.setattr(private, "PINGED_EVERY", 0.0)
    client, other = await running.session(), await running.session()
    pid, _ = said(await client.call("memo__count"))
    await other.call("memo__count")
    os.kill(pid, signal.SIGSTOP)
    await running.upstream("memo").end_when_idle()
    await until(lambda: not alive(pid))
    assert (await client.request("tools/call", {"name": "memo__count"})).status == 404
    assert said(await other.call("memo__count"))[1] == 2, "one that answers stays"
    await client.initialize()
    assert said(await client.call("memo__count"))[1] == 1


async def test_a_process_that_leaves_calls_unanswered_is_found_out_without_waiting_for_a_ping_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.health.PING_TIMEOUT", 0.2)
    async with running_gateway([stateful(isolation="session")], root=tmp_path) as running:
        client = await running.session()
        pid, _ = said(await client.call("memo__count"))
        running.upstream("memo").timeout = 0.5
        os.kill(pid, signal.SIGSTOP)
        for _ in range(SUSPECT):
            answer = await client.request("tools/call", {"name": "memo__count"})
            assert answer.json["error"]["data"]["type"] == "upstream_timeout"
        await until(lambda: not alive(pid))
        running.upstream("memo").timeout = NEVER
        assert (await client.request("tools/call", {"name": "memo__count"})).status == 404


async def test_a_call_that_kills_its_process_is_answered_with_an_error(running: Running) -> None:
    client = await running.session()
    answer = await client.call("memo__die")
    assert answer["error"]["data"]["type"] == "upstream_unavailable"
    assert (await client.request("tools/call", {"name": "memo__count"})).status == 404


async def test_after_a_restart_only_calls_to_a_server_with_lost_state_get_404(tmp_path: Path) -> None:
    specs = [stateful(isolation="session"), stateful("common")]
    async with running_gateway(specs, root=tmp_path) as first:
        user, bystander = await first.session(), await first.session()
        await user.call("memo__count")
        await bystander.call("common__count")
    async with running_gateway(specs, root=tmp_path) as second:
        user.port = bystander.port = second.port
        assert said(await user.call("common__count"))
        assert (await user.request("tools/call", {"name": "memo__count"})).status == 404
        assert said(await bystander.call("memo__count"))[1] == 1


async def test_the_number_of_processes_is_bounded_and_the_next_is_told(running: Running) -> None:
    clients = [await running.session() for _ in range(4)]
    for client in clients[:3]:
        await client.call("memo__count")
    answer = await clients[3].call("memo__count")
    assert answer["error"]["data"]["type"] == "too_many_sessions"
    assert answer["error"]["data"]["retriable"] is True
    await clients[0].http("DELETE")
    await until(lambda: len(running.upstream("memo").private) == 2)
    assert said(await clients[3].call("memo__count"))[1] == 1


async def test_a_process_that_was_not_called_for_long_makes_way_for_another_session(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [await running.session() for _ in range(4)]
    pids = [said(await client.call("memo__count"))[0] for client in clients[:3]]
    await clients[0].call("memo__count")
    monkeypatch.setattr(private, "MAKES_WAY", 0.0)
    assert said(await clients[3].call("memo__count"))[1] == 1
    await until(lambda: not alive(pids[1]))
    assert (await clients[1].request("tools/call", {"name": "memo__count"})).status == 404
    assert said(await clients[0].call("memo__count"))[1] == 3


async def test_a_server_that_is_switched_off_starts_no_process_for_anybody(running: Running) -> None:
    client = await running.session()
    upstream = running.upstream("memo")
    await upstream.close()
    assert (await client.call("memo__count"))["error"]
    assert len(upstream.private) == 0


async def test_a_process_that_nobody_uses_is_ended_and_not_replaced_by_a_blank_one(running: Running) -> None:
    client = await running.session()
    pid, _ = said(await client.call("memo__count"))
    pool = running.upstream("memo").private
    pool._idle = -1
    await pool.end_idle()
    await until(lambda: not alive(pid))
    assert (await client.request("tools/call", {"name": "memo__count"})).status == 404


async def test_a_process_with_a_call_in_flight_is_not_idle(running: Running) -> None:
    client = await running.session()
    gate = running.root / "gate"
    call = asyncio.create_task(client.call("memo__progress", {"gate": str(gate)}))
    await until(lambda: private_pids(running) and running.upstream("memo").in_flight)
    pool = running.upstream("memo").private
    pool._idle = -1
    await pool.end_idle()
    gate.touch()
    assert (await call)["result"]


async def test_roots_are_declared_for_a_client_that_has_them_and_asked_of_it(running: Running) -> None:
    client = running.client()
    await initialize(client, {"roots": {"listChanged": True}})
    stream = await listen(client)
    await stream.next()
    call = asyncio.create_task(client.call("memo__count"))
    asked = await stream.next()
    assert asked is not None
    assert asked.message["method"] == "roots/list"
    roots = {"roots": [{"uri": "file:///home", "name": "home"}]}
    await client.post({"jsonrpc": "2.0", "id": asked.message["id"], "result": roots})
    await call
    told = said(await client.call("memo__told"))
    assert told[0] == {"capabilities": {"roots": {"listChanged": True}}}
    while {"answer": roots} not in told:
        told = said(await client.call("memo__told"))
    await client.post({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})
    async with asyncio.timeout(WAIT):
        while {"roots": "changed"} not in said(await client.call("memo__told")):
            pass
    stream.wire.abort()


async def test_a_client_without_roots_is_not_asked_for_them(running: Running) -> None:
    client = await running.session()
    await client.call("memo__count")
    told: list[Any] = []
    async with asyncio.timeout(WAIT):
        while not any("answer" in line for line in told):
            told = said(await client.call("memo__told"))
    assert told[0] == {"capabilities": {}}
    (answer,) = (line["answer"] for line in told if "answer" in line)
    assert answer["code"] == -32601


async def test_updates_of_a_private_resource_reach_its_session_alone(running: Running) -> None:
    one, other = await running.session(), await running.session()
    streams = [await listen(client) for client in (one, other)]
    for client, stream in zip((one, other), streams, strict=True):
        await stream.next()
        assert (await client.request("resources/subscribe", {"uri": "memo://1"})).json["result"] == {}
    assert len(running.upstream("memo").private) == 2
    await one.call("memo__update")
    event = await streams[0].next()
    assert event is not None
    assert event.message["params"] == {"uri": "memo://1"}
    await other.call("memo__update")
    event = await streams[1].next()
    assert event is not None
    assert event.ident.endswith(".1"), "the first message of its stream"
    assert (await one.request("resources/unsubscribe", {"uri": "memo://1"})).json["result"] == {}
    assert {"resources/unsubscribe": "memo://1"} in said(await one.call("memo__told"))
    for stream in streams:
        stream.wire.abort()


async def test_the_log_level_of_a_session_is_that_of_its_own_process(running: Running) -> None:
    client, other = await running.session(), await running.session()
    await client.request("logging/setLevel", {"level": "error"})
    assert {"logging/setLevel": "error"} in said(await client.call("memo__told"))
    assert not any("logging/setLevel" in line for line in said(await other.call("memo__told")))
    await client.request("logging/setLevel", {"level": "alert"})
    async with asyncio.timeout(WAIT):
        while {"logging/setLevel": "alert"} not in said(await client.call("memo__told")):
            pass


async def test_clients_without_sessions_share_one_process_a_principal(running: Running) -> None:
    session, modern = await running.session(), running.client()
    pid, count = said(await modern.modern_call("memo__count"))
    assert count == 1
    assert said(await running.client().modern_call("memo__count")) == [pid, 2]
    assert said(await session.call("memo__count"))[0] != pid
    assert running.upstream("memo").pid != pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: pid not in private_pids(running))
    other, count = said(await modern.modern_call("memo__count"))
    assert (other != pid, count) == (True, 1)


class _Writer:
    def __init__(self) -> None:
        self.lines: asyncio.Queue[Any] = asyncio.Queue()

    def write(self, data: bytes) -> None:
        for line in data.splitlines():
            self.lines.put_nowait(json.loads(line))

    def is_closing(self) -> bool:
        return False

    async def drain(self) -> None: ...


async def test_a_client_on_a_stream_is_told_once_and_then_begins_anew(running: Running) -> None:
    reader, writer = asyncio.StreamReader(), _Writer()
    client = StreamClient(running.gateway.dispatcher, running.gateway.notices, reader, writer)
    serving = asyncio.create_task(client.serve())

    async def ask(ident: int, method: str, params: Any) -> Any:
        reader.feed_data(
            json.dumps({"jsonrpc": "2.0", "id": ident, "method": method, "params": params}).encode() + b"\n"
        )
        async with asyncio.timeout(WAIT):
            while (message := await writer.lines.get()).get("id") != ident:
                pass
        return message

    await ask(1, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
    pid, _ = said(await ask(2, "tools/call", {"name": "memo__count"}))
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not private_pids(running))
    told = await ask(3, "tools/call", {"name": "memo__count"})
    assert told["error"]["data"]["type"] == "state_lost"
    assert said(await ask(4, "tools/call", {"name": "memo__count"}))[1] == 1
    reader.feed_eof()
    await serving
    await until(lambda: not private_pids(running))


async def test_a_process_that_cannot_be_started_costs_no_place(tmp_path: Path) -> None:
    spec = ServerSpec("bad", Transport.STDIO, "/nowhere/at/all", extra={"isolation": "session"})
    good = stateful("memo", isolation="session")
    async with running_gateway([spec, good], root=tmp_path) as running:
        client = await running.session()
        site = next(iter(running.gateway.sessions)).site()
        pool = running.upstream("bad").private
        for _ in range(20):
            with pytest.raises(Exception, match="nowhere"):
                await pool.connection(site, private.Era.HANDSHAKE, WAIT)
        assert len(pool) == 0
        assert said(await client.call("memo__count"))[1] == 1


async def test_removing_a_server_ends_the_processes_of_its_sessions(running: Running) -> None:
    clients: list[Client] = [await running.session() for _ in range(3)]
    pids = [said(await client.call("memo__count"))[0] for client in clients]
    await running.gateway.roster.remove("memo")
    await until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize(
    "words",
    [
        "npx @playwright/mcp@latest",
        "npx -y @playwright/mcp --headless",
        "npx chrome-devtools-mcp@latest",
        "npx -y @modelcontextprotocol/server-puppeteer",
        "uvx browser-use[cli] --mcp",
        "uvx --from browser-use browser-use-mcp-server",
        "/usr/bin/mcp-server-playwright",
        "docker run -i --rm mcp/puppeteer",
        "docker run -i mcr.microsoft.com/playwright/mcp",
        "npx @browsermcp/mcp@latest",
    ],
)
def test_servers_that_drive_a_browser_are_isolated_without_being_told(words: str) -> None:
    command, *args = words.split()
    assert known_stateful(command, tuple(args))
    spec = ServerSpec("browser", Transport.STDIO, command, tuple(args))
    assert isolated(spec)
    assert not isolated(
        ServerSpec("browser", Transport.STDIO, command, tuple(args), extra={"isolation": "shared"})
    )


@pytest.mark.parametrize(
    "words",
    [
        "uvx mcp-server-time",
        "npx -y @modelcontextprotocol/server-filesystem /home/me/playwright",
        "npx -y @modelcontextprotocol/server-filesystem ./puppeteer",
        "python -m server --browser=playwright",
        "node work/playwright/index.js",
        "uvx mcp-server-git --repository /src/browser-use",
    ],
)
def test_other_servers_are_shared(words: str) -> None:
    command, *args = words.split()
    assert not known_stateful(command, tuple(args))
    assert not isolated(ServerSpec("one", Transport.HTTP, url="http://localhost/playwright"))


def test_an_isolation_that_means_nothing_is_a_fault_of_the_entry() -> None:
    spec, faults = read_entry("one", {"command": "x", "isolation": "process"})
    assert spec is None
    assert [fault.path for fault in faults] == [("isolation",)]
    spec, faults = read_entry("one", {"command": "x", "isolation": "session"})
    assert spec is not None
    assert isolated(spec)
    with pytest.raises(ConfigError, match="isolation"):
        isolated(ServerSpec("one", Transport.STDIO, "x", extra={"isolation": 5}))
