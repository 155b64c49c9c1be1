"""For whose call a server asks, on a connection that does not say.

On a pipe, and on the one stream of HTTP+SSE, a server's request comes without the call it came of. It came
of one of those that were in flight just then, for a server asks in the course of a call (2025-11-25,
Transports; Sampling; Elicitation). Calls of one client: that client is asked. Calls of several: the request
waits, and is put to a client once every other one's calls have been answered, since a server answers a call
after what it asked for it. A guess is never made: where it does not come to that, the request is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final, TypeAlias

from gateway.jsonrpc import Raw
from gateway.upstream.call import PendingCall

AFTERMATH: Final = 10.0
"""Seconds after which a call that was given up no longer counts as one that a server asks for: it may be
slow to hear of it."""
UNDECIDED: Final = 12.0
"""Seconds that a request waits until it is clear whom it is for."""
MAX_ASKERS: Final = 10_000

Decide: TypeAlias = Callable[[PendingCall | None], None]
"""Takes the call a request came of, or None where that cannot be told; called once."""


class _Held:
    """A request that waits, and the calls it may have come of."""

    __slots__ = ("candidates", "decide", "timer")

    def __init__(self, candidates: set[PendingCall], decide: Decide, timer: asyncio.TimerHandle) -> None:
        self.candidates = candidates
        self.decide = decide
        self.timer = timer


class Attribution:
    """The requests of one server that wait, and the calls of late that may yet have come to ask."""

    __slots__ = ("_given_up", "_held", "askers", "asks", "contended")

    def __init__(self) -> None:
        self.asks = False
        """Whether the server has ever asked for anything."""
        self.askers: set[bytes] = set()
        """Names, as JSON, of the tools and prompts that it has asked for."""
        self.contended = False
        """Whether a request had to be refused because nobody could tell whom it was for."""
        self._held: dict[bytes, _Held] = {}
        self._given_up: dict[PendingCall, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._held)

    def disputed(self, client: object) -> bool:
        """Whether calls of others than this client may have asked, or may yet."""
        return any(_client(call) is not client for call in self._given_up) or any(
            _client(call) is not client for held in self._held.values() for call in held.candidates
        )

    def learn(self, call: PendingCall) -> None:
        """A request came of this call."""
        if call.name is not None and len(self.askers) < MAX_ASKERS:
            self.askers.add(bytes(call.name))

    def asks_in(self, name: Raw | None) -> bool:
        """Whether the server has asked in the course of a call of that name."""
        return name is not None and bytes(name) in self.askers

    def attribute(self, key: bytes, calls: Collection[PendingCall], decide: Decide) -> None:
        """Decide which of the calls in flight a request came of, now or later.

        :param key: the request's id, under which it can be withdrawn.
        """
        self.asks = True
        candidates = {call for call in calls if call.site is not None}
        candidates.update(self._given_up)
        if len({_client(call) for call in candidates}) < 2:
            decide(self._one_of(candidates))
            return
        if (before := self._held.pop(key, None)) is not None:
            before.timer.cancel()
            before.decide(None)  # the server has given two requests one id
        timer = asyncio.get_running_loop().call_later(UNDECIDED, self._never, key)
        self._held[key] = _Held(candidates, decide, timer)

    def withdraw(self, key: bytes) -> bool:
        """The server gave a request up. Returns whether it waited here."""
        held = self._held.pop(key, None)
        if held is not None:
            held.timer.cancel()
        return held is not None

    def given_up(self, call: PendingCall) -> None:
        """A call ended without an answer: its server may ask for it still."""
        if call.site is not None and call not in self._given_up:
            loop = asyncio.get_running_loop()
            self._given_up[call] = loop.call_later(AFTERMATH, self._over, call)

    def answered(self, call: PendingCall) -> None:
        """A call was answered: what is still asked, is asked for another."""
        if self._held and call not in self._given_up:
            self._without(call)

    def answered_late(self, ident: int) -> None:
        """A call that had been given up was answered after all."""
        for call in self._given_up:
            if call.ident == ident:
                self._over(call)
                return

    def _over(self, call: PendingCall) -> None:
        timer = self._given_up.pop(call)
        timer.cancel()
        self._without(call)

    def _without(self, call: PendingCall) -> None:
        for key, held in list(self._held.items()):
            held.candidates.discard(call)
            if len({_client(one) for one in held.candidates}) < 2 and self._held.get(key) is held:
                del self._held[key]
                held.timer.cancel()
                held.decide(self._one_of(held.candidates))

    def _one_of(self, candidates: set[PendingCall]) -> PendingCall | None:
        """The latest of the calls whose caller is still there."""
        there = (call for call in candidates if call not in self._given_up)
        return max(there, key=lambda call: call.ident, default=None)

    def _never(self, key: bytes) -> None:
        self.contended = True
        self._held.pop(key).decide(None)

    def close(self) -> None:
        """The connection has ended: there is nobody to answer."""
        for held in self._held.values():
            held.timer.cancel()
        for timer in self._given_up.values():
            timer.cancel()
        self._held.clear()
        self._given_up.clear()


def _client(call: PendingCall) -> object:
    assert call.site is not None
    return call.site.client
