"""What changes when a caller and a server speak different eras.

A same-era call passes untouched; only a crossing comes here. Requests are rewritten by
``params_for``, results by ``result_for``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.errors import UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era

_PER_REQUEST: Final = (
    protocol.META_PROTOCOL_VERSION,
    protocol.META_CLIENT_INFO,
    protocol.META_CLIENT_CAPABILITIES,
    protocol.META_LOG_LEVEL,
)
"""``_meta`` fields that exist in the stateless era only (2026-07-28, Per-request protocol fields)."""

_STATELESS_ONLY: Final = ("resultType", "ttlMs", "cacheScope")
_COMPLETE: Final = jsonrpc.raw("complete")
_CACHEABLE: Final = frozenset({"resources/read"})
"""Passed-on results that must carry caching hints; the lists are our own (2026-07-28, Caching)."""


def params_for(server: Era, params: Shallow, said: Shallow) -> Shallow:
    """The params of a caller in the other era, as this server expects them.

    :param said: the per-request ``_meta`` fields that say of the caller what its session says.
    """
    meta = jsonrpc.shallow(params["_meta"]) if "_meta" in params else {}
    if server is Era.STATELESS:
        return {**params, "_meta": jsonrpc.raw({**said, **meta})} if said else params
    for key in _PER_REQUEST:
        meta.pop(key, None)
    rest = {key: value for key, value in params.items() if key != "_meta"}
    return {**rest, "_meta": jsonrpc.raw(meta)} if meta else rest


def result_for(caller: Era, method: str, result: Raw, server: str) -> bytes:
    """A result of the other era, as this caller expects it.

    Raises UpstreamProtocolError where it asks for something the caller's era answers differently.
    """
    try:
        fields = jsonrpc.shallow(result)
    except msgspec.MsgspecError:
        raise UpstreamProtocolError(f"Server '{server}' answered {method} without a result object.") from None
    if caller is Era.STATELESS:
        fields.setdefault("resultType", _COMPLETE)
        if method in _CACHEABLE:
            fields.setdefault("ttlMs", msgspec.Raw(b"0"))
            fields.setdefault("cacheScope", jsonrpc.raw("private"))
        return jsonrpc.encode(fields)
    kind = jsonrpc.text(fields.get("resultType"))
    if kind not in (None, "complete"):
        raise UpstreamProtocolError(
            f"Server '{server}' needs further input for {method} ({kind}), which a handshake-era client "
            "cannot be asked for yet.",
            f"Use a client that speaks {protocol.LATEST_STATELESS}.",
        )
    for key in _STATELESS_ONLY:
        fields.pop(key, None)
    return jsonrpc.encode(fields)
