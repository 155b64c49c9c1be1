"""A plan that comes step by step: which of its steps can begin before the last one is there."""

from __future__ import annotations

from collections.abc import Mapping

from router.check import problems
from router.plan import Definition, Plan, Step
from router.planner.sound import sound


class Unfolding:
    """A plan while it is being made.

    A step can begin where it passes the checks as it is and asks for no value, and so did all before it:
    then nothing that comes later changes it. From the first that cannot, the rest waits for the end.

    :param tools: the candidates, by name.
    """

    def __init__(self, request: str, tools: Mapping[str, Definition]) -> None:
        self._request, self._tools = request, tools
        self._steps: list[Step] = []
        self._begun = 0
        self._holds = False

    def take(self, step: Step) -> bool:
        """Add the next step. Returns whether it can begin."""
        self._steps.append(step)
        found = problems(Plan(tuple(self._steps), self._request), self._tools)
        self._holds = self._holds or bool(found) or bool(Plan((step,)).asks())
        self._begun += not self._holds
        return not self._holds

    def whole(self) -> Plan:
        """The plan of all steps, made sound; it begins with those that could begin, as they were."""
        return sound(Plan(tuple(self._steps), self._request), self._tools)

    def rest(self, plan: Plan) -> tuple[Step, ...]:
        """The steps of the whole that have not begun."""
        return plan.steps[self._begun :]
