"""What becomes of a server's answer on its way to the caller, and what it is bound to."""

from __future__ import annotations

from typing import Final

from gateway import jsonrpc, protocol
from gateway.bridge.crossing import reply_for
from gateway.bridge.rewrites import Leg, elicitations
from gateway.endpoint.caller import Caller
from gateway.errors import UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.call import Reply
from gateway.upstream.mirror import check_headers, param_headers, usable_mirrors

_NAMES: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def mirrored_headers(caller: Caller, definition: bytes, params: Shallow) -> bytes:
    """The headers that repeat arguments: those of the caller checked, those for the server made."""
    found = usable_mirrors(definition)
    if not found:
        return b""
    if caller.headers is not None:
        check_headers(found, params, caller.headers)
    return param_headers(found, params)


def binding_of(server: str, method: str, params: Shallow) -> str:
    """What a handle is bound to: the request it may come back with."""
    name = jsonrpc.text(params.get(_NAMES.get(method, ""))) or ""
    return f"{server}\0{method}\0{name}"


def crossed(
    caller: Caller, connection: Connection, reply: Reply, method: str, features: tuple[str, ...] = ()
) -> Reply:
    """A server's answer in the caller's revision. Raises UpstreamProtocolError."""
    peer = connection.peer
    assert peer is not None
    if reply.error is not None:
        code = jsonrpc.error_code(reply.error)
        if code == protocol.UNSUPPORTED_PROTOCOL_VERSION and peer.era is Era.STATELESS:
            # It is our leg's version that is meant: the caller must not change its own for that.
            raise UpstreamProtocolError(
                f"Server '{connection.server}' no longer speaks {peer.protocol_version}.",
                f"Restart it: toolyard restart {connection.server}.",
            )
        if code == protocol.URL_ELICITATION_REQUIRED:
            for wanted in elicitations(reply.error):
                connection.elicited(wanted, caller)
    leg = Leg(connection.server, method, caller.said, features, peer.server_info)
    return reply_for(caller.revision, peer.protocol_version, reply, leg)


def passed(ident: Raw, reply: Reply) -> bytes:
    """A server's answer, as it is."""
    if reply.result is not None:
        return jsonrpc.result(ident, reply.result)
    return jsonrpc.error(ident, reply.error or {"code": protocol.INTERNAL_ERROR, "message": "No result."})
