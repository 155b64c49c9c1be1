"""The rest of a plan by a planner that takes requests: what has failed is no candidate any more.

It is told what `router.replan.Situation` holds, and nothing that a tool has said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

from router.plan import Definition, Plan, Ref, Step
from router.replan import Situation

MakePlan = Callable[[str, Sequence[Definition]], Plan]
"""As `router.planner.base.Planner.plan`."""


def plan_again(plan: MakePlan, situation: Situation) -> Plan | None:
    """Plan the request once more without the tools that failed; steps that are finished stand for themselves.

    Blocks as the planner does. None where nothing is left to do otherwise, or it would need an answer.

    :raises RouterError: the request cannot be planned.
    """
    failed = {one.tool for one in situation.broken}
    left = [tool for tool in situation.candidates if tool.name not in failed]
    if not left or not situation.request.strip():
        return None
    made = plan(situation.request, left)
    following = _joined(made, situation)
    return None if made.asks() or following is None else replace(following, note=made.note)


def _joined(made: Plan, situation: Situation) -> Plan | None:
    """The new plan over what is finished; None where it adds nothing to that."""
    finished = [step for step in situation.plan.steps if step.id in situation.finished]
    taken = {step.id for step in situation.plan.steps}
    ids: dict[str, str] = {}
    added: list[Step] = []
    by_id = {step.id: step for step in made.steps}
    for name in TopologicalSorter({step.id: step.depends_on for step in made.steps}).static_order():
        step = by_id[name]
        twin = _twin(step, ids, finished)
        if twin is not None:
            finished.remove(twin)
            ids[step.id] = twin.id
            continue
        id_ = next(new for n in range(len(taken) + 1) if (new := f"{step.id}{'r' * (n + 1)}") not in taken)
        taken.add(id_)
        ids[step.id] = id_
        added.append(_renamed(step, ids))
    if not added:
        return None
    kept = tuple(step for step in situation.plan.steps if step.id in situation.finished)
    return Plan((*kept, *added), situation.request)


def _twin(step: Step, ids: dict[str, str], finished: Sequence[Step]) -> Step | None:
    """The finished step that did this already: the same call, or else one of the same tool."""
    same = [old for old in finished if old.tool == step.tool]
    wanted = _renamed(step, {**ids, step.id: ""}).arguments
    return next((old for old in same if old.arguments == wanted), same[0] if same else None)


def _renamed(step: Step, ids: dict[str, str]) -> Step:
    def value(given: Any) -> Any:
        if isinstance(given, Ref):
            return Ref(ids[given.step], given.path)
        if isinstance(given, dict):
            return {key: value(part) for key, part in given.items()}
        return [value(part) for part in given] if isinstance(given, list) else given

    return Step(
        ids[step.id],
        step.tool,
        {key: value(part) for key, part in step.arguments.items()},
        tuple(ids[need] for need in step.depends_on),
    )
