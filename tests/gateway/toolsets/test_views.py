"""A toolset is an endpoint of its own: what it lists, whom it tells, and what it keeps away from others."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import WAIT, until
from toolset_parts import BOOKS, WEATHER, Visitor, library, said, tool

from gateway import jsonrpc
from gateway.errors import NotFound, RpcError
from registry.toolsets import read

pytestmark = pytest.mark.anyio

READING: dict[str, Any] = {"include": ["books/*"], "exclude": ["*/delete_*", "restock"], "expose": "all"}


async def names(visitor: Visitor) -> list[str]:
    return await visitor.names()


async def test_it_lists_what_its_patterns_leave(tmp_path: Path) -> None:
    async with library(tmp_path, {"reading": READING}) as (running, _):
        listed = await names(await Visitor(running, "reading").enter())
        plain = await (await running.session()).names()
    assert "books__read_book" in listed
    assert "books__lend_book" in listed
    assert not {"books__delete_book", "books__restock", "weather__forecast"} & set(listed)
    assert {"books__delete_book", "weather__forecast"} <= set(plain)


async def test_servers_tags_and_patterns_choose(tmp_path: Path) -> None:
    weather = {"weather__forecast", "weather__alarm"}
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"servers": ["weather"]}, weather),
        ({"tags": ["outside"]}, weather),
        ({"tags": ["sky"]}, {"weather__forecast"}),
        ({"include": ["*/forecast", "read_book"]}, {"weather__forecast", "books__read_book"}),
        ({"include": ["weather__alarm"]}, {"weather__alarm"}),
        ({"include": ["weather"], "exclude": ["alarm"]}, {"weather__forecast"}),
        ({"include": []}, set()),
    ]
    sets = {f"case{place}": {**fields, "expose": "all"} for place, (fields, _) in enumerate(cases)}
    async with library(tmp_path, sets) as (running, _):
        for name, (fields, wanted) in zip(sets, cases, strict=True):
            assert set(await names(await Visitor(running, name).enter())) == wanted, fields


async def test_a_tool_gets_another_name_and_description_here_alone(tmp_path: Path) -> None:
    fields = {
        "include": ["books/read_book"],
        "rename": {"books/read_book": "read"},
        "describe": {"books/read_book": "Read it aloud."},
        "expose": "all",
    }
    async with library(tmp_path, {"kids": fields}) as (running, _):
        visitor = await Visitor(running, "kids").enter()
        listed = (await visitor.request("tools/list")).json["result"]["tools"]
        assert [(t["name"], t["description"]) for t in listed] == [("read", "Read it aloud.")]
        assert listed[0]["inputSchema"] == BOOKS[0]["inputSchema"]
        answer = await visitor.tool("read", {"id": 1})
        assert json.loads(said(answer)) == {"tool": "read_book", "arguments": {"id": 1}}
        plain = await running.session()
        assert "read" not in await plain.names()


async def test_what_is_outside_cannot_be_called_even_where_one_server_is_left(tmp_path: Path) -> None:
    async with library(tmp_path, {"one": {"include": ["weather/forecast"], "expose": "all"}}) as (running, _):
        visitor = await Visitor(running, "one").enter()
        for name in ("weather__alarm", "alarm", "books__delete_book", "find_tools"):
            answer = await visitor.tool(name)
            assert answer["error"]["code"] == -32602, name
        answer = await visitor.tool("call_tool", {"name": "weather__alarm"})
        assert "error" in answer  # this toolset lists its tools, and has no meta tools


async def test_prompts_and_resources_come_from_its_servers_alone_or_not_at_all(tmp_path: Path) -> None:
    sets = {
        "sky": {"servers": ["weather"], "expose": "all"},
        "bare": {"servers": ["weather"], "expose": "all", "tools_only": True},
    }
    async with library(tmp_path, sets) as (running, _):
        sky, bare = await Visitor(running, "sky").enter(), await Visitor(running, "bare").enter()
        for visitor, count in ((sky, 1), (bare, 0)):
            prompts = (await visitor.request("prompts/list")).json["result"]["prompts"]
            resources = (await visitor.request("resources/list")).json["result"]["resources"]
            assert [p["name"] for p in prompts] == ["weather__tidy"] * count
            assert [r["uri"] for r in resources] == ["shelf://weather"] * count
            outside = await visitor.request("resources/read", {"uri": "shelf://books"})
            assert "error" in outside.json
        inside = await bare.request("resources/read", {"uri": "shelf://weather"})
        assert "error" in inside.json


async def test_an_unknown_toolset_is_a_404_that_says_so(tmp_path: Path) -> None:
    async with library(tmp_path) as (running, _):
        visitor = Visitor(running, "nobody")
        answer = await visitor.post(visitor.message("initialize", {"protocolVersion": "2025-11-25"}))
        assert answer.status == 404
        assert "nobody" in answer.json["error"]["message"]
        assert (await running.client().http("GET", "/mcp/")).status != 404  # the plain one, as ever


async def test_a_session_of_one_endpoint_is_none_at_another(tmp_path: Path) -> None:
    async with library(tmp_path, {"reading": READING, "other": READING}) as (running, _):
        visitor = await Visitor(running, "reading").enter()
        for path in ("/mcp", "/mcp/other"):
            visitor.path = path
            assert (await visitor.request("tools/list")).status == 404


async def test_only_the_clients_of_a_view_that_changed_are_told(tmp_path: Path) -> None:
    sets: dict[str, dict[str, Any]] = {
        "reading": {"include": ["books/*"], "expose": "all"},
        "sky": {"include": ["weather/*"], "expose": "all"},
    }
    async with library(tmp_path, sets) as (running, shelves):
        reading, sky = await Visitor(running, "reading").enter(), await Visitor(running, "sky").enter()
        async with reading.wire() as books_heard, sky.wire() as sky_heard:
            for wire, visitor in ((books_heard, reading), (sky_heard, sky)):
                wire.send("GET", visitor.path, visitor.headers(Accept="text/event-stream"))
                await wire.head()
            shelves.write("books", [*BOOKS, tool("new_book")])
            await reading.tool("books__restock")
            async with asyncio.timeout(WAIT):
                assert (await books_heard.event())["method"] == "notifications/tools/list_changed"
            assert "books__new_book" in await names(reading)
            # The other view has heard nothing: what it hears first is of a resource of its own.
            params = {"uri": "shelf://weather"}
            view = await running.gateway.toolsets.view("sky")
            [session] = view.sessions
            session.subscriptions.add(params["uri"])
            view.resource_updated("weather", params["uri"], jsonrpc.shallow(jsonrpc.encode(params)))
            async with asyncio.timeout(WAIT):
                assert (await sky_heard.event())["method"] == "notifications/resources/updated"


async def test_a_view_is_made_again_only_when_catalog_or_toolset_changed(tmp_path: Path) -> None:
    async with library(tmp_path, {}) as (running, _):
        toolsets = running.gateway.toolsets
        await toolsets.put(read("mine", READING), new=True)
        view = await toolsets.view("mine")
        before = view.projection
        await view.refresh()
        assert view.projection is before
        page = before.catalog.page(next(iter(before.catalog.listings)))
        assert view.catalog.page(next(iter(view.catalog.listings))) is page
        await toolsets.put(read("mine", {"include": ["weather/*"], "expose": "all"}), new=False)
        assert set(view.projection.tools) == {"weather__forecast", "weather__alarm"}


async def test_the_plain_endpoint_lists_and_calls_all_the_while(tmp_path: Path) -> None:
    async with library(tmp_path, {"reading": READING}) as (running, _):
        await Visitor(running, "reading").enter()
        plain = await running.session()
        assert len(await plain.names()) == len(BOOKS) + len(WEATHER)
        assert "error" in await plain.call("call_tool", {"name": "books__read_book"})
        answer = await plain.call("books__delete_book", {"id": 2})
        assert json.loads(said(answer))["tool"] == "delete_book"


async def test_toolsets_outlive_a_restart_and_config_wins_over_the_store(tmp_path: Path) -> None:
    async with library(tmp_path) as (running, _):
        for name in ("mine", "theirs"):
            await running.gateway.toolsets.put(read(name, READING), new=True)
    async with library(tmp_path, {"theirs": {"include": ["weather/*"], "expose": "all"}}) as (running, _):
        toolsets = running.gateway.toolsets
        assert {n: listed.origin for n, listed in toolsets.all().items()} == {
            "mine": "added",
            "theirs": "config",
        }
        assert "weather__forecast" in (await toolsets.projected("theirs")).tools
        with pytest.raises(RpcError, match=r"is set by"):
            await toolsets.remove("theirs")
        with pytest.raises(RpcError, match=r"already"):
            await toolsets.put(read("mine", {}), new=True)
        with pytest.raises(NotFound):
            await toolsets.put(read("nobody", {}), new=False)


async def test_a_removed_toolset_serves_nobody_any_more(tmp_path: Path) -> None:
    async with library(tmp_path) as (running, _):
        toolsets = running.gateway.toolsets
        await toolsets.put(read("mine", READING), new=True)
        visitor = await Visitor(running, "mine").enter()
        async with visitor.wire() as wire:
            wire.send("GET", visitor.path, visitor.headers(Accept="text/event-stream"))
            await wire.head()
            await toolsets.remove("mine")
            async with asyncio.timeout(WAIT):
                while await wire.chunk():
                    pass
        assert (await visitor.request("tools/list")).status == 404


async def test_a_stateless_client_lists_and_listens_at_a_toolset_too(tmp_path: Path) -> None:
    async with library(tmp_path, {"reading": READING}) as (running, _):
        visitor = Visitor(running, "reading")
        found = await visitor.modern_request("server/discover")
        assert found.json["result"]["instructions"] == "## books\nPut everything back."
        listed = (await visitor.modern_request("tools/list")).json["result"]
        assert "books__read_book" in [t["name"] for t in listed["tools"]]
        assert listed["resultType"] == "complete"


async def test_a_new_name_that_is_taken_is_not_given_and_said(tmp_path: Path) -> None:
    fields = {"rename": {"books/read_book": "weather__alarm", "books/nothing": "x"}, "expose": "all"}
    async with library(tmp_path, {"odd": fields}) as (running, _):
        projection = await running.gateway.toolsets.projected("odd")
        assert "books__read_book" in projection.tools
        assert len(projection.problems) == 2


async def test_auto_searches_above_its_budget_of_tokens(tmp_path: Path) -> None:
    sets: dict[str, dict[str, Any]] = {
        "small": {"expose": "auto"},
        "tight": {"expose": "auto", "token_budget": 20},
        "both": {"expose": "both"},
        "search": {"expose": "search"},
    }
    async with library(tmp_path, sets) as (running, _):
        listed = {name: set(await names(await Visitor(running, name).enter())) for name in sets}
        tools = len(BOOKS) + len(WEATHER)
        assert len(listed["small"]) == tools
        assert listed["tight"] == listed["search"] == {"find_tools", "call_tool"}
        assert len(listed["both"]) == tools + 2


async def test_the_lists_of_a_view_are_kept_for_the_stdio_face(tmp_path: Path) -> None:
    kept: dict[str, bytes] = {}
    async with library(tmp_path, {"reading": READING}) as (running, _):
        toolsets = running.gateway.toolsets
        toolsets._cache_writer = kept.__setitem__
        view = await toolsets.view("reading")
        await until(lambda: "reading" in kept)
        cached = json.loads(kept["reading"])
        assert cached["etag"] == view.catalog.etag
        listed = [t["name"] for t in cached["results"]["tools/list"]["tools"]]
        assert "books__read_book" in listed
        assert "weather__forecast" not in listed
