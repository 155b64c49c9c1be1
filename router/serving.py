"""One step of a run: its arguments, whose word it needs, its call, and what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from router import consent
from router.calling import Call
from router.errors import BadPath, CallFailed, PlanError
from router.facts import Facts
from router.labels import joined
from router.plan import Step
from router.running import Running, again_digest, unknown
from router.runs import (
    MAX_MESSAGE,
    Decision,
    Failure,
    Question,
    StepState,
    StepStatus,
    Stored,
    Verdict,
)
from router.schemas import argument_problems
from router.trust import Flow, result_label, stops
from router.values import INLINE, NoResult, resolve, said_of

ASK_SECONDS: Final = 3600.0
"""Seconds a person who can be asked at once may take; after them the step is parked."""


async def serve(running: Running, step: Step) -> None:
    """Do one step whose inputs exist: up to its outcome, or until it waits for a person's word."""
    state, tool = running.states[step.id], running.tools.get(step.tool)
    if state.status is StepStatus.UNKNOWN and running.decisions[step.id].verdict is not Verdict.APPROVE:
        _heard(running, step)
        return
    if tool is None:
        _fail(running, step, Failure("unknown_tool", f"There is no tool {step.tool} any more."))
        return

    async def load(stored: Stored) -> bytes:
        if stored.handle in running.fresh:
            return running.fresh[stored.handle]
        return await running.house.journal.read(lambda records: records.result(running.run, stored.handle))

    try:
        arguments, flows = await resolve(step, tool.definition.input_schema, running.states, load)
    except (BadPath, NoResult) as error:
        path = error.path if isinstance(error, BadPath) else ""
        _fail(running, step, Failure(error.kind, error.message, path=path))
        return
    problem = next(iter(argument_problems(replace(step, arguments=arguments), tool.definition)), None)
    if problem is not None:
        _fail(running, step, _broken(step, tool, problem))
        return
    question = _question(running, step, tool, arguments, flows)
    if not running.sealed.is_set() and (not tool.read_only or question is not None):
        # Only what is read-only and needs nobody's word runs before the whole plan is known.
        await running.sealed.wait()
        if running.stopped is not None:
            raise asyncio.CancelledError
    if question is not None and not _again(running, state, question):
        verdict = await _word(running, step, question)
        if verdict is None:
            return
        if verdict is not Verdict.APPROVE:
            _fail(running, step, Failure("denied", "A person said no."))
            return
    await _called(running, step, tool, arguments, flows)


# whose word ---------------------------------------------------------------------------------------


def _question(
    running: Running, step: Step, tool: Facts, arguments: Mapping[str, Any], flows: list[Flow]
) -> Question | None:
    return consent.question(
        tool,
        arguments,
        stops(flows, tool, running.house.rules),
        running.options.consent,
        added=step.id in running.added,
    )


async def _word(running: Running, step: Step, question: Question) -> Verdict | None:
    """A person's word on a step: given before, or now; None where it has to be waited for."""
    known = _given(running, step, question)
    if known is not None:
        return known
    state = replace(running.states[step.id], status=StepStatus.APPROVAL, question=question)
    await running.set(state, "asked", rules=list(question.rules))
    verdict = None
    if running.party.ask is not None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                verdict = await running.party.ask(running.run, step, question)
        except TimeoutError:
            verdict = None
    if verdict is None:
        return _given(running, step, question)  # it may have come by another way meanwhile
    decision = Decision(verdict, question.digest, "asked", time.time())
    running.decisions[step.id] = decision
    await running.house.journal.decide(running.run, step.id, decision)
    running.note("decided", step.id, verdict=verdict.value)
    return verdict


def _given(running: Running, step: Step, question: Question) -> Verdict | None:
    known = running.decisions.get(step.id)
    return known.verdict if known is not None and known.digest == question.digest else None


