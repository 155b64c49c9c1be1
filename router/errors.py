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


class JournalError(RouterError):
    """The journal could not be opened, read or written."""

    kind = "journal_error"


class JournalNewer(JournalError):
    """A later version of the product wrote the journal."""

    kind = "journal_newer"


class JournalDamaged(JournalError):
    """The journal holds something that cannot be read back."""

    kind = "journal_damaged"


class RunLost(JournalError):
    """Another process runs it; what this one still wanted to write was refused."""

    kind = "run_lost"


class UnknownRun(RouterError):
    """There is no run, step or result of that name."""

    kind = "unknown_run"
