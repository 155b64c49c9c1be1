"""Handshake-era sessions. Their identity is sealed into the id, so that a restart loses none."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import wanted_feature
from gateway.endpoint.outbox import Box
from gateway.errors import RpcError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.policy.principal import LOCAL
from gateway.sealing import MAX_LIFETIME, Sealer
from gateway.upstream.call import CallSite, Report, Respond, Withdraw
from registry.continuity import SessionRecord

LIFETIME: Final = MAX_LIFETIME
"""Seconds a session id is good for."""
MAX_LIVE: Final = 10_000
"""Sessions kept in memory; the longest unused is dropped first, its id stays good."""
UNSET_LEVEL: Final = -1
"""The log level of a session whose client never set one: every message a server sends is passed on."""
MAX_CALLS: Final = 1024
"""Requests one session may have in flight."""


class SessionGone(RpcError):
    """The session cannot go on; over HTTP its client is told 404 and initializes again."""

    kind = "session_gone"

    def __init__(self, message: str, hint: str = "Send initialize again.") -> None:
        super().__init__(
            protocol.INVALID_REQUEST, message, hint, status=404, type=SessionGone.kind, retriable=True
        )


class GatewayStopping(UpstreamUnavailable):
    """The gateway ends, or starts anew, before the call was answered."""

    kind = "gateway_stopping"


class SessionFacts(msgspec.Struct, array_like=True, frozen=True):
    """What a session id carries: all that must outlive this process.

    :param features: what the client can be asked for.
    :param toolset: the named selection of tools it is shown; "" is all of them.
    """

    ident: str
    version: str
    client: str
    features: tuple[str, ...] = ()
    toolset: str = ""


class SessionSite(CallSite):
    """A session's end of what a server of its own sends outside any call."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.principal = session.principal
        self.revision = session.version

    @property
    def home(self) -> Session:
        return self._session

    def notify(self, message: Shallow) -> None:
        self._session.tell(jsonrpc.encode(message))

    def tell(self, message: Shallow) -> None:
        self._session.tell(jsonrpc.encode({"jsonrpc": "2.0", **message}))

    def ask(self, message: Shallow, respond: Respond, report: Report | None = None) -> Withdraw | None:
        session = self._session
        method = jsonrpc.text(message.get("method")) or ""
        if wanted_feature(method, jsonrpc.object_of(message.get("params")) or {}) not in session.features:
            return None
        if not session.outboxes and session.absent is None:
            return None  # it does not listen
        key = session.ask(respond, report)
        session.tell(put_to_client(message, key))
        return lambda: session.withdraw(key)


