"""``find_tools`` and ``call_tool``: their definitions, and what they answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway import jsonrpc
from gateway.catalog import Entry
from gateway.protocol import Era

if TYPE_CHECKING:
    from registry.search.topics import Topic

FIND: Final = "find_tools"
CALL: Final = "call_tool"
MAX_FOUND: Final = 20
FOUND: Final = 5
"""Tools in an answer where the caller names no number."""
MAX_QUERY: Final = 4000

_TOOL_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "What call_tool calls it by."},
        "server": {"type": "string"},
        "description": {"type": "string"},
        "inputSchema": {"type": "object", "description": "What its arguments must look like."},
        "inputSchemaBytes": {"type": "integer", "description": "Instead of a schema too large to show."},
        "annotations": {"type": "object"},
        "score": {"type": "number"},
        "why": {"type": "string"},
        "sameAs": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The same tool on other servers.",
        },
    },
    "required": ["name", "server", "description", "score"],
}
_FIND_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "query": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_QUERY,
            "description": "What is to be done, in plain words. It may name several things.",
        },
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_FOUND, "default": FOUND},
        "filters": {
            "type": "object",
            "properties": {
                "servers": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
                "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
                "names": {
                    "type": "array",
                    "items": {"type": "string", "maxLength": 300},
                    "maxItems": 100,
                    "description": "Patterns of tool names, as *issue*.",
                },
            },
            "additionalProperties": False,
        },
    },
    "required": ["query"],
    "additionalProperties": False,
}
_FIND_OUTPUT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "tools": {"type": "array", "items": _TOOL_SCHEMA},
        "mode": {"enum": ["hybrid", "lexical"], "description": "By meaning and words, or by words alone."},
        "searched": {"type": "integer", "description": "How many tools were in scope."},
    },
    "required": ["tools", "mode", "searched"],
}
_CALL_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "A name that find_tools gave."},
        "arguments": {"type": "object", "description": "As the tool's inputSchema wants them."},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def topics_of(tools: Iterable[Entry]) -> list[Topic]:
    """What these tools are about."""
    from registry.search.topics import Described, topics  # brings the stemmer: only a search mode needs it

    return topics(Described(tool.server, tool.original) for tool in tools)


def definitions(toolset: str, tools: int, servers: int, found: Sequence[Topic]) -> dict[str, bytes]:
    """The definitions of both tools, by name, their descriptions saying what is behind them."""
    behind = f"{tools:,} tools of {servers:,} server{'' if servers == 1 else 's'}"
    about = "; ".join(
        f"{topic.label or 'others'} ({topic.tools}{': ' + ', '.join(topic.terms) if topic.terms else ''})"
        for topic in found
    )
    find = (
        f"Search the {behind} behind this endpoint for those that can do something. They are not listed "
        f"otherwise. Say what is to be done; the answer holds the best tools with their input schemas. Then "
        f"run one with {CALL}.\nWhat is there: {about or 'nothing yet'}."
    )
    call = (
        f"Run one of the {behind} that {FIND} finds, by the name it gave. The arguments are checked against the "
        "tool's input schema first. A tool that may change something can need a person's consent."
    )
    return {
        FIND: jsonrpc.encode(
            {
                "name": FIND,
                "title": "Find tools",
                "description": find,
                "inputSchema": _FIND_INPUT,
                "outputSchema": _FIND_OUTPUT,
                "annotations": {"readOnlyHint": True, "openWorldHint": False},
            }
        ),
        CALL: jsonrpc.encode(
            {
                "name": CALL,
                "title": "Call a tool",
                "description": call,
                "inputSchema": _CALL_INPUT,
                "annotations": {"readOnlyHint": False, "destructiveHint": True, "openWorldHint": True},
            }
        ),
    }


def hint(tools: int) -> str:
    """What a model is told of an endpoint that lists its tools by search only."""
    return (
        f"This endpoint has {tools:,} tools that are not listed. Use {FIND} to search them by what is to be "
        f"done, then {CALL} to run one."
    )


def result(era: Era, text: str, structured: Any = None, *, failed: bool = False) -> bytes:
    """A ``CallToolResult`` (JSON)."""
    fields: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if structured is not None:
        fields["structuredContent"] = structured
    if failed:
        fields["isError"] = True
    if era is Era.STATELESS:
        fields["resultType"] = "complete"
    return jsonrpc.encode(fields)
