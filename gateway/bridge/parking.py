"""Calls of stateless clients, parked while the client is asked for input in their midst.

A handshake-era server, or a plan that is run here, asks something in the course of a call; the client can
only be told in the call's result. So the call stays alive here, the client gets an ``input_required`` result
with a sealed handle, and its retry, on whatever connection, resumes the call (2026-07-28, Multi Round-Trip
Requests).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from gateway import jsonrpc, protocol
from gateway.bridge.features import declared_in, wanted_feature
from gateway.errors import RpcError
from gateway.jsonrpc import Raw, Shallow
from gateway.sealing import Sealer
from gateway.upstream.call import CallCancelled, CallSite, Report, Respond, Withdraw

LIFETIME: Final = 600.0
"""Seconds a parked call waits for its client."""
MAX_PARKED: Final = 1000
MAKES_WAY: Final = 60.0
"""Seconds after which a parked call makes way for another, where there are as many as there may be."""
MAX_ASKED: Final = 32
MAX_BYTES: Final = 16 * 1024 * 1024
"""Questions one call may have open, and their size: all of them go into one result."""
SIBLINGS: Final = 0.02
"""Seconds in which further questions of the same call may come, to be asked in one round."""

T = TypeVar("T")


class ParkedLost(RpcError):
    """The handle is genuine, but its call went with the process that had parked it."""

    kind = "parked_call_lost"
    retriable = True


class TooManyParked(RpcError):
    """As many calls wait for input as may."""

    kind = "too_many_parked"
    retriable = True


class Unanswered(CallCancelled):
    """A parked call is given up, not because its client wants that but because it does not come back."""


class ParkingSite(CallSite):
    """The call site of a call that may outlive the request it came with.

    :param features: what the client can be asked for.
    """

    def __init__(self, caller: CallSite, features: tuple[str, ...]) -> None:
        super().__init__()
        self.caller = caller
        self.principal = caller.principal
        self.features = features
        self.lacking: set[str] = set()
        """Features that the server would have needed and the client does not have."""
        self.asked: dict[str, tuple[Shallow, Respond]] = {}
        self.changed = asyncio.Event()
        self._next = self._size = 0

    @property
    def askable(self) -> bool:
        return bool(self.features)

    def notify(self, message: Shallow) -> None:
        self.caller.notify(message)

    def ask(self, message: Shallow, respond: Respond, report: Report | None = None) -> Withdraw | None:
        method = jsonrpc.text(message.get("method")) or ""
        wanted = wanted_feature(method, jsonrpc.object_of(message.get("params")) or {})
        if wanted not in self.features:
            self.lacking.add(wanted)
            return None
        size = sum(map(len, map(bytes, message.values())))
        if len(self.asked) >= MAX_ASKED or self._size + size > MAX_BYTES:
            return None
        self._size += size
        self._next += 1
        key = f"{method.partition('/')[0]}-{self._next}"
        self.asked[key] = (message, respond)
        self.changed.set()

        def withdraw() -> None:
            if self.asked.pop(key, None) is not None:
                self._size -= size

        return withdraw

    def take(self, key: str) -> Respond | None:
        """How to answer a question, once; None where none is open under this key."""
        asked = self.asked.pop(key, None)
        if asked is None:
            return None
        self._size -= sum(map(len, map(bytes, asked[0].values())))
        return asked[1]


@dataclass(slots=True, eq=False)
class _Parked(Generic[T]):
    task: asyncio.Task[T]
    site: ParkingSite
    binding: str
    server: str
    most: int
    since: float = 0.0
    timer: asyncio.TimerHandle | None = field(default=None)


class Parking:
    """Starts calls that may have to be parked, and resumes those that were, once each time."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._process = secrets.token_urlsafe(9)
        self._parked: dict[str, _Parked[Any]] = {}

    def __len__(self) -> int:
        return len(self._parked)

    async def call(
        self,
        caller: CallSite,
        params: Shallow,
        binding: str,
        start: Callable[[ParkingSite], Coroutine[Any, Any, T]],
        server: str = "",
        most: int = MAX_PARKED,
    ) -> T | bytes:
        """Make the call that a stateless request asks for, or go on with it where the request brings input.

        Takes what is said of that out of the params. Raises RpcError.
        """
        state, responses = params.pop("requestState", None), params.pop("inputResponses", None)
        given = jsonrpc.object_of(responses)
        if given is None and not jsonrpc.is_null(responses):
            raise RpcError(
                protocol.INVALID_PARAMS,
                "inputResponses must be an object.",
                "Answer each request by its key.",
            )
        if state is None:
            return await self.run(caller, declared_in(params), binding, start, server, most)
        token = (jsonrpc.object_of(params.get("_meta")) or {}).get("progressToken")
        outcome: T | bytes = await self.resume(caller, binding, jsonrpc.text(state) or "", given or {}, token)
        return outcome

    async def run(
        self,
        caller: CallSite,
        features: tuple[str, ...],
        binding: str,
        start: Callable[[ParkingSite], Coroutine[Any, Any, T]],
        server: str = "",
        most: int = MAX_PARKED,
    ) -> T | bytes:
        """Make a call: its outcome, or an ``input_required`` result (JSON) when it was parked.

        :param most: calls that may be parked of this server: each is one that it still serves.
        """
        site = ParkingSite(caller, features)
        caller.forward_cancel(site)
        parked = _Parked(asyncio.create_task(start(site)), site, binding, server, most)
        return await self._outcome(parked)

    async def resume(
        self,
        caller: CallSite,
        binding: str,
        handle: str,
        responses: Mapping[str, Raw],
        token: Raw | None = None,
    ) -> Any | bytes:
        """Go on with a parked call, as ``run``. Raises RpcError for a handle that is not good here.

        :param token: the progress token of the retry.
        """
        opened = self._sealer.open(caller.principal, binding, handle)
        if opened is None:
            raise RpcError(
                protocol.INVALID_PARAMS,
                "requestState is not one this gateway gave for this request, or it has expired.",
                "Send the request again without it.",
            )
        process, _, ident = opened.partition(" ")
        parked = self._parked.pop(ident, None)
        if parked is None and process == self._process:
            raise RpcError(
                protocol.INVALID_PARAMS,
                "requestState has been used already, or its call has ended.",
                "Use the one of the latest answer, or send the request again without it.",
            )
        if parked is None:
            raise ParkedLost(
                protocol.INTERNAL_ERROR,
                "The call that waited for this input is gone.",
                "Send the request again without requestState.",
                type=ParkedLost.kind,
                retriable=True,
            )
        if parked.timer is not None:
            parked.timer.cancel()
        parked.site.caller = caller
        parked.site.retokened(token)
        caller.forward_cancel(parked.site)
        for key, response in responses.items():
            respond = parked.site.take(key)
            if respond is not None:
                respond({"result": response})
        return await self._outcome(parked)

    def abandon(self, principal: str, binding: str, handle: str, reason: str) -> None:
        """Give up a parked call; a handle that is not good here is ignored."""
        opened = self._sealer.open(principal, binding, handle)
        if opened is not None:
            self._expire(opened.partition(" ")[2], CallCancelled(reason))

    async def _outcome(self, parked: _Parked[T]) -> T | bytes:
        site, task = parked.site, parked.task
        try:
            while True:
                if task.done():
                    return task.result()
                if site.asked:
                    await asyncio.wait({task}, timeout=SIBLINGS)
                    if site.asked and not task.done():
                        return self._park(parked)
                    continue
                site.changed.clear()
                waiter = asyncio.create_task(site.changed.wait())
                try:
                    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiter.cancel()
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _park(self, parked: _Parked[Any]) -> bytes:
        if not self._has_room(parked):
            parked.site.give_up(Unanswered("too many calls wait for input"))
            parked.task.add_done_callback(_seen)
            raise TooManyParked(
                protocol.INTERNAL_ERROR,
                "Too many calls wait for their clients' input.",
                "Try again later.",
                type=TooManyParked.kind,
                retriable=True,
            )
        parked.since = time.monotonic()
        ident = secrets.token_urlsafe(12)
        principal = parked.site.caller.principal
        # Whoever called has its answer: what the server sends meanwhile has no way there.
        parked.site.caller = CallSite()
        self._parked[ident] = parked
        parked.timer = asyncio.get_running_loop().call_later(LIFETIME, self._expire, ident)
        requests = {
            key: {name: value for name, value in message.items() if name not in ("jsonrpc", "id")}
            for key, (message, _) in parked.site.asked.items()
        }
        return jsonrpc.encode(
            {
                "resultType": "input_required",
                "inputRequests": requests,
                "requestState": self._sealer.seal(
                    principal, parked.binding, f"{self._process} {ident}", LIFETIME
                ),
            }
        )

    def _has_room(self, parked: _Parked[Any]) -> bool:
        """Whether one more call may be parked; the one that has waited for longest may have to make way."""
        of_server = [ident for ident, one in self._parked.items() if one.server == parked.server]
        if len(of_server) < parked.most and len(self._parked) < MAX_PARKED:
            return True
        rivals = of_server if len(of_server) >= parked.most else list(self._parked)
        oldest = min(rivals, key=lambda ident: self._parked[ident].since)
        if time.monotonic() - self._parked[oldest].since < MAKES_WAY:
            return False
        self._expire(oldest, Unanswered("other calls had to be parked"))
        return True

    def _expire(self, ident: str, why: CallCancelled | None = None) -> None:
        parked = self._parked.pop(ident, None)
        if parked is not None:
            if parked.timer is not None:
                parked.timer.cancel()
            parked.task.add_done_callback(_seen)
            parked.site.give_up(why or Unanswered("the client did not give the input in time"))

    async def close(self) -> None:
        """Give up every parked call."""
        parked, self._parked = list(self._parked.values()), {}
        for one in parked:
            if one.timer is not None:
                one.timer.cancel()
            one.task.cancel()
        await asyncio.gather(*(one.task for one in parked), return_exceptions=True)


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
