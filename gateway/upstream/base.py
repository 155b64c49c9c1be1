"""The connection interface every transport implements, and the handshake they share."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from gateway import jsonrpc, protocol
from gateway.bridge import features
from gateway.errors import RpcError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.call import CallSite, PendingCall, Reply, Withdraw
from gateway.upstream.peer import Peer, stateless_meta

log = logging.getLogger("toolyard.upstream")

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes one message of a server may have."""
WATCH_TIMEOUT: Final = 30.0
ACKNOWLEDGED_WITHIN: Final = 2.0
FOR_EVER: Final = 1e8
"""Seconds of a request that lasts as long as its connection."""


class Connection(ABC):
    """A live connection to one server, spoken in one era.

    Opened once, used by many callers at a time, closed once. ``on_message`` receives what the server
    sends outside any call; ``on_lost`` is told once when the connection ended by itself.
    """

    def __init__(
        self, server: str, on_message: Callable[[Shallow], None], on_lost: Callable[[str], None]
    ) -> None:
        self.server = server
        self.peer: Peer | None = None
        self.lost = False
        self.declared: Mapping[str, Any] = features.DECLARED
        self.home: CallSite | None = None
        """The only client there is, on a connection that is not shared."""
        self._on_message = on_message
        self._on_lost = on_lost
        self._next_id = 0
        self._asked: dict[bytes, Withdraw] = {}
        self._watched: set[str] = set()
        self._listening: asyncio.Task[None] | None = None
        self._acknowledged = 0
        self._acknowledgement = asyncio.Event()

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether requests are in flight."""

    @abstractmethod
    async def open(self, timeout: float) -> Peer:
        """Connect and agree on a version. Raises UpstreamError; then the connection is closed."""

    @abstractmethod
    async def request(
        self,
        method: str,
        params: Shallow,
        *,
        timeout: float,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> Reply:
        """Send a request and wait for its answer. Cancelling the wait cancels the request.

        :param timeout: seconds; progress on the call starts them anew.
        :param headers: further HTTP header lines, each ended by CRLF; other transports ignore them.
        :raises UpstreamError: no answer came.
        """

    @abstractmethod
    async def notify(self, method: str, params: Shallow | None = None) -> None:
        """Send a notification. Raises UpstreamError."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection and everything it owns, within seconds. Never raises."""

    async def watch(self, uri: str) -> None:
        """Have the server tell of updates to a resource. Raises UpstreamError, RpcError."""
        assert self.peer is not None
        if self.peer.era is Era.STATELESS:
            self._watched.add(uri)
            self._listen_again()
            await self._listened_to(self._next_id)
            return
        reply = await self.request("resources/subscribe", {"uri": jsonrpc.raw(uri)}, timeout=WATCH_TIMEOUT)
        if reply.result is None:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"Server '{self.server}' does not watch {uri}: {jsonrpc.describe(reply.error)}.",
            )

    async def unwatch(self, uri: str) -> None:
        """End that. Raises UpstreamError."""
        assert self.peer is not None
        if self.peer.era is Era.STATELESS:
            self._watched.discard(uri)
            self._listen_again()
            return
        await self.request("resources/unsubscribe", {"uri": jsonrpc.raw(uri)}, timeout=WATCH_TIMEOUT)

    async def _listened_to(self, after: int) -> None:
        """Wait until the server has acknowledged that we listen, with an id above this one.

        Nothing is replayed (2026-07-28, Subscriptions): what changes before that is not told of.
        A server that offers no such stream is not waited for.
        """
        assert self._listening is not None
        self._listening.add_done_callback(lambda _: self._acknowledgement.set())
        try:
            async with asyncio.timeout(ACKNOWLEDGED_WITHIN):
                while self._acknowledged <= after and not self._listening.done():
                    self._acknowledgement.clear()
                    await self._acknowledgement.wait()
        except TimeoutError:
            log.info("server '%s' has not acknowledged what is listened to", self.server)

    def notice(self, message: Shallow) -> None:
        """Take a notification that belongs to no call."""
        if jsonrpc.text(message.get("method")) == "notifications/subscriptions/acknowledged":
            params = jsonrpc.object_of(message.get("params")) or {}
            meta = jsonrpc.object_of(params.get("_meta")) or {}
            ident = jsonrpc.number_of(meta.get(protocol.META_SUBSCRIPTION_ID))
            self._acknowledged = max(self._acknowledged, ident or 0)
            self._acknowledgement.set()
            return
        self._on_message(message)

    def _listen_again(self) -> None:  # noqa: B027 - only stateless servers are listened to like this
        """What a stateless server is to tell of has changed."""

    def listen_params(self) -> Shallow:
        """The params of our ``subscriptions/listen`` (2026-07-28, Subscriptions)."""
        wanted: dict[str, Any] = {
            "toolsListChanged": True,
            "promptsListChanged": True,
            "resourcesListChanged": True,
        }
        if self._watched:
            wanted["resourceSubscriptions"] = sorted(self._watched)
        return {"_meta": jsonrpc.raw(dict(stateless_meta())), "notifications": jsonrpc.raw(wanted)}

    def serve(self, message: Shallow, calls: Collection[PendingCall], send: Callable[[bytes], None]) -> None:
        """Serve a request the server sends us.

        It is put to the client on whose behalf the server works: the one whose call it came with, or
        the only one with calls in flight. Where that cannot be told, it is refused.

        :param calls: the calls it may belong to.
        :param send: sends the response to the server; called at once or later, once.
        """
        ident, method = message["id"], jsonrpc.text(message.get("method"))
        if method == "ping":
            send(jsonrpc.result(ident, b"{}"))
            return
        why = f"{method} cannot be put to a client: this client declared no such capability."
        if method in features.METHODS:
            clients = {call.site.client: call for call in calls if call.site is not None}
            asked = self.home if not clients else None
            if len(clients) == 1 or asked is not None:
                key = bytes(ident)

                def respond(answer: Shallow) -> None:
                    self._asked.pop(key, None)
                    send(jsonrpc.encode({**answer, "jsonrpc": "2.0", "id": ident}))

                withdraw = (asked or next(iter(clients.values()))).ask(message, respond)
                if withdraw is not None:
                    self._asked[key] = withdraw
                    return
                why = f"The client that calls cannot be asked for {method}: it declared no such capability."
            elif clients:
                why = f"{method} cannot be put to a client: calls of {len(clients)} clients are in flight."
        send(jsonrpc.error(ident, {"code": protocol.METHOD_NOT_FOUND, "message": why}))

    def withdraw(self, message: Shallow) -> None:
        """The server gave up a request it sent us (``notifications/cancelled``)."""
        params = jsonrpc.object_of(message.get("params")) or {}
        if "requestId" in params:
            withdraw = self._asked.pop(bytes(params["requestId"]), None)
            if withdraw is not None:
                withdraw()

    def new_id(self) -> int:
        """An id no request of this connection had before."""
        self._next_id += 1
        return self._next_id

    def prepare(self, params: Shallow, ident: int) -> tuple[bytes, Raw | None]:
        """Params as JSON, with the caller's progress token replaced by ours.

        Tokens must be unique among the requests in flight on a connection, and callers that share
        one each count from 1. Returns the JSON and the caller's own token.
        """
        meta = params.get("_meta")
        token = None
        if self.peer is not None and self.peer.era is Era.STATELESS:
            meta_fields = jsonrpc.shallow(meta) if not jsonrpc.is_null(meta) else {}  # type: ignore[arg-type]
            for key, value in stateless_meta().items():
                meta_fields.setdefault(key, value)
            token = meta_fields.get("progressToken")
            if token is not None:
                meta_fields["progressToken"] = jsonrpc.raw(ident)
            params = {**params, "_meta": jsonrpc.raw(meta_fields)}
        elif meta is not None and b"progressToken" in bytes(meta):
            fields = jsonrpc.shallow(meta)
            token = fields.get("progressToken")
            if token is not None:
                fields["progressToken"] = jsonrpc.raw(ident)
                params = {**params, "_meta": jsonrpc.raw(fields)}
        return jsonrpc.encode(params), token
