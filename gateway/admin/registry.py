"""The registry's part of the control socket: what changes it, or needs the live gateway.

What only reads does not come here: the CLI reads the store itself. Approvals have no other way in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import jsonrpc, protocol
from gateway.admin.wire import body_of, guarded, json_answer, lines_answer
from gateway.app import Gateway
from gateway.errors import GatewayError, NotFound, RpcError
from gateway.jsonrpc import Shallow
from registry.definition import definition_hash
from registry.sync import SyncReport
from registry.tools import Pin, ToolRef

MAX_BATCH: Final = 1000
"""Approvals one request of an import may hold."""


class RegistryApi:
    """The routes under ``/registry``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """For the control socket's application."""
        return [
            Route("/registry/sync", guarded(self.sync), methods=["POST"]),
            Route("/registry/approve", guarded(self.approve), methods=["POST"]),
            Route("/registry/withhold", guarded(self.withhold), methods=["POST"]),
            Route("/registry/import", guarded(self.take_over), methods=["POST"]),
            Route("/registry/flush", guarded(self.flush), methods=["POST"]),
        ]

    async def sync(self, request: Request) -> Response:
        """Ask one server, or all of them, for their lists; a line for each as it is done."""
        body = await body_of(request)
        name = jsonrpc.text(body.get("server"))
        upstreams = self._gateway.upstreams
        if name is not None and name not in upstreams:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        wanted = (
            [name] if name is not None else [n for n, u in upstreams.items() if not u.server.spec.disabled]
        )
        return lines_answer(self._sync(wanted))

    async def _sync(self, servers: list[str]) -> AsyncIterator[bytes]:
        async def one(name: str) -> dict[str, Any]:
            try:
                report = await self._gateway.roster.resync(name)
            except GatewayError as error:
                return {"server": name, "error": error.message, "hint": error.hint}
            if report is None:
                upstream = self._gateway.upstreams.get(name)
                fault = upstream.error if upstream is not None else None
                return {"server": name, "error": fault.message if fault else "it could not be listed"}
            return report_row(report)

        tasks = [asyncio.create_task(one(name)) for name in servers]
        rows: list[dict[str, Any]] = []
        try:
            for done in asyncio.as_completed(tasks):
                rows.append(await done)
                yield jsonrpc.encode(
                    {"progress": {"progress": len(rows), "total": len(tasks), "message": rows[-1]["server"]}}
                )
            yield jsonrpc.encode({"synced": sorted(rows, key=lambda row: str(row["server"]))})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def approve(self, request: Request) -> Response:
        """Approve definitions: ``{"server", "tools": {name: hash}}``, as they were looked at."""
        body = await body_of(request)
        server, tools = _text(body, "server"), _value(body, "tools")
        if not isinstance(tools, dict) or not all(isinstance(digest, str) for digest in tools.values()):
            raise RpcError(protocol.INVALID_PARAMS, "tools must be an object of definition hashes.")
        approved = await self._gateway.registrar.approve(server, tools, _text(body, "by"))
        await self._gateway.reshow()
        return json_answer({"approved": [ref._asdict() for ref in approved]})

    async def withhold(self, request: Request) -> Response:
        """Withhold a tool: ``{"server", "tool", "reason"}``."""
        body = await body_of(request)
        ref = await self._gateway.registrar.withhold(
            _text(body, "server"), _text(body, "tool"), _text(body, "reason")
        )
        await self._gateway.reshow()
        return json_answer({"withheld": ref._asdict()})

    async def take_over(self, request: Request) -> Response:
        """Take over approvals: ``{"tools": [{"server", "definition", "approved_by"}]}``."""
        body = await body_of(request)
        try:
            rows = _rows.decode(body["tools"])
        except (KeyError, msgspec.MsgspecError):
            raise RpcError(
                protocol.INVALID_PARAMS, f"tools must be a list of at most {MAX_BATCH} approvals."
            ) from None
        count = await self._gateway.registrar.adopt([approval_of(row) for row in rows])
        await self._gateway.reshow()
        return json_answer({"imported": count})

    async def flush(self, request: Request) -> Response:
        """Have every call that was made so far counted in the store."""
        await self._gateway.calls.flush()
        return json_answer({"flushed": True})


_rows: Final = msgspec.json.Decoder(
    Annotated[list[dict[str, msgspec.Raw]], msgspec.Meta(max_length=MAX_BATCH)]
)


def approval_of(row: Shallow) -> tuple[Pin, bytes]:
    """One line of an export as an approval and the definition it is about. Raises RpcError."""
    try:
        server, by = jsonrpc.text(row["server"]), jsonrpc.text(row["approved_by"])
        at, body = float(jsonrpc.value(row["approved_at"])), bytes(row["definition"])
        name = jsonrpc.text(jsonrpc.shallow(body).get("name"))
        if server is None or name is None or by is None:
            raise TypeError
        return Pin(ToolRef(server, name, definition_hash(body)), at, by), body
    except (TypeError, RecursionError, KeyError, ValueError, msgspec.MsgspecError):
        raise RpcError(
            protocol.INVALID_PARAMS,
            "An approval lacks its server, its definition, or when and by whom it was given.",
        ) from None


def report_row(report: SyncReport) -> dict[str, Any]:
    """A report for the CLI: numbers, and the names of what changed."""
    return {
        "server": report.server,
        "created": [change.name for change in report.created],
        "updated": [change.name for change in report.updated],
        "deleted": [change.name for change in report.deleted],
        "unchanged": report.unchanged,
        "problems": list(report.problems),
        "seconds": round(report.seconds, 4),
    }


def _text(body: Shallow, key: str) -> str:
    text = jsonrpc.text(body.get(key))
    if text is None:
        raise RpcError(protocol.INVALID_PARAMS, f"{key} must be a string.")
    return text


def _value(body: Shallow, key: str) -> Any:
    return jsonrpc.value(body[key]) if key in body else None
