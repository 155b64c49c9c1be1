"""A server refuses headers that do not repeat the body: its tools are listed anew, and the call is made once more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gateway_parts import (
    NEVER,
    HttpPeer,
    Request,
    answer,
    http_peer,
    modern_mcp,
    remote,
    reply,
    running_gateway,
)
from test_crossing_backchannel import outcome, session

from registry.model import ServerSpec

pytestmark = pytest.mark.anyio
DONE = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}


class Moving:
    """A server whose tool wants its argument repeated in a header that gets another name."""

    def __init__(self) -> None:
        self.header = "Region"
        self.moves = True
        """Whether its list says the new name once the old one is refused."""
        self.listed = 0
        self.executed: list[Any] = []
        self.refused = 0
        self.peer: HttpPeer | None = None

    @property
    def url(self) -> str:
        assert self.peer is not None
        return self.peer.url

    async def list(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.listed += 1
        name = self.header if self.moves or self.listed == 1 else "Region"
        region = {"type": "string", "x-mcp-header": name}
        schema = {"type": "object", "properties": {"region": region}}
        tools = [{"name": "find", "inputSchema": schema}]
        answer(writer, request, {"tools": tools, "resultType": "complete"})

    async def call(self, request: Request, writer: asyncio.StreamWriter) -> None:
        given = request.json["params"]["arguments"].get("region")
        if request.headers.get(f"mcp-param-{self.header.lower()}") == given:
            self.executed.append(request.json["params"])
            answer(writer, request, DONE)
            return
        self.refused += 1
        error = {"code": -32020, "message": "Header mismatch"}
        body = {"jsonrpc": "2.0", "id": request.json["id"], "error": error}
        reply(writer, 400, json.dumps(body).encode())


@asynccontextmanager
async def moving() -> AsyncIterator[Moving]:
    served = Moving()
    handlers: dict[str, Any] = {"tools_list": served.list, "tools_call": served.call}
    async with http_peer(modern_mcp(**handlers)) as served.peer:
        yield served


def following(peer: Moving) -> ServerSpec:
    return remote("far", peer.url, extra={"pins": "follow"})


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_a_header_that_has_another_name_by_now_is_found_by_listing_anew(era: str) -> None:
    async with moving() as peer, running_gateway([following(peer)]) as running:
        await running.gateway.settled()
        peer.header = "Area"
        arguments = {"region": "eu"}
        if era == "legacy":
            client = await session(running)
            message = await client.call("far__find", arguments)
        else:
            client = running.client()
            header = {"Mcp_Param_Region": "eu"}
            message = await client.modern_call("far__find", arguments, **header)
        assert message["result"]["content"] == DONE["content"]
        assert (peer.refused, len(peer.executed), peer.listed) == (1, 1, 2)
        assert peer.executed[0]["arguments"] == arguments
        assert "Area" in json.dumps((await client.request("tools/list")).json) or era != "legacy"


async def test_a_tool_that_is_withheld_because_it_changed_is_not_called_again() -> None:
    async with moving() as peer, running_gateway([remote("far", peer.url)]) as running:
        await running.gateway.settled()
        peer.header = "Area"
        message = await (await session(running)).call("far__find", {"region": "eu"})
        assert message["error"]["data"]["type"] == "tool_withheld"
        assert (peer.refused, peer.executed) == (1, [])


async def test_a_call_of_a_client_that_takes_tasks_is_made_once_more_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.bridge.tasks.PATIENCE", NEVER)
    async with moving() as peer, running_gateway([following(peer)]) as running:
        await running.gateway.settled()
        peer.header = "Area"
        client = running.client()
        capabilities = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
        params = {"name": "far__find", "arguments": {"region": "eu"}}
        meta = {"io.modelcontextprotocol/clientCapabilities": capabilities}
        body, fields = client.modern("tools/call", params, **meta)
        headers = {**client.headers(), **fields, "Mcp-Param-Region": "eu"}
        answer = await client.http("POST", headers=headers, body=body)
        assert outcome(answer)["result"]["content"] == DONE["content"]
        assert (peer.refused, len(peer.executed)) == (1, 1)


async def test_where_the_list_says_nothing_new_the_refusal_is_passed_on_and_nothing_is_repeated() -> None:
    async with moving() as peer, running_gateway([following(peer)]) as running:
        await running.gateway.settled()
        peer.header, peer.moves = "Area", False
        client = running.client()
        body, fields = client.modern("tools/call", {"name": "far__find", "arguments": {"region": "eu"}})
        headers = {**client.headers(), **fields, "Mcp-Param-Region": "eu"}
        reply = await client.http("POST", headers=headers, body=body)
        assert (reply.status, outcome(reply)["error"]["code"]) == (400, -32020)
        assert (peer.refused, peer.executed, peer.listed) == (1, [], 2)


async def test_a_server_that_refuses_the_second_try_too_is_not_asked_a_third_time() -> None:
    async with moving() as peer, running_gateway([following(peer)]) as running:
        await running.gateway.settled()
        names = iter(["Area", "Zone", "Place", "Spot"])

        async def list_another(request: Request, writer: asyncio.StreamWriter) -> None:
            await Moving.list(peer, request, writer)
            peer.header = next(names)

        peer.header = next(names)
        peer.peer.handler = modern_mcp(tools_list=list_another, tools_call=peer.call)
        message = await (await session(running)).call("far__find", {"region": "eu"})
        assert message["error"]["code"] == -32020
        assert (peer.refused, peer.executed, peer.listed) == (2, [], 2)


async def test_a_caller_whose_own_headers_contradict_its_body_reaches_no_server() -> None:
    async with moving() as peer, running_gateway([following(peer)]) as running:
        await running.gateway.settled()
        client = running.client()
        for wrong in ({}, {"Mcp_Param_Region": "us"}, {"Mcp_Param_Region": "=?base64?!?="}):
            body, fields = client.modern("tools/call", {"name": "far__find", "arguments": {"region": "eu"}})
            more = {name.replace("_", "-"): value for name, value in wrong.items()}
            answer = await client.http("POST", headers={**client.headers(), **fields, **more}, body=body)
            assert (answer.status, answer.error) == (400, -32020), wrong
        assert (peer.refused, peer.executed) == (0, [])
