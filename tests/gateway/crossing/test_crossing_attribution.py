"""A server on a pipe that asks does not say whom: nobody is ever asked what was meant for another."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Running, running_gateway, until
from test_crossing_backchannel import outcome, session

from gateway.upstream import attribution, lanes
from registry.model import ServerSpec, Transport

pytestmark = pytest.mark.anyio
PEER = Path(__file__).with_name("asking_peer.py")
FORM = {"elicitation": {"form": {}}}


def asking(**extra: Any) -> ServerSpec:
    return ServerSpec("far", Transport.STDIO, sys.executable, ("-I", str(PEER)), extra=extra)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with running_gateway([asking()]) as running:
        await running.gateway.settled()
        yield running


async def tool(running: Running, name: str, retry: Any = None, features: Any = FORM, **arguments: Any) -> Any:
    """A stateless call: its result, or its error."""
    params = {"name": f"far__{name}", "arguments": arguments, **(retry or {})}
    client = running.client()
    meta = {"io.modelcontextprotocol/clientCapabilities": features}
    body, fields = client.modern("tools/call", params, **meta)
    answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
    message = outcome(answer)
    return message.get("result") or message["error"]


def asked(result: Any) -> list[str]:
    """What a result asks for."""
    return [one["params"]["message"] for one in result["inputRequests"].values()]


def answers(result: Any, name: str) -> dict[str, Any]:
    """The retry that answers everything with a name."""
    given = {"action": "accept", "content": {"name": name}}
    return {
        "requestState": result["requestState"],
        "inputResponses": dict.fromkeys(result["inputRequests"], given),
    }


def text(result: Any) -> str:
    return str(result["content"][0]["text"])


async def file(path: Path) -> None:
    await until(path.exists)


async def test_a_client_that_never_comes_back_keeps_nobody_else_from_being_asked(running: Running) -> None:
    left = [await tool(running, "ask", who=f"gone {number}") for number in range(4)]
    assert [asked(one) for one in left] == [[f"from gone {number}"] for number in range(4)]
    here = await tool(running, "ask", who="here")
    assert asked(here) == ["from here"]
    assert text(await tool(running, "ask", answers(here, "Ada"), who="here")) == "Ada"
    for number, one in enumerate(left):  # and they may come back yet, in any order
        assert (
            text(await tool(running, "ask", answers(one, f"N{number}"), who=f"gone {number}")) == f"N{number}"
        )


async def test_only_calls_that_can_be_asked_leave_the_connection_that_all_share(running: Running) -> None:
    first = text(await tool(running, "pid")).split()[0]
    waits = await tool(running, "ask", who="one")
    assert text(await tool(running, "pid", features={})).split()[0] == first
    elsewhere = text(await tool(running, "pid")).split()[0]
    assert elsewhere != first
    assert text(await tool(running, "ask", answers(waits, "A"), who="one")) == "A"
    assert text(await tool(running, "pid")).split()[0] == first, "nobody is asked any more"
    assert running.upstream("far").connections[0].pid == int(first)


async def test_another_process_is_told_the_log_level_and_ends_when_it_is_idle(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await session(running, {})
    await client.request("logging/setLevel", {"level": "warning"})
    await until(lambda: running.upstream("far").lanes._level == "warning")
    await tool(running, "ask", who="one")
    assert text(await tool(running, "pid")).split()[1] == "warning"
    assert len(running.upstream("far").connections) == 2
    monkeypatch.setattr(lanes, "IDLE", 0.0)
    await running.upstream("far").end_when_idle()
    assert len(running.upstream("far").connections) == 1


async def test_two_that_are_called_at_once_are_each_asked_their_own_once_it_is_known_who_asks(
    running: Running,
) -> None:
    known = await tool(running, "ask", who="first")
    await tool(running, "ask", answers(known, "x"), who="first")
    results = await asyncio.gather(*(tool(running, "ask", who=str(number)) for number in range(6)))
    assert [asked(result) for result in results] == [[f"from {number}"] for number in range(6)]


async def test_what_is_asked_while_others_call_waits_until_they_are_answered(
    running: Running, tmp_path: Path
) -> None:
    began, go, done = tmp_path / "began", tmp_path / "go", tmp_path / "done"
    late = asyncio.create_task(tool(running, "ask_late", who="A", began=str(began), when=str(go)))
    await file(began)
    busy = asyncio.create_task(tool(running, "wait", features={}, when=str(done)))
    await until(lambda: len(running.upstream("far").connections[0].calls) == 2)
    go.touch()
    await until(lambda: len(running.upstream("far").connections[0]._attribution))
    assert not late.done()
    done.touch()
    assert text(await busy) == "waited"
    assert asked(await late) == ["from A"]


async def test_a_second_question_is_not_taken_for_that_of_a_call_that_waits_for_nothing(
    running: Running, tmp_path: Path
) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    first = await tool(running, "ask_twice", who="A", when=str(go))
    assert asked(first) == ["first of A"]
    began = tmp_path / "began"
    other = asyncio.create_task(tool(running, "wait", who="B", began=str(began), when=str(done)))
    await file(began)
    go.touch()
    retry = asyncio.create_task(tool(running, "ask_twice", answers(first, "1"), who="A", when=str(go)))
    second = await retry
    assert asked(second) == ["second of A"], "B is on a connection of its own, and was not asked"
    done.touch()
    assert text(await other) == "waited"
    assert text(await tool(running, "ask_twice", answers(second, "2"), who="A", when=str(go))) == "1 and 2"


async def test_what_cannot_be_told_apart_is_refused_and_put_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "UNDECIDED", 2.0)
    async with running_gateway([asking(maxConnections=1)]) as running:
        go, after = tmp_path / "go", tmp_path / "after"

        def late(who: str) -> asyncio.Task[Any]:
            files = {"began": who, "when": "go", "refused": f"{who} refused", "after": "after"}
            paths = {name: str(tmp_path / path) for name, path in files.items()}
            return asyncio.create_task(tool(running, "ask_late", who=who, **paths))

        calls = [late("A"), late("B")]
        for who in ("A", "B"):
            await file(tmp_path / who)
        go.touch()
        for who in ("A", "B"):  # a call that had ended could not be the one that the other's question came of
            await file(tmp_path / f"{who} refused")
        after.touch()
        for error in await asyncio.gather(*calls):
            assert "calls of 2 clients are in flight" in error["message"]
        assert running.pending() == 0


async def test_what_a_call_asks_after_it_was_given_up_is_put_to_nobody(
    running: Running, tmp_path: Path
) -> None:
    known = await tool(running, "ask", who="first")
    await tool(running, "ask", answers(known, "x"), who="first")
    client = await session(running, {"elicitation": {}})
    began, go, done = tmp_path / "began", tmp_path / "go", tmp_path / "done"
    params = {
        "name": "far__ask_late",
        "arguments": {"who": "A", "began": str(began), "when": str(go), "deaf": True},
    }
    given_up = asyncio.create_task(client.request("tools/call", params, ident=70))
    await file(began)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 70}}
    await client.post(cancelled)
    await given_up
    other = asyncio.create_task(tool(running, "wait", features={}, when=str(done)))
    first = running.upstream("far").connections[0]
    await until(lambda: len(first.calls) == 1)
    go.touch()
    await until(lambda: len(first._attribution))
    done.touch()
    assert text(await other) == "waited", "and the question of the one that was given up is refused"
    await until(lambda: not len(first._attribution))
    assert not first._asked


async def test_a_session_and_a_stateless_client_are_told_apart(running: Running) -> None:
    waits = await tool(running, "ask", who="stateless")
    client = await session(running, {"elicitation": {}})
    async with client.wire() as wire:
        params = {"name": "far__ask", "arguments": {"who": "session"}}
        wire.send("POST", "/mcp", client.headers(), json.dumps(client.message("tools/call", params)).encode())
        await wire.head()
        question = await wire.event()
        assert question["params"]["message"] == "from session"
        given = {"action": "accept", "content": {"name": "S"}}
        await client.post({"jsonrpc": "2.0", "id": question["id"], "result": given})
        assert text((await wire.event())["result"]) == "S"
    assert text(await tool(running, "ask", answers(waits, "T"), who="stateless")) == "T"


async def test_a_call_that_fails_for_want_of_a_capability_says_which(running: Running) -> None:
    error = await tool(running, "ask", features={"sampling": {}}, who="A")
    assert error["code"] == -32021
    assert error["data"]["requiredCapabilities"] == {"elicitation": {"form": {}}}
    assert text(await tool(running, "pid", features={})), "and nothing is in its way"


async def test_the_processes_are_bounded_and_a_call_beyond_them_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attribution, "UNDECIDED", 0.3)
    async with running_gateway([asking(maxConnections=3)]) as running:
        parked = [await tool(running, "ask", who=str(number)) for number in range(3)]
        assert len(running.upstream("far").connections) == 3
        assert text(await tool(running, "pid")), "it asks nothing, so nothing is in doubt"
        refused = await tool(running, "ask", who="one too many")
        assert "clients are in flight" in refused["message"]
        for number, one in enumerate(parked):
            assert text(await tool(running, "ask", answers(one, "n"), who=str(number))) == "n"
