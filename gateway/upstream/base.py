"""The connection interface every transport implements, and the handshake they share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge import features
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError, UpstreamTimeout
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.version import __version__

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes one message of a server may have."""
WATCH_TIMEOUT: Final = 30.0
FOR_EVER: Final = 1e8
"""Seconds of a request that lasts as long as its connection."""
MAX_CALL_SECONDS: Final = 3600.0
"""Progress extends a call's time, but never past this (2025-11-25, Lifecycle: Timeouts)."""

_PROGRESS: Final = b"progressToken"


class Reply(NamedTuple):
    """The answer to a request: one of the two is set, as the JSON the server sent."""

    result: Raw | None
    error: Raw | None


@dataclass(slots=True)
class Peer:
    """What a server said of itself when the connection was opened."""

    era: Era
    protocol_version: str
    server_info: Raw = field(default_factory=lambda: msgspec.Raw(b"{}"))
    capabilities: Raw = field(default_factory=lambda: msgspec.Raw(b"{}"))
    instructions: str | None = None

    def offers(self, *path: str) -> bool:
        """Whether the capabilities hold this key, or a true value at the end of this path."""
        node: Any = jsonrpc.value(self.capabilities)
        for key in path:
            if not isinstance(node, dict) or key not in node:
                return False
            node = node[key]
        return node is not False and node is not None


Respond: TypeAlias = Callable[[Shallow], None]
Withdraw: TypeAlias = Callable[[], None]


class CallSite:
    """The caller's end of one request: takes what the server sends meanwhile, and can give up."""

    __slots__ = ("_cancelled", "_onward", "_pending")

    def __init__(self) -> None:
        self._pending: PendingCall | None = None
        self._onward: CallSite | None = None
        self._cancelled: str | None = None

    @property
    def client(self) -> object:
        """Who calls: calls of one client share a back-channel."""
        return self

    def notify(self, message: Shallow) -> None:
        """A notification of this call (progress, log message). Must not block or raise."""

    def ask(self, message: Shallow, respond: Respond) -> Withdraw | None:
        """Put a request of the server's to the client. Must not block or raise.

        :param respond: takes the client's response message, once, unless withdrawn before.
        :returns: how to withdraw it, or None where this client cannot be asked for such a thing.
        """
        return None

    def attach(self, pending: PendingCall) -> None:
        """The request is on its way."""
        self._pending = pending
        if self._cancelled is not None:
            pending.fail(CallCancelled(self._cancelled))

    def forward_cancel(self, site: CallSite) -> None:
        """Giving this call up gives up the call at ``site``, which is made on its behalf."""
        self._onward = site
        if self._cancelled is not None:
            site.cancel(self._cancelled)

    def cancel(self, reason: str) -> None:
        """Give up: the wait ends with CallCancelled and the server is told."""
        self._cancelled = reason
        if self._onward is not None:
            self._onward.cancel(reason)
        if self._pending is not None:
            self._pending.fail(CallCancelled(reason))


class CallCancelled(UpstreamError):
    """The caller gave the call up."""

    kind = "cancelled"
    retriable = False


class WrongEraError(UpstreamProtocolError):
    """The server does not speak the era it was asked in."""


