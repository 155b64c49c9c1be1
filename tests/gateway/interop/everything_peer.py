"""An MCP server that has one of everything, built on the official SDK, for every transport and era.

    python everything_peer.py NAME stdio
    python everything_peer.py NAME http [--json]     prints its URL
    python everything_peer.py NAME sse               the same, HTTP+SSE of 2024-11-05

NAME is part of its URIs, so that several of them can stand behind one gateway.
"""

from __future__ import annotations

import argparse
import base64
import socket
import sys
from typing import Any

import anyio
import mcp_types as t
import uvicorn
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)

Context = ServerRequestContext[Any]

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\nnot much of a picture").decode()
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
SUM = {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}
COUNT = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
NONE: dict[str, Any] = {"type": "object", "properties": {}}
CITIES = ["Bergen", "Berlin", "Bern", "Oslo"]

TOOLS = {
    "echo": t.Tool(name="echo", description="The text, unchanged.", input_schema=TEXT),
    "add": t.Tool(name="add", description="A sum.", input_schema=NUMBERS, output_schema=SUM),
    "picture": t.Tool(name="picture", description="A picture and a link.", input_schema=NONE),
    "big": t.Tool(name="big", description="So many characters.", input_schema=COUNT),
    "steps": t.Tool(name="steps", description="Reports progress.", input_schema=COUNT),
    "talk": t.Tool(name="talk", description="Logs at two levels.", input_schema=NONE),
    "wait": t.Tool(name="wait", description="Waits until it is cancelled.", input_schema=NONE),
    "cancelled": t.Tool(
        name="cancelled", description="Answers once a wait was cancelled.", input_schema=NONE
    ),
    "fail": t.Tool(name="fail", description="A tool error.", input_schema=NONE),
    "grow": t.Tool(name="grow", description="Adds a tool, a prompt and a resource.", input_schema=TEXT),
    "shrink": t.Tool(name="shrink", description="Takes them away again.", input_schema=TEXT),
    "touch": t.Tool(name="touch", description="Changes the diary.", input_schema=NONE),
}


