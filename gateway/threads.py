"""Blocking work in threads that do not hold up the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


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
