"""One server in trouble: its callers are told at once, it comes back, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from fault_parts import child, kill, logged, remote_server, zombies_of
from gateway_parts import NEVER, WAIT, Client, alive, remote, running_gateway, text, until

from gateway.upstream.recovery import GIVE_UP
from gateway.upstream.state import State

pytestmark = pytest.mark.anyio
GRACE = 1.0


async def works(client: Client, server: str) -> None:
    assert text(await client.call(f"{server}__echo", {"text": server})) == server


@pytest.mark.parametrize("mode", ["kill", "exit"])
async def test_a_child_that_is_killed_mid_call_fails_it_at_once_and_serves_the_next(mode: str) -> None:
    async with running_gateway([child("bad"), child("good")]) as running:
        client = await running.session()
        await running.ready("bad", "good")
        other = asyncio.create_task(client.call("good__sleep", {"seconds": 1, "text": "untouched"}))
        hanging = asyncio.create_task(client.call("bad__do", {"mode": "hang"}))
        await until(lambda: running.upstream("bad").in_flight == 1)
        killed = await client.call("bad__do", {"mode": mode})
        assert "error" in await hanging
        assert killed["error"]["data"]["type"] == "upstream_unavailable"
        await works(client, "bad")
        assert text(await other) == "untouched"
        assert running.upstream("good").restarts == 0
        assert not zombies_of(os.getpid())


async def test_a_remote_server_that_is_killed_mid_call_fails_it_at_once_and_serves_the_next() -> None:
    with remote_server() as server:
        async with running_gateway([remote("bad", server.url), child("good")]) as running:
            client = await running.session()
            await running.ready("bad", "good")
            hanging = asyncio.create_task(client.call("bad__do", {"mode": "hang"}))
            await until(lambda: running.upstream("bad").in_flight == 1)
            await works(client, "bad")
            server.kill()
            answer = await hanging
            assert answer["error"]["data"]["type"] == "upstream_unavailable"
            refused = await client.call("bad__echo")
            assert "error" in refused
            await works(client, "good")
            server.start()
            await works(client, "bad")


async def test_every_fault_of_a_remote_server_ends_in_an_error_and_the_next_call_works() -> None:
    with remote_server() as server:
        async with running_gateway([remote("bad", server.url)]) as running:
            client = await running.session()
            await running.ready("bad")
            for mode in ("reset", "500", "503", "garbage", "cut", "hang", "404", "forget"):
                running.upstream("bad").timeout = 1.0 if mode == "hang" else NEVER
                answer = await client.call("bad__do", {"mode": mode})
                assert ("result" in answer) == (mode == "forget"), (mode, answer)
                running.upstream("bad").timeout = NEVER
                await works(client, "bad")
            assert running.pending() == 0


async def test_floods_and_huge_results_harm_nobody_else() -> None:
    async with running_gateway([child("bad"), child("good")]) as running:
        client = await running.session()
        await running.ready("bad", "good")
        for arguments in (
            {"mode": "flood-stdout", "mib": 4},
            {"mode": "flood-stderr", "mib": 4},
            {"mode": "flood-notices"},
            {"mode": "garbage"},
            {"mode": "slow", "seconds": 0.3},
            {"mode": "huge", "mib": 16},
        ):
            trouble = asyncio.create_task(client.call("bad__do", arguments))
            while not trouble.done():
                await works(client, "good")
            assert "result" in await trouble
            await works(client, "bad")
        assert running.upstream("bad").restarts == 0


async def test_a_call_to_a_server_that_is_starting_waits_and_hears_so(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.write_text("ok")
    async with running_gateway([child("late", "--start-file", str(start))]) as running:
        client = await running.session()
        await works(client, "late")
        start.write_text(f"gate:{tmp_path / 'gate'}")
        kill(running.upstream("late").pid)
        await until(lambda: running.upstream("late").state is State.STARTING)
        params = {"name": "late__echo", "arguments": {"text": "at last"}, "_meta": {"progressToken": "t"}}
        async with client.wire() as wire:
            wire.send(
                "POST", "/mcp", client.headers(), json.dumps(client.message("tools/call", params)).encode()
            )
            await wire.head()
            notes = [await wire.event() for _ in range(2)]
            (tmp_path / "gate").touch()
            while "result" not in (message := await wire.event()):
                notes.append(message)
        assert text(message) == "at last"
        progress = [note["params"]["progress"] for note in notes]
        assert all("waiting for server 'late' to start" in note["params"]["message"] for note in notes)
        assert progress == sorted(set(progress))


async def test_a_call_waits_for_a_server_that_is_starting_no_longer_than_its_timeout(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.write_text("ok")
    async with running_gateway([child("late", "--start-file", str(start))]) as running:
        client = await running.session()
        await works(client, "late")
        running.upstream("late").timeout = 0.5
        start.write_text("hang")
        kill(running.upstream("late").pid)
        await until(lambda: running.upstream("late").state is State.STARTING)
        answer = await client.call("late__echo")
        assert answer["error"]["data"]["type"] == "upstream_timeout"
        assert "still starting" in answer["error"]["message"]


async def test_an_idle_server_is_stopped_and_the_next_call_starts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.app.WATCH_EVERY", 0.05)
    log = tmp_path / "log"
    async with running_gateway([child("lazy")], root=tmp_path) as running:
        await running.gateway.settled()  # it will be known, however soon it is idle
    lazy = child("lazy", "--log", str(log), idleTimeout=1)
    async with running_gateway([lazy, child("busy")], root=tmp_path) as running:
        client = await running.session()
        await running.ready("busy")
        await until(lambda: running.upstream("lazy").state is State.IDLE and logged(log, "start"))
        await until(lambda: not any(alive(int(pid)) for pid in logged(log, "start")))
        assert "lazy__echo" in await client.names()
        assert running.upstream("busy").state is State.READY
        await works(client, "lazy")
        assert len(logged(log, "start")) == 2
        assert running.upstream("lazy").restarts == 0


async def test_a_server_that_answers_nothing_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.app.WATCH_EVERY", 0.05)
    async with running_gateway([child("hung"), child("good")]) as running:
        client = await running.session()
        await running.ready("hung", "good")
        pid = running.upstream("hung").pid
        with monkeypatch.context() as short:
            short.setattr("gateway.upstream.health.PING_TIMEOUT", 2.0)  # thrice: a good one answers in time
            running.upstream("hung").timeout = 0.3
            assert "error" in await client.call("hung__do", {"mode": "deaf"})
            running.upstream("hung").timeout = NEVER
            await until(lambda: running.upstream("hung").pid not in (None, pid))
        await works(client, "hung")
        assert running.upstream("good").restarts == 0


async def test_a_server_that_answers_none_of_many_calls_is_replaced_although_calls_never_cease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.health.PING_TIMEOUT", 0.2)
    async with running_gateway([child("hung")]) as running:
        client = await running.session()
        await running.ready("hung")
        pid = running.upstream("hung").pid
        running.upstream("hung").timeout = 0.2
        await client.call("hung__do", {"mode": "deaf"})
        async with asyncio.timeout(WAIT):
            while running.upstream("hung").pid in (None, pid):
                await client.call("hung__echo")
        running.upstream("hung").timeout = NEVER
        await works(client, "hung")


async def test_a_crash_loop_ends_in_a_visible_failure_that_costs_nothing_and_can_be_mended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.upstream.recovery.BACKOFF", (0.01, 0.02))
    log, start = tmp_path / "log", tmp_path / "start"
    start.write_text("ok")
    async with running_gateway([child("loop", "--log", str(log), "--start-file", str(start))]) as running:
        upstream = running.upstream("loop")
        await works(await running.session(), "loop")
        start.write_text("brief")
        kill(upstream.pid)
        await until(lambda: upstream.state is State.FAILED and upstream.recovery.given_up)
        starts = len(logged(log, "start"))
        assert GIVE_UP <= starts <= GIVE_UP + 1
        assert f"{GIVE_UP} times in a row" in upstream.error.message
        used = time.process_time()
        await asyncio.sleep(0.3)  # that nothing happens has no event
        assert time.process_time() - used < 0.15
        assert len(logged(log, "start")) == starts
        start.write_text("ok")
        await works(await running.session(), "loop")
        assert upstream.state is State.READY


async def test_calls_over_the_limit_wait_in_turn_and_over_the_queue_are_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with running_gateway([child("narrow", maxConcurrency=2), child("good")]) as running:
        client = await running.session()
        await running.ready("narrow", "good")
        slots = running.upstream("narrow")._slots
        monkeypatch.setattr(slots, "_queue", 4)
        calls = [
            asyncio.create_task(
                client.call("narrow__sleep", {"gate": str(tmp_path / "gate"), "text": str(n)})
            )
            for n in range(6)
        ]
        await until(lambda: slots.waiting == 4)
        assert slots.in_use == 2
        refused = await client.call("narrow__echo")
        assert refused["error"]["data"]["type"] == "upstream_busy"
        await works(client, "good")
        (tmp_path / "gate").touch()
        assert [text(answer) for answer in await asyncio.gather(*calls)] == list("012345")
        assert slots.in_use == slots.waiting == 0


async def test_a_server_that_hangs_in_its_start_is_gone_at_once_when_it_is_removed_or_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.supervisor.START_TIMEOUT", NEVER)
    log, start = tmp_path / "log", tmp_path / "start"
    start.write_text("hang")
    async with running_gateway([child("hung", "--log", str(log), "--start-file", str(start))]) as running:
        await until(lambda: logged(log, "start"))
        start.write_text("ok")
        async with asyncio.timeout(WAIT):
            await running.gateway.roster.restart("hung")
        await until(lambda: "hung" in running.gateway.catalog.servers)
        await works(await running.session(), "hung")
        first, second = map(int, logged(log, "start"))
        assert not alive(first)
        await running.gateway.roster.remove("hung")
        await until(lambda: not alive(second))


async def test_calls_during_a_restart_leave_one_server_that_is_ready() -> None:
    async with running_gateway([child("peer")]) as running:
        client = await running.session()
        await running.ready("peer")
        for _ in range(3):
            restart = asyncio.create_task(running.gateway.roster.restart("peer"))
            await asyncio.gather(*(client.call("peer__echo") for _ in range(5)))
            await restart
            await works(client, "peer")
            assert running.upstream("peer").state is State.READY
            assert len(running.upstream("peer").connections) == 1


async def test_what_a_killed_server_leaves_in_another_session_is_ended_with_it() -> None:
    async with running_gateway([child("parent")]) as running:
        client = await running.session()
        await running.ready("parent")
        pids = [int(text(await client.call("parent__do", {"mode": mode}))) for mode in ("child", "setsid")]
        kill(running.upstream("parent").pid)
        await until(lambda: not any(map(alive, pids)))
        await works(client, "parent")


async def test_a_life_line_that_is_killed_is_replaced_at_once() -> None:
    async with running_gateway([child("peer")]) as running:
        await running.ready("peer")
        line = running.gateway.starting.lifeline
        for _ in range(2):
            pid = line.pid
            kill(pid)
            await until(lambda pid=pid: line.pid not in (None, pid))  # type: ignore[misc]
            assert alive(line.pid)
        assert not zombies_of(os.getpid())


async def test_a_server_that_cannot_be_listed_in_time_delays_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.supervisor.START_TIMEOUT", NEVER)
    bad = [
        child("dead", "--start", "dead"),
        child("hung", "--start", "hang"),
        remote("gone", "http://127.0.0.1:1/mcp"),
    ]
    async with running_gateway([*bad, child("good")], first_list_grace=GRACE) as running:
        client = await running.session()
        await running.gateway.synced("good", WAIT)
        await client.names()  # the first one waits for the shared grace
        async with asyncio.timeout(40 * GRACE):
            for _ in range(80):
                assert "good__echo" in await client.names()
        assert "hung" in running.awaited


async def test_64_calls_through_a_remote_server_are_carried_out_at_the_same_time(tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    with remote_server(log) as server:
        async with running_gateway([remote("far", server.url)]) as running:
            clients = [await running.session() for _ in range(64)]
            await running.ready("far")
            calls = [
                asyncio.create_task(client.call("far__sleep", {"gate": str(gate), "text": str(n)}))
                for n, client in enumerate(clients)
            ]
            await until(lambda: len(logged(log, "call")) == 64)
            gate.touch()
            answers = [text(answer) for answer in await asyncio.gather(*calls)]
            assert answers == [str(n) for n in range(64)]
