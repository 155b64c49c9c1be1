"""One server in trouble: its callers are told at once, it comes back, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from fault_parts import child, kill, logged, remote_server, zombies_of
from gateway_parts import Client, Running, alive, remote, running_gateway, until

from gateway.upstream.recovery import GIVE_UP
from gateway.upstream.state import State

pytestmark = pytest.mark.anyio


def text(answer: Any) -> str:
    value: str = answer["result"]["content"][0]["text"]
    return value


async def works(client: Client, server: str) -> None:
    assert text(await client.call(f"{server}__echo", {"text": server})) == server


async def ready(running: Running, *names: str) -> None:
    for name in names:
        await until(lambda name=name: running.upstream(name).state is State.READY, what=name)  # type: ignore[misc]


@pytest.mark.parametrize("mode", ["kill", "exit"])
async def test_a_child_that_is_killed_mid_call_fails_it_at_once_and_serves_the_next(mode: str) -> None:
    async with running_gateway([child("bad"), child("good")]) as running:
        client = await running.session()
        await ready(running, "bad", "good")
        other = asyncio.create_task(client.call("good__sleep", {"seconds": 1, "text": "untouched"}))
        hanging = asyncio.create_task(client.call("bad__do", {"mode": "hang"}))
        await until(lambda: running.upstream("bad").in_flight == 1)
        started = time.monotonic()
        killed = await client.call("bad__do", {"mode": mode})
        assert "error" in await hanging
        assert time.monotonic() - started < 5.0
        assert killed["error"]["data"]["type"] == "upstream_unavailable"
        await works(client, "bad")
        assert time.monotonic() - started < 20.0
        assert text(await other) == "untouched"
        assert running.upstream("good").restarts == 0
        assert not zombies_of(os.getpid())


async def test_a_remote_server_that_is_killed_mid_call_fails_it_at_once_and_serves_the_next() -> None:
    with remote_server() as server:
        async with running_gateway([remote("bad", server.url), child("good")]) as running:
            client = await running.session()
            await ready(running, "bad", "good")
            hanging = asyncio.create_task(client.call("bad__do", {"mode": "hang"}))
            await until(lambda: running.upstream("bad").in_flight == 1)
            await works(client, "bad")
            started = time.monotonic()
            server.kill()
            answer = await hanging
            assert time.monotonic() - started < 5.0
            assert answer["error"]["data"]["type"] == "upstream_unavailable"
            refused = await client.call("bad__echo")
            assert "error" in refused
            await works(client, "good")
            server.start()
            started = time.monotonic()
            await works(client, "bad")
            assert time.monotonic() - started < 5.0


async def test_every_fault_of_a_remote_server_ends_in_an_error_and_the_next_call_works() -> None:
    with remote_server() as server:
        async with running_gateway([remote("bad", server.url, timeout=1.0)]) as running:
            client = await running.session()
            await ready(running, "bad")
            for mode in ("reset", "500", "503", "garbage", "cut", "hang", "404", "forget"):
                started = time.monotonic()
                answer = await client.call("bad__do", {"mode": mode})
                assert ("result" in answer) == (mode == "forget"), (mode, answer)
                assert time.monotonic() - started < 10.0, mode
                await works(client, "bad")
            assert running.pending() == 0


async def test_floods_and_huge_results_harm_nobody_else() -> None:
    async with running_gateway([child("bad"), child("good")]) as running:
        client = await running.session()
        await ready(running, "bad", "good")
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
                started = time.monotonic()
                await works(client, "good")
                assert time.monotonic() - started < 10.0, arguments  # the flood is not waited for
            assert "result" in await trouble
            await works(client, "bad")
        assert running.upstream("bad").restarts == 0


async def test_a_call_to_a_server_that_is_starting_waits_and_hears_so(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.write_text("ok")
    async with running_gateway([child("late", "--start-file", str(start))]) as running:
        client = await running.session()
        await works(client, "late")
        start.write_text("slow:2.3")
        kill(running.upstream("late").pid)
        await until(lambda: running.upstream("late").state is State.STARTING)
        params = {"name": "late__echo", "arguments": {"text": "at last"}, "_meta": {"progressToken": "t"}}
        answer = await client.request("tools/call", params)
        *notes, last = answer.events
        assert text(last) == "at last"
        progress = [note["params"]["progress"] for note in notes]
        assert len(notes) >= 2
        assert all("waiting for server 'late' to start" in note["params"]["message"] for note in notes)
        assert progress == sorted(set(progress))


async def test_a_call_waits_for_a_server_that_is_starting_no_longer_than_its_timeout(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.write_text("ok")
    async with running_gateway([child("late", "--start-file", str(start), timeout=0.5)]) as running:
        client = await running.session()
        await works(client, "late")
        start.write_text("hang")
        kill(running.upstream("late").pid)
        await until(lambda: running.upstream("late").state is State.STARTING)
        started = time.monotonic()
        answer = await client.call("late__echo")
        assert time.monotonic() - started < 10.0
        assert answer["error"]["data"]["type"] == "upstream_timeout"
        assert "still starting" in answer["error"]["message"]


async def test_an_idle_server_is_stopped_and_the_next_call_starts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("gateway.app.WATCH_EVERY", 0.05)
    log = tmp_path / "log"
    async with running_gateway([child("lazy", "--log", str(log), idleTimeout=1), child("busy")]) as running:
        client = await running.session()
        await ready(running, "lazy", "busy")
        pid = running.upstream("lazy").pid
        await until(lambda: running.upstream("lazy").state is State.IDLE)
        await until(lambda: not alive(pid))
        assert "lazy__echo" in await client.names()
        assert running.upstream("busy").state is State.READY
        await works(client, "lazy")
        assert len(logged(log, "start")) == 2
        assert running.upstream("lazy").restarts == 0


async def test_a_server_that_answers_nothing_any_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.app.WATCH_EVERY", 0.05)
    monkeypatch.setattr("gateway.upstream.health.PING_TIMEOUT", 0.2)
    async with running_gateway([child("hung", timeout=0.3), child("good")]) as running:
        client = await running.session()
        await ready(running, "hung", "good")
        pid = running.upstream("hung").pid
        assert "error" in await client.call("hung__do", {"mode": "deaf"})
        await until(lambda: running.upstream("hung").pid not in (None, pid))
        await works(client, "hung")
        assert running.upstream("good").restarts == 0


async def test_a_server_that_answers_none_of_many_calls_is_replaced_although_calls_never_cease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.health.PING_TIMEOUT", 0.2)
    async with running_gateway([child("hung", timeout=0.2)]) as running:
        client = await running.session()
        await ready(running, "hung")
        pid = running.upstream("hung").pid
        await client.call("hung__do", {"mode": "deaf"})
        deadline = time.monotonic() + 10
        while running.upstream("hung").pid in (None, pid) and time.monotonic() < deadline:
            await client.call("hung__echo")
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_gateway([child("narrow", maxConcurrency=2), child("good")]) as running:
        client = await running.session()
        await ready(running, "narrow", "good")
        slots = running.upstream("narrow")._slots
        monkeypatch.setattr(slots, "_queue", 4)
        calls = [
            asyncio.create_task(client.call("narrow__sleep", {"seconds": 0.3, "text": str(n)}))
            for n in range(6)
        ]
        await until(lambda: slots.waiting == 4)
        assert slots.in_use == 2
        refused = await client.call("narrow__echo")
        assert refused["error"]["data"]["type"] == "upstream_busy"
        await works(client, "good")
        assert [text(answer) for answer in await asyncio.gather(*calls)] == list("012345")
        assert slots.in_use == slots.waiting == 0


async def test_a_server_that_hangs_in_its_start_is_gone_at_once_when_it_is_removed_or_restarted(
    tmp_path: Path,
) -> None:
    log, start = tmp_path / "log", tmp_path / "start"
    start.write_text("hang")
    async with running_gateway([child("hung", "--log", str(log), "--start-file", str(start))]) as running:
        await until(lambda: logged(log, "start"))
        start.write_text("ok")
        begun = time.monotonic()
        await running.gateway.roster.restart("hung")
        await until(lambda: "hung" in running.gateway.catalog.servers)
        await works(await running.session(), "hung")
        assert time.monotonic() - begun < 5
        first, second = map(int, logged(log, "start"))
        assert not alive(first)
        await running.gateway.roster.remove("hung")
        await until(lambda: not alive(second))


async def test_calls_during_a_restart_leave_one_server_that_is_ready() -> None:
    async with running_gateway([child("peer")]) as running:
        client = await running.session()
        await ready(running, "peer")
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
        await ready(running, "parent")
        pids = [int(text(await client.call("parent__do", {"mode": mode}))) for mode in ("child", "setsid")]
        kill(running.upstream("parent").pid)
        await until(lambda: not any(map(alive, pids)), 5)
        await works(client, "parent")


async def test_a_life_line_that_is_killed_is_replaced_at_once() -> None:
    async with running_gateway([child("peer")]) as running:
        await ready(running, "peer")
        line = running.gateway.starting.lifeline
        for _ in range(2):
            pid = line.pid
            kill(pid)
            await until(lambda pid=pid: line.pid not in (None, pid))  # type: ignore[misc]
            assert alive(line.pid)
        assert not zombies_of(os.getpid())


async def test_a_server_that_cannot_be_listed_in_time_delays_no_list() -> None:
    bad = [
        child("dead", "--start", "dead"),
        child("hung", "--start", "hang"),
        remote("gone", "http://127.0.0.1:1/mcp"),
    ]
    async with running_gateway([*bad, child("good")], first_list_grace=0.5) as running:
        client = await running.session()
        await ready(running, "good")
        await client.names()  # the first one waits for the shared grace
        times = []
        for _ in range(20):
            started = time.monotonic()
            assert "good__echo" in await client.names()
            times.append(time.monotonic() - started)
        assert sorted(times)[10] < 0.05


async def test_64_sleeps_of_a_second_through_a_remote_server_take_about_a_second() -> None:
    with remote_server() as server:
        async with running_gateway([remote("far", server.url)]) as running:
            clients = [await running.session() for _ in range(64)]
            await ready(running, "far")
            started = time.monotonic()
            calls = [
                client.call("far__sleep", {"seconds": 1, "text": str(n)}) for n, client in enumerate(clients)
            ]
            answers = [text(answer) for answer in await asyncio.gather(*calls)]
            assert answers == [str(n) for n in range(64)]
            assert time.monotonic() - started < 3.0  # 1.5 s is the bar, on a quiet machine
