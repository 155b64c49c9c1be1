"""The one exception family of the package: what was tried, what was wrong, what to do."""

from __future__ import annotations


class InferenceError(Exception):
    """Base of every error that this package raises on purpose."""


class CheckpointError(InferenceError):
    """A model folder cannot be used; the message names the file or tensor."""


class UnsupportedModelError(CheckpointError):
    """The checkpoint is whole, but asks for something that this engine does not compute."""


class BadRequestError(InferenceError):
    """The caller's input is wrong and will be wrong again (HTTP 4xx).

    `param` names the offending field of the request, `code` is a stable machine-readable word.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextTooLongError(BadRequestError):
    """Prompt plus wanted output exceed the model's context or the whole KV cache."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="messages", code="context_length_exceeded")


class GrammarError(BadRequestError):
    """A JSON Schema, regex or grammar cannot be compiled."""

    def __init__(self, message: str) -> None:
        super().__init__(message, param="response_format", code="invalid_grammar")


class QueueFullError(InferenceError):
    """Too many requests wait; `retry_after` is an honest guess in seconds (HTTP 429)."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CacheIntegrityError(InferenceError):
    """The KV cache's books do not balance: a bug of ours, never the caller's fault."""


class KernelError(InferenceError):
    """A kernel cannot be built or run on this machine."""


class EngineStoppedError(InferenceError):
    """The engine is shutting down or has died; the request was not (fully) served."""
