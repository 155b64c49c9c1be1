"""``plan``, ``run`` and ``run_status``: plans of many calls in one, for the clients of a toolset.

Only reads run unasked. Every other step is put to the person through the client, where it can ask one;
otherwise the run parks, and `toolyard runs approve` goes on with it. Nothing a client sends widens that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway import jsonrpc
from gateway.planning.asking import followed
from gateway.planning.planners import Planners, Proposal
from gateway.planning.runs import Runs
from gateway.toolsets.asking import ask_form
from gateway.toolsets.finding import Scopes
from gateway.toolsets.project import Projection
from gateway.upstream.call import CallSite
from registry.model import ItemKind

if TYPE_CHECKING:
    from router.plan import Definition, Plan

PLAN: Final = "plan"
RUN: Final = "run"
STATUS: Final = "run_status"
MAX_REQUEST: Final = 4000
MAX_WAIT: Final = 600.0
WAIT: Final = 30.0
"""Seconds ``run`` waits for the end where the caller names no number."""

_STEP: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "tool": {"type": "string", "description": "A name that find_tools gave."},
        "arguments": {
            "type": "object",
            "description": 'As its inputSchema wants them; {"$ref": "ID", "path": "key.0.key"} takes a value from '
            "the result of an earlier step.",
        },
        "depends_on": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["id", "tool"],
    "additionalProperties": False,
}
_REQUEST: Final = "What the user asked for, in their words, every value included."
_WAIT: Final = {"type": "number", "minimum": 0, "maximum": MAX_WAIT, "default": WAIT}


_UNANSWERED: Final = (
    f"Nothing was run. Ask the user, put the answers where $ask stands in the plan, and call {RUN} with it."
)


class PlanRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``plan``."""

    request: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST)]


class RunRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``run``."""

    plan: Annotated[list[dict[str, Any]], Meta(max_length=256)] | None = None
    request: Annotated[str, Meta(max_length=MAX_REQUEST)] = ""
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = WAIT


class StatusRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``run_status``."""

    id: Annotated[str, Meta(max_length=64)]
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = 0.0


class Refused(Exception):
    """What a model can mend; its text is the result."""


def definitions() -> dict[str, bytes]:
    """The definitions of the tools, by name."""
    plan = {
        "name": PLAN,
        "title": "Plan a request",
        "description": "Which tools serve a request, with which arguments, in what order: a plan, without calling "
        f"anything. It may be changed, and is run with {RUN}. What the request leaves open stands in it as a question.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "request": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_REQUEST,
                    "description": _REQUEST,
                }
            },
            "required": ["request"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }
    run = {
        "name": RUN,
        "title": "Run a plan",
        "description": "Do what a request says, or run several tools as one plan: steps that do not need each other's results run at the same "
        "time, and values flow from step to step without passing through you. The whole plan is checked first. A "
        "step that may change something, or that would send on what another tool returned, is put to the user. "
        f"Answers when all is done, or earlier with an id for {STATUS}.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "plan": {
                    "type": "array",
                    "items": _STEP,
                    "maxItems": 256,
                    "description": f"As {PLAN} gave it. Without one, the request is planned first.",
                },
                "request": {"type": "string", "maxLength": MAX_REQUEST, "description": _REQUEST},
                "wait": _WAIT,
            },
            "anyOf": [{"required": ["plan"]}, {"required": ["request"]}],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": False, "destructiveHint": True, "openWorldHint": True},
    }
    status = {
        "name": STATUS,
        "title": "Look at a run",
        "description": f"How a run begun with {RUN} stands: its steps, their results, and what waits for the user.",
        "inputSchema": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "wait": {**_WAIT, "default": 0}},
            "required": ["id"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }
    return {PLAN: jsonrpc.encode(plan), RUN: jsonrpc.encode(run), STATUS: jsonrpc.encode(status)}


