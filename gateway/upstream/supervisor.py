"""One upstream server and its life: started on demand, started again when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple, Protocol

import anyio
import anyio.abc

from gateway import jsonrpc
from gateway.bridge.crossing import params_for
from gateway.errors import (
    ConfigError,
    GatewayError,
    NotApproved,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.hosted.calls import UsageBook, signed
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.call import CallSite, Reply
from gateway.upstream.exchange import NeedsLoginError, SessionLostError
from gateway.upstream.health import Health
from gateway.upstream.isolation import isolated, number
from gateway.upstream.lanes import CONNECTIONS, Lanes
from gateway.upstream.limits import CONCURRENT, Slots
from gateway.upstream.pool import Connector, PoolKey
from gateway.upstream.private import Owner as PrivateOwner
from gateway.upstream.private import PrivateConnections
from gateway.upstream.recovery import Recovery
from gateway.upstream.serverlog import ServerLog
from gateway.upstream.state import COMING, DEAD, State
from gateway.upstream.stdio import StdioConnection
from gateway.upstream.taskwatches import TaskWatches
from gateway.upstream.waiting import connected, progress_token
from gateway.upstream.watches import Watches
from registry.model import Server, Transport
from router.budget import RetryBudget

log = logging.getLogger("toolyard.upstream")

START_TIMEOUT: Final = 30.0
CLOSE_TIMEOUT: Final = 5.0
"""Seconds a server that is being started may take to end."""
_IDEMPOTENT: Final = frozenset(
    {"prompts/get", "resources/read", "completion/complete", "ping", "server/discover"}
)
"""Requests that may be sent again when their connection broke; a tool may have side effects."""


class Owner(PrivateOwner, Protocol):
    """What an upstream asks of the gateway that owns it."""

    def server_log(self, name: str) -> ServerLog:
        """The log of a server, the same one across restarts."""

    async def connector(self, server: Server) -> Connector:
        """Resolve and check an entry. Raises NotApproved, ConfigError."""

    def on_message(self, upstream: Upstream, connection: Connection, message: Shallow) -> None:
        """A notification outside any call."""

    def on_ready(self, upstream: Upstream, connection: Connection) -> Awaitable[None]:
        """A connection was opened."""


class Opening(NamedTuple):
    """An attempt to open a connection, which all callers share that want it meanwhile."""

    connection: asyncio.Future[Connection]
    scope: anyio.CancelScope


class Upstream:
    """A server behind the gateway, and its live connections by pool key.

    :param tasks: the task group its work runs in; cancelling it ends that work.
    """

    def __init__(self, server: Server, owner: Owner, tasks: anyio.abc.TaskGroup, timeout: float) -> None:
        self.server = server
        self.name = server.name
        self.timeout = server.spec.timeout or timeout
        self.state = State.DISABLED if server.spec.disabled else State.IDLE
        self.error: GatewayError | None = None
        self.problems: list[str] = []
        self.calls = 0
        self.in_flight = 0
        self.restarts = 0
        self.log = owner.server_log(self.name)
        self.usage: UsageBook | None = None
        """Set for a converted service: its host is told who calls, and says what the call took."""
        self._owner = owner
        self._tasks = tasks
        self._slots = Slots(f"Server '{self.name}'", number(server.spec.extra, "maxConcurrency", CONCURRENT))
        self._budget = RetryBudget(time.monotonic)
        self._idle_timeout = number(server.spec.extra, "idleTimeout", 0)
        self._used_at = time.monotonic()
        self._ready_at = 0.0
        self.watches = Watches(self)
        self.health = Health(self, self._hung)
        self._connector: Connector | None = None
        self._connections: dict[PoolKey, Connection] = {}
        self._opening: dict[PoolKey, Opening] = {}
        self.recovery = Recovery(patient=server.spec.transport is not Transport.STDIO)
        self._reviving = False
        self._closed = False
        self._quiet = asyncio.Event()
        self.lanes = Lanes(
            self.name,
            number(server.spec.extra, "maxConnections", CONNECTIONS) - 1,
            lambda: owner.connector(self.server),
            self.watches.renew,
            self._said_aside,
            tasks,
        )
        self.task_watches = TaskWatches(lambda: self.connections)
        self.private: PrivateConnections | None = None
        if isolated(server.spec):
            self.private = PrivateConnections(
                self.name, lambda: owner.connector(self.server), owner, tasks, server.spec.extra
            )

    @property
    def connections(self) -> list[Connection]:
        """The live connections, each once."""
        return [*dict.fromkeys(self._connections.values()), *self.lanes.connections]

    @property
    def parkable(self) -> int:
        """Calls in flight that may wait for their clients: as many again are left for others."""
        return max(1, self._slots.limit // 2)

    @property
    def coming(self) -> bool:
        """Whether it is on its way up: a call had better wait."""
        return self.state in COMING or bool(self._opening)

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """For the time it takes to make its environment. A start may begin, and wait for it, meanwhile."""
        before, self.state = self.state, State.BUILDING
        try:
            yield
        finally:
            if self.state is State.BUILDING:
                self.state = State.STARTING if self._opening else before

    @property
    def pid(self) -> int | None:
        """The process id of a stdio server that runs."""
        return next((c.pid for c in self.connections if isinstance(c, StdioConnection)), None)

    async def request(
        self,
        want: Era,
        method: str,
        params: Shallow,
        *,
        timeout: float | None = None,
        site: CallSite | None = None,
        headers: bytes = b"",
        said: Callable[[], Shallow] | None = None,
        retry: Shallow | None = None,
    ) -> tuple[Connection, Reply]:
        """Send a request over a connection in the wanted era, starting the server where needed.

        :param said: for a server of the stateless era, what its ``_meta`` should say of the caller.
        :param retry: and what it asked for in an earlier round (2026-07-28, Multi Round-Trip Requests).

        Returns the connection that answered, as its era may be the other one, and the reply.
        Raises UpstreamError.
        """
        limit = timeout or self.timeout
        if self.usage is not None and method == "tools/call":
            params = signed(params, site.identity if site is not None else "")
        self.calls += 1
        self.in_flight += 1
        self._budget.deposit()
        try:
            if not self._slots.try_enter():
                await self._slots.enter(limit)
            try:
                for attempt in (1, 2):
                    connection = self._connections.get(PoolKey(want)) if self.private is None else None
                    if connection is None:
                        connection = await self._started(want, limit, params, site)
                    assert connection.peer is not None
                    fields = (
                        params
                        if connection.peer.era is want
                        else {
                            **params_for(connection.peer.era, method, params, self.name, said),
                            **(retry or {}),
                        }
                    )
                    try:
                        if connection.asking and self.private is None and site is not None and site.askable:
                            connection, reply = await self.lanes.request(
                                connection, method, fields, timeout=limit, site=site
                            )
                        else:
                            reply = await connection.request(
                                method, fields, timeout=limit, site=site, headers=headers
                            )
                    except UpstreamError as error:
                        if self.private is not None and isinstance(error, UpstreamTimeout):
                            self.private.unanswered(connection)
                        if attempt == 2 or not self._may_repeat(method, error):
                            raise
                    else:
                        if self.private is None:
                            self.health.answered()
                        else:
                            self.private.answered(connection)
                        if self.usage is not None and reply.result is not None and "name" in params:
                            self.usage.note(self.name, jsonrpc.text(params["name"]) or "", reply.result)
                        return connection, reply
                raise AssertionError("unreachable")
            finally:
                self._slots.leave()
        finally:
            self.in_flight -= 1
            self._used_at = time.monotonic()
            if not self.in_flight:
                self._quiet.set()

    def _may_repeat(self, method: str, error: UpstreamError) -> bool:
        """Whether a request that failed like this is sent once more."""
        if isinstance(error, SessionLostError):
            return True  # refused, hence not executed: initialize again and repeat
        if isinstance(error, UpstreamTimeout):
            if self.private is None and self.health.unanswered():
                self._tasks.start_soon(self.health.check, True, name=f"check {self.name}")
            return False
        return isinstance(error, UpstreamUnavailable) and method in _IDEMPOTENT and self._budget.withdraw()

    async def era(self, want: Era, params: Shallow | None = None, site: CallSite | None = None) -> Era:
        """The era a call of this era will be spoken in; starts the server where needed."""
        connection = self._connections.get(PoolKey(want)) or await self._started(
            want, self.timeout, params or {}, site
        )
        assert connection.peer is not None
        return connection.peer.era

    async def _started(self, want: Era, timeout: float, params: Shallow, site: CallSite | None) -> Connection:
        """A live connection; a caller that asked for progress hears once a second that it is waited for."""
        if self.private is not None and site is not None:
            self._check_wanted()
            return await self.private.connection(site, want, timeout)
        token = progress_token(params) if site is not None else None
        if token is None or site is None:
            return await self.connect(want, timeout)
        return await connected(self, want, timeout, site, token)

    async def connect(self, want: Era, timeout: float = START_TIMEOUT) -> Connection:
        """A live connection, opened if there is none. Callers at the same time share one attempt.

        Raises UpstreamError: at once while the pause after a failure lasts.
        """
        key = PoolKey(want)
        if (connection := self._connections.get(key)) is not None:
            return connection
        self._check_wanted()
        loop = asyncio.get_running_loop()
        opening = self._opening.get(key)
        if opening is None:
            if self.error is not None and self.state in DEAD and self.recovery.pause(loop.time()):
                # The circuit is open; the next attempt after the pause is its probe.
                raise self.error.with_traceback(None)  # raised many times, it must not grow
            opening = self._opening[key] = Opening(loop.create_future(), anyio.CancelScope())
            opening.connection.add_done_callback(_seen)
            self._tasks.start_soon(self._open, key, opening, name=f"open {self.name}")
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(opening.connection)
        except TimeoutError:
            raise UpstreamTimeout(
                f"Server '{self.name}' is still starting after {timeout:g} s.", "Try again in a moment."
            ) from None

    def _check_wanted(self) -> None:
        if self._closed:
            raise UpstreamUnavailable(f"Server '{self.name}' was removed.", "List the tools again.")
        if self.state is State.DISABLED:
            raise UpstreamUnavailable(f"Server '{self.name}' is disabled.", "Enable it in its configuration.")

    async def prepare(self) -> None:
        """Do what comes before a start, and may take long, without starting. A failure is shown, and tried again."""
        try:
            await self._owner.connector(self.server)
        except GatewayError as error:
            if not self._connections and not self._opening and not self._closed:
                self._failed(error)

    async def _open(self, key: PoolKey, opening: Opening) -> None:
        future = opening.connection
        try:
            with opening.scope:
                connection = await self._attempt(key)
            if opening.scope.cancelled_caught:
                raise UpstreamUnavailable(f"Server '{self.name}' was stopped while it was starting.")
        except GatewayError as error:
            if not self._connections and not opening.scope.cancelled_caught:
                self._failed(error)
            future.set_exception(error)
            return
        except BaseException as error:
            future.set_exception(UpstreamUnavailable(f"Starting server '{self.name}' was interrupted."))
            if isinstance(error, Exception):
                log.exception("starting server '%s' failed", self.name)
                self._failed(UpstreamUnavailable(f"Starting server '{self.name}' failed: {error}."))
                return
            raise
        finally:
            if self._opening.get(key) is opening:
                del self._opening[key]
        if self._closed:
            future.set_exception(UpstreamUnavailable(f"Server '{self.name}' was removed."))
            await connection.close()
            return
        if connection.lost:  # between its handshake and now; `_lost` has seen to the rest
            future.set_exception(self.error or UpstreamUnavailable(f"Server '{self.name}' was lost."))
            return
        assert connection.peer is not None
        first = not self._connections
        self._connections[key] = connection
        self._connections.setdefault(PoolKey(connection.peer.era), connection)
        self.state, self.error = State.READY, None
        self._ready_at = self._used_at = time.monotonic()
        self.health.answered()
        self.log.write(f"[toolyard] connected, protocol {connection.peer.protocol_version}")
        if self.watches:
            self._tasks.start_soon(self.watches.renew, connection, name=f"watch {self.name}")
        self._tasks.start_soon(self.task_watches.renew, connection, name=f"tasks {self.name}")
        future.set_result(connection)
        if first:
            await self._owner.on_ready(self, connection)

    async def _attempt(self, key: PoolKey) -> Connection:
        if not self._connections and self.state not in DEAD:
            # It was lost and comes back after a pause: callers wait for it.
            await asyncio.sleep(self.recovery.pause(asyncio.get_running_loop().time()))
        if not self._connections:  # meanwhile the other era's may have been opened
            self.state = State.STARTING
        if self._connector is None or self.server.spec.transport is Transport.STDIO:
            # A program may have been replaced since it was approved: each start is checked anew.
            self._connector = await self._owner.connector(self.server)
        return await self._connector.open(
            key.era,
            START_TIMEOUT,
            lambda connection, message: self._owner.on_message(self, connection, message),
            self._lost,
            next(iter(self._connections.values()), None),
        )

    def await_approval(self) -> None:
        """Say that a person has to approve the command, without having tried to start it."""
        self.state = State.PENDING
        self.error = NotApproved(
            f"The command of server '{self.name}' has not been approved.",
            f"Run: toolyard approve {self.name}.",
        )

    def _failed(self, error: GatewayError) -> None:
        self.error = error
        if isinstance(error, NotApproved):
            self.state = State.PENDING
        elif isinstance(error, NeedsLoginError):
            self.state = State.NEEDS_LOGIN
        else:
            self.state = State.FAILED
        if isinstance(error, (NotApproved, ConfigError)):
            self._connector = None  # resolved anew: the person may have mended it
        least = error.pause if isinstance(error, UpstreamUnavailable) else 0.0
        self.recovery.failed(asyncio.get_running_loop().time(), least=least)
        log.warning("server '%s': %s", self.name, error)
        self.log.write(f"[toolyard] {error.message}")
        if not isinstance(error, (NotApproved, NeedsLoginError)):
            self._revive()

    def _lost(self, connection: Connection, reason: str) -> None:
        """A connection ended by itself; called from its protocol."""
        if self._closed:
            return
        connection.lost = True
        connection_was_used = connection in self._connections.values()
        for key in [key for key, value in self._connections.items() if value is connection]:
            del self._connections[key]
        log.warning("server '%s' was lost: %s", self.name, reason)
        self.log.write(f"[toolyard] lost: {reason}")
        self._tasks.start_soon(connection.close, name=f"close {self.name}")
        if self._connections:
            return
        lived = time.monotonic() - self._ready_at if connection_was_used else 0.0
        self.recovery.failed(asyncio.get_running_loop().time(), lived)
        self.restarts += 1
        if self.recovery.given_up:
            self.state = State.FAILED
            self.error = UpstreamUnavailable(
                f"{reason} It has ended {self.recovery.failures} times in a row.",
                f"See toolyard logs {self.name}; the next call or toolyard restart {self.name} tries again.",
            )
            return
        self.state = State.STARTING
        self.error = UpstreamUnavailable(reason, "It is being started again.")
        self._revive()

    def _revive(self) -> None:
        if not self._reviving and not self._closed and not self.recovery.given_up:
            self._reviving = True
            self._tasks.start_soon(self._keep_trying, name=f"revive {self.name}")

    async def _keep_trying(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._closed and not self._connections and not self.recovery.given_up:
                if self.state in DEAD:
                    await asyncio.sleep(max(0.05, self.recovery.pause(loop.time())))
                try:
                    await self.connect(Era.HANDSHAKE)
                except (NotApproved, NeedsLoginError):
                    return
                except GatewayError as error:
                    log.debug("server '%s' is not back yet: %s", self.name, error)
        finally:
            self._reviving = False

    def _said_aside(self, message: Shallow) -> None:
        """What a further connection is told outside any call: it is the same server."""
        if self._connections:
            self._owner.on_message(self, self.connections[0], message)

    def _hung(self, connection: Connection) -> None:
        if not self.lanes.hung(connection):
            self._lost(connection, f"Server '{self.name}' does not answer pings any more.")

    async def end_when_idle(self) -> None:
        """Stop a child that nobody has called for its ``idleTimeout``; the next call starts it again."""
        await self.lanes.end_idle()
        if self.private is not None:
            await self.private.end_idle()
        if (
            self._idle_timeout
            and self.state is State.READY
            and not self.in_flight
            and self.server.spec.transport is Transport.STDIO
            and time.monotonic() - self._used_at > self._idle_timeout
        ):
            self.state = State.IDLE
            await self._end()

    async def restart(self) -> None:
        """End every connection and forget earlier failures; the caller opens it anew."""
        self.wake()
        if self.state is not State.DISABLED:
            self.state, self.error = State.IDLE, None  # before the wait: a call may open it anew meanwhile
        await self._end()

    async def _end(self) -> None:
        """Close what is open and give up what is being opened; what is opened later stays."""
        connections, self._connections = list(dict.fromkeys(self._connections.values())), {}
        openings, self._opening = list(self._opening.values()), {}
        for opening in openings:
            opening.scope.cancel()
        private = [self.private.close()] if self.private is not None else []
        await asyncio.gather(*(one.close() for one in connections), self.lanes.close(), *private)
        if openings:
            await asyncio.wait([opening.connection for opening in openings], timeout=CLOSE_TIMEOUT)

    def wake(self) -> None:
        """Forget earlier failures: a person has done something about them."""
        self.recovery.forget()
        self._connector = None
        if self.state in (State.PENDING, State.FAILED, State.NEEDS_LOGIN):
            self.state, self.error = State.IDLE, None

    async def quiet(self, seconds: float) -> bool:
        """Wait until no call is in flight. Returns whether it came to that."""
        if self.in_flight:
            self._quiet.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._quiet.wait()
            except TimeoutError:
                return False
        return True

    async def close(self, drain: float = 0.0) -> None:
        """Take no new calls, let calls in flight finish for ``drain`` seconds, end every connection."""
        self._closed = True
        for opening in self._opening.values():
            opening.scope.cancel()
        if drain and not await self.quiet(drain):
            log.warning("server '%s' is closed with %d calls in flight", self.name, self.in_flight)
        await self._end()
        if self._connector is not None:
            self._connector.close()


def _seen(future: asyncio.Future[Connection]) -> None:
    if not future.cancelled():
        future.exception()  # nobody need be waiting
