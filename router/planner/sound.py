"""A plan made sound: what the checks refuse is asked for or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.check import problems
from router.plan import Ask, Definition, Plan, Ref, Step


def sound(plan: Plan, tools: Mapping[str, Definition]) -> Plan:
    """The plan without what the checks refuse; a schema that nothing satisfies takes its step with it.

    An optional argument that is refused is left out, a required one is asked for.
    """
    steps = list(plan.steps)
    note = ""
    for _ in range(2 * len(steps) + 2):
        found = problems(Plan(tuple(steps), plan.request), tools)
        if not found:
            break
        bad = found[0].step
        index = next(i for i, step in enumerate(steps) if step.id == bad)
        repaired = _repaired(steps[index], tools[steps[index].tool], found[0].path)
        if repaired is None or repaired == steps[index]:
            note = f"{steps[index].tool} was left out: no arguments were found that its schema allows."
            steps = _without(steps, bad)
        else:
            steps[index] = repaired
    return Plan(tuple(steps), plan.request, note)


def _repaired(step: Step, tool: Definition, path: str) -> Step | None:
    name = path.split("/")[1].replace("~1", "/").replace("~0", "~") if path.startswith("/") else ""
    if name not in step.arguments:
        return None
    required = tool.input_schema.get("required")
    rest = {key: value for key, value in step.arguments.items() if key != name}
    if isinstance(required, list) and name in required:
        rest[name] = Ask(f"What is {name} for {tool.name}?")
    trimmed = Step(step.id, step.tool, rest)
    needs = dict.fromkeys(ref.step for ref in trimmed.refs())
    return Step(step.id, step.tool, rest, tuple(needs))


def _without(steps: Sequence[Step], gone: str) -> list[Step]:
    """The steps but one; what it would have given is asked for."""

    def close(value: Any) -> Any:
        if isinstance(value, Ref) and value.step == gone:
            return Ask("What should stand here? The step that would have told was left out.")
        if isinstance(value, dict):
            return {key: close(part) for key, part in value.items()}
        return [close(part) for part in value] if isinstance(value, list) else value

    return [
        Step(
            s.id,
            s.tool,
            {k: close(v) for k, v in s.arguments.items()},
            tuple(n for n in s.depends_on if n != gone),
        )
        for s in steps
        if s.id != gone
    ]
