"""The admin API on the control socket: what the CLI asks of a running gateway.

Plain HTTP and JSON. Only the user who owns the socket file can reach it, so it takes no token; no
MCP client and no token leads here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import jsonrpc, protocol
from gateway.admin.composites import CompositeRoutes
from gateway.admin.plans import PlanRoutes
from gateway.admin.registry import RegistryApi
from gateway.admin.runs import RunRoutes
from gateway.admin.toolsets import ToolsetRoutes
from gateway.admin.wire import body_of, guarded, json_answer, lines_answer
from gateway.app import Gateway
from gateway.calls import result_outcome
from gateway.catalog import ValidatorCache
from gateway.config.servers import from_command, from_url, made
from gateway.errors import GatewayError, NotFound, RpcError
from gateway.hosted.entry import is_hosted, sandbox
from gateway.jsonrpc import Shallow
from gateway.policy.pins import refuse_withheld
from gateway.policy.standing import standing, withheld_of
from gateway.protocol import Era
from gateway.upstream.call import CallSite
from gateway.upstream.mirror import param_headers, usable_mirrors
from gateway.upstream.supervisor import START_TIMEOUT, Upstream
from gateway.version import __version__
from registry.model import ItemKind, ServerSpec, Transport
from registry.ring import SealKey

CALL_TIMEOUT: Final = 3600.0
_ENTRY: Final = frozenset(
    {"name", "command", "args", "env", "cwd", "url", "headers", "transport", "timeout", "manifest", "pending"}
)
"""Keys of a new server's entry with a meaning of their own; the others are kept as ``extra``."""
_COUNTS: Final = {
    "tools": ItemKind.TOOL,
    "resources": ItemKind.RESOURCE,
    "templates": ItemKind.TEMPLATE,
    "prompts": ItemKind.PROMPT,
}


