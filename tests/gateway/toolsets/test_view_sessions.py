"""What clients of a toolset hold outlives what it should, and is good at their own endpoint alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import WAIT, Running, alive, running_gateway, until
from toolset_parts import WORDS, Visitor, library, said

from gateway.bridge import tasks
from registry.model import ServerSpec, Transport
from registry.toolsets import read

pytestmark = pytest.mark.anyio

ALL: dict[str, Any] = {"include": ["*"], "expose": "all"}
SEARCH: dict[str, Any] = {"include": ["*"], "expose": "search", "consent": "never"}
SETS = {"one": ALL, "other": ALL, "search": SEARCH}
STATEFUL = Path(__file__).parents[1] / "stateful_peer.py"
META = "io.modelcontextprotocol/"


class Modern(Visitor):
    """A client of 2026-07-28 that takes tasks and can ask a person."""

    takes_tasks = True

    def at(self, path: str) -> Modern:
        other = Modern(self.running, "")
        other.path, other.takes_tasks = path, self.takes_tasks
        return other

    def __init__(self, running: Running, toolset: str) -> None:
        super().__init__(running, toolset)
        self.running = running

    async def ask(self, method: str, **params: Any) -> Any:
        """The response to a request."""
        able: dict[str, Any] = {"elicitation": {}}
        if self.takes_tasks:
            able["extensions"] = {META + "tasks": {}}
        body, headers = self.modern(method, params, **{META + "clientCapabilities": able})
        headers["Mcp-Name"] = params.get("name") or params.get("taskId") or ""
        answer = await self.http("POST", headers={**self.headers(), **headers}, body=body)
        return answer.json

    async def task(self, ident: str) -> Any:
        return (await self.ask("tasks/get", taskId=ident))["result"]

    async def when(self, ident: str, status: str) -> Any:
        """The task, once it has this status."""
        async with asyncio.timeout(WAIT):
            while (found := await self.task(ident))["status"] != status:
                await asyncio.sleep(0.01)
        return found


def elsewhere(client: Modern, own: str) -> list[Modern]:
    """The same client at the other endpoints."""
    return [client.at(path) for path in ("/mcp", "/mcp/one", "/mcp/other", "/mcp/search") if path != own]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a client that takes tasks becomes one."""
    monkeypatch.setattr(tasks, "PATIENCE", 0.0)


async def test_a_session_of_a_toolset_survives_a_restart_at_its_own_endpoint(tmp_path: Path) -> None:
    async with library(tmp_path, SETS) as (first, _):
        visitor = await Visitor(first, "one").enter()
        await visitor.tool("books__calls")
    async with library(tmp_path, SETS) as (second, _):
        visitor.port = second.port
        for path, status in (("/mcp", 404), ("/mcp/other", 404), ("/mcp/one", 200)):
            visitor.path = path
            assert (await visitor.request("tools/list")).status == status
        assert said(await visitor.tool("books__calls")) == "[]"
        assert (await visitor.http("DELETE")).status == 204
        assert (await visitor.request("tools/list")).status == 404


async def test_retiring_a_key_ends_the_sessions_of_toolsets_too(tmp_path: Path) -> None:
    async with library(tmp_path, SETS) as (running, _):
        visitor = await Visitor(running, "one").enter()
        clients = running.gateway.clients
        await clients.keys(rotate=True)
        assert (await visitor.request("tools/list")).status == 200
        await clients.keys(retire=(await clients.keys())[-1].ident)
        assert (await visitor.request("tools/list")).status == 404
        assert len(clients) == 0


async def test_removing_a_toolset_ends_its_sessions_for_good(tmp_path: Path) -> None:
    async with library(tmp_path) as (running, _):
        await running.gateway.toolsets.put(read("added", ALL), new=True)
        visitor = await Visitor(running, "added").enter()
        await running.gateway.toolsets.remove("added")
        assert (await visitor.request("tools/list")).status == 404
        await running.gateway.toolsets.put(read("added", ALL), new=True)
        assert (await visitor.request("tools/list")).status == 404
        assert (await (await visitor.enter()).request("tools/list")).status == 200


