"""Who sends a request, and how to send that client something before its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import capabilities_of, wanted_feature
from gateway.endpoint.sessions import Session
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.call import CallSite, Respond, Withdraw

Emit: TypeAlias = Callable[[bytes], None]
"""Sends one message to the client on the stream of the request being served; never blocks."""


class Caller(CallSite):
    """One request's caller: the call site of what is forwarded upstream.

    :param session: the handshake-era session, or None in the stateless era.
    :param emit: None where the client takes nothing but the answer.
    :param headers: of a 2026-07-28 request over HTTP, where they repeat parts of the body.
    """

    __slots__ = ("_emit", "_keys", "era", "headers", "log_level", "session")

    def __init__(
        self,
        era: Era,
        session: Session | None,
        emit: Emit | None,
        log_level: int | None,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        super().__init__()
        self.headers = headers
        self.era = era
        self.session = session
        self._emit = emit
        self.log_level = log_level
        self._keys: set[bytes] = set()

    @property
    def client(self) -> object:
        return self.session if self.session is not None else self

    @property
    def identity(self) -> str:
        return self.session.ident if self.session is not None else ""

    def ask(self, message: Shallow, respond: Respond) -> Withdraw | None:
        session, emit = self.session, self._emit
        method = jsonrpc.text(message.get("method")) or ""
        if session is None or emit is None:
            return None
        if wanted_feature(method, jsonrpc.object_of(message.get("params")) or {}) not in session.features:
            return None

        def responded(answer: Shallow) -> None:
            self._keys.discard(key)
            respond(answer)

        key = session.ask(responded)
        self._keys.add(key)
        emit(jsonrpc.encode({**message, "id": msgspec.Raw(key)}))

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
        return {protocol.META_CLIENT_CAPABILITIES: jsonrpc.raw(capabilities_of(self.session.features))}

    def done(self) -> None:
        """The request has been served: what the client was asked meanwhile is of no use any more."""
        if self.session is not None:
            for key in self._keys:
                self.session.withdraw(key)

    def notify(self, message: Shallow) -> None:
        if self._emit is None:
            return
        if jsonrpc.text(message.get("method")) == "notifications/message" and not self._wants(message):
            return
        self._emit(jsonrpc.encode(message))

    def _wants(self, message: Shallow) -> bool:
        """Whether the caller asked for log messages of this severity."""
        if self.log_level is None:
            return False
        level = jsonrpc.text((jsonrpc.object_of(message.get("params")) or {}).get("level"))
        return level not in protocol.LOG_LEVELS or protocol.LOG_LEVELS.index(level) >= self.log_level


def log_rank(level: str | None) -> int | None:
    """The place of a severity in the order of severities, or None for an unknown one."""
    return protocol.LOG_LEVELS.index(level) if level in protocol.LOG_LEVELS else None
