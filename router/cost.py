"""What a plan will take: the time of each step, the critical path, and what the calls cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from router.check import order
from router.facts import Facts
from router.plan import Plan

UNKNOWN_SECONDS: Final = 1.0
"""What a call is taken to last while none was counted."""


@dataclass(frozen=True, slots=True)
class Path:
    """The chain of steps that takes longest.

    :param seconds: how long it takes; no schedule is quicker (Graham, 1969).
    :param start: when each step can start at the earliest, in seconds from the start of the run.
    """

    seconds: float
    steps: tuple[str, ...]
    start: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan is expected to take.

    :param seconds: with every step started when its inputs exist and no limit on calls at a time.
    :param total: seconds of all calls together: one after another.
    :param cost: of all calls, in the unit of the registry's statistics.
    :param guessed: ids of the steps whose tool was never counted; they stand with one second.
    """

    seconds: float
    total: float
    cost: float
    path: Path
    guessed: tuple[str, ...]


def critical_path(plan: Plan, seconds: Mapping[str, float]) -> Path:
    """The longest chain through a plan.

    :param seconds: of each step, by id.
    """
    start: dict[str, float] = {}
    end: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for wave in order(plan):
        for step in wave:
            last = max(step.depends_on, key=end.__getitem__, default=None)
            before[step.id] = last
            start[step.id] = end[last] if last is not None else 0.0
            end[step.id] = start[step.id] + seconds[step.id]
    chain: list[str] = []
    at = max(end, key=end.__getitem__, default=None)
    while at is not None:
        chain.append(at)
        at = before[at]
    return Path(max(end.values(), default=0.0), tuple(reversed(chain)), start)


def estimate(plan: Plan, tools: Mapping[str, Facts]) -> Estimate:
    """What a plan is expected to take, from what calls of its tools took before."""
    known = {step.id: tools[step.tool].seconds for step in plan.steps}
    seconds = {id_: UNKNOWN_SECONDS if value is None else value for id_, value in known.items()}
    path = critical_path(plan, seconds)
    return Estimate(
        path.seconds,
        sum(seconds.values()),
        sum(tools[step.tool].cost for step in plan.steps),
        path,
        tuple(id_ for id_, value in known.items() if value is None),
    )
