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
from gateway.bridge.crossing import answer_for, ask_for
from gateway.bridge.features import METHODS
from gateway.bridge.rewrites import Leg
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow
from gateway.upstream.call import CallSite

MAX_ROUNDS: Final = 16
MAX_REQUESTS: Final = 32
"""Requests that one round may put to a person."""
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


class _Gathering(CallSite):
    """Giving the call up while the client is asked ends the asking."""

    __slots__ = ("_round",)

    def __init__(self) -> None:
        super().__init__()
        self._round: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_up(self, why: UpstreamError) -> None:
        if not self._round.done():
            self._round.set_exception(why)

    async def given_up(self) -> None:
        """Wait for that. Raises the reason."""
        await self._round

    def over(self) -> None:
        """The client has answered."""
        self._round.cancel()


async def gather_input(caller: CallSite, fields: Shallow, server: str, revision: str) -> Shallow:
    """The params to add to the retry: ``inputResponses`` and ``requestState``, as far as asked for.

    :param revision: the one the server speaks.

    Raises RpcError where the client lacks a capability that is needed or refuses, CallCancelled where
    it gives the call up, UpstreamProtocolError where the server does not keep to the protocol.
    """
    retry: Shallow = {}
    if "requestState" in fields:
        retry["requestState"] = fields["requestState"]
    if "inputRequests" not in fields:
        if not retry:
            raise UpstreamProtocolError(f"Server '{server}' needs input, but does not say which.")
        return retry
    wanted = _requests(fields["inputRequests"], server)
    gathering = _Gathering()
    caller.forward_cancel(gathering)
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(gathering.given_up())
            asked = [tasks.create_task(_ask(caller, item, server, revision)) for item in wanted.values()]
            if asked:
                await asyncio.wait(asked)
            watch.cancel()
    except* (RpcError, UpstreamError) as failures:
        raise _first(failures) from None
    finally:
        gathering.over()
    responses = [task.result() for task in asked]
    retry["inputResponses"] = jsonrpc.raw(dict(zip(wanted, responses, strict=True)))
    return retry


def _first(failures: BaseExceptionGroup) -> BaseException:
    found = failures.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _requests(item: Raw, server: str) -> dict[str, Shallow]:
    try:
        requests = jsonrpc.shallow(item)
        if len(requests) > MAX_REQUESTS:
            raise UpstreamProtocolError(f"Server '{server}' asks {len(requests)} things at a time.")
        wanted = {key: jsonrpc.shallow(request) for key, request in requests.items()}
    except msgspec.MsgspecError:
        raise UpstreamProtocolError(f"Server '{server}' asks for input in a form that is not MCP.") from None
    for request in wanted.values():
        method = jsonrpc.text(request.get("method"))
        if method not in METHODS:  # Server Requirements 2: it MUST be one of these
            raise UpstreamProtocolError(f"Server '{server}' asks for {(method or 'nothing')[:100]!r}.")
    return wanted


async def _ask(caller: CallSite, item: Shallow, server: str, revision: str) -> Raw:
    future: asyncio.Future[Shallow] = asyncio.get_running_loop().create_future()

    def respond(answer: Shallow) -> None:
        if not future.done():
            future.set_result(answer)

    method = jsonrpc.text(item.get("method")) or ""
    leg = Leg(server, method)
    # What makes it a message is ours to say.
    fields = {key: value for key, value in item.items() if key not in ("jsonrpc", "id", "result", "error")}
    request = ask_for(caller.revision, revision, {"jsonrpc": jsonrpc.raw("2.0"), **fields}, leg)
    withdraw = caller.ask(request, respond)
    if withdraw is None:
        raise RpcError(
            protocol.INVALID_REQUEST,
            f"The server needs {method} of the client, which did not declare that capability.",
            "Use a client that offers it.",
        )
    try:
        async with asyncio.timeout(INPUT_TIMEOUT):
            answer = answer_for(caller.revision, revision, await future, leg)
    except TimeoutError:
        withdraw()
        raise RpcError(protocol.INTERNAL_ERROR, f"The client did not answer {method}.") from None
    except BaseException:
        withdraw()
        raise
    if "result" not in answer:
        refusal = jsonrpc.value(answer["error"]) if "error" in answer else None
        raise RpcError(protocol.INVALID_REQUEST, f"The client refused {method}.", error=refusal)
    return answer["result"]
