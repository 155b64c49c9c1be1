"""How a plan's steps are called: the way of any other call, with what the router has to know of failures."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from gateway import jsonrpc
from gateway.bridge.rounds import input_required
from gateway.calls import CallLog, result_outcome
from gateway.endpoint.board import Switchboard
from gateway.errors import GatewayError
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.call import CallSite
from gateway.upstream.limits import Busy
from gateway.upstream.mirror import param_headers, usable_mirrors
from gateway.upstream.supervisor import START_TIMEOUT
from registry.model import ItemKind
from router.calling import Call
from router.errors import CallFailed

_REFUSED: Final = (Busy,)
"""Errors of a request that was never sent."""


class GatewayCalls:
    """Calls tools by the names that clients see; a `router.calling.CallTool`."""

    def __init__(self, board: Switchboard, calls: CallLog) -> None:
        self._board = board
        self._calls = calls

    async def __call__(self, call: Call) -> bytes:
        """The JSON of the server's ``CallToolResult``. Raises CallFailed."""
        entry = self._board.catalog.get(ItemKind.TOOL, call.tool)
        upstream = self._board.upstreams.get(entry.server) if entry is not None else None
        if entry is None or upstream is None:
            raise CallFailed(f"There is no tool {call.tool} any more.", kind="unknown_tool", unknown=False)
        params: Shallow = {
            "name": jsonrpc.raw(entry.original),
            "arguments": jsonrpc.raw(call.arguments),
        }
        headers = param_headers(usable_mirrors(entry.data), params)
        try:
            # Apart from the call, so that a server which cannot be started has certainly not been asked.
            await upstream.connect(Era.HANDSHAKE, min(call.timeout, START_TIMEOUT))
        except GatewayError as error:
            raise _failed(error, unknown=False) from error
        started, outcome = perf_counter(), "cancelled"
        try:
            _, reply = await upstream.request(
                Era.HANDSHAKE, "tools/call", params, timeout=call.timeout, site=CallSite(), headers=headers
            )
            outcome = "rpc_error" if reply.result is None else result_outcome(reply.result)
        except GatewayError as error:
            outcome = error.kind
            raise _failed(error, unknown=not isinstance(error, _REFUSED)) from error
        finally:
            self._calls.note(entry.server, entry.original, f"run {call.run}", params, started, outcome)
        if reply.result is None:
            raise CallFailed(
                f"{entry.server} refused the call of {call.tool}.",
                kind="refused",
                unknown=False,
                said=jsonrpc.describe(reply.error),
            )
        if input_required(reply.result) is not None:
            raise CallFailed(
                f"{call.tool} asks for input in the middle of a plan, which nobody can give.",
                "Call it by itself.",
                kind="input_required",
                unknown=False,
            )
        return bytes(reply.result)


def _failed(error: GatewayError, *, unknown: bool) -> CallFailed:
    return CallFailed(error.message, error.hint, kind=error.kind, unknown=unknown, retriable=error.retriable)
