"""``plan`` and ``run`` with a request in words: over the caller's own tools, with what they leave open asked for."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Running, running_gateway
from toolset_parts import WORDS, Shelves, Visitor, approve, said, tool

from registry.toolsets import read

pytestmark = pytest.mark.anyio


def takes(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


CITY = {"type": "string", "description": "The name of the city."}
SKY = [
    tool("get_forecast", "Get the weather forecast for a city.", reads=True, inputSchema=takes(city=CITY)),
    tool(
        "get_outlook",
        "Get the weather outlook of a city for the days ahead.",
        reads=True,
        inputSchema=takes(
            city=CITY, days={"type": "integer", "minimum": 1, "description": "How many days to look ahead."}
        ),
    ),
]
BANK = [
    tool(
        "send_money",
        "Send an amount of money to a person.",
        inputSchema=takes(
            amount={"type": "number", "description": "How much to send."},
            recipient={"type": "string", "description": "The name of the person who gets the money."},
        ),
    )
]
TOOLSETS: dict[str, dict[str, Any]] = {
    "all": {"expose": "search"},
    "sky": {"include": ["sky/*"], "expose": "search", "rename": {"sky/get_forecast": "forecast"}},
}
RAIN = "What is the weather forecast for the city of Paris?"
AHEAD = "Get the weather outlook for the city of Paris for the days ahead"


@contextlib.asynccontextmanager
async def yard(root: Path) -> AsyncIterator[Running]:
    shelves = Shelves(root)
    shelves.add("sky", SKY)
    shelves.add("bank", BANK)
    toolsets = {name: read(name, fields) for name, fields in TOOLSETS.items()}
    async with running_gateway(
        shelves.specs, root=root, search=WORDS, toolsets=toolsets, journal=True
    ) as running:
        await running.gateway.settled()
        await approve(running, "sky", SKY, "get_forecast", "get_outlook")
        yield running


class Filler(Visitor):
    """A client whose person fills in forms with ``content``."""

    content: dict[str, Any]

    async def post(self, body: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(body, dict) and body.get("result") == {"action": "accept"}:
            body = {**body, "result": {"action": "accept", "content": self.content}}
        return await super().post(body, *rest, **more)


def found(answer: dict[str, Any]) -> dict[str, Any]:
    assert not answer["result"].get("isError"), said(answer)
    value: dict[str, Any] = answer["result"]["structuredContent"]
    return value


async def test_a_request_is_planned_with_the_names_the_toolset_has_and_nothing_is_called(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as running:
        visitor = await Visitor(running, "sky").enter()
        plan = found(await visitor.tool("plan", {"request": RAIN}))
        assert plan["planner"] == "rules"
        assert [(step["tool"], step["arguments"]) for step in plan["plan"]] == [
            ("forecast", {"city": "Paris"})
        ]
        status = running.gateway.planners.state()
        assert (status["name"], status["loaded"], status["meaning"]) == ("rules", True, False)
        ran = found(await visitor.tool("run", {"plan": plan["plan"], "request": RAIN}))
        assert [step["status"] for step in ran["steps"]] == ["done"]


async def test_a_request_is_planned_and_run_in_one(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        visitor = await Visitor(running, "sky").enter()
        ran = found(await visitor.tool("run", {"request": RAIN}))
        (step,) = ran["steps"]
        assert (ran["status"], step["tool"]) == ("done", "forecast")
        assert "Paris" in json.dumps(step["value"])


async def test_only_the_tools_of_the_caller_are_planned_with(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        request = {"request": "Send an amount of 20 to Ann"}
        (step,) = found(await (await Visitor(running, "all").enter()).tool("plan", request))["plan"]
        assert step["tool"] == "bank__send_money"
        assert found(await (await Visitor(running, "sky").enter()).tool("plan", request))["plan"] == []


async def test_a_tool_that_leads_to_others_is_no_step_of_a_plan(tmp_path: Path) -> None:
    name = {"type": "string", "description": "The name of the tool."}
    shelves = Shelves(tmp_path)
    shelves.add("kit", [tool("call_tool", "Call any tool by its name.", inputSchema=takes(name=name))])
    toolsets = {"all": read("all", TOOLSETS["all"])}
    async with running_gateway(
        shelves.specs, root=tmp_path, search=WORDS, toolsets=toolsets, journal=True
    ) as running:
        await running.gateway.settled()
        visitor = await Visitor(running, "all").enter()
        asked = {"request": "Call the tool by the name 'sweep'"}
        assert found(await visitor.tool("plan", asked))["plan"] == []


async def test_a_request_no_tool_fits_gets_an_empty_plan_and_nothing_is_run(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        visitor = await Visitor(running, "sky").enter()
        for name in ("plan", "run"):
            answer = found(await visitor.tool(name, {"request": "Paint the fence blue"}))
            assert answer["plan"] == []
            assert "None of the tools fits" in answer["note"]
        assert answer["next"] == "Nothing was run."


async def test_a_missing_value_is_asked_of_the_person_where_the_client_can(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        visitor = await Filler(running, "sky", "accept").enter()
        visitor.content = {"q1": 3}
        ran = found(await visitor.tool("run", {"request": AHEAD}))
        assert ran["status"] == "done"
        assert '"days": 3' in json.dumps(ran["steps"][0]["value"])
        (asked,) = visitor.asked
        field = asked["requestedSchema"]["properties"]["q1"]
        assert (field["type"], field["minimum"]) == ("integer", 1)
        assert "How many days" in field["title"]


@pytest.mark.parametrize("says", [None, "decline"])
async def test_a_missing_value_nobody_gives_comes_back_as_a_question_and_its_answer_runs(
    tmp_path: Path, says: str | None
) -> None:
    async with yard(tmp_path) as running:
        visitor = await Visitor(running, "sky", says).enter()
        answer = found(await visitor.tool("run", {"request": AHEAD}))
        (question,) = answer["questions"]
        assert (question["step"], question["path"]) == ("1", ["days"])
        assert "Nothing was run" in answer["next"]
        plan = answer["plan"]
        assert "$ask" in plan[0]["arguments"]["days"]
        plan[0]["arguments"]["days"] = 3
        assert found(await visitor.tool("run", {"plan": plan}))["status"] == "done"


async def test_an_answer_that_does_not_fit_the_tool_is_refused_before_anything_runs(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        visitor = await Filler(running, "sky", "accept").enter()
        visitor.content = {"q1": "many"}
        answer = await visitor.tool("run", {"request": AHEAD})
        assert answer["result"]["isError"] is True
        assert "days" in said(answer)


async def test_a_write_that_was_planned_is_put_to_the_person_as_any_other(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        visitor = await Visitor(running, "all").enter()
        ran = found(await visitor.tool("run", {"request": "Send an amount of 20 to Ann"}))
        assert ran["status"] == "waiting_approval"


def test_serving_imports_neither_the_planner_nor_the_router() -> None:
    code = (
        "import gateway.serve, sys;"
        "print([m for m in sys.modules if m.startswith(('router.', 'numpy', 'faiss')) and m != 'router.budget'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_where_a_planned_tool_fails_the_rest_is_planned_again_without_it(tmp_path: Path) -> None:
    shelves = Shelves(tmp_path)
    other = "Look up how the weather will be in a city."
    tools = [
        tool("fail", "Get the weather forecast for a city.", reads=True, inputSchema=takes(city=CITY)),
        tool("report", other, reads=True, inputSchema=takes(city=CITY)),
    ]
    shelves.add("sky", tools)
    toolsets = {"sky": read("sky", {"expose": "search"})}
    async with running_gateway(
        shelves.specs, root=tmp_path, search=WORDS, toolsets=toolsets, journal=True
    ) as running:
        await running.gateway.settled()
        await approve(running, "sky", tools, "fail", "report")
        request = {"request": "Get the weather forecast for the city of Paris"}
        ran = found(await (await Visitor(running, "sky").enter()).tool("run", request))
        assert [(step["tool"], step["status"]) for step in ran["steps"]] == [
            ("sky__report", "done"),
            ("sky__fail", "replaced"),
        ]
        assert (ran["status"], ran["revision"]) == ("done", 1)
