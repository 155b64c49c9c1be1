"""``plan``, ``run`` and ``run_status``: plans of many calls in one, for the clients of a toolset.

Only reads run unasked. Every other step is put to the person through the client, where it can ask one;
otherwise the run parks, and `toolyard runs approve` goes on with it. Nothing a client sends widens that.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway import jsonrpc
from gateway.planning.asking import Asking, Begin, followed
from gateway.planning.definitions import PLAN, RUN, STATUS, PlanRequest, RunRequest, StatusRequest
from gateway.planning.planners import Draft, Planners, Proposal
from gateway.planning.runs import Runs
from gateway.toolsets.asking import ask_form
from gateway.toolsets.finding import Scopes
from gateway.toolsets.project import Projection
from gateway.upstream.call import CallSite
from registry.model import ItemKind

if TYPE_CHECKING:
    from router.plan import Definition, Plan, Step
    from router.running import Options

AskForm = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]
"""Has a person fill in a form: a text and its schema in, what they put in out, None where nobody does."""

_UNANSWERED: Final = (
    f"Nothing was run. Ask the user, put the answers where $ask stands in the plan, and call {RUN} with it."
)


class Refused(Exception):
    """What a model can mend; its text is the result."""


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

        always = projection.toolset.consent == "always"
        options = Options(consent=Consent.ASK if always else Consent.READS)
        if request.plan is None:
            if not request.request.strip():
                raise Refused("There is nothing to run: give a plan, or the request in words.")
            draft = await self._planners.draft(request.request, projection, scopes, site)
            plain = _plain_names(projection)
            options = replace(options, candidates=tuple(plain[ref] for ref in draft.names))
            done = await self._while_planned(site, request, draft, projection, options)
            if done is not None:
                return done
            proposal = await self._planners.made(draft)
            plan, tools = proposal.plan, draft.tools
            if not plan.steps:
                return _nothing(proposal)
        else:
            plan = from_json({"plan": request.plan, "request": request.request})
            used = (projection.tools.get(step.tool) for step in plan.steps)
            tools = {e.exposed: d for e in used if e is not None and (d := definition_of(e)) is not None}
        plan = await self._answered(partial(ask_form, site), plan, tools)
        if plan.asks():
            return {**planned(plan, tools), "next": _UNANSWERED}
        plan = self._own_names(plan, projection)
        begin: Begin = lambda asking: self._runs.start(plan, options, asking.party)  # noqa: E731
        run = await followed(self._runs, begin, site, request.wait)
        return await self._view(run, 0, projection)

    async def _while_planned(
        self, site: CallSite, request: RunRequest, draft: Draft, projection: Projection, options: Options
    ) -> dict[str, Any] | None:
        """Run a plan whose steps come one by one: what only reads is called while the rest is being made.

        None where the planner does not give steps, or gave none to the end: the plan is to be made as a whole.
        """
        from router.errors import RouterError, Unanswered
        from router.planner.unfolding import Unfolding

        writing = self._planners.writing(draft)
        if writing is None:
            return None
        unfolding = Unfolding(request.request, draft.tools)
        own = dict(zip(draft.names.values(), options.candidates, strict=True))
        unanswered = None

        async def steps(first: Step, asking: Asking) -> AsyncGenerator[Step, None]:
            nonlocal unanswered
            async with contextlib.aclosing(writing):
                if unfolding.take(first):
                    yield replace(first, tool=own[first.tool])
                async for step in writing:
                    if unfolding.take(step):
                        yield replace(step, tool=own[step.tool])
            plan = await self._answered(asking.form, unfolding.whole(), draft.tools)
            if plan.asks():
                unanswered = {**planned(plan, draft.tools), "next": _UNANSWERED}
                raise Unanswered("The plan asks for values that nobody gave.")
            for step in unfolding.rest(plan):
                yield replace(step, tool=own[step.tool])

        try:
            first = await anext(writing, None)
        except RouterError:
            return None
        if first is None:
            return _nothing(draft.empty)

        async def begin(asking: Asking) -> str:
            try:
                made = steps(first, asking)
                return await self._runs.start_stream(made, request.request, options, asking.party)
            except BaseException:  # there is no run that would read on
                await writing.aclose()
                raise

        run = await followed(self._runs, begin, site, request.wait)
        found = unanswered or await self._view(run, 0, projection)
        return None if found.get("reason") == "unplanned" else found

    @staticmethod
    async def _answered(ask: AskForm, plan: Plan, tools: Mapping[str, Definition]) -> Plan:
        """The plan with what the person has answered, where their client can ask them."""
        from gateway.planning.questions import answered, form, questions_of

        questions = questions_of(plan, tools)
        if not questions:
            return plan
        given = await ask("Some values are missing for what was asked for.", form(questions))
        return answered(plan, questions, given) if given is not None else plan

    def _own_names(self, plan: Plan, projection: Projection) -> Plan:
        """The plan with every tool under the gateway's own name for it; only the toolset's may be in it."""
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
    found = {**planned(proposal.plan, proposal.draft.tools), "planner": proposal.planner}
    if "questions" in found:
        found["next"] = _UNANSWERED
    return found


def _nothing(proposal: Proposal) -> dict[str, Any]:
    return {**proposed(proposal), "next": "Nothing was run."}


def _read(arguments: Any, kind: Any) -> Any:
    try:
        return msgspec.json.decode(b"{}" if arguments is None else arguments, type=kind)
    except msgspec.MsgspecError as error:
        raise Refused(f"The arguments do not fit: {error}.") from None


def text_of(found: Mapping[str, Any]) -> str:
    """The result in words, for clients that do not read structured content."""
    return jsonrpc.encode(found).decode()
