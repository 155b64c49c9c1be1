"""Plans made in a running gateway: candidates by search, then a planner, both loaded with the first plan.

A planner is shown tools without the prefix of their server, as people speak of them; what it makes is
given back under the names it was asked with.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from gateway.finder import Finder
from gateway.toolsets.finding import Filters, Scopes
from gateway.toolsets.project import Projection

if TYPE_CHECKING:
    from registry.search.service import SearchService
    from router.ground import Grounding
    from router.plan import Definition, Plan
    from router.planner.base import Planner
    from router.replan import Situation

AT_ONCE: Final = 2
"""Plans made at a time: more would only wait for each other's CPU."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan for a request, and what it was chosen from.

    :param tools: the candidates, by the names of the projection.
    :param names: the same names by (server, the server's name for it).
    :param planner: what made it.
    """

    plan: Plan
    tools: Mapping[str, Definition]
    names: Mapping[tuple[str, str], str]
    grounding: Grounding
    planner: str


class Planners:
    """Makes plans by the rules, with the encoder of search where there is one. Loads with the first plan."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._planner: Planner | None = None
        self._encoder: object = None
        self._made_with: object = None

    def state(self) -> dict[str, Any]:
        """Which planner is in use, as ``doctor`` shows it; ``rules`` is what loads with the first plan."""
        loaded = self._planner is not None
        return {
            "name": self._planner.name if self._planner is not None else "rules",
            "loaded": loaded,
            "meaning": self._made_with is not None if loaded else None,
        }

    async def propose(self, request: str, projection: Projection, scopes: Scopes) -> Proposal:
        """A plan over the tools of a projection, by the names it has for them; empty where none fits.

        :raises BadRequest: the request is empty.
        :raises RegistryError: search failed.
        """
        if self._planner is None:
            await anyio.to_thread.run_sync(_imported)
        from gateway.planning.facts import definition_of
        from router.errors import BadRequest
        from router.ground import ground
        from router.plan import Plan

        if not request.strip():
            raise BadRequest("The request is empty.", "Say what is to be done.")
        scope = scopes.of(Filters())

        def search(service: SearchService) -> tuple[Grounding, object]:
            return ground(request, service.find, scope=scope), service.searcher.encoder

        grounding, self._encoder = await self._finder.search(search)
        tools: dict[str, Definition] = {}
        names: dict[tuple[str, str], str] = {}
        for candidate in grounding.candidates:
            name = projection.by_ref.get(candidate.tool[:2])
            if name is None or (found := definition_of(projection.tools[name])) is None:
                continue  # gone since the search began, or no tool that a plan can call
            tools[name], names[candidate.tool[:2]] = found, name
        planner = await self._ready()
        if tools:
            plan = await self._made(planner, request, tuple(tools.values()))
        else:
            plan = Plan((), request, "None of the tools fits the request.")
        return Proposal(plan, tools, names, grounding, planner.name)

    async def again(self, situation: Situation) -> Plan | None:
        """The rest of a plan after a failure; a `router.replan.Replanner`. Raises RouterError."""
        from router.planner.again import plan_again

        planner = await self._ready()
        async with self._turns:
            return await anyio.to_thread.run_sync(
                partial(plan_again, partial(plan_plainly, planner), situation)
            )

    async def _made(self, planner: Planner, request: str, tools: Sequence[Definition]) -> Plan:
        async with self._turns:
            return await anyio.to_thread.run_sync(partial(plan_plainly, planner, request, tools))

    async def _ready(self) -> Planner:
        """The planner, made anew once search has an encoder."""
        encoder = self._encoder
        if self._planner is None or self._made_with is not encoder:
            planner = await anyio.to_thread.run_sync(partial(_load, encoder))
            self._planner, self._made_with = planner, encoder
            return planner
        return self._planner


def _imported() -> None:
    """Import in a worker thread what the event loop is about to use."""
    from importlib import import_module

    for name in ("gateway.planning.facts", "gateway.planning.questions", "router.ground"):
        import_module(name)


def _load(encoder: Any) -> Planner:
    from router.planner.rules.meaning import similarity
    from router.planner.rules.planner import RulesPlanner
    from router.planner.rules.weights import weights

    return RulesPlanner(weights(), similarity(encoder) if encoder is not None else None)


def plan_plainly(planner: Planner, request: str, tools: Sequence[Definition]) -> Plan:
    """A plan by a planner that sees tools without their servers' prefixes, wherever that leaves them apart."""
    plain = plain_names(tools)
    own = {plain[tool.name]: tool.name for tool in tools}
    made = planner.plan(request, [replace(tool, name=plain[tool.name]) for tool in tools])
    return replace(made, steps=tuple(replace(step, tool=own[step.tool]) for step in made.steps))


def plain_names(tools: Iterable[Definition]) -> dict[str, str]:
    """By a tool's name, the one without ``SERVER__``; the name itself where two would share one."""
    short = {tool.name: tool.name.removeprefix(f"{tool.server}__") or tool.name for tool in tools}
    counts = Counter(short.values())
    return {
        name: plain if counts[plain] == 1 and (plain == name or plain not in short) else name
        for name, plain in short.items()
    }