class Session:
    """One handshake-era client, over HTTP or over a stream.

    :param token: its id in the client's hands, or "" over a stream, which is identity enough.
    :param absent: takes what it is told while none of its streams is open, or None.
    :param came_back: its client has asked for the rest of a stream, so it knows how to.
    :param private: servers of which a process keeps state for this session alone.
    :param lost: those of them whose state is gone.
    """

    __slots__ = (
        "_asks",
        "_next_ask",
        "_reports",
        "absent",
        "calls",
        "came_back",
        "client",
        "expires",
        "features",
        "ident",
        "log_level",
        "lost",
        "outboxes",
        "principal",
        "private",
        "subscriptions",
        "token",
        "toolset",
        "version",
    )

    def __init__(self, facts: SessionFacts, token: str, expires: float, principal: str = LOCAL) -> None:
        self.ident = facts.ident
        self.token = token
        self.expires = expires
        self.principal = principal
        self.toolset = facts.toolset
        self.version = facts.version
        self.client = facts.client
        self.features = facts.features
        self._asks: dict[bytes, Respond] = {}
        self._reports: dict[bytes, Report] = {}
        self._next_ask = 0
        self.log_level = UNSET_LEVEL
        self.calls: dict[bytes, CallSite] = {}
        self.outboxes: list[Box] = []
        self.absent: Box | None = None
        self.came_back = False
        self.subscriptions: set[str] = set()
        self.private: set[str] = set()
        self.lost: set[str] = set()

    def record(self, ended: bool = False) -> SessionRecord:
        """What must be known of it after a restart, beyond what its id says."""
        return SessionRecord(
            self.ident,
            self.expires,
            ended,
            self.log_level,
            tuple(sorted(self.subscriptions)),
            tuple(sorted(self.private | self.lost)),
        )

    def site(self) -> CallSite:
        """Its end of what comes outside any call."""
        return SessionSite(self)

    def begin(self, ident: bytes, site: CallSite) -> None:
        """A request is being served. Raises RpcError where its id is in use already."""
        if ident in self.calls:
            raise RpcError(
                protocol.INVALID_REQUEST,
                f"A request with id {ident.decode()} is still being served.",
                "Give every request of a session an id of its own.",
            )
        if len(self.calls) >= MAX_CALLS:
            raise RpcError(
                protocol.INTERNAL_ERROR,
                f"{MAX_CALLS} requests of this session are in flight.",
                "Wait for some.",
            )
        self.calls[ident] = site

    def end(self, ident: bytes) -> None:
        """A request has been served."""
        self.calls.pop(ident, None)

    def cancel(self, ident: bytes, reason: str) -> None:
        """Give up a request; one that is not in flight is ignored (2025-11-25, Cancellation)."""
        site = self.calls.get(ident)
        if site is not None:
            site.cancel(reason)

    def ask(self, respond: Respond, report: Report | None = None) -> bytes:
        """The id for a request to this client, whose response goes to ``respond``.

        It is its progress token too: what the client reports under it goes to ``report``.
        """
        self._next_ask += 1
        key = b'"ty-%d"' % self._next_ask
        self._asks[key] = respond
        if report is not None:
            self._reports[key] = report
        return key

    def withdraw(self, key: bytes) -> None:
        """Nobody waits for the response to this request any more."""
        self._asks.pop(key, None)
        self._reports.pop(key, None)

    def responded(self, message: Shallow) -> None:
        """A response of the client's; one that nobody waits for is ignored."""
        key = bytes(message["id"]) if "id" in message else b""
        respond = self._asks.pop(key, None)
        self._reports.pop(key, None)
        if respond is not None:
            respond(message)

    def reported(self, params: Shallow) -> None:
        """Progress the client makes with a request it was sent; of any other it is ignored."""
        token = params.get("progressToken")
        report = self._reports.get(bytes(token)) if token is not None else None
        if report is not None:
            report(params)

    def tell(self, message: bytes) -> None:
        """Send a message over one of the client's streams, or keep it for the one it comes back to."""
        if self.outboxes:
            self.outboxes[-1].put(message)
        elif self.absent is not None:
            self.absent.put(message)

    def close(self) -> None:
        """End every stream and give up every call."""
        self.close_streams()
        for site in list(self.calls.values()):
            site.cancel("the session was ended")

    def close_streams(self) -> None:
        """End every stream on which the client listens."""
        for outbox in self.outboxes:
            outbox.close()


def put_to_client(message: Shallow, key: bytes) -> bytes:
    """A server's request as the client is sent it: under an id, and a progress token, of our own.

    Ids are unique to a server, of which the client of a gateway has many.
    """
    params = jsonrpc.object_of(message.get("params")) or {}
    meta = jsonrpc.object_of(params.get("_meta")) or {}
    if "progressToken" in meta:
        meta["progressToken"] = msgspec.Raw(key)
        message = {**message, "params": jsonrpc.raw({**params, "_meta": meta})}
    rest = {name: value for name, value in message.items() if name not in ("jsonrpc", "id")}
    return jsonrpc.encode({"jsonrpc": "2.0", "id": msgspec.Raw(key), **rest})


def negotiate(requested: Any) -> str:
    """The revision to speak with a client that asks for this one (2025-11-25, Version Negotiation)."""
    return requested if requested in protocol.HANDSHAKE_VERSIONS else protocol.LATEST_HANDSHAKE


class Memory(Protocol):
    """Where what outlives the process is kept."""

    def note(self, record: SessionRecord) -> None:
        """Keep this soon."""

    async def noted(self, record: SessionRecord) -> None:
        """Keep this, and return when it is kept."""

    async def session(self, ident: str) -> SessionRecord | None:
        """What is kept of a session. Raises RpcError where the store cannot be read."""


