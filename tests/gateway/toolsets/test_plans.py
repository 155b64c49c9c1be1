"""``run`` and ``run_status``: several calls as one, with the consent that each of them needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toolset_parts import BOOKS, Visitor, approve, library, said

pytestmark = pytest.mark.anyio
SEARCH = {"shelf": {"include": ["books/*"], "expose": "search", "rename": {"books/read_book": "leaf"}}}
ALWAYS = {"shelf": {**SEARCH["shelf"], "consent": "always"}}


def step(id_: str, tool: str, *needs: str, **arguments: Any) -> dict[str, Any]:
    return {"id": id_, "tool": tool, "arguments": arguments, "depends_on": list(needs)}


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["status"] for one in answer["result"]["structuredContent"]["steps"]}


async def test_plans_can_be_run_where_tools_are_searched_for(tmp_path: Path) -> None:
    async with library(tmp_path, {**SEARCH, "open": {"include": ["books/*"]}}, journal=True) as (running, _):
        assert {"find_tools", "call_tool", "run", "run_status"} <= set(
            await (await Visitor(running, "shelf").enter()).names()
        )
        assert "run" not in await (await Visitor(running, "open").enter()).names()
    (tmp_path / "other").mkdir()
    async with library(tmp_path / "other", SEARCH) as (running, _):
        assert "run" not in await (await Visitor(running, "shelf").enter()).names()


async def test_approved_reads_run_unasked_and_are_named_as_the_toolset_names_them(tmp_path: Path) -> None:
    async with library(tmp_path, SEARCH, journal=True) as (running, _):
        await approve(running, "books", BOOKS, "read_book")
        visitor = await Visitor(running, "shelf").enter()
        answer = await visitor.tool("run", {"plan": [step("1", "leaf", id=1), step("2", "leaf", "1", id=2)]})
        found = answer["result"]["structuredContent"]
        assert found["status"] == "done", found
        assert [one["tool"] for one in found["steps"]] == ["leaf", "leaf"]
        assert json.loads(said(answer)) == found
        again = await visitor.tool("run_status", {"id": found["id"]})
        assert again["result"]["structuredContent"]["steps"][0]["value"] == found["steps"][0]["value"]
        assert visitor.asked == []


@pytest.mark.parametrize(("says", "status"), [("accept", "done"), ("decline", "failed")])
async def test_the_person_is_asked_through_a_client_that_can(tmp_path: Path, says: str, status: str) -> None:
    async with library(tmp_path, SEARCH, journal=True) as (running, _):
        visitor = await Visitor(running, "shelf", says).enter()
        answer = await visitor.tool("run", {"plan": [step("1", "books__delete_book", id=7)]})
        assert states(answer) == {"1": status}
        (asked,) = visitor.asked
        assert "delete_book" in asked["message"]
        assert '"id": 7' in asked["message"]


async def test_where_nobody_can_be_asked_the_run_parks_and_is_gone_on_with_by_hand(tmp_path: Path) -> None:
    from router.runs import Verdict

    async with library(tmp_path, SEARCH, journal=True) as (running, _):
        visitor = await Visitor(running, "shelf").enter()
        answer = await visitor.tool("run", {"plan": [step("1", "books__delete_book", id=7)]})
        found = answer["result"]["structuredContent"]
        assert found["status"] == "waiting_approval"
        assert f"toolyard runs show {found['id']}" in found["next"]
        await running.gateway.runs.decide(found["id"], "1", Verdict.APPROVE, "ann")
        answer = await visitor.tool("run_status", {"id": found["id"], "wait": 10})
        assert states(answer) == {"1": "done"}


async def test_a_toolset_that_always_asks_asks_about_reads_too(tmp_path: Path) -> None:
    async with library(tmp_path, ALWAYS, journal=True) as (running, _):
        await approve(running, "books", BOOKS, "read_book")
        visitor = await Visitor(running, "shelf", "accept").enter()
        answer = await visitor.tool("run", {"plan": [step("1", "leaf", id=1)]})
        assert states(answer) == {"1": "done"}
        assert len(visitor.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"plan": [step("1", "weather__forecast")]}, "no tool"),
        ({"plan": [step("1", "leaf", id="x")]}, "integer"),
        ({"plan": [step("1", "leaf", "1")]}, "itself"),
        ({"plan": [step("1", "leaf")], "approve": "all"}, "do not fit"),
        ({}, "nothing to run"),
    ],
)
async def test_what_a_model_can_mend_is_a_result_that_says_so(
    tmp_path: Path, arguments: Any, words: str
) -> None:
    async with library(tmp_path, SEARCH, journal=True) as (running, _):
        visitor = await Visitor(running, "shelf").enter()
        answer = await visitor.tool("run", arguments)
        assert answer["result"]["isError"] is True
        assert words in said(answer)
