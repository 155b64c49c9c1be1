"""One request to a server in flight, and the caller at its other end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from gateway import jsonrpc, protocol
from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.principal import LOCAL

if TYPE_CHECKING:
    from gateway.upstream.private import Home

MAX_CALL_SECONDS: Final = 3600.0
"""Progress extends a call's time, but never past this (2025-11-25, Lifecycle: Timeouts)."""

_PROGRESS: Final = b"progressToken"

Respond: TypeAlias = Callable[[Shallow], None]
Withdraw: TypeAlias = Callable[[], None]
Report: TypeAlias = Callable[[Shallow], None]
"""Takes the params of a client's ``notifications/progress`` on a request it was sent."""


class Reply(NamedTuple):
    """The answer to a request: one of the two is set, as the JSON the server sent."""

    result: Raw | None
    error: Raw | None


class CallSite:
    """The caller's end of one request: takes what the server sends meanwhile, and can give up."""

    __slots__ = ("_allowed", "_onward", "_over", "_pending")

    principal: str = LOCAL
    """Whose call it is."""

    revision: str = protocol.LATEST_STATELESS
    """The revision the caller speaks."""

    def __init__(self) -> None:
        self._pending: PendingCall | None = None
        self._onward: CallSite | None = None
        self._over: UpstreamError | None = None
        self._allowed: float | None = None

    @property
    def client(self) -> object:
        """Who calls: calls of one client share a back-channel."""
        return self

    @property
    def home(self) -> Home | None:
        """The session for which a server may keep state, where the caller has one."""
        return None

    @property
    def askable(self) -> bool:
        """Whether this client can be asked for anything in the course of the call."""
        return False

    @property
    def identity(self) -> str:
        """What tells callers apart for a server that keeps something for each; "" where nothing does."""
        return ""

    def notify(self, message: Shallow) -> None:
        """A notification of this call (progress, log message). Must not block or raise."""

    def tell(self, message: Shallow) -> None:
        """A notification for this client that may come after the call. Must not block or raise."""

    def ask(self, message: Shallow, respond: Respond, report: Report | None = None) -> Withdraw | None:
        """Put a request of the server's to the client. Must not block or raise.

        :param respond: takes the client's response message, once, unless withdrawn before.
        :param report: takes what the client says of its progress until then.
        :returns: how to withdraw it, or None where this client cannot be asked for such a thing.
        """
        return None

    def attach(self, pending: PendingCall) -> None:
        """The request is on its way."""
        self._pending = pending
        if self._over is not None:
            pending.fail(self._over)
        if self._allowed is not None:
            pending.allow(self._allowed)

    def retokened(self, token: Raw | None) -> None:
        """Progress of this call belongs to another request of the caller's from now on."""
        if self._pending is not None:
            self._pending.token = token

    def forward_cancel(self, site: CallSite) -> None:
        """Giving this call up gives up the call at ``site``, which is made on its behalf."""
        self._onward = site
        if self._over is not None:
            site.give_up(self._over)
        if self._allowed is not None:
            site.allow(self._allowed)

    def allow(self, seconds: float) -> None:
        """Give the call so much time from now on, and each call made on its behalf."""
        self._allowed = seconds
        if self._onward is not None:
            self._onward.allow(seconds)
        if self._pending is not None:
            self._pending.allow(seconds)

    def cancel(self, reason: str) -> None:
        """The caller gives up: the wait ends with CallCancelled and the server is told."""
        self.give_up(CallCancelled(reason))

    def give_up(self, why: UpstreamError) -> None:
        """End the wait with this error; the server is told that nobody waits."""
        self._over = why
        if self._onward is not None:
            self._onward.give_up(why)
        if self._pending is not None:
            self._pending.fail(why)

    def linger(self) -> None:
        """The call is seen in flight, now and then. Must not block or raise."""

    def polled(self, retry_ms: int | None) -> None:
        """The server let its own stream of this call go and is asked for the rest later.

        :param retry_ms: what it said to wait (2025-11-25, Transports: Sending Messages, 6).
        """


class CallCancelled(UpstreamError):
    """The caller gave the call up."""

    kind = "cancelled"
    retriable = False


class PendingCall:
    """One request in flight: its future, its time limit, and its caller.

    :param name: of the tool or prompt that is asked for.
    """

    __slots__ = (
        "_asked",
        "_limit",
        "_timeout",
        "_timer",
        "_what",
        "future",
        "ident",
        "name",
        "site",
        "token",
    )

    def __init__(
        self,
        ident: int,
        timeout: float,
        site: CallSite | None,
        token: Raw | None,
        what: str,
        name: Raw | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ident = ident
        self.site = site
        self.token = token
        self.name = name
        self.future: asyncio.Future[Reply] = loop.create_future()
        self._timeout = timeout
        self._limit = loop.time() + max(timeout, MAX_CALL_SECONDS)
        self._what = what
        self._asked = 0
        self._timer = loop.call_later(timeout, self._expire)
        if site is not None:
            site.attach(self)

    def _expire(self) -> None:
        self.fail(
            UpstreamTimeout(
                f"{self._what} was not answered within {self._timeout:g} s.",
                "Try again, or raise the server's timeout in its configuration.",
            )
        )

    def answer(self, message: Shallow) -> None:
        """Settle with a response message."""
        if not self.future.done():
            self.future.set_result(Reply(message.get("result"), message.get("error")))

    def fail(self, reason: Exception) -> None:
        """Settle with an error."""
        if not self.future.done():
            self.future.set_exception(reason)

    def notify(self, message: Shallow) -> None:
        """Pass on a notification that belongs to this call, with the caller's own progress token."""
        if jsonrpc.text(message.get("method")) == "notifications/progress":
            params = jsonrpc.object_of(message.get("params"))
            if self.token is None or params is None:
                return  # the caller did not ask for progress, or this is none
            params["progressToken"] = self.token
            message["params"] = jsonrpc.raw(params)
            self._extend()
        if self.site is not None:
            self.site.notify(message)

    def ask(self, message: Shallow, respond: Respond, report: Report | None = None) -> Withdraw | None:
        """Put a request of the server's to the caller; the clock stands still until it is answered."""
        if self.site is None:
            return None

        def over() -> None:
            self._asked -= 1
            if not self._asked and not self.future.done():
                self._extend()

        def answered(answer: Shallow) -> None:
            over()
            respond(answer)

        withdraw = self.site.ask(message, answered, report)
        if withdraw is None:
            return None
        self._asked += 1
        self._timer.cancel()
        if not self.future.done():
            self._timer = asyncio.get_running_loop().call_at(self._limit, self._expire)

        def withdrawn() -> None:
            over()
            withdraw()

        return withdrawn

    @property
    def asking(self) -> bool:
        """Whether the caller is being asked for something."""
        return self._asked > 0

    def allow(self, seconds: float) -> None:
        """Wait for the answer for so long from now on, with or without progress."""
        if not self.future.done():
            self._timeout = seconds
            self._limit = asyncio.get_running_loop().time() + seconds
            self._extend()

    def _extend(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + self._timeout, self._limit), self._expire)

    async def wait(self) -> Reply:
        """The reply. Raises what ``fail`` was given."""
        try:
            return await self.future
        finally:
            self._timer.cancel()

    def settle(self) -> None:
        """Stop the clock of a call that nobody waits for any more."""
        self._timer.cancel()
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # seen: asyncio need not report it
        else:
            self.future.cancel()
