"""A request on its way to a server and back, in whichever era its caller and the server speak."""

from __future__ import annotations

from time import perf_counter
from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import capabilities_of, declared_in
from gateway.bridge.parking import Parking, ParkingSite
from gateway.bridge.rewrites import MAY_ASK
from gateway.bridge.rounds import MAX_ROUNDS, gather_input, input_required
from gateway.calls import CallLog
from gateway.endpoint.answers import binding_of, crossed, passed
from gateway.endpoint.board import Interests, Switchboard
from gateway.endpoint.caller import Caller
from gateway.errors import RpcError, UpstreamProtocolError, UpstreamUnavailable
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.sealing import KeyRing, Purpose, Sealer
from gateway.upstream.base import Connection
from gateway.upstream.call import Reply
from gateway.upstream.supervisor import Upstream

STATE_LIFETIME: Final = 24 * 3600.0
"""Seconds a server's ``requestState`` is good for in a client's hands."""


class Forwarder:
    """Passes requests on, for the callers of one endpoint.

    :param calls: hears of every call of a tool.
    :param ring: seals what passes through clients' hands.
    :param endpoint: what is sealed is good there alone.
    """

    def __init__(
        self, board: Switchboard, interests: Interests, calls: CallLog, ring: KeyRing, endpoint: str
    ) -> None:
        self._board = board
        self._interests = interests
        self._calls = calls
        self.parking = Parking(Sealer(Purpose.HANDLE, ring, endpoint=endpoint))
        self._states = Sealer(Purpose.STATE, ring, endpoint=endpoint)

    async def tool(
        self, caller: Caller, ident: Raw, server: str, name: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass a call of a tool on, and note what came of it: the whole response. Raises GatewayError."""
        client = params.get("_meta") if caller.session is None else caller.session.client
        started = perf_counter()
        try:
            answer = await self.request(caller, ident, server, "tools/call", params, headers)
        except BaseException as error:
            self._calls.failed(server, name, client, params, started, error)
            raise
        self._calls.answered(server, name, client, params, started, ident, answer)
        return answer

    async def request(
        self,
        caller: Caller,
        ident: Raw,
        server: str,
        method: str,
        params: Shallow,
        headers: bytes = b"",
    ) -> bytes:
        """Pass a request on: the whole response. Raises GatewayError.

        :param headers: further HTTP header lines for a server of 2026-07-28.
        """
        upstream = self._board.upstreams.get(server)
        if upstream is None:
            raise UpstreamUnavailable(f"Server '{server}' was removed.", "List the tools again.")
        if caller.era is Era.STATELESS:
            if await upstream.era(caller.era, params, caller) is Era.STATELESS:
                return await self._stateless(caller, ident, upstream, method, params, headers)
            if caller.log_level is not None:
                await self._interests.log_from(upstream, caller.log_level)
            if method in MAY_ASK:
                return await self._parkable(caller, ident, upstream, method, params)
        retry: Shallow | None = None
        for _ in range(MAX_ROUNDS):
            connection, reply = await upstream.request(
                caller.era, method, params, site=caller, headers=headers, said=caller.said, retry=retry
            )
            peer = connection.peer
            assert peer is not None
            if reply.error is None and peer.protocol_version == caller.revision:
                return passed(ident, reply)
            wanted = None
            if peer.era is Era.STATELESS and reply.result is not None and method in MAY_ASK:
                wanted = input_required(reply.result)
            if wanted is None:
                return passed(ident, crossed(caller, connection, reply, method))
            retry = await gather_input(caller, wanted, server, peer.protocol_version)
        raise UpstreamProtocolError(f"Server '{server}' asked for input {MAX_ROUNDS} times.", "Try again.")

    async def _stateless(
        self, caller: Caller, ident: Raw, upstream: Upstream, method: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass on a call in its own era; the server's ``requestState`` travels sealed."""
        binding = binding_of(upstream.name, method, params)
        if "requestState" in params:
            state = self._states.open(caller.principal, binding, jsonrpc.text(params["requestState"]) or "")
            if state is None:
                raise RpcError(
                    protocol.INVALID_PARAMS,
                    "requestState is not one this gateway gave for this request, or it has expired.",
                    "Send the request again without it.",
                )
            params["requestState"] = msgspec.Raw(state.encode())
        connection, reply = await upstream.request(caller.era, method, params, site=caller, headers=headers)
        wanted = input_required(reply.result) if reply.result is not None else None
        if wanted is None or "requestState" not in wanted:
            return passed(ident, reply if reply.error is None else crossed(caller, connection, reply, method))
        state = bytes(wanted["requestState"]).decode()
        sealed = self._states.seal(caller.principal, binding, state, STATE_LIFETIME)
        return jsonrpc.result(ident, jsonrpc.encode({**wanted, "requestState": sealed}))

    async def _parkable(
        self, caller: Caller, ident: Raw, upstream: Upstream, method: str, params: Shallow
    ) -> bytes:
        """Call a handshake-era server for a stateless client, which is asked for input between results."""
        binding = binding_of(upstream.name, method, params)

        async def made(site: ParkingSite) -> tuple[Connection, Reply]:
            return _told(await upstream.request(caller.era, method, params, site=site), site)

        outcome = await self.parking.call(caller, params, binding, made, upstream.name, upstream.parkable)
        if isinstance(outcome, bytes):
            return jsonrpc.result(ident, outcome)
        connection, reply = outcome
        return passed(ident, crossed(caller, connection, reply, method, declared_in(params)))


def _told(outcome: tuple[Connection, Reply], site: ParkingSite) -> tuple[Connection, Reply]:
    """The outcome of a call, unless it failed for want of what its client did not declare.

    :raises RpcError: -32021 (2026-07-28, Base Protocol: Error Codes).
    """
    _, reply = outcome
    if reply.error is None or not site.lacking:
        return outcome
    raise RpcError(
        protocol.MISSING_CLIENT_CAPABILITY,
        f"The server asked for what this client does not declare, and failed: {jsonrpc.describe(reply.error)}",
        "Declare the capability, or use a client that has it.",
        status=400,
        requiredCapabilities=capabilities_of(tuple(sorted(site.lacking))),
    )
