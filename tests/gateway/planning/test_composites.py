"""Plans that worked become tools of their own: listed, searched, asked about, journalled and taken back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Running, running_gateway
from toolset_parts import WORDS, Shelves, Visitor, approve, said, tool

from gateway.admin.composites import CompositeRoutes
from gateway.errors import NotFound
from gateway.planning import composed
from gateway.planning.promotion import promote
from registry.toolsets import read
from router.errors import BadRequest

pytestmark = pytest.mark.anyio
LONG = 90.0
WORD = {
    "type": "object",
    "properties": {"word": {"type": "string", "description": "Any."}},
    "required": ["word"],
}
DESK = [
    tool("look_up", "Look up a word in the dictionary.", reads=True, inputSchema=WORD),
    tool("spell_out", "Spell a word letter by letter.", reads=True, inputSchema=WORD),
    tool("print_card", "Print a card that says a word.", inputSchema=WORD),
    tool("calls", reads=True),
]
TOOLSETS: dict[str, dict[str, Any]] = {
    "all": {"expose": "search"},
    "listed": {"include": ["desk/*", "plans/*"], "expose": "all"},
    "desk": {"include": ["desk/*"], "expose": "search"},
}
READING = [
    {"id": "1", "tool": "desk__look_up", "arguments": {"word": "Zaphod"}},
    {"id": "2", "tool": "desk__spell_out", "arguments": {"word": "Zarquon"}, "depends_on": ["1"]},
]


class Request:
    """What the routes of the control socket are given."""

    def __init__(self, body: Any = None, **path: str) -> None:
        self._body, self.path_params = json.dumps(body).encode(), path

    async def body(self) -> bytes:
        return self._body


class Desk:
    """A gateway with a desk of tools, and a person at its control socket."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.routes = CompositeRoutes(running.gateway)

    async def visitor(self, toolset: str = "all", says: str | None = None) -> Visitor:
        visitor = await Visitor(self.running, toolset, says).enter()
        visitor.wait = LONG
        return visitor

    async def ran(self) -> list[str]:
        names: list[str] = json.loads(said(await (await self.visitor("desk")).through("desk__calls")))
        return names

    async def run(self, plan: list[dict[str, Any]], request: str = "", says: str | None = "accept") -> str:
        visitor = await self.visitor("desk", says)
        answer = await visitor.tool("run", {"plan": plan, "request": request})
        assert answer["result"]["structuredContent"]["status"] == "done", said(answer)
        ident: str = answer["result"]["structuredContent"]["id"]
        return ident

    async def promote(self, run: str, name: str, **more: Any) -> dict[str, Any]:
        answer = await self.routes.promote(Request({"run": run, "name": name, **more}))  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.body
        return dict(json.loads(bytes(answer.body)))

    async def composites(self) -> list[dict[str, Any]]:
        answer = await self.routes.list(Request())  # type: ignore[arg-type]
        return list(json.loads(bytes(answer.body))["composites"])

    async def demote(self, name: str) -> int:
        return (await self.routes.demote(Request(name=name))).status_code  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def desk(root: Path, tools: list[dict[str, Any]] = DESK) -> AsyncIterator[Desk]:
    shelves = Shelves(root)
    shelves.add("desk", tools)
    toolsets = {name: read(name, fields) for name, fields in TOOLSETS.items()}
    async with running_gateway(
        shelves.specs, root=root, search=WORDS, first_list_grace=LONG, toolsets=toolsets, journal=True
    ) as running:
        await running.gateway.settled()
        await approve(running, "desk", tools, "look_up", "spell_out", "calls")
        yield Desk(running)


