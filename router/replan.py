"""Making the rest of a plan anew after a failure, without letting the failure speak.

What a tool returned, an error's words included, is somebody else's text. A replanner is told which step
failed, our own class of the failure and which rule of which schema was broken, and nothing more; so a
tool cannot talk a second plan into calls that the request did not ask for (AgentSys; CaMeL). What comes
back is held to the first plan: finished steps stay as they are, no tool is called that was not a
candidate before, and a step that writes is asked about, whatever was approved before.

Tree-Planner's backtracking (arXiv 2310.08582) keeps what has been reached; so does this.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from router.check import check
from router.errors import InvalidPlan, RouterError
from router.plan import Definition, Plan
from router.running import Running
from router.runs import Failure, StepState, StepStatus

PLAN_SECONDS: Final = 60.0
_KEPT: Final = frozenset({StepStatus.DONE, StepStatus.UNKNOWN, StepStatus.APPROVAL})
_FINAL: Final = frozenset({"denied", "deadline", "cancelled", "invalid_plan", "needs_failed", "lost"})
"""Failures that no other plan mends, or that a person wanted."""
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class Broken:
    """A step that failed, as a replanner is told.

    :param kind: our own class of the failure.
    :param path: of ``bad_path``: the part of a result that the plan itself named and that was not there.
    :param schema_path: of ``bad_arguments``: the rule of the tool's input schema that was broken.
    """

    step: str
    tool: str
    kind: str
    path: str = ""
    schema_path: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a replanner knows.

    :param plan: the plan as it stood, made before any tool had said anything.
    :param finished: ids of the steps that stay: they have a result, or wait for a person's word.
    :param candidates: the tools that may be called: those of the first plan's.
    """

    request: str
    plan: Plan
    finished: tuple[str, ...]
    broken: tuple[Broken, ...]
    candidates: tuple[Definition, ...]


Replanner = Callable[[Situation], Awaitable[Plan | None]]
"""Makes the rest of a plan anew: the whole plan, finished steps included or not; None where it cannot."""


def broken(state: StepState, failure: Failure) -> Broken:
    """A failure without anything that a tool or its server has said."""
    kind = failure.kind if _KIND.fullmatch(failure.kind) else "call_failed"
    return Broken(
        state.id,
        state.tool,
        kind,
        path=failure.path if kind == "bad_path" else "",
        schema_path=failure.schema_path if kind == "bad_arguments" else "",
    )


async def revised(running: Running, plan: Plan, replanner: Replanner | None) -> Plan | None:
    """The plan to go on with after failures; None where there is nothing to mend, or no way to.

    What was wrong with a plan that is not taken is written into the run's history.
    """
    states = [running.states[step.id] for step in plan.steps if step.id in running.states]
    failed = [
        broken(state, state.failure)
        for state in states
        if state.status is StepStatus.FAILED
        and state.failure is not None
        and state.failure.kind not in _FINAL
    ]
    if replanner is None or running.stopped is not None or not failed:
        return None
    finished = tuple(state.id for state in states if state.status in _KEPT)
    definitions = {name: tool.definition for name, tool in running.tools.items()}
    situation = Situation(plan.request, plan, finished, tuple(failed), tuple(definitions.values()))
    try:
        async with asyncio.timeout(PLAN_SECONDS):
            made = await replanner(situation)
        if made is None:
            return None
        following = _with_finished(made, plan, finished)
        check(following, definitions)
        wrong = _wrong(running, plan, following, finished)
    except TimeoutError:
        wrong = f"There was no other plan within {PLAN_SECONDS:g} s."
    except InvalidPlan as error:
        wrong = f"The other plan cannot run: {', '.join(dict.fromkeys(p.kind for p in error.problems))}."
    except RouterError as error:
        wrong = f"There is no other plan: {error.kind}."
    if wrong:
        running.note("not_replanned", why=wrong)
        return None
    return following


def _with_finished(made: Plan, plan: Plan, finished: tuple[str, ...]) -> Plan:
    have = {step.id for step in made.steps}
    kept = tuple(step for step in plan.steps if step.id in finished and step.id not in have)
    return replace(made, steps=kept + made.steps, request=plan.request)


def _wrong(running: Running, plan: Plan, following: Plan, finished: tuple[str, ...]) -> str:
    """Why a plan must not be gone on with; empty where it may."""
    old = {step.id: step for step in plan.steps}
    for step in following.steps:
        state = running.states.get(step.id)
        if step.id in finished:
            if step != old[step.id]:
                return f"The other plan changes step {step.id}, which is finished."
        elif state is not None and (state.attempts or state.status is StepStatus.FAILED):
            return f"The other plan uses the id {step.id} again, which has failed."
    if following.asks():
        return "The other plan asks for values that nobody gave."
    if all(old.get(step.id) == step for step in following.steps):
        return "The other plan does nothing that the first did not."
    return ""
