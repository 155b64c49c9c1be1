"""What a 2026-07-28 request must carry, in its body and in the headers that repeat it."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.endpoint.caller import log_rank
from gateway.errors import RpcError
from gateway.jsonrpc import Shallow
from gateway.upstream.mirror import header_text

_NAMED: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    **dict.fromkeys(("tasks/get", "tasks/update", "tasks/cancel"), "taskId"),
}


def is_stateless(version: str, message: Shallow) -> bool:
    """Whether a request is of the stateless era: its header or its ``_meta`` says so."""
    if version in protocol.STATELESS_VERSIONS:
        return True
    params = message.get("params")
    if params is None or protocol.META_PROTOCOL_VERSION.encode() not in bytes(params):
        return False
    try:
        meta = jsonrpc.shallow(params).get("_meta")
        return meta is not None and protocol.META_PROTOCOL_VERSION in jsonrpc.shallow(meta)
    except msgspec.MsgspecError:
        return False


def check_stateless(
    headers: dict[bytes, bytes] | None, version: str, method: str, message: Shallow
) -> int | None:
    """Check what every 2026-07-28 request must carry, and that headers repeat the body.

    :param headers: None where the transport has none.
    :returns: the rank of the log level the caller asks for, or None.
    :raises RpcError: -32602, -32020 or -32022, each with HTTP status 400.
    """
    try:
        params = jsonrpc.shallow(message["params"]) if "params" in message else {}
        meta = jsonrpc.shallow(params["_meta"]) if "_meta" in params else {}
    except msgspec.MsgspecError:
        raise RpcError(protocol.INVALID_PARAMS, "params and _meta must be objects.", status=400) from None
    named = jsonrpc.text(meta.get(protocol.META_PROTOCOL_VERSION))
    if headers is not None:
        _check_headers(headers, version, method, params, named)
    if named is not None and named not in protocol.STATELESS_VERSIONS:
        raise unsupported_version(named)
    if named is None:
        raise _lacking(protocol.META_PROTOCOL_VERSION)
    if bytes(meta.get(protocol.META_CLIENT_CAPABILITIES, b""))[:1] != b"{":
        raise _lacking(protocol.META_CLIENT_CAPABILITIES)
    if protocol.META_LOG_LEVEL not in meta:
        return None
    rank = log_rank(jsonrpc.text(meta[protocol.META_LOG_LEVEL]))
    if rank is None:  # 2026-07-28, Logging: Error Handling
        levels = ", ".join(protocol.LOG_LEVELS)
        raise RpcError(
            protocol.INVALID_PARAMS, f"{protocol.META_LOG_LEVEL} must be one of {levels}.", status=400
        )
    return rank


def _lacking(key: str) -> RpcError:
    return RpcError(protocol.INVALID_PARAMS, f"_meta lacks {key}.", "Every request carries it.", status=400)


def _check_headers(
    headers: dict[bytes, bytes], version: str, method: str, params: Shallow, named: str | None
) -> None:
    """2026-07-28, Server Validation."""
    expected = [
        ("MCP-Protocol-Version", version or None, named),
        ("Mcp-Method", _header(headers, b"mcp-method"), method),
    ]
    if field := _NAMED.get(method):
        given_name = _header(headers, b"mcp-name")
        decoded = header_text(given_name, "Mcp-Name") if given_name is not None else None
        expected.append(("Mcp-Name", decoded, jsonrpc.text(params.get(field))))
    for name, given, wanted in expected:
        if given is None:
            raise RpcError(protocol.HEADER_MISMATCH, f"Header mismatch: {name} is missing.", status=400)
        if wanted is not None and given != wanted:
            raise RpcError(
                protocol.HEADER_MISMATCH,
                f"Header mismatch: {name} says '{given[:100]}', the body says '{wanted[:100]}'.",
                status=400,
            )


def _header(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return value.decode("latin-1").strip(" \t") if value is not None else None  # RFC 9110, 5.5


def unsupported_version(version: str) -> RpcError:
    """The error for a protocol version we do not speak, which lists those we do."""
    return RpcError(
        protocol.UNSUPPORTED_PROTOCOL_VERSION,
        "Unsupported protocol version",
        status=400,
        supported=list(protocol.SUPPORTED_VERSIONS),
        requested=version[:40],
    )
