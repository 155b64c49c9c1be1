"""The gateway as a whole: good servers beside bad ones, names that stay, restarts, reloads and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import (
    NEVER,
    PEER,
    TOKEN,
    WAIT,
    Client,
    Wire,
    alive,
    descriptors,
    http_peer,
    mcp,
    remote,
    running_gateway,
    stdio,
    text,
    tool,
    until,
)

from gateway.upstream.state import State
from registry.model import ServerSpec, Transport

pytestmark = pytest.mark.anyio
BAD = [
    stdio("dead", "dead"),
    stdio("hung", "hang"),
    stdio("mute", "mute"),
    stdio("unlisted", "silent_list"),
    remote("refused", "http://127.0.0.1:1/mcp"),
]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


async def seen(client: Client) -> Any:
    """What the server has seen so far."""
    return json.loads(text(await client.call("peer__seen")))


async def works(client: Client, name: str = "peer__echo") -> None:
    assert text(await client.call(name, {"ok": 1})) == '{"ok": 1}'


async def test_dead_and_silent_servers_delay_neither_lists_nor_calls_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.supervisor.START_TIMEOUT", NEVER)
    async with running_gateway([*BAD, stdio()], first_list_grace=0.4) as running:
        client = await running.session()
        await running.gateway.synced("peer", WAIT)
        for _ in range(5):
            assert "peer__echo" in await client.names()
            await works(client)
        assert running.awaited >= {"hung", "mute"}


async def test_a_first_list_waits_for_the_shared_grace_at_most_and_news_follow(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    late = stdio("late", f"list_after:{gate}")
    async with running_gateway([late, stdio("hung", "hang")], first_list_grace=0.25) as running:
        client = await running.session()
        wire = await Wire.open(running.port)
        wire.send("GET", "/mcp", client.headers(Accept="text/event-stream"))
        await wire.head()
        await wire.chunk()
        lists = await asyncio.gather(*(client.names() for _ in range(5)))
        assert lists == [[]] * 5
        gate.touch()
        assert (await wire.event())["method"] == "notifications/tools/list_changed"
        assert "late__echo" in await client.names()
        wire.abort()


async def test_lists_sessions_and_names_outlive_a_restart_even_when_the_server_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_gateway([stdio()], root=tmp_path) as running:
        client = await running.session()
        before = (await client.request("tools/list", ident=1)).body
        session = client.session
    monkeypatch.setattr("gateway.upstream.supervisor.START_TIMEOUT", NEVER)
    async with running_gateway([stdio("peer", "hang")], root=tmp_path) as running:
        again = running.client()
        again.session = session
        answer = await again.request("tools/list", ident=1)
        assert answer.body == before
        assert running.upstream().state is State.STARTING
        assert (await again.request("ping")).status == 200


async def test_a_name_once_given_stays_with_its_tool_whoever_comes_later(tmp_path: Path) -> None:
    async with http_peer(mcp([tool("search")])) as one, http_peer(mcp([tool("search"), tool("only")])) as two:
        specs = [remote("one", one.url), remote("two", two.url)]
        async with running_gateway(specs[1:], root=tmp_path, names="on-collision") as running:
            client = await running.session()
            assert await client.names() == ["only", "search"]
        async with running_gateway(specs, root=tmp_path, names="on-collision") as running:
            client = await running.session()
            await until(lambda: len(running.gateway.catalog.servers) == 2)
            assert await client.names() == ["one__search", "only", "search"]
            await client.call("search")
        assert "tools/call" in two.methods()
        assert "tools/call" not in one.methods()


async def test_priority_shows_the_first_owner_and_tells_of_the_shadowed(tmp_path: Path) -> None:
    async with http_peer(mcp([tool("search")])) as one, http_peer(mcp([tool("search")])) as two:
        specs = [remote("one", one.url), remote("two", two.url)]
        async with running_gateway(specs, root=tmp_path, names="priority") as running:
            client = await running.session()
            await until(lambda: len(running.gateway.catalog.servers) == 2)
            assert await client.names() == ["search"]
            await client.call("search")
            assert "tools/call" in one.methods()
            conflict = running.gateway.catalog.conflicts[0]
            assert (conflict.key, conflict.owner, conflict.shadowed) == ("search", "one", ("two",))


async def test_a_reload_keeps_calls_in_flight_and_leaves_unchanged_servers_alone(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running_gateway([stdio("stay"), stdio("go"), stdio("change")]) as running:
        client = await running.session()
        await client.names()
        pid = running.upstream("stay").pid
        pids = [running.upstream(name).pid for name in ("go", "change")]
        slow = [
            asyncio.create_task(client.call(f"{name}__hold", {"gate": str(gate)}))
            for name in ("stay", "go", "change")
        ]
        await until(lambda: all(running.upstream(name).in_flight for name in ("stay", "go", "change")))
        await running.gateway.roster.configure([stdio("stay"), stdio("change", timeout=9.0)])
        assert not [name for name in await client.names() if name.startswith("go")]
        gone = await client.call("go__echo")
        assert gone["error"]["code"] == -32602
        gate.touch()
        assert [text(answer) for answer in await asyncio.gather(*slow)] == ["held"] * 3
        await until(lambda: not any(map(alive, pids)))
        assert running.upstream("stay").pid == pid
        await works(client, "change__echo")


async def test_a_command_that_comes_with_a_reload_waits_for_approval_and_runs_after_it(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "ran"
    program = ServerSpec(
        "new", Transport.STDIO, "/bin/sh", ("-c", f"touch {mark}; exec {sys.executable} -I -S {PEER}")
    )
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        await works(client)
        await running.gateway.roster.configure([stdio(), program])
        await until(lambda: running.upstream("new").state is State.PENDING)
        await running.gateway.settled()
        names = await client.names()
        assert not [name for name in names if name.startswith("new")]
        running.upstream("new").wake()
        assert not mark.exists()
        assert "approve" in (running.upstream("new").error or await denied(running)).hint
        await running.gateway.roster.approve("new")
        await running.gateway.synced("new", WAIT)
        await until(lambda: "new__echo" in running.gateway.catalog.entries["tool"])  # type: ignore[index]
        await works(client, "new__echo")


async def denied(running: Any) -> Any:
    from gateway.errors import NotApproved
    from gateway.protocol import Era

    with pytest.raises(NotApproved) as caught:
        await running.upstream("new").connect(Era.HANDSHAKE)
    return caught.value


async def test_an_untrusted_configuration_runs_nothing_at_all(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    program = ServerSpec("new", Transport.STDIO, "/bin/sh", ("-c", f"touch {mark}"))
    async with running_gateway([program], trust=False) as running:
        await until(lambda: running.upstream("new").state is State.PENDING)
        answer = await (await running.session()).call("new__echo")
        assert "error" in answer
        assert not mark.exists()


async def test_64_calls_are_carried_out_at_the_same_time(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        await client.names()
        held = [asyncio.create_task(client.call("peer__hold", {"gate": str(gate)})) for _ in range(64)]
        async with asyncio.timeout(WAIT):
            while (await seen(client))["calls"].count("hold") < 64:
                pass
        gate.touch()
        assert [text(answer) for answer in await asyncio.gather(*held)] == ["held"] * 64


async def test_cancelled_calls_leave_no_entry_and_no_descriptor() -> None:
    async with (
        http_peer(mcp(tools_call=never)) as peer,
        running_gateway([stdio(), remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        pool = running.upstream("far")._connector._pool

        async def cancelled(name: str, number: int) -> None:
            body, fields = client.modern("tools/call", {"name": name}, number)
            wire = await Wire.open(running.port)
            wire.send("POST", "/mcp", {**client.headers(), **fields}, body)
            await asyncio.sleep(0.02)
            wire.abort()

        async def round_of(count: int) -> int:
            await asyncio.gather(
                *(cancelled(n, i) for i in range(count) for n in ("peer__never", "far__echo"))
            )
            await until(lambda: running.pending() == 0 and running.endpoint.active == 0)
            await until(lambda: len(pool._open) - len(pool._idle) <= 2)
            return held()

        def held() -> int:
            """Descriptors in use; a connection that waits for the next request is none of a call's."""
            return descriptors() - len(pool._idle)

        first = await round_of(40)
        await round_of(80)
        await until(lambda: held() <= first + 8)


