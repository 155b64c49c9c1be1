"""What calls of a tool have taught: a tie-breaker among tools that fit the request alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from registry.tools import Statistics

WEIGHT: Final = 0.02
"""Of a score that runs to 1: it parts equals, and never lifts a tool that fits worse."""

_PRIOR: Final = (9.0, 1.0)
"""Successes and failures every tool is credited with before it is known: nine of ten calls work."""
_PATIENCE: Final = 2.0
"""Seconds a call may take before slowness counts."""


def worth(statistics: Statistics | None) -> float:
    """From -1 (always fails) through 0 (never called) to 1: success first, then speed, then cost.

    Success is the mean of a Beta posterior, so one failure says little and many say much.
    """
    if statistics is None or statistics.calls <= 0:
        return 0.0
    good, bad = _PRIOR
    before = good / (good + bad)
    success = (statistics.successes + good) / (statistics.calls + good + bad)
    rise = (success - before) / (1.0 - before) if success >= before else (success - before) / before
    slow = math.log2(1.0 + statistics.seconds / statistics.calls / _PATIENCE)
    dear = math.log2(1.0 + max(0.0, statistics.cost) / statistics.calls)
    return max(-1.0, min(1.0, rise - 0.1 * min(slow, 4.0) - 0.1 * min(dear, 4.0)))


def bonus(known: Mapping[tuple[str, str], Statistics], server: str, name: str) -> float:
    """What the evidence adds to a tool's score."""
    return WEIGHT * worth(known.get((server, name)))
