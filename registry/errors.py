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


class OfficialError(RegistryError):
    """A registry of MCP servers could not be used."""

    kind = "official_error"


class OfficialUnreachable(OfficialError):
    """A registry of MCP servers did not answer, or not in time."""

    kind = "official_unreachable"
    retriable = True


class OfficialRefused(OfficialError):
    """A registry of MCP servers answered with a refusal, or sends one elsewhere."""

    kind = "official_refused"


class OfficialAnswerBad(OfficialError):
    """A registry of MCP servers answered with what its API does not know, or with too much."""

    kind = "official_answer_bad"


class NotPublished(OfficialError):
    """A registry of MCP servers has no server of that name."""

    kind = "not_published"


class BadServerJson(OfficialError):
    """An entry of a registry is no server.json, or none that can be used."""

    kind = "bad_server_json"


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
