"""Composite tools on the control socket: runs that a person gives a name, and takes it back from."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import jsonrpc, protocol
from gateway.admin.runs import told
from gateway.admin.wire import guarded, json_answer
from gateway.app import Gateway
from gateway.errors import NotFound, RpcError
from registry.definition import definition_hash
from registry.model import ItemKind, Transport


class Body(msgspec.Struct, frozen=True):
    """A run to be promoted.

    :param fixed: parameters whose values of that run become part of the tool.
    """

    run: str
    name: str
    description: str = ""
    fixed: tuple[str, ...] = ()


class CompositeRoutes:
    """What ``toolyard runs promote``, ``promoted`` and ``demote`` ask of a running gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """The routes, for the control socket's application."""
        return [
            Route("/composites", guarded(told(self.list)), methods=["GET"]),
            Route("/composites", guarded(told(self.promote)), methods=["POST"]),
            Route("/composites/{name}", guarded(told(self.demote)), methods=["DELETE"]),
        ]

    async def list(self, request: Request) -> Response:
        """All composite tools, and whether they can be called."""
        from gateway.planning.composed import why_broken

        runs = self._gateway.runs
        await runs.executor()
        assert runs.composites is not None
        found = await anyio.to_thread.run_sync(runs.composites.all)
        return json_answer({"composites": [self._row(one, why_broken(one, runs)) for one in found]})

    async def promote(self, request: Request) -> Response:
        """Give a run's plan a name; it is a tool from then on, approved by whoever asks for it here."""
        from gateway.planning import composed

        try:
            body = msgspec.json.decode(await request.body(), type=Body)
        except msgspec.MsgspecError as error:
            raise RpcError(protocol.INVALID_PARAMS, f"This cannot be promoted: {error}.") from None
        gateway = self._gateway
        known = gateway.servers.get(composed.SERVER)
        if known is not None and known.spec.transport is not Transport.OWN:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"There is a server named '{composed.SERVER}', whose place composite tools need.",
                "Give that server another name.",
                status=409,
            )
        made = await composed.promote(gateway.runs, body.run, body.name, body.description, body.fixed)
        if known is None:
            await gateway.roster.add(composed.SPEC)
        await gateway.roster.resync(composed.SERVER)
        digest = definition_hash(jsonrpc.encode(made.definition()))
        await gateway.registrar.approve(composed.SERVER, {made.name: digest}, "toolyard runs promote")
        return json_answer(self._row(made, None))

    async def demote(self, request: Request) -> Response:
        """Take a composite tool away. With the last one goes the server that they belong to."""
        from gateway.planning import composed

        runs, name = self._gateway.runs, request.path_params["name"]
        await runs.executor()
        composites = runs.composites
        assert composites is not None
        if not await anyio.to_thread.run_sync(composites.remove, name):
            raise NotFound(f"There is no composite tool '{name[:64]}'.", "See: toolyard runs promoted.")
        if composed.SERVER in self._gateway.servers:
            if await anyio.to_thread.run_sync(composites.all):
                await self._gateway.roster.resync(composed.SERVER)
            else:
                await self._gateway.roster.remove(composed.SERVER, pins=True)
        return json_answer({"removed": name})

    def _row(self, tool: Any, broken: str | None) -> dict[str, Any]:
        from gateway.planning.composed import SERVER

        entries = self._gateway.catalog.entries[ItemKind.TOOL].values()
        shown = (entry.exposed for entry in entries if (entry.server, entry.original) == (SERVER, tool.name))
        return {
            "name": tool.name,
            "tool": next(shown, None),
            "description": tool.description,
            "parameters": tool.schema,
            "fixed": tool.fixed,
            "calls": list(tool.tools),
            "annotations": tool.annotations,
            "run": tool.run,
            "uses": tool.uses,
            "broken": broken,
        }
