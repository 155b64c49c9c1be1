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


class SearchError(RegistryError):
    """Search by meaning, or a part of it, could not be had."""

    kind = "search_error"


class ModelMissing(SearchError):
    """The model, or a library that runs it, is not installed."""

    kind = "model_missing"


class WeightsWrong(SearchError):
    """The model's files are not the ones they claim to be."""

    kind = "weights_wrong"


class ExportFailed(SearchError):
    """The model could not be turned into the form that runs in the gateway."""

    kind = "export_failed"


class IndexDamaged(SearchError):
    """A derived index file, or a stored vector, is not what was written."""

    kind = "index_damaged"


class BadFilter(RegistryError):
    """A search was asked with limits or filters that cannot be."""

    kind = "bad_filter"


class BadToolset(RegistryError):
    """A toolset was written in a way that cannot be used."""

    kind = "bad_toolset"
