"""Foreign code kept in bounds inside the worker: its prints, its questions, its exits and its dawdling."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any, NoReturn

LOG_LIMIT = 64_000


class TooSlow(BaseException):
    """Raised in foreign code that ran past its time; no ``except Exception`` of its own catches it."""


class Capture:
    """What was printed while a block ran."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self.stream = io.TextIOWrapper(self._out, "utf-8", errors="replace", write_through=True)

    def text(self) -> str:
        """All that was printed so far, cut at ``LOG_LIMIT``."""
        with contextlib.suppress(ValueError):
            self.stream.flush()
        try:
            data = self._out.getvalue()
        except ValueError:
            return ""
        return data[:LOG_LIMIT].decode("utf-8", "replace")


@contextlib.contextmanager
def quiet() -> Iterator[Capture]:
    """Keep prints off our streams and answer questions with end of file."""
    capture = Capture()
    before, arguments = (sys.stdin, sys.stdout, sys.stderr), sys.argv[:]
    errors = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace", write_through=True)
    sys.stdin = io.TextIOWrapper(io.BytesIO(), "utf-8")  # nobody ever says anything
    sys.stdout, sys.stderr = capture.stream, errors
    try:
        yield capture
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        sys.argv[:] = arguments  # the list itself stays: `def main(args=sys.argv)` keeps the one it first saw


def complaints() -> str:
    """What was written to stderr so far, inside `quiet`."""
    written = getattr(sys.stderr, "buffer", None)
    if not isinstance(written, io.BytesIO):
        return ""
    with contextlib.suppress(ValueError):
        return written.getvalue()[:LOG_LIMIT].decode("utf-8", "replace")
    return ""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block after some seconds. In threads other than the first there is no limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: types.FrameType | None) -> NoReturn:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe(error: BaseException) -> str:
    """An exception as one line."""
    text = str(error).strip()
    name = type(error).__name__
    return f"{name}: {text}"[:600] if text else name


def where(error: BaseException) -> str:
    """The innermost place in foreign code that raised, ``file:line``; empty where there is none."""
    trace = error.__traceback__
    last = ""
    ours = os.path.dirname(os.path.abspath(__file__))
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(ours):
            last = f"{os.path.basename(name)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return last


def plain(value: Any, limit_: int = 200) -> str:
    """``repr`` that never raises."""
    try:
        return repr(value)[:limit_]
    except Exception as error:  # a foreign __repr__ may raise anything
        return f"<{type(value).__name__}: {type(error).__name__} in repr>"
