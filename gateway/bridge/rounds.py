"""Input that a stateless server asks for, gathered live from a handshake-era client.

The server answers ``input_required``; the client is sent real requests on its back-channel, and the
call is repeated with its answers and the server's exact ``requestState`` (2026-07-28, Multi
Round-Trip Requests).
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.errors import RpcError, UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.upstream.call import CallSite

MAX_ROUNDS: Final = 16
INPUT_TIMEOUT: Final = 3600.0
"""Seconds a person may take to answer."""


def input_required(result: Raw) -> Shallow | None:
    """The fields of an ``input_required`` result, or None for any other."""
    data = bytes(result)
    if b"input_required" not in data:
        return None
    try:
        fields = jsonrpc.shallow(data)
    except msgspec.MsgspecError:
        return None
    return fields if jsonrpc.text(fields.get("resultType")) == "input_required" else None


async def gather_input(caller: CallSite, fields: Shallow, server: str) -> Shallow:
    """The params to add to the retry: ``inputResponses`` and ``requestState``.

    Raises RpcError where the client lacks a capability that is needed or refuses.
    """
    retry: Shallow = {}
    if "requestState" in fields:
        retry["requestState"] = fields["requestState"]
    if "inputRequests" not in fields:
        return retry
    try:
        wanted = {
            key: jsonrpc.shallow(item) for key, item in jsonrpc.shallow(fields["inputRequests"]).items()
        }
    except msgspec.MsgspecError:
        raise UpstreamProtocolError(f"Server '{server}' asks for input in a form that is not MCP.") from None
    responses = await asyncio.gather(*(_ask(caller, item) for item in wanted.values()))
    retry["inputResponses"] = jsonrpc.raw(dict(zip(wanted, responses, strict=True)))
    return retry


async def _ask(caller: CallSite, item: Shallow) -> Raw:
    future: asyncio.Future[Shallow] = asyncio.get_running_loop().create_future()

    def respond(answer: Shallow) -> None:
        if not future.done():
            future.set_result(answer)

    request = {"jsonrpc": jsonrpc.raw("2.0"), **item}
    withdraw = caller.ask(request, respond)
    method = jsonrpc.text(item.get("method"))
    if withdraw is None:
        raise RpcError(
            protocol.INVALID_REQUEST,
            f"The server needs {method} of the client, which did not declare that capability.",
            "Use a client that offers it.",
        )
    try:
        async with asyncio.timeout(INPUT_TIMEOUT):
            answer = await future
    except BaseException:
        withdraw()
        raise
    if "result" not in answer:
        refusal = jsonrpc.value(answer["error"]) if "error" in answer else None
        raise RpcError(protocol.INVALID_REQUEST, f"The client refused {method}.", error=refusal)
    return answer["result"]
