"""Plans by somebody else's endpoint: what it can be held to is found out, and rules plan where it is not there."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Request, Running, http_peer, reply
from toolset_parts import LONG, Visitor, planning, tool

pytestmark = pytest.mark.anyio
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SKY = [tool("get_forecast", "Get the weather forecast for a city.", reads=True, inputSchema=CITY)]
RAIN = {"request": "What is the weather forecast for the city of Paris?"}
WRONG = {"plan": [{"id": "1", "tool": "get_forecast", "arguments": {}}]}
GOOD = {"plan": [{"id": "1", "tool": "get_forecast", "arguments": {"city": "Rome"}}]}


def yard(root: Path, **planner: Any) -> AbstractAsyncContextManager[Running]:
    return planning(root, SKY, "get_forecast", seconds=LONG, **planner)


async def planned(running: Running) -> dict[str, Any]:
    visitor = await Visitor(running, "all").enter()
    visitor.wait = LONG
    found: dict[str, Any] = (await visitor.tool("plan", RAIN))["result"]["structuredContent"]
    return found


class Model:
    """An endpoint that holds to no schema, and writes these answers one after another."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            value: Any = {"data": [{"id": "m"}]}
        else:
            hello = request.json["messages"][-1]["content"] == "Say hello."
            if not hello:
                self.asked.append(request)
            text = "Hello!" if hello else self.answers.pop(0)
            value = {
                "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
            }
        reply(writer, 200, json.dumps(value).encode())


async def test_a_plan_of_an_endpoint_that_holds_to_nothing_is_checked_and_repaired_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "a-secret")
    model = Model(json.dumps(WRONG), json.dumps(GOOD))
    async with (
        http_peer(model) as peer,
        yard(tmp_path, url=f"http://127.0.0.1:{peer.port}", token_env="MY_TOKEN") as running,
    ):
        plan = await planned(running)
        assert plan["planner"] == "model"
        assert [step["arguments"] for step in plan["plan"]] == [{"city": "Rome"}]
        assert [len(request.json["messages"]) for request in model.asked] == [2, 4]
        assert {request.headers["authorization"] for request in model.asked} == {"Bearer a-secret"}
        state = running.gateway.planners.state()
        assert (state["name"], state["held_by"], state["engine"]) == ("model", "none", None)
        assert "a-secret" not in json.dumps(state)


async def test_what_it_can_be_held_to_is_known_before_the_first_plan_where_a_person_asks(
    tmp_path: Path,
) -> None:
    async with http_peer(Model()) as peer, yard(tmp_path, url=f"http://127.0.0.1:{peer.port}") as running:
        assert running.gateway.planners.state()["held_by"] is None
        assert (await running.gateway.planners.probed())["held_by"] == "none"


async def test_a_second_bad_plan_is_followed_by_rules_which_say_so(tmp_path: Path) -> None:
    model = Model("I cannot.", "I still cannot.")
    async with http_peer(model) as peer, yard(tmp_path, url=f"http://127.0.0.1:{peer.port}") as running:
        plan = await planned(running)
        assert plan["planner"] == "rules"
        assert plan["note"].startswith("Planned by rules: The model gave no plan that can run")
        assert [step["arguments"] for step in plan["plan"]] == [{"city": "Paris"}]


async def test_where_nothing_listens_rules_plan_and_a_person_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with yard(tmp_path, url=f"http://127.0.0.1:{port}") as running:
        plan = await planned(running)
        assert plan["planner"] == "rules"
        assert "cannot be reached" in plan["note"]
        state = await running.gateway.planners.probed()
        assert "cannot be reached" in state["problem"]
        assert "correct url in [planner]" in state["mend"]


async def test_a_token_that_is_not_in_the_environment_is_missed_at_once(tmp_path: Path) -> None:
    async with yard(tmp_path, url="http://127.0.0.1:9", token_env="NOT_SET_ANYWHERE") as running:
        plan = await planned(running)
        assert plan["planner"] == "rules"
        assert "NOT_SET_ANYWHERE" in plan["note"]
        assert "NOT_SET_ANYWHERE" in running.gateway.planners.state()["mend"]


async def test_who_wants_rules_gets_them_without_a_word(tmp_path: Path) -> None:
    async with yard(tmp_path, url="http://127.0.0.1:9", use="rules") as running:
        plan = await planned(running)
        assert plan["planner"] == "rules"
        assert "note" not in plan
