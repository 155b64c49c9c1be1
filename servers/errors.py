"""Errors of conversion and hosting. Each says what was tried, what was wrong and what to do about it."""

from __future__ import annotations


class ServersError(Exception):
    """Base of every error this package raises on purpose.

    :param message: what was tried and what was wrong, one sentence.
    :param hint: what to do about it, one sentence, or None.
    """

    kind: str = "servers_error"

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class SourceError(ServersError):
    """The thing to convert cannot be found, fetched or understood."""

    kind = "source_error"


class EnvironmentFailed(ServersError):
    """The service's environment cannot be resolved, built or mended."""

    kind = "environment_failed"


class IndexUnreachable(EnvironmentFailed):
    """The package index did not answer; trying in another way would not help."""

    kind = "index_unreachable"


class ManifestError(ServersError):
    """A manifest file that cannot be read or does not follow its schema."""

    kind = "manifest_error"


class WorkerFailed(ServersError):
    """The process that runs converted code did not start, died, or did not answer."""

    kind = "worker_failed"


class SandboxUnavailable(ServersError):
    """This machine cannot give the sandbox level that is asked for."""

    kind = "sandbox_unavailable"


class ConversionFailed(ServersError):
    """Nothing usable came out of a conversion."""

    kind = "conversion_failed"