class Everything:
    """The handlers, and what they change."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.diary = f"{name}://diary"
        self.bus = InMemorySubscriptionBus()
        self.extra: list[str] = []
        self.watchers: dict[str, Any] = {}
        self.entries = 0
        self.cancelled = anyio.Event()

    def server(self) -> Server[Any]:
        server = Server(
            self.name,
            version="1.0",
            instructions=f"Use {self.name} for everything.",
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=ListenHandler(self.bus),
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
            on_completion=self.complete,
        )
        server.add_request_handler("logging/setLevel", t.SetLevelRequestParams, self.set_level)
        return server

    async def set_level(self, context: Context, params: t.SetLevelRequestParams) -> t.EmptyResult:
        return t.EmptyResult()

    async def list_tools(self, context: Context, params: Any) -> t.ListToolsResult:
        grown = [t.Tool(name=name, description="Grown.", input_schema=NONE) for name in self.extra]
        return t.ListToolsResult(tools=[*TOOLS.values(), *grown])

    async def call_tool(self, context: Context, params: t.CallToolRequestParams) -> t.CallToolResult:
        arguments = params.arguments or {}
        structured = None
        content: list[Any] = []
        text = "done"
        match params.name:
            case "echo":
                text = arguments["text"]
            case "add":
                structured = {"sum": arguments["a"] + arguments["b"]}
                text = str(structured["sum"])
            case "picture":
                content.append(t.ImageContent(type="image", data=PIXEL, mime_type="image/png"))
                content.append(t.ResourceLink(type="resource_link", uri=self.diary, name="diary"))
            case "big":
                text = "x" * arguments["count"]
            case "steps":
                for step in range(1, arguments["count"] + 1):
                    await context.session.report_progress(step, arguments["count"], f"step {step}")
            case "talk":
                for level, data in (("debug", "a detail"), ("warning", {"what": "a warning"})):
                    await context.session.send_log_message(
                        level, data, logger=self.name, related_request_id=context.request_id
                    )
            case "wait":
                await self.wait(context)
            case "cancelled":
                await self.cancelled.wait()
            case "fail":
                return t.CallToolResult(content=[t.TextContent(type="text", text="no luck")], is_error=True)
            case "grow":
                self.extra.append(arguments["text"])
                await self.lists_changed(context)
            case "shrink":
                self.extra.remove(arguments["text"])
                await self.lists_changed(context)
            case "touch":
                self.entries += 1
                if self.diary in self.watchers:
                    await self.watchers[self.diary].send_resource_updated(self.diary)
                await self.bus.publish(ResourceUpdated(uri=self.diary))
            case name if name in self.extra:
                text = "grown"
            case name:
                raise ValueError(f"no tool {name}")
        return t.CallToolResult(
            content=[*content, t.TextContent(type="text", text=text)], structured_content=structured
        )

    async def wait(self, context: Context) -> None:
        self.cancelled = anyio.Event()
        try:
            await context.session.report_progress(0, 1, "waiting")
            await anyio.sleep(60)
        finally:
            self.cancelled.set()

    async def lists_changed(self, context: Context) -> None:
        if context.protocol_version < "2026":
            await context.session.send_tool_list_changed()
            await context.session.send_prompt_list_changed()
            await context.session.send_resource_list_changed()
        await self.bus.publish(ToolsListChanged())
        await self.bus.publish(PromptsListChanged())
        await self.bus.publish(ResourcesListChanged())

    async def list_resources(self, context: Context, params: Any) -> t.ListResourcesResult:
        grown = [t.Resource(uri=f"{self.name}://{name}", name=name) for name in self.extra]
        return t.ListResourcesResult(resources=[t.Resource(uri=self.diary, name="diary"), *grown])

    async def list_templates(self, context: Context, params: Any) -> t.ListResourceTemplatesResult:
        template = t.ResourceTemplate(uri_template=f"{self.name}://letters/{{city}}", name="letters")
        return t.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(
        self, context: Context, params: t.ReadResourceRequestParams
    ) -> t.ReadResourceResult:
        uri = str(params.uri)
        if uri == self.diary:
            contents: Any = t.TextResourceContents(uri=uri, text=f"{self.entries} entries")
        elif uri.startswith(f"{self.name}://letters/"):
            letter = base64.b64encode(f"Dear {uri.rsplit('/', 1)[1]}".encode()).decode()
            contents = t.BlobResourceContents(uri=uri, blob=letter, mime_type="text/plain")
        else:
            raise MCPError(t.INVALID_PARAMS, f"Resource not found: {uri}")
        return t.ReadResourceResult(contents=[contents])

    async def subscribe(self, context: Context, params: t.SubscribeRequestParams) -> t.EmptyResult:
        self.watchers[str(params.uri)] = context.session
        return t.EmptyResult()

    async def unsubscribe(self, context: Context, params: t.UnsubscribeRequestParams) -> t.EmptyResult:
        self.watchers.pop(str(params.uri), None)
        return t.EmptyResult()

    async def list_prompts(self, context: Context, params: Any) -> t.ListPromptsResult:
        city = t.PromptArgument(name="city", required=True)
        grown = [t.Prompt(name=name) for name in self.extra]
        return t.ListPromptsResult(
            prompts=[t.Prompt(name="visit", description="A trip.", arguments=[city]), *grown]
        )

    async def get_prompt(self, context: Context, params: t.GetPromptRequestParams) -> t.GetPromptResult:
        text = f"Plan a visit to {(params.arguments or {})['city']}."
        message = t.PromptMessage(role="user", content=t.TextContent(type="text", text=text))
        return t.GetPromptResult(description="A trip.", messages=[message])

    async def complete(self, context: Context, params: t.CompleteRequestParams) -> t.CompleteResult:
        found = [city for city in CITIES if city.startswith(params.argument.value)]
        return t.CompleteResult(completion=t.Completion(values=found, total=len(found), has_more=False))


async def serve_stdio(server: Server[Any]) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def sse_app(server: Server[Any]) -> Any:
    """The SDK's HTTP+SSE transport at ``/sse``."""
    from mcp.server.sse import SseServerTransport
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    transport = SseServerTransport("/messages/")

    async def stream(request: Any) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())
        return Response()

    return Starlette(
        routes=[
            Route("/sse", stream, methods=["GET"]),
            Mount("/messages/", app=transport.handle_post_message),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("transport", choices=["stdio", "http", "sse"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    server = Everything(options.name).server()
    if options.transport == "stdio":
        anyio.run(serve_stdio, server)
        return
    # Named TCP, so that asyncio sets TCP_NODELAY on what it accepts: else each answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    if options.transport == "http":
        app, path = server.streamable_http_app(json_response=options.json), "/mcp"
    else:
        app, path = sse_app(server), "/sse"
    print(f"http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
    sys.exit(0)


if __name__ == "__main__":
    main()
