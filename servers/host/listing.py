"""What a converted service says of itself: pure functions of its manifest.

The host answers with these; a gateway lists a service by them before its environment exists.
"""

from __future__ import annotations

from typing import Any, Final

from servers.manifest.records import Manifest, Tool

CAPABILITIES: Final[dict[str, Any]] = {"tools": {}}
FOUND: Final = 10
"""Tools that one search returns unless told."""

FIND: Final[dict[str, Any]] = {
    "name": "find_tools",
    "title": "Find tools",
    "description": "Search the tools of this service that are not listed. Returns names, descriptions and input schemas; "
    "run one with call_tool, or directly by its name.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what the tool should do"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": FOUND},
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True},
}
CALL: Final[dict[str, Any]] = {
    "name": "call_tool",
    "title": "Call a tool",
    "description": "Call any tool of this service by its name, listed or not.",
    "inputSchema": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        "required": ["name"],
        "additionalProperties": False,
    },
}


def definition(tool: Tool) -> dict[str, Any]:
    """A tool as clients see it."""
    made: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.input_schema,
    }
    if tool.output_schema is not None:
        made["outputSchema"] = tool.output_schema
    if tool.kind != "cli" and tool.review is not None and tool.review.deterministic:
        made["annotations"] = {"openWorldHint": False}
    return made


def listed(manifest: Manifest) -> list[dict[str, Any]]:
    """The tools of ``tools/list``: those that are shown, and the two that lead to the hidden ones."""
    shown = [definition(tool) for tool in manifest.exposed()]
    if len(manifest.tools) > len(shown):
        known = {tool.name for tool in manifest.tools}
        shown += [extra for extra in (FIND, CALL) if extra["name"] not in known]
    return shown


def info(manifest: Manifest) -> dict[str, str]:
    """The service's ``Implementation`` object."""
    return {"name": manifest.name, "version": manifest.source.version or "0"}


def instructions(manifest: Manifest) -> str:
    """What a model should know of the service as a whole."""
    hidden = len(manifest.tools) - len(manifest.exposed())
    more = f" {hidden} more tools are found with find_tools." if hidden else ""
    return (
        f"{manifest.source.name} {manifest.source.version}: {manifest.description}{more} "
        'An argument can be another tool\'s result: {"$call": {"tool": name, "arguments": {…}}}.'
    )
