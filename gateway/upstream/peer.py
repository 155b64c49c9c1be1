"""What a server says of itself when a connection is opened, and what we say of ourselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge import features
from gateway.errors import UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.call import Reply
from gateway.version import __version__


class WrongEraError(UpstreamProtocolError):
    """The server does not speak the era it was asked in."""


@dataclass(slots=True)
class Peer:
    """What a server said of itself when the connection was opened."""

    era: Era
    protocol_version: str
    server_info: Raw = field(default_factory=lambda: msgspec.Raw(b"{}"))
    capabilities: Raw = field(default_factory=lambda: msgspec.Raw(b"{}"))
    instructions: str | None = None
    versions: tuple[str, ...] = ()
    """All that it supports, where it said so (``server/discover``)."""

    def offers(self, *path: str) -> bool:
        """Whether the capabilities hold this key, or a true value at the end of this path."""
        node: Any = jsonrpc.value(self.capabilities)
        for key in path:
            if not isinstance(node, dict) or key not in node:
                return False
            node = node[key]
        return node is not False and node is not None


def client_info() -> dict[str, str]:
    """Our ``Implementation`` object."""
    return {"name": "toolyard", "title": "Toolyard", "version": __version__}


_stateless_meta: Shallow = {}


def stateless_meta() -> Mapping[str, Raw]:
    """The ``_meta`` fields every 2026-07-28 request of our own carries (Base Protocol, _meta)."""
    if not _stateless_meta:
        _stateless_meta[protocol.META_PROTOCOL_VERSION] = jsonrpc.raw(protocol.LATEST_STATELESS)
        _stateless_meta[protocol.META_CLIENT_INFO] = jsonrpc.raw(client_info())
        _stateless_meta[protocol.META_CLIENT_CAPABILITIES] = msgspec.Raw(b"{}")
    return _stateless_meta


def initialize_params(
    declared: Mapping[str, Any] = features.DECLARED, version: str = protocol.LATEST_HANDSHAKE
) -> Shallow:
    """Params of our ``initialize``; the gateway answers for callers that lack a capability."""
    return {
        "protocolVersion": jsonrpc.raw(version),
        "capabilities": jsonrpc.raw(declared),
        "clientInfo": jsonrpc.raw(client_info()),
    }


def peer_from_initialize(server: str, reply: Reply) -> Peer:
    """Read an ``initialize`` result. Raises UpstreamProtocolError."""
    if reply.result is None:
        raise UpstreamProtocolError(f"Server '{server}' refused initialize: {jsonrpc.describe(reply.error)}.")
    try:
        fields = jsonrpc.shallow(reply.result)
    except msgspec.MsgspecError:
        raise UpstreamProtocolError(f"Server '{server}' answered initialize with no object.") from None
    version = jsonrpc.text(fields.get("protocolVersion"))
    if version not in protocol.HANDSHAKE_VERSIONS:
        raise UpstreamProtocolError(
            f"Server '{server}' wants protocol version {version!r}; supported are "
            + ", ".join(protocol.SUPPORTED_VERSIONS)
            + ".",
            "Update the server.",
        )
    return Peer(
        era=Era.HANDSHAKE,
        protocol_version=version,
        server_info=_object(fields.get("serverInfo")),
        capabilities=_object(fields.get("capabilities")),
        instructions=jsonrpc.text(fields.get("instructions")),
    )


def peer_from_discover(server: str, reply: Reply) -> Peer | None:
    """Read a ``server/discover`` result; None where the answer is not one of a 2026-07-28 server.

    Raises UpstreamProtocolError where the server is modern but shares no version with us.
    """
    if reply.result is None:
        code = jsonrpc.error_code(reply.error)
        if code == protocol.UNSUPPORTED_PROTOCOL_VERSION:
            if set(supported_versions(reply.error)) & set(protocol.HANDSHAKE_VERSIONS):
                return None  # of both eras it speaks the other one
            raise UpstreamProtocolError(
                f"Server '{server}' does not speak {protocol.LATEST_STATELESS}: {jsonrpc.describe(reply.error)}.",
                "Update the server.",
            )
        return None
    try:
        fields = jsonrpc.shallow(reply.result)
        versions = jsonrpc.value(fields["supportedVersions"])
    except (msgspec.MsgspecError, KeyError):
        return None
    common = [version for version in protocol.STATELESS_VERSIONS if version in versions]
    if not common:
        return None
    info = msgspec.Raw(b"{}")
    if "_meta" in fields:
        info = _object(jsonrpc.shallow(fields["_meta"]).get(protocol.META_SERVER_INFO))
    return Peer(
        era=Era.STATELESS,
        protocol_version=common[0],
        server_info=info,
        capabilities=_object(fields.get("capabilities")),
        instructions=jsonrpc.text(fields.get("instructions")),
        versions=tuple(version for version in versions if isinstance(version, str)),
    )


def supported_versions(error: Raw | None) -> list[str]:
    """The versions that an error -32022 names (2026-07-28, UnsupportedProtocolVersionError)."""
    try:
        versions = jsonrpc.value(error)["data"]["supported"] if error is not None else []
    except (msgspec.MsgspecError, KeyError, TypeError):
        return []
    return [version for version in versions if isinstance(version, str)] if isinstance(versions, list) else []


def _object(item: Raw | None) -> Raw:
    return item if item is not None and bytes(item)[:1] == b"{" else Raw(b"{}")
