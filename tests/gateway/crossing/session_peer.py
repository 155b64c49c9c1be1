"""A handshake-era server over HTTP whose calls a test holds in its hands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from gateway_parts import WAIT, HttpPeer, Request, http_peer, mcp, reply, tool


class Held:
    """A call whose response stream is open."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.ident = request.json["id"]
        self.params = request.json["params"]
        self.writer = writer
        self.ended = asyncio.Event()

    def send(self, **message: Any) -> None:
        self.writer.write(f"data: {json.dumps({'jsonrpc': '2.0', **message})}\n\n".encode())

    def ask(self, ident: Any, method: str, **params: Any) -> None:
        self.send(id=ident, method=method, params=params)

    def elicit(self, ident: Any = "q1", **params: Any) -> None:
        schema = {"type": "object", "properties": {}}
        self.ask(ident, "elicitation/create", **{"message": "?", "requestedSchema": schema, **params})

    def finish(self, text: str = "done") -> None:
        self.send(id=self.ident, result={"content": [{"type": "text", "text": text}]})
        self.ended.set()


class SessionPeer:
    """The server: its calls, and whatever else it is sent."""

    def __init__(self, peer: HttpPeer) -> None:
        self.peer = peer
        self.calls: asyncio.Queue[Held] = asyncio.Queue()
        self.stream: asyncio.StreamWriter | None = None

    @property
    def url(self) -> str:
        return self.peer.url

    def sent(self, rpc: str) -> list[Any]:
        return [request.json for request in self.peer.seen if request.rpc == rpc]

    async def called(self) -> Held:
        return await asyncio.wait_for(self.calls.get(), WAIT)

    def notice(self, method: str, **params: Any) -> None:
        """Something outside any call, on the GET stream."""
        assert self.stream is not None
        self.stream.write(
            f"data: {json.dumps({'jsonrpc': '2.0', 'method': method, 'params': params})}\n\n".encode()
        )


@contextlib.asynccontextmanager
async def session_peer() -> AsyncIterator[SessionPeer]:
    """Serve for the length of a block."""

    async def call(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        held = Held(request, writer)
        served.calls.put_nowait(held)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(held.ended.wait(), WAIT)
        await writer.drain()
        writer.close()

    async def get(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n")
        served.stream = writer

    async def take(request: Request, writer: asyncio.StreamWriter) -> None:
        reply(writer, 202, kind="")

    async with http_peer(mcp([tool("ask")], tools_call=call, GET=get, answer=take)) as peer:
        served = SessionPeer(peer)
        yield served
