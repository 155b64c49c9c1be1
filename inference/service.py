"""The engine on a thread of its own, spoken to through queues.

The thread owns the engine: nobody else touches scheduler, cache or model. Commands go in by a queue,
outputs come back by a callback, once a step. How many requests are inside is bounded at the door, so a flood
is turned away with a time to come back and never grows a queue without end.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from inference.engine import Engine, Output
from inference.errors import BadRequestError, EngineStoppedError, InferenceError, QueueFullError
from inference.sequence import Finish, Request

log = logging.getLogger("inference")

Deliver = Callable[[list[Output]], None]


class EngineService:
    """Start it, submit requests, stop it. `deliver` is called on the engine's thread."""

    def __init__(self, engine: Engine, deliver: Deliver) -> None:
        self.engine = engine
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[Request | str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._finished: deque[float] = deque(maxlen=64)
        self._accepting = True
        self._dead: str | None = None
        self._thread = threading.Thread(target=self._run, name="inference-engine", daemon=True)
        self._idle = threading.Event()
        self._idle.set()
        self.limit = engine.config.max_running + engine.config.max_waiting

    # ------------------------------------------------------------------ any thread
    def start(self) -> None:
        self._thread.start()

    @property
    def pending(self) -> int:
        return len(self._pending)

    @property
    def healthy(self) -> bool:
        return self._dead is None and self._accepting and self._thread.is_alive()

    def submit(self, *requests: Request) -> None:
        """Hand over requests, all or none.

        :raises ContextTooLongError: one could never run here.
        :raises BadRequestError: they are more than could ever be inside together.
        :raises QueueFullError: too many are inside; says when to come back.
        :raises EngineStoppedError: shutting down, or dead.
        """
        for request in requests:
            self.engine.scheduler.admissible(request)
        if len(requests) > self.limit:
            raise BadRequestError(
                f"{len(requests)} outputs in one call; {self.limit} is the most. Send several calls."
            )
        with self._lock:
            if self._dead is not None:
                raise EngineStoppedError(f"The engine has failed: {self._dead}. Restart the server.")
            if not self._accepting:
                raise EngineStoppedError("The server is shutting down. Send the request to another one.")
            if len(self._pending) + len(requests) > self.limit:
                raise QueueFullError(
                    f"{len(self._pending)} requests are running or waiting, {self.limit} is the most.",
                    self._retry_after(),
                )
            self._pending.update(r.id for r in requests)
            self._idle.clear()
        for request in requests:
            self._inbox.put(request)

    def cancel(self, request_id: str) -> None:
        """Free a request's pages before the next step. No further output comes for it."""
        self._inbox.put(request_id)

    def drain(self, seconds: float) -> bool:
        """Take nothing new, finish what is inside; False if that took longer than `seconds`."""
        with self._lock:
            self._accepting = False
        return self._idle.wait(seconds)

    def stop(self) -> None:
        """End the thread; what is still inside is told so."""
        with self._lock:
            self._accepting = False
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(30)

    def _retry_after(self) -> float:
        """Seconds until a place should be free, from the recent pace of completions."""
        if len(self._finished) < 2:
            return 1.0
        span = time.monotonic() - self._finished[0]
        return max(1.0, min(60.0, span / len(self._finished) * max(1, self.limit // 8)))

    # ------------------------------------------------------------------ the engine's thread
    def _run(self) -> None:
        try:
            while self._take_commands():
                if not self.engine.idle:
                    self._emit(self.engine.step())
            self._abandon("The server has shut down.")
        except Exception as problem:
            log.exception("The engine has failed")
            with self._lock:
                self._dead = f"{type(problem).__name__}: {problem}"
            self._abandon(f"The engine has failed: {self._dead}")

    def _take_commands(self) -> bool:
        """Apply what is in the inbox; sleep there while there is nothing to compute. False: stop."""
        while True:
            try:
                command = self._inbox.get(block=self.engine.idle)
            except queue.Empty:
                return True
            if command is None:
                return False
            if isinstance(command, str):
                self.engine.cancel(command)
                self._forget(command)
                continue
            try:
                self.engine.add(command)
            except InferenceError as problem:
                self._emit([Output(command.id, (), finish=Finish.ERROR, error=str(problem))])

    def _emit(self, outputs: list[Output]) -> None:
        for output in outputs:
            if output.finish is not None:
                self._finished.append(time.monotonic())
                self._forget(output.request_id)
        if outputs:
            self._deliver(outputs)

    def _forget(self, request_id: str) -> None:
        with self._lock:
            self._pending.discard(request_id)
            if not self._pending:
                self._idle.set()

    def _abandon(self, reason: str) -> None:
        with self._lock:
            left = sorted(self._pending)
        self._emit([Output(name, (), finish=Finish.ERROR, error=reason) for name in left])
