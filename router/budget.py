"""How often a call may be made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BUDGET_RATIO: Final = 0.1
BUDGET_RESERVE: Final = 10.0


class RetryBudget:
    """Retries as a share of calls, so that retrying cannot multiply the load on a server in trouble.

    A token bucket: each call puts in a tenth, each retry takes one out; a small reserve refills with
    time (Finagle's RetryBudget; Google SRE book, Handling Overload).
    """

    __slots__ = ("_clock", "_seen", "_tokens")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = clock()
        self._tokens = BUDGET_RESERVE

    def deposit(self) -> None:
        """A call was made."""
        self._tokens = min(self._tokens + BUDGET_RATIO, 10 * BUDGET_RESERVE)

    def withdraw(self) -> bool:
        """Whether a retry may be made."""
        now = self._clock()
        refill = (now - self._seen) * BUDGET_RESERVE / 60
        self._seen = now
        if self._tokens < BUDGET_RESERVE:
            self._tokens = min(BUDGET_RESERVE, self._tokens + refill)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
