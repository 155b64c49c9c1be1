"""The control socket's routes for toolsets, for search, and for calls that wait for a person."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import jsonrpc, protocol
from gateway.admin.wire import guarded, json_answer
from gateway.app import Gateway
from gateway.errors import RpcError
from gateway.toolsets import finding
from gateway.toolsets.book import Listed
from gateway.toolsets.project import Projection
from gateway.toolsets.rows import answered, shown
from registry.toolsets import Toolset, read

EVERYTHING: Final = Toolset(name="all", expose="all")
"""The selection of a search that names no toolset."""
MOST: Final = 100


class ToolsetRoutes:
    """What ``toolyard registry toolset``, ``search`` and ``approve-call`` ask of a running gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._toolsets = gateway.toolsets
        self._everything: Projection | None = None
        self._scopes: finding.Scopes | None = None

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("/toolsets", guarded(self.list), methods=["GET"]),
            Route("/toolsets/{name}", guarded(self.show), methods=["GET"]),
            Route("/toolsets/{name}", guarded(self.put), methods=["PUT"]),
            Route("/toolsets/{name}", guarded(self.remove), methods=["DELETE"]),
            Route("/search", guarded(self.search), methods=["GET"]),
            Route("/approvals", guarded(self.approvals), methods=["GET"]),
            Route("/approvals/{id}", guarded(self.decide), methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """Every toolset, and what it comes to."""
        rows = [await self._row(listed) for listed in self._toolsets.all().values()]
        return json_answer({"toolsets": rows})

    async def _row(self, listed: Listed) -> dict[str, Any]:
        return self._toolsets.row(listed, await self._toolsets.projected(listed.toolset.name))

    async def show(self, request: Request) -> Response:
        """One toolset: how it is written, and the tools in it."""
        listed = self._toolsets.get(request.path_params["name"])
        await self._gateway.settled()
        projection = await self._toolsets.projected(listed.toolset.name)
        return json_answer(shown(self._toolsets.row(listed, projection), listed.toolset, projection))

    async def put(self, request: Request) -> Response:
        """Create a toolset, or change one (``?change=1``)."""
        name = request.path_params["name"]
        try:
            fields = jsonrpc.value(await request.body())
        except (msgspec.MsgspecError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise RpcError(protocol.INVALID_PARAMS, "The body must be a JSON object.")
        toolset = read(name, fields)
        await self._toolsets.put(toolset, new="change" not in request.query_params)
        return json_answer(await self._row(self._toolsets.get(name)))

    async def remove(self, request: Request) -> Response:
        """Forget a toolset."""
        name = request.path_params["name"]
        await self._toolsets.remove(name)
        return json_answer({"removed": name})

    async def search(self, request: Request) -> Response:
        """Search the catalog, or a toolset, as ``find_tools`` does."""
        query = request.query_params.get("query", "")
        limit = request.query_params.get("limit", "10")
        if not query.strip() or not limit.isdecimal() or not 1 <= int(limit) <= MOST:
            raise RpcError(
                protocol.INVALID_PARAMS, f"A search needs a query, and a limit between 1 and {MOST}."
            )
        await self._gateway.settled()
        name = request.query_params.get("toolset")
        projection, scopes = await self._scoped(name)
        found = await self._toolsets.finder.find(query, int(limit), scopes.of(finding.Filters()))
        return json_answer(answered(found, projection))

    async def _scoped(self, name: str | None) -> tuple[Projection, finding.Scopes]:
        if name is not None:
            view = await self._toolsets.view(name)
            return view.projection, view.scopes
        kept, scopes = self._everything, self._scopes
        if kept is None or scopes is None or kept.source is not self._gateway.catalog:
            kept = self._everything = await self._toolsets.project(EVERYTHING)
            scopes = self._scopes = finding.Scopes(kept)
        return kept, scopes

    async def approvals(self, request: Request) -> Response:
        """The calls that wait for a person."""
        return json_answer({"approvals": self._toolsets.approvals.rows()})

    async def decide(self, request: Request) -> Response:
        """Allow a call, or deny it (``?deny=1``)."""
        allowed = "deny" not in request.query_params
        waiting = self._toolsets.approvals.decide(request.path_params["id"], allowed)
        entry = waiting.call.entry
        return json_answer(
            {"id": waiting.ident, "allowed": allowed, "tool": entry.exposed, "server": entry.server}
        )
