"""Whether a plan may run: its graph, its references and its arguments, held against the tools.

    check(plan, {tool.name: tool for tool in candidates})

Nothing is called and nothing is fetched. A reference stands for any value its output schema allows, so
a plan that passes can still meet a result that breaks the next step's schema: the executor looks again.
"""

from __future__ import annotations

from collections.abc import Mapping

from router.errors import (
    BadPath,
    Cycle,
    DuplicateStep,
    HiddenDependency,
    InvalidPlan,
    PlanError,
    UnknownStep,
    UnknownTool,
)
from router.outputs import NotThere, Types, types_at
from router.plan import Definition, Plan, Step, join_path
from router.schemas import argument_problems


def check(plan: Plan, tools: Mapping[str, Definition]) -> None:
    """Pass where the plan may run.

    :param tools: the tools it may use, by the name its steps use.
    :raises InvalidPlan: with everything that is wrong; each problem names the step and, for
        arguments, the place in them and the rule of the schema.
    """
    found = problems(plan, tools)
    if found:
        raise InvalidPlan(tuple(found))


def problems(plan: Plan, tools: Mapping[str, Definition]) -> list[PlanError]:
    """Everything that is wrong with a plan, in the order of its steps; empty where it may run."""
    found: list[PlanError] = []
    steps: dict[str, Step] = {}
    for step in plan.steps:
        if step.id in steps:
            found.append(
                DuplicateStep(f"Two steps have the id {step.id}.", "Number the steps.", step=step.id)
            )
        steps.setdefault(step.id, step)
    for step in plan.steps:
        found += _edges(step, steps)
        tool = tools.get(step.tool)
        if tool is None:
            names = ", ".join(sorted(tools)[:10]) or "none"
            found.append(
                UnknownTool(f"Step {step.id} calls {step.tool}.", f"The tools are: {names}.", step=step.id)
            )
            continue
        types, bad = _references(step, steps, tools)
        found += bad
        found += argument_problems(step, tool, types)
    if not found:
        stuck = cycle(plan)
        if stuck:
            ids = ", ".join(stuck)
            found.append(
                Cycle(f"Steps {ids} wait for each other.", "Let each use earlier ones only.", step=stuck[0])
            )
    return found


def order(plan: Plan) -> list[tuple[Step, ...]]:
    """The steps in waves: each wave needs only the waves before it. Steps of a cycle are left out."""
    waves: list[tuple[Step, ...]] = []
    done: set[str] = set()
    left = list(plan.steps)
    while left:
        wave = tuple(step for step in left if done.issuperset(step.depends_on))
        if not wave:
            break
        waves.append(wave)
        done.update(step.id for step in wave)
        left = [step for step in left if step.id not in done]
    return waves


def cycle(plan: Plan) -> list[str]:
    """The ids of the steps that can never start, because they wait for each other."""
    free = {step.id for wave in order(plan) for step in wave}
    return [step.id for step in plan.steps if step.id not in free]


def _edges(step: Step, steps: Mapping[str, Step]) -> list[PlanError]:
    found: list[PlanError] = []
    hint = "Refer to another step of this plan."
    for need in dict.fromkeys((*step.depends_on, *(ref.step for ref in step.refs()))):
        if need not in steps:
            found.append(UnknownStep(f"Step {step.id} needs step {need}.", hint, step=step.id))
        elif need == step.id:
            found.append(UnknownStep(f"Step {step.id} needs itself.", hint, step=step.id))
        elif need not in step.depends_on:
            found.append(
                HiddenDependency(
                    f"Step {step.id} uses step {need}, which its depends_on leaves out.",
                    "Name every referenced step in depends_on.",
                    step=step.id,
                )
            )
    return found


def _references(
    step: Step, steps: Mapping[str, Step], tools: Mapping[str, Definition]
) -> tuple[dict[tuple[str, str], Types], list[PlanError]]:
    """The types of what a step references, by (step, path), and the paths that lead nowhere."""
    types: dict[tuple[str, str], Types] = {}
    found: list[PlanError] = []
    for ref in step.refs():
        source = steps.get(ref.step)
        tool = tools.get(source.tool) if source is not None else None
        types[(ref.step, ref.path)] = None
        if tool is None:
            continue  # reported with that step
        try:
            types[(ref.step, ref.path)] = types_at(tool.output_schema, ref.segments)
        except NotThere as error:
            reached = join_path(ref.segments[: error.depth]) or "the top"
            known = f"It has: {', '.join(error.known[:10])}." if error.known else "Use a shorter path."
            found.append(
                BadPath(
                    f"Step {step.id} takes {ref.path} of step {ref.step}, but the result of {tool.name} "
                    f"has no {ref.segments[error.depth]!r} at {reached}.",
                    known,
                    step=step.id,
                    path=ref.path,
                )
            )
    return types, found
