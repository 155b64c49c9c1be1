"""Calls of stateless clients, parked while the client is asked for input in their midst.

A handshake-era server, or a plan that is run here, asks something in the course of a call; the client can
only be told in the call's result. So the call stays alive here, the client gets an ``input_required`` result
with a sealed handle, and its retry, on whatever connection, resumes the call (2026-07-28, Multi Round-Trip
Requests).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from gateway import jsonrpc, protocol
from gateway.bridge.features import declared_in, wanted_feature
from gateway.errors import RpcError
from gateway.jsonrpc import Raw, Shallow
from gateway.sealing import Sealer
from gateway.upstream.call import CallSite, Report, Respond, Withdraw

LIFETIME: Final = 600.0
"""Seconds a parked call waits for its client."""
MAX_PARKED: Final = 1000
SIBLINGS: Final = 0.02
"""Seconds in which further questions of the same call may come, to be asked in one round."""

T = TypeVar("T")


class ParkedLost(RpcError):
    """The handle is genuine, but its call went with the process that had parked it."""

    kind = "parked_call_lost"
    retriable = True


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
        self._next = 0

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
        self._next += 1
        key = f"{method.partition('/')[0]}-{self._next}"
        self.asked[key] = (message, respond)
        self.changed.set()

        def withdraw() -> None:
            self.asked.pop(key, None)

        return withdraw


@dataclass(slots=True, eq=False)
class _Parked(Generic[T]):
    task: asyncio.Task[T]
    site: ParkingSite
    binding: str
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
            return await self.run(caller, declared_in(params), binding, start)
        token = (jsonrpc.object_of(params.get("_meta")) or {}).get("progressToken")
        outcome: T | bytes = await self.resume(caller, binding, jsonrpc.text(state) or "", given or {}, token)
        return outcome

    async def run(
        self,
        caller: CallSite,
        features: tuple[str, ...],
        binding: str,
        start: Callable[[ParkingSite], Coroutine[Any, Any, T]],
    ) -> T | bytes:
        """Make a call: its outcome, or an ``input_required`` result (JSON) when it was parked."""
        site = ParkingSite(caller, features)
        caller.forward_cancel(site)
        parked = _Parked(asyncio.create_task(start(site)), site, binding)
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
            asked = parked.site.asked.pop(key, None)
            if asked is not None:
                asked[1]({"result": response})
        return await self._outcome(parked)

    def abandon(self, principal: str, binding: str, handle: str, reason: str) -> None:
        """Give up a parked call; a handle that is not good here is ignored."""
        opened = self._sealer.open(principal, binding, handle)
        if opened is not None:
            self._expire(opened.partition(" ")[2], reason)

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
        if len(self._parked) >= MAX_PARKED:
            parked.site.cancel("too many calls wait for input")
            parked.task.add_done_callback(_seen)
            raise RpcError(protocol.INTERNAL_ERROR, f"{MAX_PARKED} calls wait for input.", "Try again later.")
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

    def _expire(self, ident: str, reason: str = "the client did not give the input in time") -> None:
        parked = self._parked.pop(ident, None)
        if parked is not None:
            if parked.timer is not None:
                parked.timer.cancel()
            parked.task.add_done_callback(_seen)
            parked.site.cancel(reason)

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
