"""A 2026-07-28 server over HTTP whose streams a test holds in its hands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from gateway_parts import WAIT, HttpPeer, Request, answer, http_peer, modern_mcp, reply, tool

META = "io.modelcontextprotocol/"


class Listener:
    """One ``subscriptions/listen`` that the server was sent."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.ident = request.json["id"]
        self.wanted = request.json["params"]["notifications"]
        self.capabilities = request.json["params"]["_meta"][META + "clientCapabilities"]
        self.writer = writer

    def tell(self, method: str, ident: Any = None, **params: Any) -> None:
        meta = {META + "subscriptionId": self.ident if ident is None else ident}
        message = {"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": meta}}
        self.writer.write(f"data: {json.dumps(message)}\n\n".encode())

    def acknowledge(self) -> None:
        self.tell("notifications/subscriptions/acknowledged", notifications=self.wanted)

    @property
    def open(self) -> bool:
        return not self.writer.is_closing() and not self.writer.transport.is_closing()


class StatelessPeer:
    """The server; what it is asked is answered by ``results``, one after the other, then by the last."""

    def __init__(self, peer: HttpPeer) -> None:
        self.peer = peer
        self.listeners: asyncio.Queue[Listener] = asyncio.Queue()

    @property
    def url(self) -> str:
        return self.peer.url

    def sent(self, rpc: str) -> list[Any]:
        """The params of every such request."""
        return [request.json["params"] for request in self.peer.seen if request.rpc == rpc]

    async def listened(self, acknowledge: bool = True) -> Listener:
        listener = await asyncio.wait_for(self.listeners.get(), WAIT)
        if acknowledge:
            listener.acknowledge()
        return listener


@contextlib.asynccontextmanager
async def stateless_peer(
    *results: Any,
    refuse_listen: Callable[[Request, asyncio.StreamWriter], None] | None = None,
    acknowledge: bool = False,
    extensions: Any = None,
) -> AsyncIterator[StatelessPeer]:
    """Serve for the length of a block.

    :param acknowledge: every stream at once; else the test does.
    """
    left = list(results)

    async def call(request: Request, writer: asyncio.StreamWriter) -> None:
        result = left.pop(0) if len(left) > 1 else left[0]
        answer(writer, request, result)

    async def discover(request: Request, writer: asyncio.StreamWriter) -> None:
        offered = {"tools": {"listChanged": True}, "resources": {"listChanged": True, "subscribe": True}}
        if extensions is not None:
            offered["extensions"] = extensions
        hello = {"supportedVersions": ["2026-07-28"], "capabilities": offered, "resultType": "complete"}
        answer(writer, request, hello)

    async def listing(request: Request, writer: asyncio.StreamWriter) -> None:
        answer(writer, request, {"resources": [{"uri": "x://y", "name": "y"}], "resultType": "complete"})

    async def listen(request: Request, writer: asyncio.StreamWriter) -> None:
        if refuse_listen is not None:
            refuse_listen(request, writer)
            return
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n")
        listener = Listener(request, writer)
        if acknowledge:
            listener.acknowledge()
        served.listeners.put_nowait(listener)

    async def nothing(request: Request, writer: asyncio.StreamWriter) -> None:
        answer(writer, request, {"resourceTemplates": [], "resultType": "complete"})

    handlers: dict[str, Any] = {
        "tools_call": call,
        "server_discover": discover,
        "resources_list": listing,
        "resources_templates_list": nothing,
        "subscriptions_listen": listen,
    }
    async with http_peer(modern_mcp([tool("ask")], **handlers)) as peer:
        served = StatelessPeer(peer)
        yield served


def error_200(request: Request, writer: asyncio.StreamWriter) -> None:
    """A refusal to listen, as JSON with HTTP 200."""
    error = {"code": -32601, "message": "Method not found"}
    body = {"jsonrpc": "2.0", "id": request.json["id"], "error": error}
    reply(writer, 200, json.dumps(body).encode())


def error_404(request: Request, writer: asyncio.StreamWriter) -> None:
    """The same with HTTP 404."""
    error = {"code": -32601, "message": "Method not found"}
    body = {"jsonrpc": "2.0", "id": request.json["id"], "error": error}
    reply(writer, 404, json.dumps(body).encode())
