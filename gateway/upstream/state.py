"""Where a server stands."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a server stands, as ``toolyard status`` shows it."""

    PENDING = "pending"
    """Its command waits for a person's approval."""
    IDLE = "idle"
    BUILDING = "building"
    """The environment of a converted service is being made; calls wait for it."""
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    NEEDS_LOGIN = "needs_login"
    DISABLED = "disabled"


COMING: Final = frozenset({State.STARTING, State.BUILDING})
DEAD: Final = frozenset({State.FAILED, State.NEEDS_LOGIN, State.PENDING})
"""States in which a call is answered at once, with the reason, while the pause after a failure lasts."""
