"""What the MCP server we are says of itself: capabilities, instructions, discovery."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway import jsonrpc, protocol
from gateway.protocol import Era
from gateway.upstream.peer import client_info

INSTRUCTIONS_EACH: Final = 2000
INSTRUCTIONS_ALL: Final = 8000
"""Characters of instructions passed on, from one server and in all."""


def capabilities(era: Era) -> dict[str, Any]:
    """Our ``ServerCapabilities``.

    The four lists are always offered: servers may appear at any time, and a client that was not
    told of a list does not ask for it again.
    """
    offered: dict[str, Any] = {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True},
        "completions": {},
    }
    if era is Era.HANDSHAKE:
        offered["logging"] = {}
        offered["resources"]["subscribe"] = True
    else:
        offered["extensions"] = {protocol.TASKS_EXTENSION: {}}
    return offered


def joined_instructions(texts: Iterable[tuple[str, str]]) -> str:
    """The instructions of many servers as one text, each under its server's name.

    A model reads all of it before its first word, so each server gets a page and all together four.
    """
    parts = [f"## {name}\n{text.strip()[:INSTRUCTIONS_EACH]}" for name, text in texts if text.strip()]
    return "\n\n".join(parts)[:INSTRUCTIONS_ALL]


def discover_result(instructions: str) -> bytes:
    """The ``server/discover`` result (2026-07-28, Discovery)."""
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(protocol.SUPPORTED_VERSIONS),
        "capabilities": capabilities(Era.STATELESS),
        "_meta": {protocol.META_SERVER_INFO: client_info()},
        "ttlMs": 5000,
        "cacheScope": "private",
    }
    if instructions:
        result["instructions"] = instructions
    return jsonrpc.encode(result)