class Sessions:
    """Mints session ids and finds the sessions behind them.

    An id is the session's facts, sealed: whoever holds the key ring can read a genuine one without
    having seen it before. A live session is found by a look into a dict.

    :param toolset: what its clients are shown; the ``sealer``'s endpoint.
    """

    def __init__(
        self,
        sealer: Sealer,
        memory: Memory,
        clock: Callable[[], float] = time.time,
        *,
        toolset: str = "",
    ) -> None:
        self._sealer = sealer
        self._toolset = toolset
        self._memory = memory
        self._clock = clock
        self._live: OrderedDict[str, Session] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.on_recall: list[Callable[[Session], None]] = []
        """Are told of a session that comes back with wishes of its own."""
        self.on_end: list[Callable[[Session], None]] = []
        """Are told of a session that has ended for good."""

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Any:
        return iter(list(self._live.values()))

    def open(
        self,
        version: str,
        client: str,
        features: tuple[str, ...] = (),
        principal: str = LOCAL,
        *,
        lasting: bool = True,
    ) -> Session:
        """A new session; its ``token`` is the id for the client (visible ASCII, under 1 KiB).

        :param lasting: it may be taken up by another process; one bound to a stream ends with it.
        """
        facts = SessionFacts(secrets.token_urlsafe(12), version, client[:80], features, self._toolset)
        expires = int(self._clock() + LIFETIME)
        token = ""
        if lasting:
            token = self._sealer.seal(principal, "", jsonrpc.encode(facts).decode(), LIFETIME)
        session = Session(facts, token, expires, principal)
        self._keep(session)
        return session

    def find(self, token: str, principal: str = LOCAL) -> Session | None:
        """The live session of an id, or None: then ``recall`` may know it."""
        session = self._live.get(token)
        if session is None or session.principal != principal or self._clock() > session.expires:
            return None
        self._live.move_to_end(token)
        return session

    async def recall(self, token: str, principal: str = LOCAL) -> Session | None:
        """The session of an id from before a restart or from another replica.

        None where the id is not ours or another caller's, has expired or was ended. Raises RpcError where the store cannot be read.
        """
        opened = self._sealer.open_dated(principal, "", token)
        try:
            facts = msgspec.json.decode(opened[0], type=SessionFacts) if opened is not None else None
        except msgspec.MsgspecError:
            return None
        if facts is None or opened is None or facts.ident in self._ended:
            return None
        record = await self._memory.session(facts.ident)
        if (session := self.find(token, principal)) is not None:
            return session  # another request of it came first
        if facts.ident in self._ended or (record is not None and record.ended):
            return None
        session = Session(facts, token, opened[1], principal)
        if record is not None:
            session.log_level = record.log_level
            session.subscriptions.update(record.subscriptions)
            session.lost.update(record.private)
        self._keep(session)
        if record is not None:
            for tell in self.on_recall:
                tell(session)
        return session

    async def remember(self, session: Session) -> None:
        """Have what a session asked for outlive this process; returns when it will."""
        if session.token and session.ident not in self._ended:
            await self._memory.noted(session.record())

    def end(self, session: Session, calls: bool = True) -> None:
        """End a session for good.

        :param calls: give up what is in flight of it, too.
        """
        self._live.pop(session.token or session.ident, None)
        if session.token:
            self._ended[session.ident] = None
            if len(self._ended) > MAX_LIVE:
                self._ended.popitem(last=False)
            self._memory.note(session.record(ended=True))
        if calls:
            session.close()
        else:
            session.close_streams()
        for tell in self.on_end:
            tell(session)

    def linger(self) -> None:
        """Show every call in flight that time goes by, so that none needs a timer of its own."""
        for session in self._live.values():
            for site in list(session.calls.values()):
                site.linger()

    def end_unsealed(self) -> None:
        """End the sessions whose key is in the ring no more."""
        for session in list(self._live.values()):
            if session.token and not self._sealer.knows(session.token):
                self.end(session)

    def close(self) -> None:
        """End every stream on which clients listen; the ids stay good for the next process."""
        for session in self._live.values():
            session.close_streams()

    def give_up(self) -> None:
        """Answer every call that is still in flight: we end before it does."""
        for session in self._live.values():
            for site in list(session.calls.values()):
                site.give_up(GatewayStopping("The gateway is stopping.", "Try again in a moment."))

    def _keep(self, session: Session) -> None:
        self._live[session.token or session.ident] = session
        if len(self._live) > MAX_LIVE:
            for token, other in self._live.items():
                if other.token and not (other.calls or other.outboxes or other.private):
                    del self._live[token]
                    break
