"""Stdio servers that misbehave: none of them harms the gateway, its other servers or its callers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import NEVER, WAIT, Client, Running, alive, running_gateway, stdio, text, until

from gateway import jsonrpc
from gateway.listings import RESYNC_PAUSE
from gateway.upstream.recovery import BACKOFF
from gateway.upstream.state import State

pytestmark = pytest.mark.anyio


async def works(client: Client, server: str = "peer") -> None:
    assert text(await client.call(f"{server}__echo", {"ok": 1})) == '{"ok": 1}'


async def lists(client: Client) -> list[float]:
    """When the server was asked for its list."""
    times: list[float] = json.loads(text(await client.call("peer__seen")))["lists"]
    return times


def starts(upstream: Any) -> list[float]:
    """When a server that says so was started."""
    return [float(line.rpartition(" ")[2]) for line in upstream.log.lines if line.startswith("started at")]


def assert_ever_less_often(times: list[float], shortest: float) -> None:
    """A slow machine makes the pauses longer, and never shorter."""
    pauses = [after - before for before, after in pairwise(times)]
    assert all(pause >= shortest * 2**n for n, pause in enumerate(pauses)), pauses


@pytest.mark.parametrize("name", ["garbage", "binary", "twice", "wrong_id", "huge_id", "bad_notifications"])
async def test_nonsense_on_stdout_is_skipped_and_the_answer_found(name: str) -> None:
    async with running_gateway([stdio("peer", "chatty", "noisy")]) as running:
        client = await running.session()
        answer = await client.call(f"peer__{name}", _meta={"progressToken": 1})
        assert "result" in answer, answer
        assert answer["result"].get("content", [{"text": "right"}])[:1] != [{"type": "text", "text": "wrong"}]
        assert running.upstream().restarts == 0
        await works(client)


async def test_an_answer_given_twice_is_taken_once() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        for _ in range(20):
            assert text(await client.call("peer__twice")) == "first"
            await works(client)


async def test_fifty_megabytes_on_stderr_disturb_nobody_and_are_not_kept() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        assert text(await client.call("peer__stderr_flood")) == "flooded"
        assert sum(map(len, running.upstream().log.lines)) < 1_000_000
        await works(client)


async def test_a_line_of_100_megabytes_fails_its_call_and_is_skipped() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        answer = await client.call("peer__long_line")
        assert "longer than" in answer["error"]["message"]
        await until(lambda: running.pending() == 0)
        await works(client)


async def test_a_call_that_is_never_answered_times_out_and_is_cancelled_at_the_server() -> None:
    async with running_gateway([stdio(timeout=0.4)]) as running:
        client = await running.session()
        await running.ready("peer")
        started = time.monotonic()
        answer = await client.call("peer__never")
        assert time.monotonic() - started > 0.3
        assert answer["error"]["data"]["type"] == "upstream_timeout"
        running.upstream().timeout = NEVER
        assert len(json.loads(text(await client.call("peer__seen")))["cancelled"]) == 1
        assert running.pending() == 0


async def test_progress_extends_a_call_and_other_notices_do_not() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        params = {"name": "peer__hold", "arguments": {"gate": str(running.root / "gate")}}
        call = asyncio.create_task(client.request("tools/call", {**params, "_meta": {"progressToken": 1}}))
        await until(lambda: running.upstream().in_flight and running.upstream().connections[0]._pending)
        (pending,) = running.upstream().connections[0]._pending.values()
        for method, extends in (("notifications/progress", True), ("notifications/message", False)):
            due = pending._timer.when()
            await until(lambda due=due: asyncio.get_running_loop().time() + NEVER > due)  # type: ignore[misc]
            told = {"jsonrpc": "2.0", "method": method, "params": {"progress": 1}}
            pending.notify(jsonrpc.shallow(json.dumps(told).encode()))
            assert (pending._timer.when() > due) is extends
        (running.root / "gate").touch()
        assert (await call).events[-1]["result"]


async def test_a_server_that_dies_fails_all_its_calls_at_once_and_is_back_for_the_next() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        waiting = [asyncio.create_task(client.call("peer__never")) for _ in range(5)]
        await until(lambda: running.upstream().in_flight == 5)
        answer = await client.call("peer__die", {"cause": "a broken heart"})
        assert answer["error"]["data"]["type"] == "upstream_unavailable"
        assert "a broken heart" in answer["error"]["message"]  # last words without a line's end
        for other in await asyncio.gather(*waiting):
            assert "exited with code 3" in other["error"]["message"]
        await works(client)
        assert running.upstream().state is State.READY


async def test_a_server_that_dies_at_start_is_tried_ever_less_often_and_shows_its_last_words() -> None:
    async with running_gateway([stdio("dead", "dead"), stdio()]) as running:
        upstream = running.upstream("dead")
        await until(lambda: upstream.recovery.failures >= 4)
        assert_ever_less_often(starts(upstream), BACKOFF[0] * 0.8)
        await until(lambda: upstream.state is State.FAILED)
        assert "cannot find my shoes" in upstream.error.message
        client = await running.session()
        await works(client)
        assert not [name for name in await client.names() if name.startswith("dead")]


async def test_a_server_that_dies_after_each_handshake_is_not_restarted_in_a_tight_loop() -> None:
    async with running_gateway([stdio("brief", "short_lived"), stdio()]) as running:
        upstream = running.upstream("brief")
        client = await running.session()
        while len(starts(upstream)) < 5:
            await works(client)
        assert_ever_less_often(starts(upstream), BACKOFF[0] * 0.8)


async def test_a_server_that_hangs_in_its_handshake_delays_nobody() -> None:
    specs = [stdio("hung", "hang"), stdio("mute", "mute"), stdio("no", "refuse"), stdio()]
    async with running_gateway(specs, first_list_grace=0.5) as running:
        client = await running.session()
        await running.ready("peer")
        assert "peer__echo" in await client.names()
        await works(client)
        assert running.awaited >= {"hung", "mute"}
        await until(lambda: running.upstream("no").state is State.FAILED)
        assert "go away" in running.upstream("no").error.message


async def test_a_server_that_hangs_in_its_handshake_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.supervisor.START_TIMEOUT", 0.5)
    async with running_gateway([stdio("hung", "hang"), stdio("mute", "mute")]) as running:
        for name in ("hung", "mute"):
            await until(lambda name=name: running.upstream(name).state is State.FAILED)  # type: ignore[misc]
            assert "did not finish its handshake" in running.upstream(name).error.message


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # uvloop leaves a child a second copy of its stdout
async def test_a_server_that_closes_its_output_and_lives_is_replaced() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        pid = int(text(await client.call("peer__pid")))
        answer = await client.call("peer__close_stdout")
        assert "closed its output" in answer["error"]["message"]
        await works(client)
        await until(lambda: not alive(pid))


async def test_a_server_that_ignores_every_hint_is_killed_with_its_whole_group() -> None:
    async with running_gateway([stdio("peer", "stubborn")]) as running:
        client = await running.session()
        pids = [int(text(await client.call(f"peer__{name}"))) for name in ("pid", "grandchild", "grandchild")]
        assert all(map(alive, pids))
        await running.gateway.roster.remove("peer")
        await until(lambda: not any(map(alive, pids)))


async def test_a_server_that_does_not_read_its_input_costs_its_callers_a_typed_error() -> None:
    async with running_gateway([stdio("deaf"), stdio()], max_body=1 << 22) as running:
        client = await running.session()
        await client.names()
        assert text(await client.call("deaf__deaf")) == "deaf"
        running.upstream("deaf").timeout = 1.0
        calls = [asyncio.create_task(client.call("deaf__echo", {"x": "y" * 1_000_000})) for _ in range(12)]
        for _ in range(3):
            await works(client)
        for answer in await asyncio.gather(*calls):
            assert answer["error"]["data"]["type"] in ("upstream_timeout", "upstream_unavailable")
        assert running.pending() == 0


async def test_a_ping_of_a_server_is_answered_and_its_other_requests_are_refused() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        assert json.loads(text(await client.call("peer__ask"))) == [
            {"jsonrpc": "2.0", "id": "p1", "result": {}}
        ]
        refused = json.loads(text(await client.call("peer__sample")))[-1]
        assert refused["id"] == 77
        assert refused["error"]["code"] == -32601


async def test_a_storm_of_change_notices_costs_a_handful_of_lists() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        for _ in range(5):
            await client.call("peer__storm", {"times": 2000})
        await until(lambda: not running.gateway._listings._dirty)
        asked = await lists(client)
        assert len(asked) <= 60, "of 10,000 notices; 6 on a machine that is not busy"
        assert all(after - before >= RESYNC_PAUSE[0] for before, after in pairwise(asked))


async def test_a_server_that_announces_a_change_whenever_it_is_asked_is_asked_ever_less_often() -> None:
    async with running_gateway([stdio("peer", "restless")]) as running:
        client = await running.session()
        while len(await lists(client)) < 6:
            await works(client)
        assert_ever_less_often((await lists(client))[1:], RESYNC_PAUSE[0])


@pytest.mark.parametrize("word", ["endless", "loop"])
async def test_pages_without_end_end(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.fetch.MAX_PAGES", 200)
    async with running_gateway([stdio("odd", word), stdio()]) as running:
        client = await running.session()
        assert "peer__echo" in await client.names()
        await until(lambda: running.upstream("odd").error is not None)
        message = running.upstream("odd").error.message
        assert "without end" in message or "pages" in message


async def test_malformed_tools_are_left_out_with_a_reason_beside_good_ones() -> None:
    async with running_gateway([stdio("odd", "malformed")]) as running:
        client = await running.session()
        answer = await client.request("tools/list")
        names = [tool["name"] for tool in answer.json["result"]["tools"]]
        assert {"odd__echo", "odd__sleep", "odd__no_schema"} <= set(names)
        assert len(names) == len(set(names))
        assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in names)
        assert len(running.gateway.catalog.problems) >= 7
        assert text(await client.call("odd__echo", {})) == "{}"


async def test_a_list_that_is_promised_and_refused_leaves_the_other_lists_alone() -> None:
    async with running_gateway([stdio("peer", "prompts")]) as running:
        client = await running.session()
        assert "peer__echo" in await client.names()
        assert any("prompts/list" in problem for problem in running.upstream().problems)


async def test_a_server_that_never_lists_is_listed_again_when_it_can_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_gateway([stdio("good")], first_list_grace=0.5) as running:
        client = await running.session()
        await running.gateway.synced("good", WAIT)
        monkeypatch.setattr("gateway.listings.LIST_TIMEOUT", 0.2)
        monkeypatch.setattr("gateway.listings.LIST_AGAIN", 0.2)
        await running.gateway.roster.add(stdio("peer", "silent_list"))
        assert "good__echo" in await client.names()
        await until(lambda: running.upstream().error is not None)
        assert running.upstream().state is State.READY
        await until(lambda: caplog.text.count("listing server 'peer'") >= 2)


async def test_an_error_of_the_server_is_passed_on_byte_for_byte() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        await client.names()
        answer = await client.request("tools/call", {"name": "peer__rpc_error"}, ident="e")
        assert answer.status == 200
        assert b'"extra": 1.5' in answer.body
        assert answer.json["error"] == {
            "code": -31999,
            "message": "no",
            "data": {"deep": [1, {"x": None}]},
            "extra": 1.5,
        }


async def test_an_answer_of_megabytes_arrives_whole() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        for size in (1 << 20, 8 << 20):
            assert len(text(await client.call("peer__big", {"bytes": size}))) == size


@pytest.mark.parametrize(
    ("command", "cwd"),
    [("/no/such/program", None), ("/etc/hostname", None), ("/tmp", None), (sys.executable, "/no/such/dir")],
)
async def test_a_command_that_cannot_start_is_a_visible_failure(command: str, cwd: str | None) -> None:
    from registry.model import ServerSpec, Transport

    async with running_gateway([ServerSpec("bad", Transport.STDIO, command, cwd=cwd), stdio()]) as running:
        client = await running.session()
        await works(client)
        await until(lambda: running.upstream("bad").state is State.FAILED)
        assert running.upstream("bad").error.hint


async def test_nothing_is_leaked_by_servers_that_come_and_go() -> None:
    async with running_gateway([stdio("stay")]) as running:
        client = await running.session()
        await works(client, "stay")

        def count() -> int:
            return len(os.listdir("/proc/self/fd"))

        before = count()
        for number in range(5):
            upstream = await running.gateway.roster.add(stdio(f"x{number}"))
            await running.gateway.synced(upstream.name, WAIT)
            await works(client, f"x{number}")
            pid = upstream.pid
            await running.gateway.roster.remove(upstream.name)
            await until(lambda pid=pid: not alive(pid))  # type: ignore[misc]
        await until(lambda: count() <= before + 2, what="descriptors")


async def test_a_program_that_was_replaced_does_not_start_again_unasked(tmp_path: Path) -> None:
    from gateway_parts import PEER

    program = tmp_path / "server"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -I -S {PEER}\n")
    program.chmod(0o755)
    from registry.model import ServerSpec, Transport

    async with running_gateway([ServerSpec("mine", Transport.STDIO, str(program))]) as running:
        client = await running.session()
        await works(client, "mine")
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\nexec {sys.executable} -I -S {PEER}\n")
        await client.call("mine__die")
        answer = await client.call("mine__echo")
        assert answer["error"]["data"]["type"] == "not_approved"
        assert running.upstream("mine").state is State.PENDING
        assert not (tmp_path / "pwned").exists()
        await running.gateway.roster.approve("mine")
        await works(client, "mine")
        assert (tmp_path / "pwned").exists()


async def test_no_call_stays_in_a_table_once_it_is_answered() -> None:
    async with running_gateway([stdio()]) as running:
        client = await running.session()
        for name in ("echo", "twice", "wrong_id", "progress", "rpc_error", "binary"):
            await client.call(f"peer__{name}")
        assert isinstance(running, Running)
        assert running.pending() == 0
