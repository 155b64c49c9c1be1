"""Exit codes, the same for every verb, and what an error means among them."""

from __future__ import annotations

from enum import IntEnum

from gateway.admin.client import NotRunning
from gateway.errors import ConfigError, GatewayError, NotFound, StateError


class Exit(IntEnum):
    """What a shell sees. Documented in ``toolyard --help``; never renumbered."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    TOOL_ERROR = 5
    CONFIG = 6
    LOCKED = 7
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it."""


class Locked(StateError):
    """Another process holds this state directory and answers nobody."""

    kind = "locked"


def code_of(error: GatewayError) -> Exit:
    """The exit code that an error ends a verb with."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return Exit.FAILED


_CODES: tuple[tuple[type[GatewayError], Exit], ...] = (
    (NotRunning, Exit.NOT_RUNNING),
    (NotFound, Exit.NOT_FOUND),
    (ConfigError, Exit.CONFIG),
    (Locked, Exit.LOCKED),
)
