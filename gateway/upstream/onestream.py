"""Connections on which everything a server says comes on one stream: stdio, and HTTP+SSE."""

from __future__ import annotations

from collections.abc import Callable, Collection

from gateway import jsonrpc
from gateway.jsonrpc import Raw, Shallow
from gateway.upstream.base import Connection
from gateway.upstream.call import PendingCall


class OneStreamConnection(Connection):
    """Answers are told apart by the numbers of their requests alone."""

    def __init__(
        self, server: str, on_message: Callable[[Shallow], None], on_lost: Callable[[str], None]
    ) -> None:
        super().__init__(server, on_message, on_lost)
        self._pending: dict[int, PendingCall] = {}

    @property
    def calls(self) -> Collection[PendingCall]:
        return self._pending.values()

    def _take(self, message: Shallow, send: Callable[[bytes], None]) -> None:
        """Take one message of the server.

        :param send: sends a response to the server, without waiting.
        """
        ident = message.get("id")
        if "method" not in message:
            call = self._numbered(ident)
            if call is not None:
                call.answer(message)
            elif (number := jsonrpc.number_of(ident)) is not None:
                self._attribution.answered_late(number)
            return
        method = jsonrpc.text(message["method"])
        if ident is not None:
            self.serve(message, send)
        elif method == "notifications/cancelled":
            self.withdraw(message)
        elif method == "notifications/progress":
            params = jsonrpc.object_of(message.get("params")) or {}
            call = self._numbered(params.get("progressToken"))
            if call is not None:
                call.notify(message)
        elif method == "notifications/message":
            self.logged(message)
        else:
            self.notice(message)

    def _numbered(self, raw: Raw | None) -> PendingCall | None:
        number = jsonrpc.number_of(raw)
        return self._pending.get(number) if number is not None else None
