"""What a client told its gateway once, to be told again to the next one."""

from __future__ import annotations

import itertools
from typing import Final

from gateway.face import wire
from gateway.face.wire import Ident, Message

_SUBSCRIPTIONS: Final = 10_000


class Session:
    """A client's standing with the gateway, in the handshake era. The stateless era has none.

    ``shaken`` says that the client has its answer to ``initialize``, ``initialized`` that it has
    confirmed it.
    """

    def __init__(self) -> None:
        self.shaken = False
        self.initialized = False
        self.initialize_id: Ident | None = None
        self._initialize: str | None = None
        self._level: str | None = None
        self._subscriptions: dict[str, str] = {}
        self._numbers = itertools.count(1)

    def note(self, message: Message) -> None:
        """Remember what of a message goes beyond its own answer."""
        if message.method == "initialize" and message.ids and not self.shaken:
            self.initialize_id = message.ids[0]
            self._initialize = _params(message)
        elif message.method == "notifications/initialized":
            self.initialized = True
        elif message.method == "logging/setLevel":
            self._level = _params(message)
        elif message.method in ("resources/subscribe", "resources/unsubscribe"):
            uri = (message.params or {}).get("uri")
            if not isinstance(uri, str):
                return
            if message.method == "resources/unsubscribe":
                self._subscriptions.pop(uri, None)
            elif len(self._subscriptions) < _SUBSCRIPTIONS:
                self._subscriptions[uri] = _params(message) or "{}"

    def initialize_again(self) -> bytes | None:
        """The client's ``initialize`` under an id of the face's own; None before it has an answer."""
        if not self.shaken:
            return None
        return wire.request(next(self._numbers), "initialize", self._initialize)

    def rest_again(self) -> bytes:
        """All that followed: the confirmation, the log level, the subscriptions."""
        parts = [wire.notification("notifications/initialized")] if self.initialized else []
        if self._level is not None:
            parts.append(wire.request(next(self._numbers), "logging/setLevel", self._level))
        for params in self._subscriptions.values():
            parts.append(wire.request(next(self._numbers), "resources/subscribe", params))
        return b"".join(parts)


def _params(message: Message) -> str | None:
    return wire.slices(message.line.decode()).get("params")
