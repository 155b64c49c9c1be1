"""The supervisor against a model: whatever happens in whatever order, its rules hold.

Connections are in memory and do as they are told; the clock is a virtual one, so that pauses of half a
minute take no time and are still waited for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import jsonrpc
from gateway.errors import NotApproved, UpstreamError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream import supervisor
from gateway.upstream.base import CallSite, Connection, Peer, Reply
from gateway.upstream.http import NeedsLoginError
from gateway.upstream.pool import PoolKey
from gateway.upstream.recovery import GIVE_UP, STABLE
from gateway.upstream.serverlog import ServerLog
from gateway.upstream.state import State
from gateway.upstream.supervisor import Upstream
from registry.model import Origin, Server, ServerSpec, Transport

LIMIT = 3
DEAD = (State.FAILED, State.NEEDS_LOGIN, State.PENDING)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock only moves when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def next_timer(self) -> float:
        """When something is to happen next."""
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        return min(timers, default=float("inf"))


class MemoryConnection(Connection):
    """Answers a call when the test says so."""

    def __init__(self, server: str, on_message: Any, on_lost: Callable[[str], None], era: Era) -> None:
        super().__init__(server, on_message, on_lost)
        self.peer = Peer(era, "2025-11-25")
        self.sent: list[tuple[int, asyncio.Future[Reply]]] = []
        self.closed = 0

    @property
    def calls(self) -> Any:
        return [future for _, future in self.sent if not future.done()]

    async def open(self, timeout: float) -> Peer:
        assert self.peer is not None
        return self.peer

    async def request(
        self,
        method: str,
        params: Shallow,
        *,
        timeout: float,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> Reply:
        if self.closed or self.lost:
            raise UpstreamUnavailable("gone")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.sent.append((int(jsonrpc.value(params["n"])), future))
        async with asyncio.timeout(timeout):
            return await future

    async def notify(self, method: str, params: Shallow | None = None) -> None:
        """Nobody listens."""

    def fail(self) -> None:
        for _, future in self.sent:
            if not future.done():
                future.set_exception(UpstreamUnavailable("lost"))

    async def close(self) -> None:
        self.closed += 1
        self.fail()


class MemoryServers:
    """Connector and owner: opens, refuses and withholds connections on command."""

    def __init__(self) -> None:
        self.opening: list[tuple[PoolKey, asyncio.Future[None]]] = []
        self.begun: list[float] = []
        self.connections: list[MemoryConnection] = []
        self.ready = 0
        self.doubled = False

    def server_log(self, name: str) -> ServerLog:
        return ServerLog(None)

    async def connector(self, server: Server) -> Any:
        return self

    def on_message(self, upstream: Upstream, connection: Connection, message: Shallow) -> None:
        """Nothing is said."""

    async def on_ready(self, upstream: Upstream, connection: Connection) -> None:
        self.ready += 1

    async def open(
        self, era: Era, timeout: float, on_message: Any, on_lost: Any, existing: Connection | None
    ) -> Connection:
        key = PoolKey(era)
        self.doubled |= any(other == key for other, _ in self.opening)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (key, gate)
        self.opening.append(entry)
        self.begun.append(asyncio.get_running_loop().time())
        try:
            await gate
        finally:
            self.opening.remove(entry)
        connection = MemoryConnection(
            "s", lambda message: None, lambda reason: on_lost(connection, reason), era
        )
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        """Nothing is pooled."""

    @property
    def live(self) -> list[MemoryConnection]:
        return [c for c in self.connections if not c.closed and not c.lost]


class SupervisorMachine(RuleBasedStateMachine):
    """Rules are what servers, callers and people do."""

    transport = Transport.STDIO

    @initialize()
    def begin(self) -> None:
        self.loop = VirtualLoop()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(supervisor, "time", _Clock(self.loop))
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.servers = MemoryServers()
        self.answers: dict[int, list[Any]] = {}
        self.asked = 0
        self.ended = False
        self.run(self._enter())

    async def _enter(self) -> None:
        spec = ServerSpec(
            "s",
            self.transport,
            "x" if self.transport is Transport.STDIO else None,
            url=None if self.transport is Transport.STDIO else "http://x/mcp",
            extra={"maxConcurrency": LIMIT, "idleTimeout": 60},
        )
        self.group = anyio.create_task_group()
        self.opened = asyncio.Event()
        self.leave = asyncio.Event()
        self.keeper = asyncio.create_task(self._keep())
        await self.opened.wait()
        self.upstream = Upstream(Server(spec, Origin.CONFIG), self.servers, self.group, 20.0)

    async def _keep(self) -> None:
        async with self.group:
            self.opened.set()
            await self.leave.wait()
            self.group.cancel_scope.cancel()

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.run(turns())

    async def _call(self, number: int, era: Era, method: str, timeout: float) -> None:
        try:
            _, reply = await self.upstream.request(
                era, method, {"n": jsonrpc.raw(number)}, timeout=timeout, said=dict
            )
            assert reply.result is not None
            self.answers[number].append(jsonrpc.value(reply.result))
        except (UpstreamError, NotApproved, TimeoutError) as error:
            self.answers[number].append(error)

    # what callers do

    @precondition(lambda self: not self.ended)
    @rule(
        era=st.sampled_from(list(Era)),
        method=st.sampled_from(["tools/call", "resources/read"]),
        timeout=st.sampled_from([5.0, 60.0]),
    )
    def call(self, era: Era, method: str, timeout: float) -> None:
        self.asked += 1
        self.answers[self.asked] = []
        dead = self.upstream.state in DEAD and self.loop.now < self.upstream.recovery.retry_at
        free = self.upstream._slots.in_use < LIMIT
        opening, number = bool(self.upstream._opening), self.asked

        async def begin() -> None:
            self.group.start_soon(self._call, number, era, method, timeout)
            for _ in range(30):
                await asyncio.sleep(0)

        self.run(begin())
        if dead and free and not opening:
            assert self.answers[number], "a call to a dead server was not answered at once"

    # what servers do

    @precondition(lambda self: self.servers.opening)
    @rule(data=st.data())
    def opens(self, data: st.DataObject) -> None:
        _, gate = data.draw(st.sampled_from(self.servers.opening))
        if not gate.done():
            gate.set_result(None)
        self.settle()

    @precondition(lambda self: self.servers.opening)
    @rule(
        data=st.data(),
        kind=st.sampled_from([UpstreamUnavailable, UpstreamUnavailable, NotApproved, NeedsLoginError]),
    )
    def refuses(self, data: st.DataObject, kind: type[Exception]) -> None:
        _, gate = data.draw(st.sampled_from(self.servers.opening))
        if not gate.done():
            gate.set_exception(kind("no"))
        self.settle()

    @precondition(lambda self: self.servers.live)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.servers.live))
        used = connection in self.upstream.connections
        ready_for = self.loop.now - self.upstream._ready_at
        before = self.upstream.recovery.failures
        last = len(self.upstream.connections) == 1

        async def die() -> None:
            connection.fail()
            connection._on_lost("it died")

        self.run(die())
        if used and last and not self.ended:
            assert self.upstream.recovery.failures == (1 if ready_for >= STABLE else before + 1)
            pause = self.upstream.recovery.retry_at - self.loop.now
            longest = min(30.0, 0.2 * 2 ** (self.upstream.recovery.failures - 1))
            assert 0.79 * longest <= pause <= 1.21 * longest
        self.settle()

    @precondition(lambda self: any(not f.done() for c in self.servers.live for _, f in c.sent))
    @rule(data=st.data())
    def answers_one(self, data: st.DataObject) -> None:
        waiting = [(n, f) for c in self.servers.live for n, f in c.sent if not f.done()]
        number, future = data.draw(st.sampled_from(waiting))
        future.set_result(Reply(jsonrpc.raw({"n": number}), None))
        self.settle()

    # what time does

    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 4.0, 11.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.loop.now + seconds
        while self.loop.now < end:
            self.loop.now = min(end, max(self.loop.now + 0.01, self.loop.next_timer()))
            self.settle()

    # what people and the gateway do

    @precondition(lambda self: not self.ended)
    @rule()
    def is_restarted(self) -> None:
        async def restart() -> None:
            async with asyncio.timeout(30):
                await self.upstream.restart()

        self.run(restart())
        assert self.upstream.recovery.failures == 0

    @precondition(lambda self: not self.ended)
    @rule()
    def is_woken(self) -> None:
        self.upstream.wake()

    @precondition(lambda self: not self.ended)
    @rule()
    def idles(self) -> None:
        self.run(self.upstream.end_when_idle())

    @precondition(lambda self: not self.ended and self.asked > 8)
    @rule()
    def is_closed(self) -> None:
        self.ended = True
        self.run(self.upstream.close())
        self.settle()
        assert not self.servers.live
        assert not self.servers.opening

    # what always holds

    @invariant()
    def one_opening_per_key(self) -> None:
        if hasattr(self, "servers"):
            assert not self.servers.doubled

    @invariant()
    def no_connection_is_forgotten(self) -> None:
        if hasattr(self, "servers"):
            assert set(self.servers.live) == set(self.upstream.connections)

    @invariant()
    def states_agree_with_what_is_open(self) -> None:
        if not hasattr(self, "servers") or self.ended:
            return
        up = self.upstream
        if up.connections:
            assert up.state is State.READY, up.state
            assert up.error is None
        else:
            assert up.state is not State.READY
        if up.state in DEAD:
            assert up.error is not None

    @invariant()
    def a_lost_server_comes_back_unless_it_was_given_up(self) -> None:
        if not hasattr(self, "servers") or self.ended:
            return
        up = self.upstream
        given_up = self.transport is Transport.STDIO and up.recovery.failures >= GIVE_UP
        if up.state is State.STARTING or (up.state is State.FAILED and not given_up):
            assert up._reviving or up._opening
        if self.transport is Transport.HTTP:
            assert not up.recovery.given_up

    @invariant()
    def calls_are_answered_once_with_their_own_answer(self) -> None:
        for number, given in getattr(self, "answers", {}).items():
            assert len(given) <= 1
            if given and isinstance(given[0], dict):
                assert given[0] == {"n": number}

    @invariant()
    def tables_agree(self) -> None:
        if hasattr(self, "servers"):
            assert 0 <= self.upstream._slots.in_use <= LIMIT
            assert self.upstream.in_flight == sum(not given for given in self.answers.values())

    def teardown(self) -> None:
        if not hasattr(self, "servers"):
            return
        if not self.ended:
            self.is_closed()
        for _ in range(8):
            self.loop.now += 20
            self.settle()
        try:
            assert self.upstream.in_flight == 0
            assert self.upstream._slots.in_use == self.upstream._slots.waiting == 0
            assert all(len(given) == 1 for given in self.answers.values())
            assert all(connection.closed for connection in self.servers.connections)
        finally:
            self.leave.set()
            self.run(asyncio.wait_for(self.keeper, None))
            self.patch.undo()
            self.runner.close()


class _Clock:
    """The ``time`` module as the supervisor sees it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.monotonic = loop.time


