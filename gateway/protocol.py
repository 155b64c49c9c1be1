"""Names and numbers of the Model Context Protocol that more than one room needs."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Era(StrEnum):
    """The two wire eras of MCP (2026-07-28 specification, Versioning: Terminology)."""

    HANDSHAKE = "handshake"
    """``initialize``, sessions, server-to-client requests: 2024-11-05 … 2025-11-25 ("legacy")."""
    STATELESS = "stateless"
    """Per-request ``_meta``, no session: 2026-07-28 and later ("modern")."""


HANDSHAKE_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS_VERSIONS: Final = ("2026-07-28",)
SUPPORTED_VERSIONS: Final = STATELESS_VERSIONS + HANDSHAKE_VERSIONS
LATEST_HANDSHAKE: Final = HANDSHAKE_VERSIONS[0]
LATEST_STATELESS: Final = STATELESS_VERSIONS[0]
BATCHING_VERSIONS: Final = frozenset({"2025-03-26", "2024-11-05"})
"""Revisions that allow JSON-RPC batches; 2025-06-18 removed them."""

META_PREFIX: Final = "io.modelcontextprotocol/"
META_PROTOCOL_VERSION: Final = META_PREFIX + "protocolVersion"
META_CLIENT_INFO: Final = META_PREFIX + "clientInfo"
META_CLIENT_CAPABILITIES: Final = META_PREFIX + "clientCapabilities"
META_LOG_LEVEL: Final = META_PREFIX + "logLevel"
META_SERVER_INFO: Final = META_PREFIX + "serverInfo"
META_SUBSCRIPTION_ID: Final = META_PREFIX + "subscriptionId"
TASKS_EXTENSION: Final = META_PREFIX + "tasks"

# JSON-RPC 2.0, section 5.1
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
# MCP
RESOURCE_NOT_FOUND: Final = -32002
"""2025-11-25 and earlier; 2026-07-28 uses INVALID_PARAMS."""
URL_ELICITATION_REQUIRED: Final = -32042
"""2025-11-25 alone; 2026-07-28 says ``input_required``."""
HEADER_MISMATCH: Final = -32020
MISSING_CLIENT_CAPABILITY: Final = -32021
UNSUPPORTED_PROTOCOL_VERSION: Final = -32022
MODERN_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CLIENT_CAPABILITY, UNSUPPORTED_PROTOCOL_VERSION})
"""Codes that only a 2026-07-28 server sends: seeing one, do not fall back to ``initialize``."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""RFC 5424 severities, most verbose first."""
