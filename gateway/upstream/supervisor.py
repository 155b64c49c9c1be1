"""One upstream server and its life: started on demand, started again when it was lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable
from enum import StrEnum
from typing import Final, Protocol

import anyio.abc

from gateway.bridge.crossing import params_for
from gateway.errors import ConfigError, GatewayError, NotApproved, UpstreamTimeout, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.base import CallSite, Connection, Reply
from gateway.upstream.http import NeedsLoginError, SessionLostError
from gateway.upstream.pool import Connector, PoolKey
from gateway.upstream.stdio import StdioConnection
from registry.model import Server

log = logging.getLogger("toolyard.upstream")

START_TIMEOUT: Final = 30.0
BACKOFF: Final = (0.2, 30.0)
"""Shortest and longest pause, in seconds, before a server that failed is tried again."""
GIVE_UP: Final = 8
"""Failures in a row after which only a call, a restart or a change of its entry starts a server again."""


class State(StrEnum):
    """Where a server stands, as ``toolyard status`` shows it."""

    PENDING = "pending"
    """Its command waits for a person's approval."""
    IDLE = "idle"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    NEEDS_LOGIN = "needs_login"
    DISABLED = "disabled"


class Owner(Protocol):
    """What an upstream asks of the gateway that owns it."""

    async def connector(self, server: Server) -> Connector:
        """Resolve and check an entry. Raises NotApproved, ConfigError."""

    def on_message(self, upstream: Upstream, message: Shallow) -> None:
        """A notification outside any call."""

    def on_ready(self, upstream: Upstream, connection: Connection) -> Awaitable[None]:
        """A connection was opened."""


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
        self.calls = 0
        self.in_flight = 0
        self._owner = owner
        self._tasks = tasks
        self._connector: Connector | None = None
        self._connections: dict[PoolKey, Connection] = {}
        self._opening: dict[PoolKey, asyncio.Future[Connection]] = {}
        self._failures = 0
        self._retry_at = 0.0
        self._reviving = False
        self._closed = False
        self._quiet = asyncio.Event()

    @property
    def connections(self) -> list[Connection]:
        """The live connections, each once."""
        return list(dict.fromkeys(self._connections.values()))

    @property
    def pid(self) -> int | None:
        """The process id of a stdio server that runs."""
        return next((c.pid for c in self.connections if isinstance(c, StdioConnection)), None)

    @property
    def stderr(self) -> list[str]:
        """The last lines a stdio server wrote to its log."""
        return [line for c in self.connections if isinstance(c, StdioConnection) for line in c.stderr]

    async def request(
        self,
        want: Era,
        method: str,
        params: Shallow,
        *,
        timeout: float | None = None,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> tuple[Connection, Reply]:
        """Send a request over a connection in the wanted era, starting the server where needed.

        Returns the connection that answered, as its era may be the other one, and the reply.
        Raises UpstreamError.
        """
        limit = timeout or self.timeout
        self.calls += 1
        self.in_flight += 1
        try:
            for attempt in (1, 2):
                connection = self._connections.get(PoolKey(want)) or await self.connect(want, limit)
                assert connection.peer is not None
                fields = params if connection.peer.era is want else params_for(connection.peer.era, params)
                try:
                    return connection, await connection.request(
                        method, fields, timeout=limit, site=site, headers=headers
                    )
                except SessionLostError:  # not executed: initialize again and repeat, once
                    if attempt == 2:
                        raise
            raise AssertionError("unreachable")
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._quiet.set()

    async def connect(self, want: Era, timeout: float = START_TIMEOUT) -> Connection:
        """A live connection, opened if there is none. Callers at the same time share one attempt.

        Raises UpstreamError: at once while the pause after a failure lasts.
        """
        key = PoolKey(want)
        if (connection := self._connections.get(key)) is not None:
            return connection
        if self._closed:
            raise UpstreamUnavailable(f"Server '{self.name}' was removed.", "List the tools again.")
        if self.state is State.DISABLED:
            raise UpstreamUnavailable(f"Server '{self.name}' is disabled.", "Enable it in its configuration.")
        loop = asyncio.get_running_loop()
        future = self._opening.get(key)
        if future is None:
            if self.error is not None and loop.time() < self._retry_at:
                raise self.error
            future = self._opening[key] = loop.create_future()
            future.add_done_callback(_seen)
            self._tasks.start_soon(self._open, key, future, name=f"open {self.name}")
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(future)
        except TimeoutError:
            raise UpstreamTimeout(
                f"Server '{self.name}' is still starting after {timeout:g} s.", "Try again in a moment."
            ) from None

    async def _open(self, key: PoolKey, future: asyncio.Future[Connection]) -> None:
        if not self._connections:
            self.state = State.STARTING
        try:
            if self._connector is None:
                self._connector = await self._owner.connector(self.server)
            connection = await self._connector.open(
                key.era, START_TIMEOUT, lambda message: self._owner.on_message(self, message), self._lost
            )
        except GatewayError as error:
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
            self._opening.pop(key, None)
        if self._closed:
            future.set_exception(UpstreamUnavailable(f"Server '{self.name}' was removed."))
            await connection.close()
            return
        assert connection.peer is not None
        first = not self._connections
        self._connections[key] = connection
        self._connections.setdefault(PoolKey(connection.peer.era), connection)
        if isinstance(connection, StdioConnection):  # one process serves every era
            for era in Era:
                self._connections[PoolKey(era)] = connection
        self.state, self.error, self._failures = State.READY, None, 0
        future.set_result(connection)
        if first:
            await self._owner.on_ready(self, connection)

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
        self._failures += 1
        shortest, longest = BACKOFF
        pause = min(longest, shortest * 2 ** min(self._failures - 1, 10)) * random.uniform(0.8, 1.2)
        self._retry_at = asyncio.get_running_loop().time() + pause
        log.warning("server '%s': %s", self.name, error)
        if not isinstance(error, (NotApproved, NeedsLoginError)):
            self._revive()

    def _lost(self, connection: Connection, reason: str) -> None:
        """A connection ended by itself; called from its protocol."""
        if self._closed:
            return
        for key in [key for key, value in self._connections.items() if value is connection]:
            del self._connections[key]
        log.warning("server '%s' was lost: %s", self.name, reason)
        self._tasks.start_soon(connection.close, name=f"close {self.name}")
        if not self._connections:
            self.state = State.IDLE
            self.error = UpstreamUnavailable(reason, "It is started again.")
            self._retry_at = 0.0
            self._revive()

    def _revive(self) -> None:
        if not self._reviving and not self._closed and self._failures < GIVE_UP:
            self._reviving = True
            self._tasks.start_soon(self._keep_trying, name=f"revive {self.name}")

    async def _keep_trying(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._closed and not self._connections and self._failures < GIVE_UP:
                await asyncio.sleep(max(0.05, self._retry_at - loop.time()))
                try:
                    await self.connect(Era.HANDSHAKE)
                except (NotApproved, NeedsLoginError):
                    return
                except GatewayError as error:
                    log.debug("server '%s' is not back yet: %s", self.name, error)
        finally:
            self._reviving = False

    def wake(self) -> None:
        """Forget earlier failures: a person has done something about them."""
        self._failures, self._retry_at, self._connector = 0, 0.0, None
        if self.state in (State.PENDING, State.FAILED, State.NEEDS_LOGIN):
            self.state, self.error = State.IDLE, None

    async def close(self, drain: float = 0.0) -> None:
        """Take no new calls, let calls in flight finish for ``drain`` seconds, end every connection."""
        self._closed = True
        if drain and self.in_flight:
            self._quiet.clear()
            try:
                async with asyncio.timeout(drain):
                    await self._quiet.wait()
            except TimeoutError:
                log.warning("server '%s' is closed with %d calls in flight", self.name, self.in_flight)
        connections, self._connections = self.connections, {}
        await asyncio.gather(*(connection.close() for connection in connections))
        if self._connector is not None:
            self._connector.close()


def _seen(future: asyncio.Future[Connection]) -> None:
    if not future.cancelled():
        future.exception()  # nobody need be waiting
