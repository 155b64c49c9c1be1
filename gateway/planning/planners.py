"""Plans made in a running gateway: candidates by search, then a planner, both loaded with the first plan.

A planner is shown tools without the prefix of their server, as people speak of them; what it makes is
given back under the names it was asked with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from gateway.config.planner import PlannerSettings
from gateway.finder import Finder
from gateway.planning.choice import Choice, shown, token_of
from gateway.planning.engine import Engine, EngineState
from gateway.planning.examples import Examples
from gateway.threads import daemon, daemon_stream
from gateway.toolsets.finding import Filters, Scopes
from gateway.toolsets.project import Projection
from gateway.upstream.call import CallSite
from registry.model import Server, Transport

if TYPE_CHECKING:
    from registry.search.service import SearchService
    from router.errors import RouterError
    from router.ground import Grounding
    from router.plan import Definition, Plan, Step
    from router.planner.base import Planner, StepWriter
    from router.planner.endpoint import Endpoint
    from router.replan import Situation

log = logging.getLogger("toolyard.planning")

AT_ONCE: Final = {"rules": 2, "model": 8, "sampling": 64}
"""Plans made at a time: more by rules would only wait for each other's CPU; a client's person takes time."""
NONE_FITS: Final = "None of the tools fits the request."
NO_TOOLS: Final = "There are no tools to plan with yet; `toolyard status` says what the servers wait for."
DOORS: Final = frozenset(("find_tools", "call_tool"))
"""Names of tools that lead to others of their server, which the checks of a plan would not see."""
PROBE_SECONDS: Final = 10.0
"""For finding out what an endpoint can do, when a person asks."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a plan for a request can be made of, and the planner that is to make it.

    :param tools: the candidates, by the names of the projection.
    :param names: the same names by (server, the server's name for it).
    :param otherwise: what an empty plan says.
    """

    request: str
    tools: Mapping[str, Definition]
    names: Mapping[tuple[str, str], str]
    grounding: Grounding
    planner: Planner
    otherwise: str

    @property
    def empty(self) -> Proposal:
        """The plan that calls nothing."""
        from router.plan import Plan

        return Proposal(Plan((), self.request, self.otherwise), self, self.planner.name)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan for a request, what it was made of, and the name of the planner that made it in the end."""

    plan: Plan
    draft: Draft
    planner: str


class Planners:
    """Makes plans by the planner that was chosen, and by rules where that one cannot. Loads with the first plan.

    :param engine: our own, where it was chosen.
    :param examples: plans that worked for like requests.
    :param servers: by name.
    """

    def __init__(
        self,
        finder: Finder,
        settings: PlannerSettings,
        choice: Choice,
        engine: Engine | None,
        examples: Examples,
        servers: Mapping[str, Server],
    ) -> None:
        self._servers = servers
        self._finder, self._settings, self.choice = finder, settings, choice
        self.engine, self._examples = engine, examples
        self._turns = {name: asyncio.Semaphore(count) for name, count in AT_ONCE.items()}
        self._rules: Planner | None = None
        self._encoder: object = None
        self._made_with: object = None
        self._remote: Endpoint | None = None
        self._model: tuple[Endpoint, Planner, Planner] | None = None

    def state(self) -> dict[str, Any]:
        """Which planner is in use and why, as ``doctor`` shows it; ``rules`` is what loads with the first plan."""
        loaded = self._rules is not None
        endpoint = self._model[0] if self._model is not None else self._remote
        if self.engine is not None and self.engine.state is not EngineState.READY:
            endpoint = None  # of an engine that has ended
        known = endpoint.known if endpoint is not None else None
        return {
            **shown(self.choice),
            "loaded": loaded,
            "meaning": self._made_with is not None if loaded else None,
            "engine": self.engine.shown() if self.engine is not None else None,
            "held_by": known.value if known is not None else None,
            "remembers": self._settings.memory,
        }

    async def probed(self) -> dict[str, Any]:
        """The same, once an endpoint of somebody else's was asked what it can do; ``problem`` where it does not say."""
        if self.choice.name != "model" or self.engine is not None:
            return self.state()
        from router.errors import ModelFailed
        from router.planner.model import ModelPlanner

        try:
            endpoint = self._endpoint()
            probe = ModelPlanner(endpoint, await self._ready(), seconds=PROBE_SECONDS)
            await daemon(probe.ability, "probe")
        except ModelFailed as error:
            mend = error.hint or "Start it, or correct url in [planner] of config.toml."
            return {**self.state(), "problem": error.message, "mend": mend}
        return self.state()

    async def propose(
        self, request: str, projection: Projection, scopes: Scopes, site: CallSite | None = None
    ) -> Proposal:
        """A plan over the tools of a projection, by the names it has for them; empty where none fits.

        Raises what `draft` raises.
        """
        return await self.made(await self.draft(request, projection, scopes, site))

    async def draft(
        self, request: str, projection: Projection, scopes: Scopes, site: CallSite | None = None
    ) -> Draft:
        """The candidates for a plan among the tools of a projection, and the planner.

        :param site: whose request it is, where that is a client whose model may be asked.
        :raises BadRequest: the request is empty.
        :raises RegistryError: search failed.
        """
        if self._rules is None:
            await anyio.to_thread.run_sync(_imported)
        from gateway.planning.facts import definition_of
        from router.errors import BadRequest
        from router.ground import ground

        if not request.strip():
            raise BadRequest("The request is empty.", "Say what is to be done.")
        scope = scopes.of(Filters())

        def search(service: SearchService) -> tuple[Grounding, object]:
            return ground(request, service.find, scope=scope), service.searcher.encoder

        grounding, self._encoder = await self._finder.search(search)
        tools: dict[str, Definition] = {}
        names: dict[tuple[str, str], str] = {}
        worked = await self._examples.tools(request, projection)
        for ref in dict.fromkeys([*(candidate.tool[:2] for candidate in grounding.candidates), *worked]):
            name = projection.by_ref.get(ref)
            if self.composed(ref[0]) or ref[1] in DOORS:
                continue
            if name is None or (found := definition_of(projection.tools[name])) is None:
                continue  # gone since the search began, or no tool that a plan can call
            tools[name], names[ref] = found, name
        otherwise = NONE_FITS if projection.tools else NO_TOOLS
        return Draft(request, tools, names, grounding, await self._planner(site), otherwise)

    async def made(self, draft: Draft) -> Proposal:
        """The plan."""
        if not draft.tools:
            return draft.empty
        tools = tuple(draft.tools.values())
        async with self._turn(draft.planner):
            plan = await daemon(partial(plan_plainly, draft.planner, draft.request, tools), "plan")
        return Proposal(plan, draft, await self._maker(draft.planner, plan))

    def writing(self, draft: Draft) -> AsyncGenerator[Step, None] | None:
        """The steps of the plan while it is being made; None where the planner gives it as a whole alone.

        Reading them raises RouterError where there is no next step to be had.
        """
        from router.planner.base import StepWriter

        planner = draft.planner
        if not draft.tools or not isinstance(planner, StepWriter):
            return None
        work = partial(stream_plainly, planner, draft.request, tuple(draft.tools.values()))

        async def steps() -> AsyncGenerator[Step, None]:
            async with self._turn(draft.planner), contextlib.aclosing(daemon_stream(work, "plan")) as made:
                async for step in made:
                    yield step
            if self.engine is not None:
                self.engine.answered()

        return steps()

    def composed(self, server: str) -> bool:
        """Whether the tools of a server are plans of our own, which no other plan calls."""
        found = self._servers.get(server)
        return found is not None and found.spec.transport is Transport.OWN

    async def again(self, situation: Situation) -> Plan | None:
        """The rest of a plan after a failure; a `router.replan.Replanner`. Raises RouterError."""
        from router.planner.again import plan_again

        planner = await self._planner(None)
        async with self._turn(planner):
            work = partial(plan_again, partial(plan_plainly, planner), situation)
            return await daemon(work, "plan again")

    async def _maker(self, planner: Planner, plan: Plan) -> str:
        """What made a plan in the end."""
        from router.planner.base import made_by

        made = made_by(plan, await self._ready())
        if made is None and planner.name == "model" and self.engine is not None:
            self.engine.answered()
        return made or planner.name

    @contextlib.asynccontextmanager
    async def _turn(self, planner: Planner) -> AsyncGenerator[None, None]:
        """A plan is being made: not too many at a time, and the engine does not end meanwhile."""
        with self.engine.used() if self.engine is not None else contextlib.nullcontext():
            async with self._turns[planner.name]:
                yield

    async def _planner(self, site: CallSite | None) -> Planner:
        """The planner for one plan: the one that was chosen, or rules that say why it is not."""
        rules = await self._ready()
        if self.choice.name == "rules" and not self.choice.mend:
            return rules
        from router.errors import BadRequest, ModelUnavailable, PlannerMissing

        try:
            if self.choice.name == "model":
                return self._by_model(self._endpoint(), rules)
            if self.choice.name == "sampling":
                return self._by_client(site, rules)
            raise PlannerMissing(f"{self.choice.why.removeprefix('because ')}.", self.choice.mend)
        except (BadRequest, ModelUnavailable, PlannerMissing) as error:
            return Instead(rules, error)

    def _endpoint(self) -> Endpoint:
        """Where the model is. Raises ModelUnavailable, BadRequest."""
        if self.engine is not None:
            return self.engine.endpoint()
        if self._remote is None:
            from router.planner.endpoint import Endpoint

            wanted = self._settings
            self._remote = Endpoint(wanted.url, wanted.name or None, token_of(wanted))
        return self._remote

    def _by_model(self, endpoint: Endpoint, rules: Planner) -> Planner:
        from router.planner.model import ModelPlanner

        kept = self._model
        if kept is not None and kept[0] is endpoint and kept[1] is rules:
            return kept[2]
        planner = ModelPlanner(
            endpoint,
            rules,
            strings=self._settings.strings,
            seconds=self._settings.seconds,
            say=_say,
            recall=self._examples.recall,
        )
        self._model = (endpoint, rules, planner)
        return planner

    def _by_client(self, site: CallSite | None, rules: Planner) -> Planner:
        """The client's own model, asked from the thread that plans. Raises PlannerMissing."""
        from gateway.planning.sampling import asks_client
        from router.planner.sampling import SamplingPlanner

        ask = asks_client(site, self._settings.seconds)
        return SamplingPlanner(ask, rules, _say, recall=self._examples.recall)

    async def _ready(self) -> Planner:
        """The planner by rules, made anew once search has an encoder."""
        encoder = self._encoder
        if self._rules is None or self._made_with is not encoder:
            planner = await anyio.to_thread.run_sync(partial(_load, encoder))
            self._rules, self._made_with = planner, encoder
            return planner
        return self._rules


@dataclass(frozen=True, slots=True)
class Instead:
    """Rules in the place of a planner that cannot be had; every plan says why."""

    rules: Planner
    why: RouterError
    name: str = "rules"

    def plan(self, request: str, tools: Sequence[Definition]) -> Plan:
        """A plan by rules."""
        from router.planner.base import fallen_back

        return fallen_back(self.rules, request, tools, self.why, _say)


def _say(line: str) -> None:
    log.info("%s", line)


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
    plain, own = _plainly(tools)
    made = planner.plan(request, plain)
    return replace(made, steps=tuple(replace(step, tool=own[step.tool]) for step in made.steps))


def stream_plainly(planner: StepWriter, request: str, tools: Sequence[Definition]) -> Iterator[Step]:
    """The same step by step."""
    plain, own = _plainly(tools)
    for step in planner.stream(request, plain):
        yield replace(step, tool=own[step.tool])


def _plainly(tools: Sequence[Definition]) -> tuple[list[Definition], dict[str, str]]:
    """The tools by their plain names, and by those their own."""
    plain = plain_names(tools)
    return [replace(tool, name=plain[tool.name]) for tool in tools], {v: k for k, v in plain.items()}


def plain_names(tools: Iterable[Definition]) -> dict[str, str]:
    """By a tool's name, the one without ``SERVER__``; the name itself where two would share one."""
    short = {tool.name: tool.name.removeprefix(f"{tool.server}__") or tool.name for tool in tools}
    counts = Counter(short.values())
    return {
        name: plain if counts[plain] == 1 and (plain == name or plain not in short) else name
        for name, plain in short.items()
    }
