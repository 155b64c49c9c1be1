"""The registry's errors. Each says what was tried, what was wrong and what to do about it."""

from __future__ import annotations


class RegistryError(Exception):
    """Base of every error the registry raises on purpose.

    :param message: what was tried and what was wrong, one sentence.
    :param hint: what to do about it, one sentence, or None.
    """

    kind: str = "registry_error"
    retriable: bool = False

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint


class StoreError(RegistryError):
    """The store could not be opened, read or written."""

    kind = "store_error"


class StoreMissing(StoreError):
    """There is no database yet: no gateway has run on this state directory."""

    kind = "store_missing"


class StoreNewer(StoreError):
    """The database was written by a later version of the product."""

    kind = "store_newer"


class StoreOutdated(StoreError):
    """The database needs an upgrade, and was opened for reading only."""

    kind = "store_outdated"


class StoreDamaged(StoreError):
    """The file is no database, is not ours, or holds something that cannot be read back."""

    kind = "store_damaged"


class StoreBusy(StoreError):
    """Another process held the write lock for longer than we wait."""

    kind = "store_busy"
    retriable = True


class UnknownServer(StoreError):
    """A catalog or an approval names a server that is not in the store."""

    kind = "unknown_server"
