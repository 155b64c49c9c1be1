"""Who sends a request, and how to send that client something before its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import capabilities_of, wanted_feature
from gateway.endpoint.sessions import UNSET_LEVEL, Session, put_to_client
from gateway.jsonrpc import Shallow
from gateway.policy.principal import LOCAL
from gateway.protocol import Era
from gateway.upstream.call import CallSite, Report, Respond, Withdraw

MAX_ASKED: Final = 64
"""Requests a server may have open with a client in the course of one call."""
_FIT: Final = protocol.LOG_LEVELS.index("info")
Emit: TypeAlias = Callable[[bytes], None]
"""Sends one message to the client on the stream of the request being served; never blocks."""


class Lingering(Protocol):
    """A response that can become a stream which its client comes back to."""

    def linger(self) -> None:
        """The call is seen in flight, now and then."""

    def polled(self, retry_ms: int | None) -> None:
        """The server has its caller come back later."""


class Caller(CallSite):
    """One request's caller: the call site of what is forwarded upstream.

    :param session: the handshake-era session, or None in the stateless era.
    :param emit: None where the client takes nothing but the answer.
    :param headers: of a 2026-07-28 request over HTTP, where they repeat parts of the body.
    :param principal: whose request it is.
    """

    __slots__ = (
        "_emit",
        "_keys",
        "era",
        "headers",
        "log_level",
        "principal",
        "revision",
        "session",
        "stream",
    )

    def __init__(
        self,
        era: Era,
        session: Session | None,
        emit: Emit | None,
        log_level: int | None,
        headers: Mapping[bytes, bytes] | None = None,
        principal: str = LOCAL,
    ) -> None:
        super().__init__()
        self.principal = principal
        self.stream: Lingering | None = None
        self.headers = headers
        self.era = era
        self.revision = session.version if session is not None else protocol.LATEST_STATELESS
        self.session = session
        self._emit = emit
        self.log_level = log_level
        self._keys: set[bytes] = set()

    @property
    def client(self) -> object:
        return self.session if self.session is not None else self

    @property
    def home(self) -> Session | None:
        return self.session

    @property
    def askable(self) -> bool:
        return self._emit is not None and self.session is not None and bool(self.session.features)

    @property
    def identity(self) -> str:
        return self.session.ident if self.session is not None else ""

    def tell(self, message: Shallow) -> None:
        if self.session is None:
            return
        data = jsonrpc.encode({"jsonrpc": "2.0", **message})
        if self._emit is not None and not self.session.outboxes:
            self._emit(data)
        else:
            self.session.tell(data)

    def ask(self, message: Shallow, respond: Respond, report: Report | None = None) -> Withdraw | None:
        session, emit = self.session, self._emit
        method = jsonrpc.text(message.get("method")) or ""
        if session is None or emit is None:
            return None
        params = jsonrpc.object_of(message.get("params")) or {}
        if wanted_feature(method, params) not in session.features or len(self._keys) >= MAX_ASKED:
            return None

        def responded(answer: Shallow) -> None:
            self._keys.discard(key)
            respond(answer)

        key = session.ask(responded, report)
        self._keys.add(key)
        emit(put_to_client(message, key))

        def withdraw() -> None:
            if key in self._keys:
                self._keys.discard(key)
                session.withdraw(key)
                params = jsonrpc.encode({"requestId": msgspec.Raw(key)})
                emit(jsonrpc.notification("notifications/cancelled", params))

        return withdraw

    def said(self) -> Shallow:
        """What its session says of a handshake-era client, as the ``_meta`` of a stateless request."""
        if self.session is None:
            return {}
        # A client that set no level is sent what servers think fit (2025-11-25, Logging); a stateless
        # server sends nothing unasked.
        rank = self.session.log_level if self.session.log_level != UNSET_LEVEL else _FIT
        return {
            protocol.META_CLIENT_CAPABILITIES: jsonrpc.raw(capabilities_of(self.session.features)),
            protocol.META_LOG_LEVEL: jsonrpc.raw(protocol.LOG_LEVELS[rank]),
        }

    def done(self) -> None:
        """The request has been served: what the client was asked meanwhile is of no use any more."""
        self._emit = None
        if self.session is not None:
            for key in self._keys:
                self.session.withdraw(key)

    def notify(self, message: Shallow) -> None:
        if self._emit is None:
            return
        if jsonrpc.text(message.get("method")) == "notifications/message" and not self._wants(message):
            return
        self._emit(jsonrpc.encode(message))

    def polled(self, retry_ms: int | None) -> None:
        if self.stream is not None:
            self.stream.polled(retry_ms)

    def linger(self) -> None:
        if self.stream is not None:
            self.stream.linger()

    def _wants(self, message: Shallow) -> bool:
        """Whether the caller asked for log messages of this severity."""
        if self.log_level is None:
            return False
        level = jsonrpc.text((jsonrpc.object_of(message.get("params")) or {}).get("level"))
        return level not in protocol.LOG_LEVELS or protocol.LOG_LEVELS.index(level) >= self.log_level


def log_rank(level: str | None) -> int | None:
    """The place of a severity in the order of severities, or None for an unknown one."""
    return protocol.LOG_LEVELS.index(level) if level in protocol.LOG_LEVELS else None