class PlanTools:
    """Serves these tools for every toolset."""

    def __init__(self, runs: Runs, planners: Planners) -> None:
        self._runs = runs
        self._planners = planners

    async def call(
        self, name: str, site: CallSite, arguments: Any, projection: Projection, scopes: Scopes
    ) -> dict[str, Any]:
        """The structured result. Raises Refused, GatewayError, RegistryError."""
        from router.errors import RouterError

        try:
            if name == PLAN:
                asked = _read(arguments, PlanRequest)
                return proposed(await self._planners.propose(asked.request, projection, scopes, site))
            if name == RUN:
                return await self._run(site, _read(arguments, RunRequest), projection, scopes)
            return await self._status(_read(arguments, StatusRequest), projection)
        except RouterError as error:
            raise Refused(str(error)) from error

    async def _run(
        self, site: CallSite, request: RunRequest, projection: Projection, scopes: Scopes
    ) -> dict[str, Any]:
        from gateway.planning.facts import definition_of
        from router.consent import Consent
        from router.plan import from_json
        from router.running import Options

        proposal = None
        if request.plan is None:
            if not request.request.strip():
                raise Refused("There is nothing to run: give a plan, or the request in words.")
            proposal = await self._planners.propose(request.request, projection, scopes, site)
            plan, tools = proposal.plan, proposal.tools
            if not plan.steps:
                return {**proposed(proposal), "next": "Nothing was run."}
        else:
            plan = from_json({"plan": request.plan, "request": request.request})
            used = (projection.tools.get(step.tool) for step in plan.steps)
            tools = {e.exposed: d for e in used if e is not None and (d := definition_of(e)) is not None}
        plan = await self._answered(site, plan, tools)
        if plan.asks():
            return {**planned(plan, tools), "next": _UNANSWERED}
        always = projection.toolset.consent == "always"
        plain = _plain_names(projection)
        candidates = tuple(plain[ref] for ref in proposal.names) if proposal is not None else ()
        options = Options(consent=Consent.ASK if always else Consent.READS, candidates=candidates)

        run = await followed(self._runs, self._own_names(plan, projection), options, site, request.wait)
        return await self._view(run, 0, projection)

    @staticmethod
    async def _answered(site: CallSite, plan: Plan, tools: Mapping[str, Definition]) -> Plan:
        """The plan with what the person has answered, where their client can ask them."""
        from gateway.planning.questions import answered, form, questions_of

        questions = questions_of(plan, tools)
        if not questions:
            return plan
        given = await ask_form(site, "Some values are missing for what was asked for.", form(questions))
        return answered(plan, questions, given) if given is not None else plan

    def _own_names(self, plan: Plan, projection: Projection) -> Plan:
        """The plan with every tool under the gateway's own name for it; only the toolset's may be in it."""
        from dataclasses import replace

        plain = _plain_names(projection)
        steps = []
        for step in plan.steps:
            entry = projection.tools.get(step.tool)
            if entry is None:
                raise Refused(
                    f"Step {step.id}: there is no tool {step.tool[:200]!r} here. Search with find_tools for "
                    "the tools there are."
                )
            if self._planners.composed(entry.server):
                raise Refused(f"Step {step.id}: {step.tool} is a plan itself. Call it by itself.")
            steps.append(replace(step, tool=plain[entry.server, entry.original]))
        return replace(plan, steps=tuple(steps))

    async def _status(self, request: StatusRequest, projection: Projection) -> dict[str, Any]:
        return await self._view(request.id, request.wait, projection)

    async def _view(self, run: str, wait: float, projection: Projection) -> dict[str, Any]:
        await self._runs.wait(run, wait)
        found = await self._runs.view(run, values=True)
        shown = {
            name: projection.by_ref.get((entry.server, entry.original), name)
            for name, entry in projection.source.entries[ItemKind.TOOL].items()
        }
        for step in found["steps"]:
            step["tool"] = shown.get(step["tool"], step["tool"])
            step.pop("arguments", None)
        if any("question" in step for step in found["steps"]):
            found["next"] = (
                f"Ask the user to look at `toolyard runs show {run}` and to approve or deny there."
            )
        elif found["status"] == "running":
            found["next"] = f"Call {STATUS} with this id."
        return found


def _plain_names(projection: Projection) -> dict[tuple[str, str], str]:
    """The gateway's own names for its tools, by (server, the server's name for it)."""
    source = projection.source.entries[ItemKind.TOOL]
    return {(entry.server, entry.original): name for name, entry in source.items()}


def planned(plan: Plan, tools: Mapping[str, Definition]) -> dict[str, Any]:
    """A plan as JSON, and what it asks for."""
    from gateway.planning.questions import question_json, questions_of
    from router.plan import to_json

    asks = [question_json(question) for question in questions_of(plan, tools)]
    return {**to_json(plan), "questions": asks} if asks else to_json(plan)


def proposed(proposal: Proposal) -> dict[str, Any]:
    """A plan that was made for a request, with what made it."""
    found = {**planned(proposal.plan, proposal.tools), "planner": proposal.planner}
    if "questions" in found:
        found["next"] = _UNANSWERED
    return found


def _read(arguments: Any, kind: Any) -> Any:
    try:
        return msgspec.json.decode(b"{}" if arguments is None else arguments, type=kind)
    except msgspec.MsgspecError as error:
        raise Refused(f"The arguments do not fit: {error}.") from None


def text_of(found: Mapping[str, Any]) -> str:
    """The result in words, for clients that do not read structured content."""
    return jsonrpc.encode(found).decode()
