"""Blocking work in threads that do not hold up the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def daemon_stream(work: Callable[[], Iterable[T]], name: str) -> AsyncGenerator[T, None]:
    """What blocking work gives piece by piece, made in a thread of its own, as `daemon` makes it at once.

    Who stops reading leaves the thread behind, up to its next piece.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[Any, BaseException | None, bool]] = asyncio.Queue()
    left = threading.Event()

    def give(value: Any, error: BaseException | None = None, *, last: bool = False) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody reads
            loop.call_soon_threadsafe(pieces.put_nowait, (value, error, last))

    def run() -> None:
        try:
            for piece in work():
                if left.is_set():
                    return
                give(piece)
            give(None, last=True)
        except BaseException as error:  # raised where it is read
            give(None, error, last=True)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        while True:
            value, error, last = await pieces.get()
            if error is not None:
                raise error
            if last:
                return
            yield value
    finally:
        left.set()


async def daemon(work: Callable[[], T], name: str) -> T:
    """Do work in a thread of its own. Who gives up waiting leaves it behind, and so does the process.

    For what may take long and cannot be interrupted; anything else belongs into anyio's worker threads.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    def run() -> None:
        value: Any = None
        problem: BaseException | None = None
        try:
            value = work()
        except BaseException as error:  # raised where it is awaited
            problem = error
        try:
            loop.call_soon_threadsafe(settle, value, problem)
        except RuntimeError:
            return  # the loop has ended, and nobody waits

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
