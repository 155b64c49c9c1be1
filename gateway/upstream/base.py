"""The connection interface every transport implements, and the handshake they share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from gateway import jsonrpc, protocol
from gateway.bridge import features
from gateway.bridge.crossing import answer_for, ask_for
from gateway.bridge.rewrites import Leg
from gateway.errors import RpcError
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.upstream.attribution import Attribution
from gateway.upstream.call import CallSite, PendingCall, Reply, Withdraw
from gateway.upstream.listening import Listen, Listening
from gateway.upstream.peer import Peer, stateless_meta

log = logging.getLogger("toolyard.upstream")

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes one message of a server may have."""
MAX_ASKED: Final = 1024
"""Requests of a server that may wait for clients."""
MAX_ELICITED: Final = 1024
"""URLs shown to clients that the server may yet say are done with."""
WATCH_TIMEOUT: Final = 30.0
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
        self._attribution = Attribution()
        self._elicited: OrderedDict[bytes, CallSite] = OrderedDict()
        self._listening: Listening | None = None
        self.on_task: Callable[[Shallow], None] | None = None
        """Takes what the server tells of its own tasks."""

    @property
    @abstractmethod
    def calls(self) -> Collection[PendingCall]:
        """The requests in flight."""

    @property
    def busy(self) -> bool:
        """Whether requests are in flight."""
        return bool(self.calls)

    @property
    def asking(self) -> bool:
        """Whether the server asks clients in a way that does not say which."""
        return self._attribution.asks

    def engaged(self, client: object, name: Raw | None) -> bool:
        """Whether it could not be told what the server asks of this client, if it made a call now.

        :param name: of the tool or prompt.
        """
        known = self._attribution
        if known.disputed(client):
            return True
        others = [call for call in self.calls if call.site is not None and call.site.client is not client]
        asks = known.asks_in(name)
        return any(call.asking or known.contended or (asks and known.asks_in(call.name)) for call in others)

    def joins(self, first: Connection) -> None:
        """It is one more connection to the server that the first one is to."""
        self._attribution.askers = first._attribution.askers

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
        if self._listening is not None:
            if not await self._listening.watch(uri):
                self._listening.unwatch(uri)
                raise RpcError(
                    protocol.INVALID_PARAMS, f"Server '{self.server}' does not tell of updates to {uri}."
                )
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
        if self._listening is not None:
            self._listening.unwatch(uri)
            return
        await self.request("resources/unsubscribe", {"uri": jsonrpc.raw(uri)}, timeout=WATCH_TIMEOUT)

    async def watch_tasks(self, tasks: Iterable[str]) -> frozenset[str]:
        """Have the server tell of changes to tasks of its own: those that it agrees to tell of."""
        return await self._listening.watch_tasks(tasks) if self._listening is not None else frozenset()

    def unwatch_task(self, task: str) -> None:
        """End that."""
        if self._listening is not None:
            self._listening.unwatch_task(task)

    async def _start_listening(self, listen: Listen) -> None:
        """Listen to a stateless server from now on."""
        self._listening = Listening(self.server, self.new_id, listen, self._missed)
        await self._listening.start()

    def _missed(self) -> None:
        """A stream of notices was lost for a while: take all that it could tell of for changed."""
        assert self.peer is not None
        for kind in ("tools", "prompts", "resources"):
            if self.peer.offers(kind):
                self._on_message({"method": jsonrpc.raw(f"notifications/{kind}/list_changed")})
        for uri in sorted(self._listening.watched) if self._listening is not None else ():
            updated = {"method": jsonrpc.raw("notifications/resources/updated")}
            self._on_message({**updated, "params": jsonrpc.raw({"uri": uri})})

    def notice(self, message: Shallow) -> None:
        """Take a notification that belongs to no call."""
        method = jsonrpc.text(message.get("method"))
        params = jsonrpc.object_of(message.get("params")) or {}
        if method == "notifications/elicitation/complete":
            site = self._elicited.pop(bytes(params.get("elicitationId", b"")), None)
            if site is not None:  # "only to the client that initiated the elicitation request"
                site.tell(message)
            return
        if self._listening is not None:
            meta = jsonrpc.object_of(params.get("_meta")) or {}
            tag = meta.pop(protocol.META_SUBSCRIPTION_ID, None)
            ident = jsonrpc.number_of(tag)
            if method == "notifications/subscriptions/acknowledged":
                wanted = jsonrpc.object_of(params.get("notifications")) or {}
                tasks, resources = wanted.get("taskIds"), wanted.get("resourceSubscriptions")
                self._listening.acknowledged(ident, _strings(tasks), _strings(resources))
                return
            if tag is not None:
                if ident is None or not self._listening.hears(ident):
                    return
                rest = {key: value for key, value in params.items() if key != "_meta"}
                params = {**rest, "_meta": jsonrpc.raw(meta)} if meta else rest  # the tag is this leg's own
                message = {**message, "params": jsonrpc.raw(params)}
            if method == "notifications/tasks":
                if self.on_task is not None:
                    self.on_task(params)
                return
        self._on_message(message)

    def logged(self, message: Shallow) -> None:
        """Take a log message that does not say of which call it is: told where one client alone calls."""
        calls = [call for call in self.calls if call.site is not None]
        if len({id(call.site.client) for call in calls if call.site is not None}) == 1:
            calls[-1].notify(message)
        else:
            self.notice(message)

    def elicited(self, params: Shallow, site: CallSite) -> None:
        """A client was shown a URL to visit: it is the one to hear that the visit is over."""
        if "elicitationId" in params:
            self._elicited[bytes(params["elicitationId"])] = site
            if len(self._elicited) > MAX_ELICITED:
                self._elicited.popitem(last=False)

    def serve(self, message: Shallow, send: Callable[[bytes], None], call: PendingCall | None = None) -> None:
        """Serve a request the server sends us.

        It is put to the client on whose behalf the server works. Where that cannot be told, it is refused.

        :param send: sends the response to the server; called at once or later, once.
        :param call: the call in whose response it came, where the transport shows that.
        """
        ident, method = message["id"], jsonrpc.text(message.get("method")) or ""
        if self.peer is not None and self.peer.era is Era.STATELESS:
            # "The server MUST NOT send JSON-RPC requests", and we MUST NOT send it responses.
            log.warning("server '%s' sent a request, %s, which its era has not", self.server, method[:100])
            return
        if method == "ping":
            send(jsonrpc.result(ident, b"{}"))
        elif method not in features.METHODS:
            send(_refusal(ident, f"Method not found: {method[:200]}"))
        elif len(self._asked) + len(self._attribution) >= MAX_ASKED:
            why = f"{MAX_ASKED} requests to clients are open."
            send(jsonrpc.error(ident, {"code": protocol.INTERNAL_ERROR, "message": why}))
        elif call is not None or self.home is not None:
            calls = [one for one in self.calls if one.site is not None]
            self._put(message, call or (calls[-1] if calls else self.home), send)
        else:
            self._attribution.attribute(
                bytes(ident), self.calls, lambda found: self._put(message, found, send)
            )

    def _put(
        self, message: Shallow, asked: PendingCall | CallSite | None, send: Callable[[bytes], None]
    ) -> None:
        """Put a server's request to a client, or refuse it: for want of one, or of a capability."""
        ident, method = message["id"], jsonrpc.text(message["method"]) or ""
        if asked is None:
            clients = len({id(call.site.client) for call in self.calls if call.site is not None})
            why = f"{method} cannot be put to a client: calls of {clients or 'no'} clients are in flight."
            send(_refusal(ident, why))
            return
        try:
            if not self._asks(message, asked, send):
                why = f"The client that calls cannot be asked for {method}: it declared no such capability."
                send(_refusal(ident, why))
        except RpcError as error:
            send(jsonrpc.error(ident, error.to_error()))

    def _asks(self, message: Shallow, asked: PendingCall | CallSite, send: Callable[[bytes], None]) -> bool:
        """Put a server's request to a client. Returns whether it can be asked for such a thing.

        Raises RpcError where its revision has no such thing.
        """
        ident, site = message["id"], asked if isinstance(asked, CallSite) else asked.site
        assert self.peer is not None
        assert site is not None
        server, client = self.peer.protocol_version, site.revision
        leg = Leg(self.server, jsonrpc.text(message["method"]) or "")
        params = jsonrpc.object_of(message.get("params")) or {}
        token = (jsonrpc.object_of(params.get("_meta")) or {}).get("progressToken")
        key = bytes(ident)

        def respond(answer: Shallow) -> None:
            self._asked.pop(key, None)
            answer = answer_for(client, server, answer, leg)
            send(jsonrpc.encode({**answer, "jsonrpc": "2.0", "id": ident}))

        def report(progress: Shallow) -> None:
            if token is not None:
                told = jsonrpc.encode({**progress, "progressToken": token})
                send(jsonrpc.notification("notifications/progress", told))

        withdraw = asked.ask(ask_for(client, server, message, leg), respond, report)
        if withdraw is None:
            return False
        self._asked[key] = withdraw
        if isinstance(asked, PendingCall):
            self._attribution.learn(asked)
        self.elicited(params, site)
        return True

    def withdraw(self, message: Shallow) -> None:
        """The server gave up a request it sent us, or a stream of ours (``notifications/cancelled``)."""
        params = jsonrpc.object_of(message.get("params")) or {}
        if self._listening is not None:
            self._listening.ended(jsonrpc.number_of(params.get("requestId")))
            return
        if "requestId" in params:
            key = bytes(params["requestId"])
            withdraw = self._asked.pop(key, None)
            if withdraw is not None:
                withdraw()
            self._attribution.withdraw(key)

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


def _strings(item: Raw | None) -> list[str]:
    """The strings of an array, or none where it is no array."""
    found = jsonrpc.value(item) if item is not None else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _refusal(ident: Raw, why: str) -> bytes:
    return jsonrpc.error(ident, {"code": protocol.METHOD_NOT_FOUND, "message": why})
