"""The workers of a service: as many as there are calls at once, up to a limit; calls with a handle go to its owner.

Each worker belongs to one thread, which waits for it; ending a call means ending the worker's process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from servers.errors import ServersError, WorkerFailed
from servers.process import OutOfMemory, Place, WorkerHung, WorkerProcess

_START_SECONDS: Final = 60.0
Done = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Call:
    """One call on its way.

    :ivar request: what the worker is asked.
    :ivar memory_mb: what it may use.
    :ivar done: told the answer, once; not at all when the call was cancelled.
    :ivar slot: the only slot that can serve it, for the sake of a handle.
    """

    ident: Any
    request: dict[str, Any]
    seconds: float
    memory_mb: int
    done: Done
    slot: int | None = None
    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class _Slot:
    def __init__(self, index: int) -> None:
        self.index = index
        self.generation = 0
        self.worker: WorkerProcess | None = None
        self.call: Call | None = None
        self.thread: threading.Thread | None = None

    @property
    def number(self) -> str:
        return f"{self.index}-{self.generation}"


class Pool:
    """The workers. ``place`` is called by the first worker and may take long: it builds the environment.

    :param most: how many workers there may be.
    """

    def __init__(self, place: Callable[[], Place], preload: Sequence[str], most: int) -> None:
        self._find_place = place
        self._preload = list(preload)
        self._place: Place | None = None
        self._place_lock = threading.Lock()
        self._slots = [_Slot(index) for index in range(most)]
        self._waiting: deque[Call] = deque()
        self._changed = threading.Condition()
        self._closing = False

    def warm(self) -> None:
        """Start the first worker before anybody asks."""
        with self._changed:
            self._grow()

    def submit(self, call: Call) -> None:
        """Queue a call."""
        with self._changed:
            self._waiting.append(call)
            idle = [s for s in self._slots if s.thread is not None and s.call is None]
            if call.slot is None and len(idle) < len(self._waiting):
                self._grow()
            self._changed.notify_all()

    def _grow(self) -> None:
        for slot in self._slots:
            if slot.thread is None:
                slot.thread = threading.Thread(
                    target=self._serve, args=(slot,), name=f"worker-{slot.index}", daemon=True
                )
                slot.thread.start()
                return

    def slot_of(self, handle: str) -> int | None:
        """Which slot holds a handle; None where its worker is gone."""
        parts = handle.split(":")
        number = parts[2] if len(parts) == 4 else ""
        for slot in self._slots:
            if slot.number == number and slot.worker is not None and slot.worker.alive:
                return slot.index
        return None

    def cancel(self, ident: Any) -> bool:
        """Stop a call: out of the queue, or with the process that runs it. Returns whether there was one."""
        with self._changed:
            for call in self._waiting:
                if call.ident == ident:
                    self._waiting.remove(call)
                    return True
            for slot in self._slots:
                if slot.call is not None and slot.call.ident == ident:
                    slot.call.cancelled = True
                    if slot.worker is not None:
                        slot.worker.kill()
                    return True
        return False

    def running(self) -> list[Call]:
        """The calls that are in the queue or in a worker."""
        with self._changed:
            return [*self._waiting, *(slot.call for slot in self._slots if slot.call is not None)]

    def close(self) -> None:
        """End every worker and wait for its thread."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            for slot in self._slots:
                if slot.worker is not None:
                    slot.worker.kill()
            self._changed.notify_all()
        for slot in self._slots:
            if slot.thread is not None:
                slot.thread.join(3)

    # in a worker's own thread

    def _serve(self, slot: _Slot) -> None:
        try:
            if slot.index == 0:
                self._try_start(slot)
            while True:
                call = self._next(slot)
                if call is None:
                    return
                answer = self._run(slot, call)
                with self._changed:
                    slot.call = None
                if not call.cancelled:
                    call.done(answer)
                elif not self._closing:
                    self._try_start(slot)  # so that the next call need not wait
        finally:
            if slot.worker is not None:
                slot.worker.close()

    def _next(self, slot: _Slot) -> Call | None:
        with self._changed:
            while True:
                if self._closing:
                    return None
                for call in self._waiting:
                    if call.slot in (None, slot.index):
                        self._waiting.remove(call)
                        slot.call = call
                        return call
                self._changed.wait()

    def _try_start(self, slot: _Slot) -> None:
        try:
            self._start(slot)
        except ServersError:
            slot.worker = None  # the next call tries again, and tells its caller

    def _start(self, slot: _Slot) -> WorkerProcess:
        with self._place_lock:
            if self._place is None:
                self._place = self._find_place()
        if slot.worker is not None:
            slot.worker.close()
        slot.generation += 1
        worker = WorkerProcess(self._place, slot.number)
        worker.start()
        slot.worker = worker
        if self._closing:
            worker.kill()
        worker.ask("import", _START_SECONDS, modules=self._preload)
        return worker

    def _run(self, slot: _Slot, call: Call) -> dict[str, Any]:
        try:
            worker = slot.worker
            if worker is None or not worker.alive:
                worker = self._start(slot)
            if call.cancelled:
                return {}
            return worker.call(call.request, call.seconds, call.memory_mb)
        except WorkerHung:
            message = f"It did not finish within {call.seconds:g} s and was stopped. Ask for less, or raise its limit."
            return _problem("timeout", message)
        except OutOfMemory as error:
            return _problem("memory", error.message)
        except WorkerFailed as error:
            return _problem("crash", str(error))
        except ServersError as error:
            return _problem("unavailable", str(error))


def _problem(kind: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message}}


def default_size() -> int:
    """How many workers a service may have here."""
    import os

    return max(2, min(4, os.cpu_count() or 2))
