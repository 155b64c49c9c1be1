"""Executes the table of rewrites on messages that cross from one revision to another.

Same-revision calls never come here. What a server sends is hostile until shown otherwise: a part
that cannot be read as the protocol has it is UpstreamProtocolError, never a fault of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.content import Unsayable
from gateway.bridge.rewrites import Leg
from gateway.bridge.table import Part, Rewrite, rewrites
from gateway.errors import RpcError, UpstreamProtocolError
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.call import Reply

_LATEST: Final = {
    Era.HANDSHAKE: protocol.LATEST_HANDSHAKE,
    Era.STATELESS: protocol.LATEST_STATELESS,
}
"""No row of params tells the revisions of an era apart."""
_ITEM_LISTS: Final = {"tool": "tools/list"}


def _apply(steps: tuple[Rewrite, ...], fields: Shallow, leg: Leg) -> Shallow:
    for rewrite in steps:
        fields = rewrite(fields, leg)
    return fields


def params_for(
    server: Era, method: str, params: Shallow, name: str, said: Callable[[], Shallow] | None
) -> Shallow:
    """The params of a caller of the other era, as this server expects them.

    :param said: the per-request ``_meta`` fields that say of the caller what its session says.
    """
    caller = Era.HANDSHAKE if server is Era.STATELESS else Era.STATELESS
    steps = rewrites(Part.PARAMS, _LATEST[caller], _LATEST[server], method)
    return _apply(steps, params, Leg(name, method, said))


def reply_for(caller: str, server: str, reply: Reply, leg: Leg) -> Reply:
    """A server's answer, as a caller of this revision expects it.

    :raises UpstreamProtocolError: it is not what the server's revision allows, or asks for something
        that the caller's revision answers differently.
    """
    part = Part.ERROR if reply.result is None else Part.RESULT
    steps = rewrites(part, caller, server, leg.method)
    if not steps:
        return reply
    try:
        if reply.result is not None:
            return Reply(jsonrpc.raw(_apply(steps, jsonrpc.shallow(reply.result), leg)), None)
        if reply.error is None:
            return reply
        answer = _apply(steps, {"error": reply.error}, leg)
    except msgspec.MsgspecError:
        raise UpstreamProtocolError(
            f"Server '{leg.server}' answered {leg.method} with something that is not MCP."
        ) from None
    return Reply(answer.get("result"), answer.get("error"))


def ask_for(caller: str, server: str, message: Shallow, leg: Leg) -> Shallow:
    """A server's request to the client, as a client of this revision expects it.

    :raises RpcError: the client's revision cannot say such a thing.
    """
    steps = rewrites(Part.ASK, caller, server, leg.method)
    params = jsonrpc.object_of(message.get("params"))
    if not steps or params is None:
        return message
    try:
        changed = _apply(steps, params, leg)
    except Unsayable as reason:
        raise RpcError(
            protocol.INVALID_PARAMS, f"The client speaks {caller}, which has no way to say {reason}."
        ) from None
    except msgspec.MsgspecError:
        raise RpcError(
            protocol.INVALID_PARAMS, f"The params of {leg.method} are not as {server} has them."
        ) from None
    return message if changed is params else {**message, "params": jsonrpc.raw(changed)}


def answer_for(caller: str, server: str, answer: Shallow, leg: Leg) -> Shallow:
    """The client's response to it, as the server expects it; an error where it cannot be said there."""
    steps = rewrites(Part.ANSWER, caller, server, leg.method)
    result = jsonrpc.object_of(answer.get("result"))
    if not steps or result is None:
        return answer
    try:
        return {**answer, "result": jsonrpc.raw(_apply(steps, result, leg))}
    except (Unsayable, msgspec.MsgspecError) as reason:
        message = f"The server speaks {server}, to which the client's answer cannot be told: {reason}."
        rest = {key: value for key, value in answer.items() if key != "result"}
        return {**rest, "error": jsonrpc.raw({"code": protocol.INVALID_PARAMS, "message": message})}


def item_for(caller: str, server: str, kind: str, data: bytes) -> bytes:
    """One item of a list, as a client of this revision expects it. Items are read once per catalog."""
    method = _ITEM_LISTS.get(kind)
    if method is None or not (steps := rewrites(Part.ITEM, caller, server, method)):
        return data
    try:
        fields = jsonrpc.shallow(data)
        changed = _apply(steps, fields, Leg("", method))
    except msgspec.MsgspecError:
        return data  # the catalog says what is wrong with it
    return data if changed is fields else jsonrpc.encode(changed)
