"""The router's errors. Each says what was tried, what was wrong and what to do about it."""

from __future__ import annotations


class RouterError(Exception):
    """Base of every error the router raises on purpose.

    :param message: what was tried and what was wrong, one sentence.
    :param hint: what to do about it, one sentence, or None.
    """

    kind: str = "router_error"
    retriable: bool = False

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint


class BadRequest(RouterError):
    """A request that cannot be grounded: empty, or with bounds that cannot be."""

    kind = "bad_request"