class PendingCall:
    """One request in flight: its future, its time limit, and its caller."""

    __slots__ = ("_asked", "_limit", "_timeout", "_timer", "_what", "future", "ident", "site", "token")

    def __init__(
        self, ident: int, timeout: float, site: CallSite | None, token: Raw | None, what: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ident = ident
        self.site = site
        self.token = token
        self.future: asyncio.Future[Reply] = loop.create_future()
        self._timeout = timeout
        self._limit = loop.time() + max(timeout, MAX_CALL_SECONDS)
        self._what = what
        self._asked = 0
        self._timer = loop.call_later(timeout, self._expire)
        if site is not None:
            site.attach(self)

    def _expire(self) -> None:
        self.fail(
            UpstreamTimeout(
                f"{self._what} was not answered within {self._timeout:g} s.",
                "Try again, or raise the server's timeout in its configuration.",
            )
        )

    def answer(self, message: Shallow) -> None:
        """Settle with a response message."""
        if not self.future.done():
            self.future.set_result(Reply(message.get("result"), message.get("error")))

    def fail(self, reason: Exception) -> None:
        """Settle with an error."""
        if not self.future.done():
            self.future.set_exception(reason)

    def notify(self, message: Shallow) -> None:
        """Pass on a notification that belongs to this call, with the caller's own progress token."""
        if jsonrpc.text(message.get("method")) == "notifications/progress":
            params = object_of(message.get("params"))
            if self.token is None or params is None:
                return  # the caller did not ask for progress, or this is none
            params["progressToken"] = self.token
            message["params"] = jsonrpc.raw(params)
            self._extend()
        if self.site is not None:
            self.site.notify(message)

    def ask(self, message: Shallow, respond: Respond) -> Withdraw | None:
        """Put a request of the server's to the caller; the clock stands still until it is answered."""
        if self.site is None:
            return None

        def answered(answer: Shallow) -> None:
            self._asked -= 1
            if not self._asked and not self.future.done():
                self._extend()
            respond(answer)

        withdraw = self.site.ask(message, answered)
        if withdraw is not None:
            self._asked += 1
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_at(self._limit, self._expire)
        return withdraw

    def _extend(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + self._timeout, self._limit), self._expire)

    async def wait(self) -> Reply:
        """The reply. Raises what ``fail`` was given."""
        try:
            return await self.future
        finally:
            self._timer.cancel()

    def settle(self) -> None:
        """Stop the clock of a call that nobody waits for any more."""
        self._timer.cancel()
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # seen: asyncio need not report it
        else:
            self.future.cancel()


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
        self._on_message = on_message
        self._on_lost = on_lost
        self._next_id = 0
        self._asked: dict[bytes, Withdraw] = {}
        self._watched: set[str] = set()

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
            return
        reply = await self.request("resources/subscribe", {"uri": jsonrpc.raw(uri)}, timeout=WATCH_TIMEOUT)
        if reply.result is None:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"Server '{self.server}' does not watch {uri}: {describe(reply.error)}.",
            )

    async def unwatch(self, uri: str) -> None:
        """End that. Raises UpstreamError."""
        assert self.peer is not None
        if self.peer.era is Era.STATELESS:
            self._watched.discard(uri)
            self._listen_again()
            return
        await self.request("resources/unsubscribe", {"uri": jsonrpc.raw(uri)}, timeout=WATCH_TIMEOUT)

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
            if len(clients) == 1:
                key = bytes(ident)

                def respond(answer: Shallow) -> None:
                    self._asked.pop(key, None)
                    send(jsonrpc.encode({**answer, "jsonrpc": "2.0", "id": ident}))

                withdraw = next(iter(clients.values())).ask(message, respond)
                if withdraw is not None:
                    self._asked[key] = withdraw
                    return
                why = f"The client that calls cannot be asked for {method}: it declared no such capability."
            elif clients:
                why = f"{method} cannot be put to a client: calls of {len(clients)} clients are in flight."
        send(jsonrpc.error(ident, {"code": protocol.METHOD_NOT_FOUND, "message": why}))

    def withdraw(self, message: Shallow) -> None:
        """The server gave up a request it sent us (``notifications/cancelled``)."""
        params = object_of(message.get("params")) or {}
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
            token = meta_fields.get(_PROGRESS.decode())
            if token is not None:
                meta_fields["progressToken"] = jsonrpc.raw(ident)
            params = {**params, "_meta": jsonrpc.raw(meta_fields)}
        elif meta is not None and _PROGRESS in bytes(meta):
            fields = jsonrpc.shallow(meta)
            token = fields.get("progressToken")
            if token is not None:
                fields["progressToken"] = jsonrpc.raw(ident)
                params = {**params, "_meta": jsonrpc.raw(fields)}
        return jsonrpc.encode(params), token


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


def initialize_params(version: str = protocol.LATEST_HANDSHAKE) -> Shallow:
    """Params of our ``initialize``; the gateway answers for callers that lack a capability."""
    return {
        "protocolVersion": jsonrpc.raw(version),
        "capabilities": jsonrpc.raw(features.DECLARED),
        "clientInfo": jsonrpc.raw(client_info()),
    }


def peer_from_initialize(server: str, reply: Reply) -> Peer:
    """Read an ``initialize`` result. Raises UpstreamProtocolError."""
    if reply.result is None:
        raise UpstreamProtocolError(f"Server '{server}' refused initialize: {describe(reply.error)}.")
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
        code = error_code(reply.error)
        if code == protocol.UNSUPPORTED_PROTOCOL_VERSION:
            raise UpstreamProtocolError(
                f"Server '{server}' does not speak {protocol.LATEST_STATELESS}: {describe(reply.error)}.",
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
    )


def error_code(error: Raw | None) -> int | None:
    """The code of a JSON-RPC error object, or None where it has none."""
    try:
        code = jsonrpc.value(jsonrpc.shallow(error)["code"]) if error is not None else None
    except (msgspec.MsgspecError, KeyError):
        return None
    return code if isinstance(code, int) else None


def describe(error: Raw | None) -> str:
    """A JSON-RPC error object in a few words, for a message of our own."""
    try:
        fields = jsonrpc.value(error) if error is not None else {}
        message = str(fields.get("message", ""))[:300] if isinstance(fields, dict) else ""
        code = fields.get("code") if isinstance(fields, dict) else None
    except msgspec.MsgspecError:
        return "an error that is not JSON-RPC"
    return f"{message.rstrip('.') or 'no message'} (code {code})"


def object_of(item: Raw | None) -> Shallow | None:
    """The fields of a JSON object, or None where a server sent something else."""
    return jsonrpc.shallow(item) if item is not None and bytes(item)[:1] == b"{" else None


def number_of(item: Raw | None) -> int | None:
    """The id of ours that a server repeats, or None where it is none that we could have given."""
    data = bytes(item) if item is not None else b""
    return int(data) if data.isdigit() and len(data) < 19 else None


def _object(item: Raw | None) -> Raw:
    return item if item is not None and bytes(item)[:1] == b"{" else Raw(b"{}")
