"""The seam of planning: a request and candidate tools in, a plan out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from router.errors import RouterError
from router.plan import Definition, Plan, Step
from router.shapes import Shape

Recall = Callable[[str, Sequence[Definition]], Sequence[Shape]]
"""Plans that worked for requests like this one, by the candidates' names. Blocks, and does not raise."""


def nothing(request: str, tools: Sequence[Definition]) -> Sequence[Shape]:
    """Remembers no plan; a `Recall`."""
    return ()


class Planner(Protocol):
    """Makes plans. Safe to call from any thread; blocks, so call it from a worker thread."""

    @property
    def name(self) -> str:
        """``rules``, ``model`` or ``sampling``: what `doctor` shows and what a plan was made by."""

    def plan(self, request: str, tools: Sequence[Definition]) -> Plan:
        """A plan that passes `router.check.check`, empty with a note where no tool fits.

        :param tools: the candidates, their names unique.
        :raises RouterError: the request cannot be planned at all.
        """


@runtime_checkable
class StepWriter(Protocol):
    """A planner that can give a plan step by step, while it makes it."""

    def stream(self, request: str, tools: Sequence[Definition]) -> Iterator[Step]:
        """The steps as they come; none where no tool fits. Blocks between them.

        Each is held to the schema of its tool; the plan as a whole is for the caller to check (`Unfolding`).

        :raises RouterError: there is no next step to be had.
        """


def fallen_back(
    planner: Planner,
    request: str,
    tools: Sequence[Definition],
    why: RouterError,
    say: Callable[[str], None],
) -> Plan:
    """A plan by another planner, whose note says so and why."""
    line = f"Planned by {planner.name}: {why.message}"
    say(line)
    plan = planner.plan(request, tools)
    return Plan(plan.steps, plan.request, f"{line} {plan.note}".rstrip())


def made_by(plan: Plan, fallback: Planner) -> str | None:
    """The name of the fallback where it made the plan, and the plan's note says so."""
    return fallback.name if plan.note.startswith(f"Planned by {fallback.name}: ") else None