class RemoteMachine(SupervisorMachine):
    """The same for a server that is reached by URL."""

    transport = Transport.HTTP


FEW = settings(
    max_examples=120,
    stateful_step_count=50,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestSupervisorOfAChild = SupervisorMachine.TestCase
TestSupervisorOfAChild.settings = FEW
TestSupervisorOfARemoteServer = RemoteMachine.TestCase
TestSupervisorOfARemoteServer.settings = FEW


@pytest.mark.parametrize("machine", [SupervisorMachine, RemoteMachine])
def test_a_child_that_ends_again_and_again_is_given_up_and_a_call_tries_once_more(
    machine: type[SupervisorMachine],
) -> None:
    world = machine()
    world.begin()
    for number in range(GIVE_UP):
        if number == 0:
            world.call(Era.HANDSHAKE, "tools/call", 60.0)
        world.time_passes(40.0)
        assert len(world.servers.opening) == 1, number
        world.servers.opening[0][1].set_result(None)
        world.settle()
        world.run(_die(world.servers.live[0]))
    world.time_passes(40.0)
    if machine is RemoteMachine:
        assert world.servers.opening, "a remote server is asked for ever"
    else:
        assert world.upstream.state is State.FAILED
        assert f"{GIVE_UP} times" in str(world.upstream.error)
        assert not world.servers.opening
        assert len(world.servers.begun) == GIVE_UP
        world.call(Era.HANDSHAKE, "tools/call", 60.0)
        assert world.servers.opening
        assert world.upstream.state is State.STARTING
    assert all(late - early >= 0.15 for early, late in itertools.pairwise(world.servers.begun))
    world.teardown()


async def _die(connection: MemoryConnection) -> None:
    connection.fail()
    connection._on_lost("it died")
