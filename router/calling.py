"""One step's call: its place, its attempts, its hedge, its kept result."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from router.budget import RetryBudget
from router.cache import ResultCache
from router.consent import digest
from router.errors import CallFailed
from router.facts import Facts
from router.limits import Slots
from router.values import MAX_RESULT

MAX_ATTEMPTS: Final = 3
BACKOFF: Final = 0.1
"""Seconds before the second attempt; twice that before the third, each up to half longer by chance."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be made.

    :param tool: the name that the plan uses.
    :param attempt: from 1 on; a hedge has the number of the attempt it hedges.
    :param timeout: seconds.
    """

    tool: str
    arguments: Mapping[str, Any]
    run: str
    step: str
    attempt: int
    timeout: float


class CallTool(Protocol):
    """Makes calls: handed in, because the router does not know how tools are reached.

    Returns the JSON of the MCP ``CallToolResult``, also where the tool says ``isError``. Raises
    CallFailed where none came; cancelling it gives the call up.
    """

    async def __call__(self, call: Call) -> bytes: ...


Begin = Callable[[int], Awaitable[None]]
"""Makes the intent of an attempt durable."""


class Calls:
    """Makes calls for any number of runs.

    :param clock: for the retry budgets, one a server.
    """

    def __init__(
        self,
        call: CallTool,
        slots: Slots,
        *,
        cache: ResultCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = call
        self._slots = slots
        self._cache = cache if cache is not None else ResultCache()
        self._clock = clock
        self._budgets: dict[str, RetryBudget] = {}

    async def make(
        self, call: Call, tool: Facts, begin: Begin, *, hedge: float | None = None
    ) -> tuple[bytes, bool]:
        """The result of a call, and whether it was kept from an earlier one.

        A call is repeated only where the tool is read-only or idempotent, only after a failure that
        may pass, and only as far as its server's budget goes.

        :param begin: called before every attempt, when there is a place for it.
        :param hedge: seconds after which a second call of a read-only tool is made beside the first;
            the first answer counts (Dean and Barroso, The Tail at Scale, 2013).
        :raises CallFailed: no attempt came to a result.
        """
        if tool.pure:
            return await self._cache.get(
                digest(tool, call.arguments), lambda: self._attempts(call, tool, begin, hedge)
            )
        return await self._attempts(call, tool, begin, hedge), False

    async def _attempts(self, call: Call, tool: Facts, begin: Begin, hedge: float | None) -> bytes:
        budget = self._budget(tool.server)
        for attempt in range(call.attempt, call.attempt + MAX_ATTEMPTS):
            async with self._slots.place(tool.server):
                await begin(attempt)
                budget.deposit()
                try:
                    return await self._hedged(replace(call, attempt=attempt), tool, hedge, budget)
                except CallFailed as error:
                    last = attempt == call.attempt + MAX_ATTEMPTS - 1
                    if not (tool.repeatable and error.retriable) or last or not budget.withdraw():
                        raise
            await asyncio.sleep(BACKOFF * 2 ** (attempt - call.attempt) * (1 + random.random() / 2))
        raise AssertionError("the last attempt returns or raises")

    def _budget(self, server: str) -> RetryBudget:
        found = self._budgets.get(server)
        if found is None:
            found = self._budgets[server] = RetryBudget(self._clock)
        return found

    async def _hedged(self, call: Call, tool: Facts, hedge: float | None, budget: RetryBudget) -> bytes:
        if hedge is None or not tool.read_only:
            return await self._one(call)
        first = asyncio.create_task(self._one(call))
        calls = {first}
        try:
            done, _ = await asyncio.wait(calls, timeout=hedge)
            if not done and budget.withdraw():
                calls.add(asyncio.create_task(self._beside(call, tool)))
            while True:
                done, left = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                good = [task for task in done if task.exception() is None]
                if good or not left:
                    return (good or [first])[0].result()
                calls = left
        finally:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _beside(self, call: Call, tool: Facts) -> bytes:
        async with self._slots.place(tool.server):
            return await self._one(call)

    async def _one(self, call: Call) -> bytes:
        try:
            async with asyncio.timeout(call.timeout):
                body = await self._call(call)
        except TimeoutError:
            raise CallFailed(
                f"{call.tool} did not answer within {call.timeout:g} s.",
                "Try again, or give it more time.",
                kind="timeout",
                retriable=True,
            ) from None
        if len(body) > MAX_RESULT:
            raise CallFailed(
                f"{call.tool} answered with {len(body):,} bytes; {MAX_RESULT:,} are kept.",
                "Ask it for less.",
                kind="result_too_large",
                unknown=False,
            )
        return body
