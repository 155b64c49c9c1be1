"""JSON-RPC methods of the MCP server we are, independent of the transport they came over."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.crossing import result_for
from gateway.catalog import Catalog
from gateway.endpoint.caller import Caller, log_rank
from gateway.endpoint.sessions import Session, Sessions, negotiate
from gateway.errors import RpcError, UpstreamUnavailable
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.base import client_info, error_code
from gateway.upstream.supervisor import Upstream
from registry.model import ItemKind

Handler: TypeAlias = Callable[[Caller, Raw, Shallow], Awaitable[bytes]]

LIST_KINDS: Final = {
    "tools/list": ItemKind.TOOL,
    "resources/list": ItemKind.RESOURCE,
    "resources/templates/list": ItemKind.TEMPLATE,
    "prompts/list": ItemKind.PROMPT,
}
INSTRUCTIONS_EACH: Final = 2000
INSTRUCTIONS_ALL: Final = 8000
"""Characters of instructions passed on, from one server and in all."""
_EMPTY: Final = {Era.HANDSHAKE: b"{}", Era.STATELESS: b'{"resultType":"complete"}'}
_HANDSHAKE_ONLY: Final = frozenset(
    {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
)
"""Methods that 2026-07-28 removed (Key Changes, 2 to 5)."""
_NOT_FOUND_CODES: Final = frozenset({protocol.RESOURCE_NOT_FOUND, protocol.INVALID_PARAMS})


class Switchboard(Protocol):
    """What the dispatcher needs of the gateway."""

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""

    @property
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
