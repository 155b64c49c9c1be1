"""Between the event loop and the engine's thread: who gets which output, and who no longer wants any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from inference.engine import Engine, Output
from inference.metrics import Metrics, RequestClock
from inference.sequence import Request
from inference.service import EngineService


@dataclass(slots=True, eq=False)
class Inbox:
    """The outputs of the requests of one HTTP call, in order of arrival. Bounded by what was asked for:
    an engine request ends after `max_tokens`, and requests are bounded at the service's door."""

    queue: asyncio.Queue[tuple[int, Output]]
    requests: tuple[Request, ...]
    open: set[str]
    clocks: tuple[RequestClock, ...]


class Frontend:
    """All methods run on the event loop; only `_deliver` is called from the engine's thread."""

    def __init__(self, engine: Engine) -> None:
        self.service = EngineService(engine, self._deliver)
        self.metrics = Metrics()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._routes: dict[str, tuple[int, Inbox]] = {}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.service.start()

    async def stop(self, drain_seconds: float) -> None:
        await asyncio.to_thread(self.service.drain, drain_seconds)
        await asyncio.to_thread(self.service.stop)

    @asynccontextmanager
    async def submit(self, requests: Iterable[Request]) -> AsyncIterator[Inbox]:
        """Hand requests to the engine; what has not ended when the block ends is cancelled.

        Raises what `EngineService.submit` raises.
        """
        wanted = tuple(requests)
        inbox = Inbox(asyncio.Queue(), wanted, {r.id for r in wanted}, tuple(RequestClock() for _ in wanted))
        for i, request in enumerate(wanted):
            self._routes[request.id] = (i, inbox)
        try:
            self.service.submit(*wanted)
            yield inbox
        finally:
            for request in wanted:
                if self._routes.pop(request.id, None) is not None and request.id in inbox.open:
                    self.cancel(request.id)

    def cancel(self, request_id: str) -> None:
        self.service.cancel(request_id)

    def _deliver(self, outputs: list[Output]) -> None:
        loop = self._loop
        assert loop is not None
        try:
            loop.call_soon_threadsafe(self._dispatch, outputs)
        except RuntimeError:
            return  # the loop is closed: nobody is left to listen

    def _dispatch(self, outputs: list[Output]) -> None:
        for output in outputs:
            route = self._routes.get(output.request_id)
            if route is None:
                continue  # the client has gone; the cancellation is on its way
            index, inbox = route
            clock = inbox.clocks[index]
            if output.tokens:
                clock.saw(len(output.tokens))
            if output.finish is not None:
                inbox.open.discard(output.request_id)
                self.metrics.done(clock, output.finish.value)
            inbox.queue.put_nowait((index, output))