async def never(request: Any, writer: Any) -> None:
    """A handler that does not answer."""


async def test_a_disk_that_takes_no_cache_ends_nothing() -> None:
    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with running_gateway([]) as running:
        running.gateway._cache_writer = full
        await running.gateway.roster.add(stdio())
        await running.gateway.synced("peer", WAIT)
        await works(await running.session())


# the process


@asynccontextmanager
async def process(
    root: Path, servers: dict[str, Any], grace: float = WAIT
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Client]]:
    """A gateway in a process of its own, listening."""
    config = root / "servers.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    (root / "config").mkdir(exist_ok=True)
    (root / "config" / "config.toml").write_text(f"[gateway]\nfirst_list_grace = {grace}\n")
    (root / "gateway.json").unlink(missing_ok=True)
    arguments = ["serve", "--config", str(config), "--port", "0", "--token", TOKEN, "--state-dir", str(root)]
    environment = {**os.environ, "TOOLYARD_CONFIG_DIR": str(root / "config")}
    child = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "gateway", *arguments],
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        facts = root / "gateway.json"
        await until(lambda: facts.exists() or child.returncode is not None, 3 * WAIT)
        url = json.loads(facts.read_text())["url"]
        yield child, Client(int(url.rpartition(":")[2].split("/")[0]))
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def entry(*words: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-I", "-S", str(PEER), *words]}


async def test_sigterm_under_load_ends_every_child_and_grandchild(tmp_path: Path) -> None:
    servers = {"peer": entry("stubborn"), "hung": entry("hang", "stubborn", "brood")}
    async with process(tmp_path, servers, grace=0.5) as (child, client):
        await client.initialize()
        async with asyncio.timeout(WAIT):
            while "peer__pid" not in await client.names():
                pass
        pids = [
            int(text(await client.call(f"peer__{name}")))
            for name in ("pid", "grandchild", "pid", "grandchild")
        ]
        load = [asyncio.create_task(client.call("peer__never")) for _ in range(50)]
        streams = [await Wire.open(client.port) for _ in range(3)]
        for wire in streams:
            wire.send("GET", "/mcp", client.headers(Accept="text/event-stream"))
            await wire.head()
        await client.call("peer__echo")
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), WAIT) == 0  # within 5 s: tests/benchmarks/faults
        await until(lambda: not any(map(alive, pids)))
        await asyncio.gather(*load, return_exceptions=True)
        assert not (tmp_path / "gateway.json").exists()


async def test_kill_9_leaves_a_store_that_serves_the_same_names_and_sessions(tmp_path: Path) -> None:
    async with process(tmp_path, {"peer": entry()}) as (child, client):
        await client.initialize()
        before = await client.names()
        session = client.session
        await client.call("peer__echo")
        pid = int(text(await client.call("peer__pid")))
        child.kill()
        await child.wait()
    await until(lambda: not alive(pid))
    async with process(tmp_path, {"peer": entry("hang")}) as (child, client):
        client.session = session
        assert await client.names() == before