async def test_a_parked_call_goes_on_at_the_endpoint_it_was_made_at_alone(tmp_path: Path) -> None:
    async with library(tmp_path, SETS) as (running, _):
        client = Modern(running, "one")
        client.takes_tasks = False
        asked = (await client.ask("tools/call", name="books__ask_first", arguments={}))["result"]
        [key] = asked["inputRequests"]
        retry = {
            "name": "books__ask_first",
            "arguments": {},
            "inputResponses": {key: {"action": "accept", "content": {}}},
            "requestState": asked["requestState"],
        }
        for other in elsewhere(client, "/mcp/one")[:2]:
            assert (await other.ask("tools/call", **retry))["error"]["code"] == -32602
        assert "answered" in said(await client.ask("tools/call", **retry))


@pytest.mark.usefixtures("at_once")
async def test_a_long_call_becomes_a_task_that_its_own_endpoint_alone_knows(tmp_path: Path) -> None:
    async with library(tmp_path, SETS) as (running, _):
        through = {"name": "call_tool", "arguments": {"name": "books__ask_first", "arguments": {}}}
        for toolset, call in (("one", {"name": "books__ask_first", "arguments": {}}), ("search", through)):
            client = Modern(running, toolset)
            created = (await client.ask("tools/call", **call))["result"]
            assert created["resultType"] == "task", created
            ident = created["taskId"]
            waiting = await client.when(ident, "input_required")
            answers = {key: {"action": "accept", "content": {}} for key in waiting["inputRequests"]}
            for other in elsewhere(client, client.path):
                assert (await other.ask("tasks/get", taskId=ident))["error"]["code"] == -32602
                update = await other.ask("tasks/update", taskId=ident, inputResponses=answers)
                assert update["error"]["code"] == -32602
            await client.ask("tasks/update", taskId=ident, inputResponses=answers)
            assert "answered" in said(await client.when(ident, "completed"))


@pytest.mark.usefixtures("at_once")
async def test_the_tasks_of_a_toolset_end_with_it(tmp_path: Path) -> None:
    async with library(tmp_path, SETS) as (running, _):
        await running.gateway.toolsets.put(read("added", ALL), new=True)
        client = Modern(running, "added")
        created = (await client.ask("tools/call", name="books__slow", arguments={}))["result"]
        assert created["resultType"] == "task"
        looker = await Visitor(running, "one").enter()
        await looker.tool("books__calls")  # the server has begun
        await running.gateway.toolsets.remove("added")
        async with asyncio.timeout(WAIT):
            while "cancelled" not in said(await looker.tool("books__calls")):
                await asyncio.sleep(0.01)


async def test_a_process_of_its_own_belongs_to_a_toolsets_session_too(tmp_path: Path) -> None:
    arguments = ("-I", "-S", str(STATEFUL))
    spec = ServerSpec("memo", Transport.STDIO, sys.executable, arguments, extra={"isolation": "session"})
    sets = {name: read(name, fields) for name, fields in SETS.items()}
    async with running_gateway([spec], root=tmp_path, search=WORDS, toolsets=sets) as running:
        await running.gateway.settled()
        first, second = await Visitor(running, "one").enter(), await Visitor(running, "search").enter()
        pid, count = json.loads(said(await first.tool("memo__count")))
        other, _ = json.loads(said(await second.through("memo__count")))
        assert (count, pid == other) == (1, False)
        assert (await first.http("DELETE")).status == 204
        await until(lambda: not alive(pid))
        os.kill(other, signal.SIGKILL)
        await until(lambda: len(running.upstream("memo").private) == 0)
        fields = {"name": "call_tool", "arguments": {"name": "memo__count", "arguments": {}}}
        assert (await second.request("tools/call", fields)).status == 404
        assert (await second.request("tools/list")).status == 404
        assert json.loads(said(await (await second.enter()).through("memo__count")))[1] == 1
