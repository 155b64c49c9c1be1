"""The server that is measured directly and behind the gateway: an SDK server with few or many tools.

python peer.py stdio
python peer.py http [--servers N] [--tools N]     N servers on ports of their own; prints their URLs
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from typing import Any

import mcp_types as t
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

ECHO = t.Tool(
    name="echo",
    description="The text, unchanged.",
    input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)
BIG = t.Tool(
    name="big",
    description="A text of so many KiB.",
    input_schema={"type": "object", "properties": {"kib": {"type": "integer"}}, "required": ["kib"]},
)


def filler(number: int) -> t.Tool:
    """A definition of the size that real ones have, about 1 KiB."""
    properties: dict[str, Any] = {
        name: {
            "type": "string",
            "description": f"The {name} of record {number}, as the API names it",
            "maxLength": 200,
        }
        for name in ("id", "owner", "query", "status", "label", "region")
    }
    return t.Tool(
        name=f"record_{number:03}",
        description="Look up, change or delete records. Results are paged and sorted by their last update; "
        "what the caller may not see is left out and counted.",
        input_schema={"type": "object", "properties": properties, "required": ["id"]},
        annotations=t.ToolAnnotations(read_only_hint=number % 2 == 0),
    )


def build(tools: int) -> Server[Any]:
    listed = [ECHO, BIG, *(filler(number) for number in range(tools - 2))]
    texts: dict[int, str] = {}

    async def list_tools(context: Any, params: Any) -> t.ListToolsResult:
        return t.ListToolsResult(tools=listed)

    async def call_tool(context: Any, params: t.CallToolRequestParams) -> t.CallToolResult:
        arguments = params.arguments or {}
        if params.name == "echo":
            text = arguments["text"]
        elif params.name == "big":
            text = texts.setdefault(arguments["kib"], "x" * (1024 * arguments["kib"]))
        else:
            raise ValueError(f"no tool {params.name}")
        return t.CallToolResult(content=[t.TextContent(type="text", text=text)])

    return Server("peer", version="1", on_list_tools=list_tools, on_call_tool=call_tool)


async def over_stdio(tools: int) -> None:
    server = build(tools)
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def listen() -> socket.socket:
    """A socket of which asyncio knows that it is TCP: only those get TCP_NODELAY, without it each answer waits 40 ms."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    return listener


async def over_http(servers: int, tools: int) -> None:
    sockets = [listen() for _ in range(servers)]
    for listener in sockets:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    hosts = [
        uvicorn.Server(
            uvicorn.Config(build(tools).streamable_http_app(), log_level="error", access_log=False)
        )
        for _ in sockets
    ]
    await asyncio.gather(*(host.serve([listener]) for host, listener in zip(hosts, sockets, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=["stdio", "http"])
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--tools", type=int, default=2)
    options = parser.parse_args()
    if options.transport == "stdio":
        asyncio.run(over_stdio(options.tools))
    else:
        asyncio.run(over_http(options.servers, options.tools))


if __name__ == "__main__":
    main()