def _again(running: Running, state: StepState, question: Question) -> bool:
    """Whether a person wants a call that may have happened made once more, with these arguments."""
    if state.status is not StepStatus.UNKNOWN or state.digest != question.digest:
        return False
    decision = running.decisions[state.id]
    return decision.verdict is Verdict.APPROVE and decision.digest == again_digest(state)


def _heard(running: Running, step: Step) -> None:
    """What becomes of a step that may have happened and is not to be called again."""
    if running.decisions[step.id].verdict is Verdict.HAPPENED:
        state = replace(running.states[step.id], status=StepStatus.DONE, failure=None, question=None)
        running.set(state, "done", end=True)
    else:
        text = "It may have been carried out; a person said not to call it again."
        _fail(running, step, Failure("denied", text))


# the call -----------------------------------------------------------------------------------------


async def _called(
    running: Running, step: Step, tool: Facts, arguments: dict[str, Any], flows: list[Flow]
) -> None:
    before = running.states[step.id]
    state = replace(
        before,
        version=tool.definition.hash,
        server=tool.server,
        question=None,
        failure=None,
        label=result_label(tool, joined(flow.label for flow in flows)),
        digest=consent.digest(tool, arguments),
        sent=consent.preview(arguments),
        repeatable=tool.repeatable,
        started_at=before.started_at or time.time(),
    )

    async def begin(attempt: int) -> None:
        nonlocal state
        last = running.states[step.id]
        state = replace(state, status=StepStatus.RUNNING, attempts=attempt)
        try:
            intent = running.set(state, "calling")
            if not tool.read_only:
                # On disk before the call is made; of a call that changes nothing the intent may be lost.
                await intent
        except asyncio.CancelledError:
            running.states[step.id] = last  # given up before the call was made
            raise

    call = Call(tool.name, arguments, running.run, step.id, before.attempts + 1, tool.timeout)
    try:
        body, cached = await running.house.calls.make(call, tool, begin, hedge=running.options.hedge)
    except CallFailed as error:
        failure = Failure(error.kind, error.message, error.retriable, said=error.said[:MAX_MESSAGE])
        if error.unknown and not tool.repeatable:
            running.set(unknown(state, failure), "outcome_unknown", end=True, error=failure.kind)
        else:
            _fail(running, step, failure)
        return
    refusal = _refusal(tool, body)
    if refusal is not None:
        _fail(running, step, refusal)
        return
    large = len(body) > INLINE
    handle = f"{step.id}/{state.attempts}"
    state = replace(
        state,
        status=StepStatus.DONE,
        cached=cached,
        result=Stored(handle, len(body), None if large else body),
    )
    results = [(handle, body)] if large else []
    written = running.set(state, "done", end=True, results=results, size=len(body), cached=cached)
    if large:
        running.fresh[handle] = body
        written.add_done_callback(lambda _: running.fresh.pop(handle, None))


def _fail(running: Running, step: Step, failure: Failure) -> None:
    state = replace(running.states[step.id], status=StepStatus.FAILED, failure=failure, question=None)
    running.set(state, "failed", end=True, error=failure.kind)


def _broken(step: Step, tool: Facts, problem: PlanError) -> Failure:
    return Failure(
        problem.kind,
        f"The arguments of step {step.id} break a rule of {tool.name}'s input schema.",
        path=problem.path,
        schema_path=problem.schema_path,
        said=problem.message[:MAX_MESSAGE],  # it quotes values, and those may be somebody else's
    )


class _Outcome(msgspec.Struct):
    isError: bool = False  # noqa: N815 - MCP's own spelling


def _refusal(tool: Facts, body: bytes) -> Failure | None:
    """Why a result is none: the tool says so, or it is not MCP."""
    try:
        failed = msgspec.json.decode(body, type=_Outcome).isError
    except msgspec.MsgspecError:
        return Failure("bad_result", f"{tool.name} answered something that is no MCP result.")
    if not failed:
        return None
    return Failure("tool_error", f"{tool.name} answered with an error.", said=said_of(body, MAX_MESSAGE))
