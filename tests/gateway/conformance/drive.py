"""What a client scenario of the harness runs: a gateway in front of the scenario's server, and a client.

    python drive.py URL          with MCP_CONFORMANCE_SCENARIO, ..._PROTOCOL_VERSION, ..._CONTEXT set

The client is the official SDK's, in the era that the scenario is for; what is measured is how the
gateway speaks to the server.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / "interop")]

import anyio  # noqa: E402 - found by the line above
import mcp_types as t  # noqa: E402
from mcp import Client, MCPError  # noqa: E402
from yard import Yard, over_http, raw_client, serving, until  # noqa: E402

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
REVISION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
ARGUMENTS: dict[str, dict[str, Any]] = {"add_numbers": {"a": 5, "b": 3}}


async def elicited(context: Any, params: Any) -> t.ElicitResult:
    """Accept with what the form suggests."""
    schema = getattr(params, "requested_schema", None) or {}
    properties = schema.get("properties", {})
    content = {name: part["default"] for name, part in properties.items() if "default" in part}
    content |= {name: True for name, part in properties.items() if part.get("type") == "boolean"} | content
    return t.ElicitResult(action="accept", content=content)


def _value(part: dict[str, Any]) -> Any:
    """A value of the type that a schema asks for."""
    return {"integer": 1, "number": 1.5, "boolean": True, "object": {}, "array": []}.get(
        str(part.get("type")), "value"
    )


async def drive(yard: Yard) -> None:
    """List everything, then use everything that is listed."""
    era = "2026-07-28" if REVISION == "2026-07-28" else "legacy"
    async with over_http(yard, era, elicitation_callback=elicited) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        calls = CONTEXT.get("toolCalls") or [
            {"name": name, "arguments": ARGUMENTS.get(name) or _arguments(tool, tools)}
            for name, tool in tools.items()
        ]
        for call in calls:
            try:
                await client.call_tool(call["name"], call["arguments"])
            except (MCPError, ValueError) as error:  # the SDK refuses results that lack a resultType
                print(f"{call['name']}: {error}", file=sys.stderr)
        await _read(client)


async def _read(client: Client) -> None:
    for resource in (await client.list_resources()).resources:
        await client.read_resource(resource.uri)
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name, {one.name: "value" for one in prompt.arguments or []})


def _arguments(tool: t.Tool, tools: dict[str, t.Tool]) -> dict[str, Any]:
    if set(tool.input_schema.get("properties", {})) == {"schema"}:  # wants a schema as it was listed
        return {"schema": next(one.input_schema for one in tools.values() if one is not tool)}
    return {name: _value(part) for name, part in tool.input_schema.get("properties", {}).items()}


def main(url: str) -> None:
    """Start the gateway, wait for the server's tools, drive."""
    with tempfile.TemporaryDirectory() as directory:
        entry = {"type": "http", "url": url, "timeout": 20}
        with serving(Path(directory), {"peer": entry}, "--names", "on-collision") as yard:
            if SCENARIO != "request-metadata":  # its server has no tools
                with raw_client(yard) as client:
                    until("tools", lambda: True if client.names() else None, 10.0)
            anyio.run(drive, yard)
            print(yard.log, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1])