async def test_a_run_becomes_a_tool_whose_parameters_are_its_values(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        run = await here.run(READING, "Look up Zaphod, then spell Zarquon letter by letter")
        made = await here.promote(run, "study")
        assert made["tool"] == "plans__study"
        assert made["parameters"] == {
            "type": "object",
            "properties": {
                "word": {"type": "string", "description": "Any."},
                "word_2": {"type": "string", "description": "Any."},
            },
            "required": ["word", "word_2"],
            "additionalProperties": False,
        }
        assert "arquon" not in json.dumps(made)
        assert "aphod" not in json.dumps(made)
        assert made["annotations"]["readOnlyHint"] is True


async def test_it_is_listed_found_and_called_through_toolsets_like_any_other(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.promote(await here.run(READING), "study", description="Study two words of a language.")
        listed = await here.visitor("listed")
        assert "plans__study" in await listed.names()
        assert "plans__study" in await (await here.running.session()).names()
        visitor = await here.visitor()
        found = await visitor.find("study words of a language")
        assert found["structuredContent"]["tools"][0]["name"] == "plans__study"
        before = len(await here.ran())
        for answer in (
            await listed.tool("plans__study", {"word": "ox", "word_2": "cow"}),
            await visitor.through("plans__study", {"word": "ox", "word_2": "cow"}),
        ):
            assert json.loads(said(answer)) == {"tool": "spell_out", "arguments": {"word": "cow"}}
            run = answer["result"]["_meta"]["toolyard/run"]
            assert (await here.running.gateway.runs.view(run))["status"] == "done"
        assert (await here.ran())[before:].count("look_up") == 2
        assert [one["uses"] for one in await here.composites()] == [2]
        assert "plans__study" not in await (await here.visitor("desk")).names()
        unknown = await (await here.visitor("desk")).through("plans__study", {"word": "a", "word_2": "b"})
        assert "no tool" in said(unknown)


async def test_arguments_that_do_not_fit_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.promote(await here.run(READING), "study")
        before = await here.ran()
        client = await here.running.session()
        for arguments in (
            {"word": "ox"},
            {"word": "ox", "word_2": "cow", "more": 1},
            {"word": 1, "word_2": "b"},
        ):
            answer = await client.call("plans__study", arguments)
            assert answer["result"]["isError"] is True, answer
        assert await here.ran() == before


async def test_a_step_that_changes_something_is_asked_about_and_parks_where_nobody_can_be(
    tmp_path: Path,
) -> None:
    card = [{"id": "1", "tool": "desk__print_card", "arguments": {"word": "x"}}]
    async with desk(tmp_path) as here:
        made = await here.promote(await here.run(card), "card")
        assert made["annotations"] == {
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": False,
            "openWorldHint": True,
        }
        asked = await here.visitor("listed", "accept")
        assert "isError" not in (await asked.tool("plans__card", {"word": "a"}))["result"]
        assert "print_card" in asked.asked[0]["message"]
        assert (await here.ran()).count("print_card") == 2
        answer = await (await here.visitor("listed")).tool("plans__card", {"word": "b"})
        assert answer["result"]["isError"] is True
        run = answer["result"]["_meta"]["toolyard/run"]
        assert f"toolyard runs show {run}" in said(answer)
        assert (await here.running.gateway.runs.view(run))["status"] == "waiting_approval"
        assert (await here.ran()).count("print_card") == 2


async def test_a_client_of_2026_07_28_is_asked_between_two_requests(tmp_path: Path) -> None:
    card = [{"id": "1", "tool": "desk__print_card", "arguments": {"word": "x"}}]
    async with desk(tmp_path) as here:
        await here.promote(await here.run(card), "card")
        client = here.running.client()
        extra = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}

        async def call(**params: Any) -> Any:
            fields = {"name": "plans__card", "arguments": {"word": "a"}, **params}
            body, headers = client.modern("tools/call", fields, **extra)
            return (await client.http("POST", headers={**client.headers(), **headers}, body=body)).json[
                "result"
            ]

        first = await call()
        assert first["resultType"] == "input_required"
        ((key, wanted),) = first["inputRequests"].items()
        assert "print_card" in wanted["params"]["message"]
        done = await call(requestState=first["requestState"], inputResponses={key: {"action": "accept"}})
        assert "isError" not in done, done
        assert (await here.ran()).count("print_card") == 2


async def test_a_value_can_be_fixed_and_is_a_parameter_no_more(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        made = await here.promote(await here.run(READING), "study", fixed=["word"])
        assert list(made["parameters"]["properties"]) == ["word_2"]
        answer = await (await here.running.session()).call("plans__study", {"word_2": "cow"})
        view = await here.running.gateway.runs.view(answer["result"]["_meta"]["toolyard/run"])
        assert "Zaphod" in view["steps"][0]["arguments"]


async def test_several_last_steps_answer_together(tmp_path: Path) -> None:
    apart = [{key: value for key, value in step.items() if key != "depends_on"} for step in READING]
    async with desk(tmp_path) as here:
        await here.promote(await here.run(apart), "both")
        answer = await (await here.running.session()).call("plans__both", {"word": "a", "word_2": "b"})
        assert sorted(answer["result"]["structuredContent"]["results"]) == ["1", "2"]


async def test_a_plan_calls_no_plans(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        run = await here.run(READING, "Study a word")
        await here.promote(run, "study", description="Study a word of a language.")
        visitor = await here.visitor()
        step = {"id": "1", "tool": "plans__study", "arguments": {"word": "a", "word_2": "b"}}
        assert "is a plan itself" in said(await visitor.tool("run", {"plan": [step]}))
        plan = await visitor.tool("plan", {"request": 'Study the word "ox" of a language'})
        used = [step["tool"] for step in plan["result"]["structuredContent"]["plan"]]
        assert "plans__study" not in used


async def test_what_did_not_work_or_has_no_name_cannot_be_promoted(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        runs = here.running.gateway.runs
        run = await here.run(READING)
        visitor = await here.visitor("desk")
        card = [{"id": "1", "tool": "desk__print_card", "arguments": {"word": "x"}}]
        parked = (await visitor.tool("run", {"plan": card}))["result"]["structuredContent"]["id"]
        for ident, name, fixed, words in (
            (parked, "card", (), "waiting approval"),
            (run, "no name", (), "cannot be a tool's name"),
            (run, "study", ("nothing",), "no value nothing"),
        ):
            with pytest.raises(BadRequest, match=words):
                await promote(runs, ident, name, "", fixed)
        await here.promote(run, "study")
        with pytest.raises(BadRequest, match="already"):
            await promote(runs, run, "study")


async def test_taken_back_it_is_gone_and_the_last_one_takes_the_server_along(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        run = await here.run(READING)
        await here.promote(run, "study")
        await here.promote(run, "again")
        client = await here.running.session()
        assert {"plans__study", "plans__again"} <= set(await client.names())
        assert await here.demote("study") == 200
        assert "plans__study" not in await client.names()
        assert "plans__again" in await client.names()
        with pytest.raises(NotFound, match="no composite tool"):
            await here.demote("study")
        assert await here.demote("again") == 200
        assert not any(name.startswith("plans__") for name in await client.names())
        assert composed.SERVER not in here.running.gateway.servers


async def test_it_outlives_a_restart_and_says_when_a_tool_of_its_has_changed(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.promote(await here.run(READING), "study")
    async with desk(tmp_path) as here:
        client = await here.running.session()
        answer = await client.call("plans__study", {"word": "a", "word_2": "b"})
        assert "isError" not in answer["result"], answer
        assert [one["broken"] for one in await here.composites()] == [None]
    changed = [{**DESK[0], "description": "Look up a word, in another book."}, *DESK[1:]]
    async with desk(tmp_path, changed) as here:
        client = await here.running.session()
        answer = await client.call("plans__study", {"word": "a", "word_2": "b"})
        assert answer["result"]["isError"] is True
        assert "desk__look_up has changed" in said(answer) or "not there" in said(answer)
        assert (await here.composites())[0]["broken"]


async def test_plans_that_worked_make_their_tools_candidates_for_requests_alike(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.run(READING, "Look up a word in the dictionary, then spell a word letter by letter")
        planners = here.running.gateway.planners
        view = await here.running.gateway.toolsets.view("all")
        request = "Look up a word, then spell a word"
        found = await planners._examples.tools(request, view.projection)
        assert found == [("desk", "look_up"), ("desk", "spell_out")]
        assert await planners._examples.tools("Brew some coffee", view.projection) == []
        other = await here.running.gateway.toolsets.projected("desk")
        tools = list((await planners.draft(request, other, view.scopes)).tools.values())
        (shape,) = planners._examples.recall(request, tools)
        assert "Zaphod" not in repr(shape)
