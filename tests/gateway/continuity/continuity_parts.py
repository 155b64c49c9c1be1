"""Parts of these tests: a server with state, a client that reads event streams and comes back to them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from gateway_parts import HANDSHAKE, Client, Wire

from registry.model import ServerSpec, Transport

PEER = Path(__file__).parents[1] / "stateful_peer.py"


def stateful(name: str = "memo", *words: str, **extra: Any) -> ServerSpec:
    """A server that keeps state."""
    return ServerSpec(name, Transport.STDIO, sys.executable, ("-I", "-S", str(PEER), *words), extra=extra)


class Event(NamedTuple):
    """One server-sent event."""

    ident: str
    retry: str
    data: str

    @property
    def message(self) -> Any:
        return json.loads(self.data)


class Stream:
    """An event stream being read."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._buffer = b""

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        while True:
            block, found, rest = self._buffer.partition(b"\r\n\r\n")
            if found:
                self._buffer = rest
                fields = dict(
                    line.decode().partition(":")[::2]
                    for line in block.split(b"\r\n")
                    if line and not line.startswith(b":")
                )
                if fields:
                    found_fields = (fields.get(key, "").strip() for key in ("id", "retry", "data"))
                    return Event(*found_fields)
                continue
            piece = await self.wire.chunk()
            if not piece:
                return None
            self._buffer += piece

    async def rest(self) -> list[Event]:
        """All further events."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


async def start_call(
    client: Client,
    name: str,
    arguments: Any = None,
    *,
    ident: Any = 77,
    progress: bool = True,
    **headers: str,
) -> Stream:
    """A tool call whose answer comes as a stream, its head read."""
    meta = {"_meta": {"progressToken": "p"}} if progress else {}
    message = client.message("tools/call", {"name": name, "arguments": arguments or {}, **meta}, ident)
    wire = await Wire.open(client.port)
    wire.send("POST", "/mcp", client.headers(**headers), json.dumps(message).encode())
    head = await wire.head()
    assert head.headers["content-type"] == "text/event-stream", head
    return Stream(wire)


async def listen(client: Client, last: str | None = None) -> Stream:
    """A GET stream, its head read; ``last`` is the event it goes on after."""
    more = {} if last is None else {"Last_Event_Id": last}
    wire = await Wire.open(client.port)
    wire.send("GET", "/mcp", client.headers(Accept="text/event-stream", **more))
    head = await wire.head()
    assert head.status == 200, head
    return Stream(wire)


def said(answer: Any) -> Any:
    """What a tool of the stateful server said."""
    return json.loads(answer["result"]["content"][0]["text"])


async def initialize(client: Client, capabilities: Any = None, version: str = HANDSHAKE) -> None:
    """Open a session that declares these capabilities."""
    client.session = None
    info = {"name": "t", "version": "1"}
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": info}
    answer = await client.post(client.message("initialize", params))
    client.session = answer.headers["mcp-session-id"]
    await client.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
