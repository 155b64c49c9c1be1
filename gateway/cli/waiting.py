"""What a terminal shows while something takes its time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from gateway.cli import render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_DELAY: Final = 0.4
"""Seconds before anything shows: what is done at once needs no notice."""


class Waiting:
    """A line on stderr with what is waited for, and how far it is where that is known.

    Shows on a terminal only, and not before a moment has passed.

    >>> with Waiting("time__now") as waiting:
    ...     waiting.tell({"progress": 1, "total": 4, "message": "one of four"})
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._said: Mapping[str, Any] = {}
        self._shown: tuple[Progress, TaskID] | None = None
        self._ended = False
        self._timer = threading.Timer(_DELAY, self._begin)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._shown:
                self._shown[0].stop()

    def tell(self, progress: Mapping[str, Any]) -> None:
        """Show how far it is: the fields of an MCP progress notification."""
        with self._lock:
            self._said = progress
            self._update()

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn("line"), TextColumn("{task.description}", markup=False), BarColumn(24))
        with self._lock:
            if self._ended:
                return
            shown = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
            self._shown = shown, shown.add_task(render.clean(self._what), total=None)
            self._update()
            shown.start()

    def _update(self) -> None:
        if self._shown is None or not self._said:
            return
        done, total, message = (self._said.get(key) for key in ("progress", "total", "message"))
        shown, task = self._shown
        shown.update(
            task,
            completed=float(done) if isinstance(done, int | float) else None,
            total=float(total) if isinstance(total, int | float) and total > 0 else None,
            description=render.clean(" ".join(str(message).split())[:50]) if message else None,
        )
