"""Whom a server asks: in whatever order calls begin, ask, are answered and given up, nobody else is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway_parts import WAIT
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream import attribution
from gateway.upstream.attribution import Attribution
from gateway.upstream.call import CallSite, PendingCall

STEPS = ("begin", "ask", "answer", "give up", "go on", "time out", "hear of it")
MOVES = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 7), st.integers(0, 2)), min_size=30, max_size=60
)


class Site(CallSite):
    """A call of one of a few clients."""

    def __init__(self, client: int) -> None:
        super().__init__()
        self.number = client

    @property
    def client(self) -> object:
        return CLIENTS[self.number]


CLIENTS = tuple(object() for _ in range(3))


class Server:
    """A server that keeps to the protocol: it answers a call after what it asked for it has been answered.

    It hears late that a call was given up, and may ask for it until then.
    """

    def __init__(self) -> None:
        self.known = Attribution()
        self.calls: list[PendingCall] = []
        self.given_up: list[PendingCall] = []
        self.open: dict[bytes, PendingCall] = {}
        self.decided: dict[bytes, PendingCall | None] = {}
        self.asked = 0

    def begin(self, client: int) -> None:
        self.calls.append(PendingCall(len(self.calls) + 1000, 60.0, Site(client), None, "a call"))

    def ask(self, call: PendingCall) -> None:
        self.asked += 1
        key = b"%d" % self.asked
        self.open[key] = call

        def decide(found: PendingCall | None) -> None:
            assert key not in self.decided, "once"
            self.decided[key] = found
            if found is not None:
                assert found.site is not None
                assert call.site is not None
                assert found.site.client is call.site.client, "what was meant for another"
                assert found not in self.given_up, "nobody is there"
            else:
                self.open.pop(key, None)  # refused: the call goes on without

        self.known.attribute(key, self.calls, decide)

    def waits(self, call: PendingCall) -> bool:
        """Whether the call still has a question open."""
        return any(one is call for one in self.open.values())

    def answered_by_client(self) -> None:
        for key, found in list(self.decided.items()):
            if found is not None:
                self.open.pop(key, None)


def step(server: Server, what: str, number: int, client: int) -> None:
    if what == "begin" and len(server.calls) < 6:
        server.begin(client)
    elif what == "ask" and (able := server.calls + server.given_up):
        server.ask(able[number % len(able)])
    elif what == "go on":
        server.answered_by_client()
    elif what == "answer" and (able := [call for call in server.calls if not server.waits(call)]):
        call = able[number % len(able)]
        server.calls.remove(call)
        server.known.answered(call)
        call.settle()
    elif what == "give up" and server.calls:
        call = server.calls.pop(number % len(server.calls))
        server.given_up.append(call)
        server.known.given_up(call)
        call.settle()
    elif what == "hear of it" and server.given_up:
        call = server.given_up.pop(0)
        for key in [key for key, one in server.open.items() if one is call]:
            del server.open[key]
            server.known.withdraw(key)  # a server that stops withdraws what it asked
        server.known.answered_late(call.ident)
    elif what == "time out":
        for held in list(server.known._held):
            if number % 2:
                server.known._never(held)


@settings(max_examples=300)
@given(MOVES)
def test_a_question_is_put_to_the_client_it_is_meant_for_or_to_nobody(
    moves: list[tuple[str, int, int]],
) -> None:
    async def run() -> None:
        server = Server()
        for what, number, client in moves:
            step(server, what, number, client)
        server.known.close()
        for call in server.calls + server.given_up:
            call.settle()

    asyncio.run(run())


def test_a_single_clients_calls_are_never_in_doubt() -> None:
    async def run() -> None:
        known, decided = Attribution(), []
        calls = [PendingCall(number, 60.0, Site(1), None, "a call") for number in (1, 2)]
        known.attribute(b"q", calls, decided.append)
        assert decided == [calls[1]], "the latest of them"
        assert not known.disputed(CLIENTS[1])
        for call in calls:
            call.settle()

    asyncio.run(run())


def test_what_stays_in_doubt_is_refused_in_the_end(monkeypatch: Any) -> None:
    async def run() -> None:
        monkeypatch.setattr(attribution, "UNDECIDED", 0.01)
        known = Attribution()
        refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        decide: Callable[[Any], None] = refused.set_result
        calls = [PendingCall(number, 60.0, Site(number), None, "a call") for number in (1, 2)]
        known.attribute(b"q", calls, decide)
        assert len(known) == 1
        assert await asyncio.wait_for(refused, WAIT) is None
        assert known.contended
        for call in calls:
            call.settle()

    asyncio.run(run())
