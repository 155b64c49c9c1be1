"""Parts of the tests of toolsets: servers with shelves of tools, and a client that can be asked."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway_parts import HANDSHAKE, Client, Running, running_gateway, until

from gateway.config.planner import PlannerSettings
from gateway.config.settings import SearchSettings
from registry.definition import definition_hash
from registry.model import ServerSpec, Transport
from registry.toolsets import read

PEER = Path(__file__).with_name("shelf_peer.py")
WORDS = SearchSettings(model="")

LONG = 90.0
"""Seconds for what is loaded on first use, on a busy machine."""


def tool(name: str, description: str = "", *, reads: bool | None = None, **more: Any) -> dict[str, Any]:
    """A tool definition as a server lists it."""
    schema = {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "text": {"type": "string"}},
        "additionalProperties": False,
    }
    made: dict[str, Any] = {"name": name, "description": description, "inputSchema": schema, **more}
    if reads is not None:
        made["annotations"] = {"readOnlyHint": reads}
    return made


BOOKS = [
    tool("read_book", "Read a book from the shelf, page by page.", reads=True),
    tool("lend_book", "Lend a book to a reader of the library.", reads=False),
    tool("delete_book", "Throw a book away for good."),
    tool("restock"),
    tool("calls", reads=True),
    tool("ask_first"),
    tool("slow"),
    tool("fail"),
]
WEATHER = [
    tool("forecast", "The weather forecast of a city for tomorrow.", reads=True, _meta={"tags": ["sky"]}),
    tool("alarm", "Sound the storm alarm."),
]


class Shelves:
    """Servers of shelf_peer.py and the files their tools stand in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.specs: list[ServerSpec] = []

    def add(self, name: str, tools: list[dict[str, Any]], **more: Any) -> ServerSpec:
        self.write(name, tools)
        args = ("-I", "-S", str(PEER), str(self.file(name)))
        spec = ServerSpec(name, Transport.STDIO, sys.executable, args, **more)
        self.specs.append(spec)
        return spec

    def file(self, name: str) -> Path:
        return self.root / f"{name}.json"

    def write(self, name: str, tools: list[dict[str, Any]]) -> None:
        self.file(name).write_text(json.dumps(tools))


@contextlib.asynccontextmanager
async def library(
    root: Path, toolsets: dict[str, dict[str, Any]] | None = None, **options: Any
) -> AsyncIterator[tuple[Running, Shelves]]:
    """A gateway over a shelf of books and one of weather, with these toolsets."""
    shelves = Shelves(root)
    shelves.add("books", BOOKS)
    shelves.add("weather", WEATHER, extra={"tags": ["outside"]})
    chosen = {name: read(name, fields) for name, fields in (toolsets or {}).items()}
    options = {"search": WORDS, "toolsets": chosen, **options}
    async with running_gateway(shelves.specs, root=root, **options) as running:
        await running.gateway.settled()
        yield running, shelves


async def approve(running: Running, server: str, tools: list[dict[str, Any]], *names: str) -> None:
    """A person approves the versions of these tools that the server lists."""
    hashes = {
        definition["name"]: definition_hash(json.dumps(definition).encode())
        for definition in tools
        if definition["name"] in names
    }
    known = running.gateway.registrar.tools
    await until(lambda: hashes.items() <= {ref.name: ref.hash for ref in known.current(server)}.items(), 20)
    await running.gateway.registrar.approve(server, hashes, "a person")


@contextlib.asynccontextmanager
async def planning(
    root: Path, tools: list[dict[str, Any]], *approved: str, **planner: Any
) -> AsyncIterator[Running]:
    """A gateway that plans over one server, "sky", of whose tools some are approved, at the toolset "all"."""
    shelves = Shelves(root)
    shelves.add("sky", tools)
    async with running_gateway(
        shelves.specs,
        root=root,
        search=WORDS,
        first_list_grace=LONG,
        toolsets={"all": read("all", {"expose": "search"})},
        planner=PlannerSettings(**planner),
        journal=True,
    ) as running:
        await running.gateway.settled()
        await approve(running, "sky", tools, *approved)
        yield running


class Visitor(Client):
    """A client of one toolset; what it is asked, it answers with ``says``."""

    def __init__(self, running: Running, toolset: str, says: str | None = None) -> None:
        super().__init__(running.port)
        self.path = f"/mcp/{toolset}"
        self.says = says
        self.asked: list[dict[str, Any]] = []

    async def http(self, method: str, path: str = "", headers: Any = None, body: Any = None) -> Any:
        return await super().http(method, path or self.path, headers, body)

    async def enter(self) -> Visitor:
        self.session = None
        able = {} if self.says is None else {"elicitation": {"form": {}}}
        params = {
            "protocolVersion": HANDSHAKE,
            "capabilities": able,
            "clientInfo": {"name": "visitor", "version": "1"},
        }
        answer = await self.post(self.message("initialize", params))
        assert answer.status == 200, answer.body
        self.session = answer.headers["mcp-session-id"]
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    async def tool(self, name: str, arguments: Any = None, **params: Any) -> dict[str, Any]:
        """The whole response to a tool call, elicitations on its stream answered meanwhile."""
        body = self.message("tools/call", {"name": name, "arguments": arguments or {}, **params})
        async with self.wire() as wire:
            wire.send("POST", self.path, self.headers(), json.dumps(body).encode())
            head = await wire.head()
            if head.headers.get("content-type") != "text/event-stream":
                return dict(json.loads(await wire.reader.readexactly(int(head.headers["content-length"]))))
            while True:
                message = await wire.event()
                if message.get("method") == "elicitation/create":
                    self.asked.append(message["params"])
                    result: dict[str, Any] = {"action": self.says}
                    await self.post({"jsonrpc": "2.0", "id": message["id"], "result": result})
                elif message.get("id") == body["id"]:
                    return dict(message)

    async def through(self, name: str, arguments: Any = None) -> dict[str, Any]:
        """Call a tool through ``call_tool``."""
        return await self.tool("call_tool", {"name": name, "arguments": arguments or {}})

    async def find(self, query: str, **more: Any) -> Any:
        answer = await self.tool("find_tools", {"query": query, **more})
        return answer["result"]


def said(answer: dict[str, Any]) -> str:
    """The text of a tool's answer."""
    text: str = answer["result"]["content"][0]["text"]
    return text
