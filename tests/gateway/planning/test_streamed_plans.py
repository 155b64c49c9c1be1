"""What `run` does while a model still writes the plan: reads begin, everything else waits for the whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Request, Running, http_peer, reply
from toolset_parts import LONG, Visitor, planning, said, tool

pytestmark = pytest.mark.anyio
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SKY = [
    tool("get_forecast", "Get the weather forecast for a city.", reads=True, inputSchema=CITY),
    tool("sound_alarm", "Sound the storm alarm of a city.", inputSchema=CITY),
    tool("calls", reads=True),
]
REQUEST = {
    "request": "Get the weather forecast for the city of Paris, then sound the storm alarm of the city of Paris"
}

READ = {"next": {"tool": "get_forecast", "arguments": {"city": "Paris"}}}
WRITE = {"next": {"tool": "sound_alarm", "arguments": {"city": "Paris"}}}
ASKING = {"next": {"tool": "get_forecast", "arguments": {"city": {"$ask": "Which city?"}}}}
END = {"next": None}
Answer = dict[str, Any] | str | Callable[[], Awaitable[dict[str, Any]]]


class Writer:
    """An endpoint that holds its model to schemas, and writes these steps one after another."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            reply(writer, 200, json.dumps({"data": [{"id": "m"}]}).encode())
            return
        schema = request.json["structured_outputs"]["json"]
        word = schema["properties"].get("word")
        answer = {"word": word["const"]} if word else self.answers.pop(0)
        if callable(answer):
            answer = await answer()
        text = answer if isinstance(answer, str) else json.dumps(answer)
        message = {"role": "assistant", "content": text}
        value = {"choices": [{"message": message, "finish_reason": "stop"}]}
        reply(writer, 200, json.dumps(value).encode())


@asynccontextmanager
async def yard(root: Path, model: Writer, says: str | None = None) -> AsyncIterator[tuple[Running, Visitor]]:
    async with http_peer(model) as peer:
        url = f"http://127.0.0.1:{peer.port}"
        async with planning(root, SKY, "get_forecast", "calls", url=url, seconds=LONG) as running:
            visitor = await Visitor(running, "all", says).enter()
            visitor.wait = LONG
            yield running, visitor


async def calls(running: Running) -> list[str]:
    """The calls that the server has seen."""
    visitor = await Visitor(running, "all").enter()
    seen: list[str] = json.loads(said(await visitor.through("sky__calls")))
    return seen


async def run(visitor: Visitor, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await visitor.tool("run", {**REQUEST, **more}))["result"]["structuredContent"]
    return found


async def test_a_read_is_called_before_the_next_step_is_written_and_a_write_after_the_last(
    tmp_path: Path,
) -> None:
    running: Running
    seen: list[list[str]] = []

    async def once_read() -> dict[str, Any]:
        while "get_forecast" not in (found := await calls(running)):
            await asyncio.sleep(0.01)
        seen.append(found)
        return WRITE

    async def still() -> dict[str, Any]:
        seen.append(await calls(running))
        return END

    async with yard(tmp_path, Writer(READ, once_read, still), "accept") as (running, visitor):
        found = await run(visitor)
        assert [step["status"] for step in found["steps"]] == ["done", "done"], found
        assert seen == [["get_forecast"], ["get_forecast"]]
        assert await calls(running) == ["get_forecast", "sound_alarm"]
        assert len(visitor.asked) == 1


async def test_an_empty_plan_of_a_model_runs_nothing(tmp_path: Path) -> None:
    async with yard(tmp_path, Writer(END)) as (running, visitor):
        found = await run(visitor)
        assert (found["plan"], found["planner"], found["next"]) == ([], "model", "Nothing was run.")
        assert (
            await (await running.gateway.runs.executor()).journal.read(lambda records: records.runs()) == []
        )


async def test_where_the_model_breaks_off_rules_plan_the_whole(tmp_path: Path) -> None:
    async with yard(tmp_path, Writer(READ, "no step", "nor this"), "accept") as (running, visitor):
        found = await run(visitor)
        assert {step["tool"] for step in found["steps"]} == {"sky__get_forecast", "sky__sound_alarm"}, found
        assert found["status"] == "done"
        given_up, done = sorted(
            await (await running.gateway.runs.executor()).journal.read(lambda records: records.runs()),
            key=lambda one: one.created_at,
        )
        assert (given_up.status, given_up.reason, done.status) == ("failed", "unplanned", "done")


async def test_what_a_step_asks_for_is_asked_at_the_end_of_the_plan(tmp_path: Path) -> None:
    async with yard(tmp_path, Writer(READ, ASKING, END)) as (running, visitor):
        found = await run(visitor)  # this client can ask nobody
        assert [question["question"] for question in found["questions"]] == ["Which city?"]
        assert [step["tool"] for step in found["plan"]] == ["sky__get_forecast"] * 2
        (kept,) = await (await running.gateway.runs.executor()).journal.read(lambda records: records.runs())
        assert (kept.status, kept.reason) == ("failed", "invalid_plan")


async def test_a_run_whose_plan_is_still_being_made_is_given_up_when_its_call_is(tmp_path: Path) -> None:
    writing, never = asyncio.Event(), asyncio.Event()

    async def wait() -> dict[str, Any]:
        writing.set()
        await never.wait()
        return END

    async with yard(tmp_path, Writer(READ, wait)) as (running, visitor):
        found = await run(visitor, wait=0)
        await writing.wait()
        await running.gateway.runs.cancel(found["id"])
        view = await running.gateway.runs.view(found["id"])
        assert view["status"] == "cancelled"
        never.set()
