"""Plans on the control socket: one made for a request over every tool, and which planner makes them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import protocol
from gateway.admin.runs import told
from gateway.admin.wire import guarded, json_answer
from gateway.app import Gateway
from gateway.errors import RpcError
from gateway.planning.definitions import MAX_REQUEST
from gateway.planning.planners import Draft
from gateway.planning.tools import proposed
from gateway.toolsets.finding import Scopes
from gateway.toolsets.project import Projection
from registry.toolsets import Toolset

EVERYTHING = Toolset(name="all", expose="all")


class Body(msgspec.Struct, frozen=True):
    """A request to be planned."""

    request: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST)]


class PlanRoutes:
    """What ``toolyard plan`` asks of a running gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._everything: tuple[Projection, Scopes] | None = None

    def routes(self) -> list[Route]:
        """The routes, for the control socket's application."""
        return [
            Route("/plans", guarded(told(self.plan)), methods=["POST"]),
            Route("/plans/planner", guarded(told(self.planner)), methods=["GET"]),
            Route("/plans/planner/restart", guarded(self.restart), methods=["POST"]),
        ]

    async def plan(self, request: Request) -> Response:
        """A plan for a request, with the candidates it was chosen from."""
        try:
            body = msgspec.json.decode(await request.body(), type=Body)
        except msgspec.MsgspecError as error:
            raise RpcError(protocol.INVALID_PARAMS, f"This is no request: {error}.") from None
        await self._gateway.settled()
        proposal = await self._gateway.planners.propose(body.request, *await self._scoped())
        found = proposed(proposal)
        found.pop("next", None)
        return json_answer({**found, **_chosen_from(proposal.draft)})

    async def planner(self, request: Request) -> Response:
        """Which planner is in use, and why; with ``probe=1`` a remote endpoint is asked what it can do."""
        planners = self._gateway.planners
        probe = request.query_params.get("probe") == "1"
        return json_answer(await planners.probed() if probe else planners.state())

    async def restart(self, request: Request) -> Response:
        """End the engine and forget its failures; the next plan starts it."""
        engine = self._gateway.planners.engine
        if engine is None:
            raise RpcError(
                protocol.INVALID_PARAMS,
                "This gateway runs no engine of its own.",
                "Name a model's folder in [planner] of config.toml, then restart the gateway.",
                status=409,
            )
        await engine.restart()
        return json_answer(self._gateway.planners.state())

    async def _scoped(self) -> tuple[Projection, Scopes]:
        kept = self._everything
        if kept is None or kept[0].source is not self._gateway.catalog:
            projection = await self._gateway.toolsets.project(EVERYTHING)
            kept = self._everything = (projection, Scopes(projection))
        return kept


def _chosen_from(draft: Draft) -> dict[str, Any]:
    """The candidates, and which wish of the request each of them may answer."""
    wishes = [
        {
            "text": wish.text,
            "tools": [
                {"name": draft.names[candidate.tool[:2]], "score": candidate.score, "why": candidate.why}
                for candidate in wish.candidates
                if candidate.tool[:2] in draft.names
            ],
        }
        for wish in draft.grounding.wishes
    ]
    return {"candidates": list(draft.names.values()), "wishes": wishes, "mode": draft.grounding.mode}
