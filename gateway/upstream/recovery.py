"""When a server that failed is tried again: a pause that doubles, and an end of trying."""

from __future__ import annotations

import random
from typing import Final

BACKOFF: Final = (0.2, 30.0)
"""Shortest and longest pause, in seconds, before a server that failed is tried again."""
GIVE_UP: Final = 8
"""Failures in a row after which only a call, a restart or a change of its entry starts a child again.

A remote server that is away is asked for ever, at the longest pause: asking starts nothing."""
STABLE: Final = 10.0
"""Seconds of life that make a server's earlier failures forgotten."""


class Recovery:
    """The failures of one server in a row, and when it may be tried again.

    Exponential back-off with jitter, so that servers that failed together do not return together.

    :param patient: whether trying never ends.
    """

    __slots__ = ("_patient", "failures", "retry_at")

    def __init__(self, *, patient: bool) -> None:
        self.failures = 0
        self.retry_at = 0.0
        self._patient = patient

    @property
    def given_up(self) -> bool:
        """Whether nothing but a person's or a client's wish leads to another try."""
        return self.failures >= GIVE_UP and not self._patient

    def failed(self, now: float, lived: float = 0.0, least: float = 0.0) -> None:
        """Count a failure at ``now``, in seconds, after ``lived`` seconds of service.

        :param least: the shortest pause, where a try costs much.
        """
        if lived >= STABLE:
            self.failures = 0
        self.failures += 1
        shortest, longest = BACKOFF
        pause = max(least, min(longest, shortest * 2 ** min(self.failures - 1, 10)))
        self.retry_at = now + pause * random.uniform(0.8, 1.2)

    def pause(self, now: float) -> float:
        """Seconds still to wait."""
        return max(0.0, self.retry_at - now)

    def forget(self) -> None:
        """Start afresh: a person has done something about it."""
        self.failures, self.retry_at = 0, 0.0
