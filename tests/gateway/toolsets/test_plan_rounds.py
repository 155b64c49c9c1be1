"""What ``plan`` and ``run`` ask a client of 2026-07-28: between two requests, as its era wants it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Running
from toolset_parts import LONG, Visitor, planning, said, tool

from gateway.bridge import parking

pytestmark = pytest.mark.anyio
DAYS = {"type": "integer", "minimum": 1, "description": "How many days to look ahead."}
SKY = [
    tool(
        "get_outlook",
        "Get the weather outlook of a city for the days ahead.",
        reads=True,
        inputSchema={
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The name of the city."},
                "days": DAYS,
            },
            "required": ["city", "days"],
        },
    ),
    tool("sound_alarm", "Sound the storm alarm."),
    tool("calls", reads=True),
]
AHEAD = {"request": "What is the weather outlook for the city of Paris?"}
ALARM = {"plan": [{"id": "1", "tool": "sky__sound_alarm", "arguments": {}}]}
ELICITS = {"elicitation": {"form": {}}}
SAMPLES = {"sampling": {}}


class Modern(Visitor):
    """A client of 2026-07-28 that declares these capabilities."""

    def __init__(self, running: Running, able: dict[str, Any]) -> None:
        super().__init__(running, "all")
        self.able = able
        self.wait = LONG

    async def step(self, name: str, arguments: Any, **params: Any) -> dict[str, Any]:
        extra = {"io.modelcontextprotocol/clientCapabilities": self.able}
        body, headers = self.modern("tools/call", {"name": name, "arguments": arguments, **params}, **extra)
        answer = await self.http("POST", headers={**self.headers(), **headers}, body=body)
        if answer.headers.get("content-type") == "text/event-stream":
            return dict(answer.events[-1])
        return dict(answer.json)

    async def question(self, name: str, arguments: Any, **params: Any) -> tuple[str, dict[str, Any], str]:
        """One question of an ``input_required`` result: its key, the request, and the state to come back with."""
        result = (await self.step(name, arguments, **params))["result"]
        assert result["resultType"] == "input_required", result
        ((key, wanted),) = result["inputRequests"].items()
        return key, wanted, result["requestState"]


def yard(root: Path, **planner: Any) -> AbstractAsyncContextManager[Running]:
    return planning(root, SKY, "get_outlook", "calls", **planner)


def filled(key: str, state: str, content: dict[str, Any] | None = None, action: str = "accept") -> Any:
    response: dict[str, Any] = {"action": action}
    if content is not None:
        response["content"] = content
    return {"requestState": state, "inputResponses": {key: response}}


def found(answer: dict[str, Any]) -> dict[str, Any]:
    assert not answer["result"].get("isError"), said(answer)
    value: dict[str, Any] = answer["result"]["structuredContent"]
    return value


async def ran(running: Running) -> list[str]:
    """What the server has done."""
    visitor = await Visitor(running, "all").enter()
    names: list[str] = json.loads(said(await visitor.through("sky__calls")))
    return names


async def test_a_value_nobody_gave_is_asked_between_two_requests_and_the_answer_runs_the_plan(
    tmp_path: Path,
) -> None:
    async with yard(tmp_path) as running:
        client = Modern(running, ELICITS)
        key, wanted, state = await client.question("run", AHEAD)
        assert wanted["method"] == "elicitation/create"
        field = wanted["params"]["requestedSchema"]["properties"]["q1"]
        assert (field["type"], field["minimum"]) == ("integer", 1)
        assert await ran(running) == []
        done = found(await client.step("run", AHEAD, **filled(key, state, {"q1": 3})))
        assert done["status"] == "done"
        assert '"days": 3' in json.dumps(done["steps"][0]["value"])
        assert await ran(running) == ["get_outlook"]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_question_that_is_not_answered_comes_back_in_the_plan(tmp_path: Path, action: str) -> None:
    async with yard(tmp_path) as running:
        client = Modern(running, ELICITS)
        key, _, state = await client.question("run", AHEAD)
        answer = found(await client.step("run", AHEAD, **filled(key, state, action=action)))
        assert "Nothing was run" in answer["next"]
        assert [question["path"] for question in answer["questions"]] == [["days"]]
        assert await ran(running) == []


async def test_a_client_that_can_ask_nobody_gets_the_question_at_once(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        answer = found(await Modern(running, {}).step("run", AHEAD))
        assert "$ask" in answer["plan"][0]["arguments"]["days"]
        assert "put the answers where $ask stands" in answer["next"]


async def test_a_step_that_changes_something_is_asked_about_in_a_round_and_runs_once(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        client = Modern(running, ELICITS)
        key, wanted, state = await client.question("run", ALARM)
        assert "sound_alarm" in wanted["params"]["message"]
        assert await ran(running) == []
        assert found(await client.step("run", ALARM, **filled(key, state)))["status"] == "done"
        assert await ran(running) == ["sound_alarm"]
        again = await client.step("run", ALARM, **filled(key, state))
        assert again["error"]["code"] == -32602  # the handle was used
        assert await ran(running) == ["sound_alarm"]


async def test_a_no_fails_the_step_and_a_person_who_leaves_has_it_parked(tmp_path: Path) -> None:
    async with yard(tmp_path) as running:
        client = Modern(running, ELICITS)
        for action, status in (("decline", "failed"), ("cancel", "waiting_approval")):
            key, _, state = await client.question("run", ALARM)
            done = found(await client.step("run", ALARM, **filled(key, state, action=action)))
            assert done["status"] == status
        assert await ran(running) == []


async def test_a_handle_is_good_for_its_own_request_alone(tmp_path: Path) -> None:
    other = {"plan": [{"id": "1", "tool": "sky__sound_alarm", "arguments": {"id": 2}}]}
    async with yard(tmp_path) as running:
        client = Modern(running, ELICITS)
        key, _, state = await client.question("run", ALARM)
        for name, arguments in (("run", other), ("plan", AHEAD)):
            assert (await client.step(name, arguments, **filled(key, state)))["error"]["code"] == -32602
        forged = filled(key, state[:-2] + "xx")
        assert (await client.step("run", ALARM, **forged))["error"]["code"] == -32602
        assert await ran(running) == []
        assert found(await client.step("run", ALARM, **filled(key, state)))["status"] == "done"


async def test_a_client_that_never_comes_back_leaves_a_step_that_waits_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "LIFETIME", 0.2)
    async with yard(tmp_path) as running:
        client = Modern(running, ELICITS)
        await client.question("run", ALARM)
        runs = running.gateway.runs
        async with asyncio.timeout(LONG):
            while runs._ended:
                await asyncio.sleep(0.02)
        executor = await runs.executor()
        ((found),) = await executor.journal.read(lambda records: records.runs(limit=5))
        assert found.status == "waiting_approval"
        assert await ran(running) == []


GOOD = {"plan": [{"id": "1", "tool": "get_outlook", "arguments": {"city": "Paris", "days": 2}}]}


def written(text: str) -> dict[str, Any]:
    return {"role": "assistant", "model": "m", "content": {"type": "text", "text": text}}


async def test_the_clients_own_model_plans_in_a_round(tmp_path: Path) -> None:
    async with yard(tmp_path, use="sampling") as running:
        client = Modern(running, SAMPLES)
        key, wanted, state = await client.question("run", AHEAD)
        assert wanted["method"] == "sampling/createMessage"
        assert "get_outlook" in wanted["params"]["systemPrompt"]
        assert AHEAD["request"] in wanted["params"]["messages"][0]["content"]["text"]
        back = {"requestState": state, "inputResponses": {key: written("I do not know.")}}
        key, wanted, state = await client.question("run", AHEAD, **back)
        assert len(wanted["params"]["messages"]) == 3  # told once what was wrong with it
        back = {"requestState": state, "inputResponses": {key: written(json.dumps(GOOD))}}
        done = found(await client.step("run", AHEAD, **back))
        assert done["status"] == "done"
        assert '"days": 2' in json.dumps(done["steps"][0]["value"])


async def test_a_client_that_lends_no_model_has_rules_plan_and_is_told(tmp_path: Path) -> None:
    async with yard(tmp_path, use="sampling") as running:
        for visitor in (await Visitor(running, "all").enter(), None):
            client = Modern(running, ELICITS)
            if visitor is not None:
                visitor.wait = LONG
            answer = await (visitor.tool("plan", AHEAD) if visitor else client.step("plan", AHEAD))
            plan = found(answer)
            assert plan["planner"] == "rules"
            assert plan["note"].startswith("Planned by rules: The client does not lend its model")