class ControlApi:
    """The routes of the control socket.

    :param url: the MCP endpoint's own URL.
    :param stop: ends the gateway.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        url: str,
        auth: bool,
        state_dir: Path,
        relays: Callable[[], int],
        stop: Callable[[], None],
    ) -> None:
        self._gateway = gateway
        self._url, self._auth, self._state_dir = url, auth, state_dir
        self._relays, self._stop = relays, stop
        self._validators = ValidatorCache(256)

    def app(self, front: Callable[[Any, Any, Any], Awaitable[None]]) -> Starlette:
        """The ASGI application; the MCP endpoints are served on the socket too, at ``/mcp``."""

        async def mcp(scope: Any, receive: Any, send: Any) -> None:
            await front(scope, receive, send)

        routes = [
            Route("/status", guarded(self.status)),
            Route("/servers", guarded(self.add), methods=["POST"]),
            Route("/servers/{name}", guarded(self.inspect), methods=["GET"]),
            Route("/servers/{name}", guarded(self.remove), methods=["DELETE"]),
            Route("/servers/{name}/approve", guarded(self.approve), methods=["POST"]),
            Route("/servers/{name}/restart", guarded(self.restart), methods=["POST"]),
            Route("/servers/{name}/enable", guarded(self.enable), methods=["POST"]),
            Route("/servers/{name}/disable", guarded(self.disable), methods=["POST"]),
            Route("/servers/{name}/logs", guarded(self.logs)),
            Route("/tools", guarded(self.tools)),
            Route("/call", guarded(self.call), methods=["POST"]),
            Route("/keys", guarded(self.keys)),
            Route("/keys/rotate", guarded(self.rotate_keys), methods=["POST"]),
            Route("/keys/{key:path}", guarded(self.retire_key), methods=["DELETE"]),
            Route("/stop", guarded(self.stop), methods=["POST"]),
            *RegistryApi(self._gateway).routes(),
            *ToolsetRoutes(self._gateway).routes(),
            *PlanRoutes(self._gateway).routes(),
            *CompositeRoutes(self._gateway).routes(),
            *RunRoutes(self._gateway.runs).routes(guarded),
        ]
        starlette = Starlette(routes=routes)
        starlette.mount("/mcp", mcp)
        return starlette

    async def status(self, request: Request) -> Response:
        """Everything ``toolyard status`` shows."""
        gateway = self._gateway
        hosted = any(is_hosted(server.spec) for server in gateway.servers.values())
        return json_answer(
            {
                "sandbox": await asyncio.to_thread(sandbox) if hosted else None,
                "gateway": {
                    "pid": os.getpid(),
                    "version": __version__,
                    "url": self._url,
                    "started_at": gateway.started_at,
                    "uptime_s": round(time.time() - gateway.started_at, 1),
                    "names": gateway.settings.names,
                    "sessions": len(gateway.clients),
                    "relays": self._relays(),
                    "auth": self._auth,
                    "state_dir": str(self._state_dir),
                    "config": {"file": gateway.roster.config_file, "error": gateway.config_error},
                },
                "planner": gateway.planners.state(),
                "approvals": gateway.toolsets.approvals.rows(),
                "toolsets": sorted(gateway.toolsets.all()),
                "servers": [self._row(upstream) for upstream in self._ordered()],
                "conflicts": [
                    {"kind": c.kind, "key": c.key, "owner": c.owner, "shadowed": list(c.shadowed)}
                    for c in gateway.catalog.conflicts
                ],
                "problems": [
                    {"server": p.server, "kind": p.kind, "message": p.message}
                    for p in gateway.catalog.problems
                ]
                + [
                    {"server": upstream.name, "kind": None, "message": message}
                    for upstream in self._ordered()
                    for message in upstream.problems
                ],
                "registry": standing(gateway.registrar.book, gateway.catalog, gateway.servers),
            }
        )

    def _ordered(self) -> list[Upstream]:
        return sorted(self._gateway.upstreams.values(), key=lambda u: (u.server.ordinal, u.name))

    def _row(self, upstream: Upstream) -> dict[str, Any]:
        catalog = self._gateway.known(upstream.name)
        peer = next((c.peer for c in upstream.connections), None)
        error = upstream.error
        return {
            "name": upstream.name,
            "transport": upstream.server.spec.transport,
            "origin": upstream.server.origin,
            "state": upstream.state,
            "error": error.message if error else None,
            "hint": error.hint if error else None,
            "era": peer.era if peer else (catalog.era if catalog else None),
            "protocol_version": peer.protocol_version
            if peer
            else (catalog.protocol_version if catalog else None),
            **{field: len(catalog.items(kind)) if catalog else 0 for field, kind in _COUNTS.items()},
            "pid": upstream.pid,
            "private": len(upstream.private) if upstream.private is not None else None,
            "calls": upstream.calls,
            "restarts": upstream.restarts,
            "synced_at": catalog.synced_at if catalog else None,
            "pins": self._gateway.registrar.book.policy(upstream.name),
            "withheld": withheld_of(self._gateway.catalog, upstream.name),
        }

    def _upstream(self, name: str) -> Upstream:
        upstream = self._gateway.upstreams.get(name)
        if upstream is None:
            raise NotFound(f"There is no server named '{name}'.", "See: toolyard status.")
        return upstream

    async def inspect(self, request: Request) -> Response:
        """One server in full, without any secret."""
        upstream = self._upstream(request.path_params["name"])
        spec = upstream.server.spec
        catalog = self._gateway.known(upstream.name)
        return json_answer(
            {
                **self._row(upstream),
                "spec": spec.shown(),
                "server_info": msgspec.Raw(catalog.server_info if catalog else b"{}"),
                "capabilities": msgspec.Raw(catalog.capabilities if catalog else b"{}"),
                "instructions": catalog.instructions if catalog else None,
                "approval": await self._approval(spec),
                "tool_names": self._tool_names(upstream.name),
                "usage": {
                    tool: dataclasses.asdict(usage)
                    for tool, usage in self._gateway.usage.of(upstream.name).items()
                },
                "stderr": list(upstream.log.lines)[-20:],
            }
        )

    async def _approval(self, spec: ServerSpec) -> dict[str, Any] | None:
        if spec.transport is not Transport.STDIO:
            return None
        try:
            return await self._gateway.starting.approval_state(spec)
        except GatewayError as error:
            return {"key": None, "approved": False, "error": error.message}

    def _tool_names(self, server: str) -> list[str]:
        tools = self._gateway.catalog.entries[ItemKind.TOOL]
        return [name for name, entry in tools.items() if entry.server == server]

    async def tools(self, request: Request) -> Response:
        """The tools clients see, with where each comes from."""
        server = request.query_params.get("server")
        if server is not None:
            self._upstream(server)
        await self._gateway.settled()
        return json_answer(
            {
                "tools": [
                    {
                        "name": entry.exposed,
                        "server": entry.server,
                        "original": entry.original,
                        "definition": msgspec.Raw(entry.data),
                    }
                    for entry in self._gateway.catalog.entries[ItemKind.TOOL].values()
                    if server in (None, entry.server)
                ]
            }
        )

    async def call(self, request: Request) -> Response:
        """Call a tool, its arguments checked against its schema first; progress comes as lines."""
        body = await body_of(request)
        name = jsonrpc.text(body.get("name"))
        await self._gateway.settled()
        entry = self._gateway.catalog.get(ItemKind.TOOL, name) if name is not None else None
        if entry is None:
            refuse_withheld(self._gateway.catalog.withheld, name or "", None)
            raise NotFound(f"There is no tool named '{name}'.", "See: toolyard tools.")
        arguments = body.get("arguments", msgspec.Raw(b"{}"))
        schema = jsonrpc.shallow(entry.data).get("inputSchema")
        if schema is not None:
            problems = await asyncio.to_thread(
                self._validators.check, entry.hash, bytes(schema), bytes(arguments)
            )
            if problems:
                raise RpcError(
                    protocol.INVALID_PARAMS,
                    f"The arguments do not fit {entry.exposed}: " + "; ".join(problems),
                )
        timeout = jsonrpc.value(body["timeout"]) if "timeout" in body else None
        if timeout is not None and not (isinstance(timeout, (int, float)) and 0 < timeout <= CALL_TIMEOUT):
            raise RpcError(
                protocol.INVALID_PARAMS, f"timeout must be between 0 and {CALL_TIMEOUT:g} seconds."
            )
        params: Shallow = {
            "name": jsonrpc.raw(entry.original),
            "arguments": arguments,
            "_meta": msgspec.Raw(b'{"progressToken":0}'),
        }
        headers = param_headers(usable_mirrors(entry.data), params)
        return lines_answer(
            self._call(self._upstream(entry.server), entry.original, params, timeout, headers)
        )

    async def _call(
        self, upstream: Upstream, name: str, params: Shallow, timeout: float | None, headers: bytes
    ) -> AsyncIterator[bytes]:
        site = _Progress()
        started, outcome = perf_counter(), "cancelled"
        request = asyncio.create_task(
            upstream.request(Era.HANDSHAKE, "tools/call", params, timeout=timeout, site=site, headers=headers)
        )
        try:
            while not request.done():
                waiter = asyncio.create_task(site.queue.get())
                await asyncio.wait({request, waiter}, return_when=asyncio.FIRST_COMPLETED)
                if waiter.done():
                    yield jsonrpc.encode({"progress": waiter.result()})
                else:
                    waiter.cancel()
            _, reply = await request
            outcome = "rpc_error" if reply.result is None else result_outcome(reply.result)
            if reply.result is not None:
                yield jsonrpc.encode({"result": reply.result})
            else:
                yield jsonrpc.encode({"error": reply.error})
        except GatewayError as error:
            outcome = error.kind
            yield jsonrpc.encode({"error": error.to_error()})
        finally:
            self._gateway.calls.note(upstream.name, name, "toolyard call", params, started, outcome)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    async def add(self, request: Request) -> Response:
        """Add a server, approve its command, connect to it and say what it offers.

        With ``"pending": true`` it is only added: nothing is started before a person approves it.
        """
        body = jsonrpc.value(jsonrpc.raw(await body_of(request)))
        name = body.get("name")
        if not isinstance(name, str):
            raise RpcError(protocol.INVALID_PARAMS, "A server needs a name.")
        try:
            if body.get("manifest") is not None:
                spec = made(name, {key: value for key, value in body.items() if key != "name"})
            elif body.get("url") is not None:
                spec = from_url(
                    name,
                    body["url"],
                    headers=body.get("headers") or {},
                    transport=body.get("transport"),
                    timeout=body.get("timeout"),
                )
            else:
                spec = from_command(
                    name,
                    [body.get("command") or "", *(body.get("args") or [])],
                    env=body.get("env") or {},
                    cwd=body.get("cwd"),
                    timeout=body.get("timeout"),
                )
        except (TypeError, AttributeError):
            raise RpcError(
                protocol.INVALID_PARAMS, "The server's entry has a field of a wrong type."
            ) from None
        extra = {key: value for key, value in body.items() if key not in _ENTRY}
        if body.get("pending") is True:
            extra.pop("disabled", None)
            off = replace(spec, extra={**spec.extra, **extra}, disabled=body.get("disabled") is True)
            upstream = await self._gateway.roster.add(off, approve=False)
            return json_answer({"server": self._row(upstream), "tools": []})
        upstream = await self._gateway.roster.add(replace(spec, extra={**spec.extra, **extra}))
        return lines_answer(self._added(upstream))

    async def _added(self, upstream: Upstream) -> AsyncIterator[bytes]:
        yield jsonrpc.encode({"state": "starting"})
        if not is_hosted(upstream.server.spec):  # its list is known, and its first call starts it
            with suppress(GatewayError):  # the row says what is wrong
                await upstream.connect(Era.HANDSHAKE, START_TIMEOUT)
                await self._gateway.synced(upstream.name, START_TIMEOUT)
        yield jsonrpc.encode({"server": self._row(upstream), "tools": self._tool_names(upstream.name)})

    async def remove(self, request: Request) -> Response:
        """Forget a server."""
        name = request.path_params["name"]
        await self._gateway.roster.remove(name, pins=True)
        return json_answer({"removed": name})

    async def approve(self, request: Request) -> Response:
        """Approve a server's command as it stands."""
        name = request.path_params["name"]
        return json_answer({"approved": name, "detail": await self._gateway.roster.approve(name)})

    async def restart(self, request: Request) -> Response:
        """End a server's connections and start it anew."""
        upstream = self._upstream(request.path_params["name"])
        await self._gateway.roster.restart(upstream.name)
        return lines_answer(self._added(upstream))

    async def enable(self, request: Request) -> Response:
        """Switch a server on."""
        name = request.path_params["name"]
        await self._gateway.roster.enable(name, True)
        return lines_answer(self._added(self._upstream(name)))

    async def disable(self, request: Request) -> Response:
        """Switch a server off; calls in flight may finish."""
        name = request.path_params["name"]
        await self._gateway.roster.enable(name, False)
        return json_answer({"disabled": name})

    async def logs(self, request: Request) -> Response:
        """The last lines of a server's log, and with ``follow=1`` every further one as it comes."""
        upstream = self._upstream(request.path_params["name"])
        try:
            count = min(max(int(request.query_params.get("lines", "100")), 0), 10_000)
        except ValueError:
            raise RpcError(protocol.INVALID_PARAMS, "lines must be a number.") from None
        return lines_answer(self._logs(upstream, count, request.query_params.get("follow") == "1"))

    async def _logs(self, upstream: Upstream, count: int, follow: bool) -> AsyncIterator[bytes]:
        upstream.log.flush()
        for line in await asyncio.to_thread(upstream.log.tail, count):
            yield jsonrpc.encode({"line": line})
        if follow:
            async for line in upstream.log.follow():
                yield jsonrpc.encode({"line": line})

    async def keys(self, request: Request) -> Response:
        """The names of the keys that seal what clients hold, newest first."""
        return json_answer(_ring(await self._gateway.clients.keys()))

    async def rotate_keys(self, request: Request) -> Response:
        """Make a key, which seals from now on."""
        return json_answer(_ring(await self._gateway.clients.keys(rotate=True)))

    async def retire_key(self, request: Request) -> Response:
        """Remove a key."""
        try:
            ident = bytes.fromhex(request.path_params["key"])
        except ValueError:
            raise NotFound("A key's name is hexadecimal.", "See: toolyard keys list.") from None
        return json_answer(_ring(await self._gateway.clients.keys(retire=ident)))

    async def stop(self, request: Request) -> Response:
        """End the gateway."""
        asyncio.get_running_loop().call_later(0.05, self._stop)
        return json_answer({"stopping": True})


class _Progress(CallSite):
    def __init__(self) -> None:
        super().__init__()
        self.queue: asyncio.Queue[Any] = asyncio.Queue(1000)

    def notify(self, message: Shallow) -> None:
        if jsonrpc.text(message.get("method")) == "notifications/progress" and not self.queue.full():
            fields = jsonrpc.shallow(message["params"])
            fields.pop("progressToken", None)
            self.queue.put_nowait(fields)


def _ring(keys: list[SealKey]) -> dict[str, Any]:
    return {
        "keys": [
            {"id": key.ident.hex(), "created_at": key.created_at, "seals": key is keys[0]} for key in keys
        ]
    }
