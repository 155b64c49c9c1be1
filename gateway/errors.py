"""The gateway's errors. Each says what was tried, what was wrong and what to do about it."""

from __future__ import annotations

from typing import Any

from gateway import protocol


class GatewayError(Exception):
    """Base of every error the gateway raises on purpose.

    :param message: what was tried and what was wrong, one sentence.
    :param hint: what to do about it, one sentence, or None.
    """

    code: int = protocol.INTERNAL_ERROR
    kind: str = "gateway_error"
    retriable: bool = False

    def __init__(self, message: str, hint: str | None = None, **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def to_error(self) -> dict[str, Any]:
        """The JSON-RPC error object: code, message, and data for programs."""
        data: dict[str, Any] = {"type": self.kind, "retriable": self.retriable, **self.data}
        if self.hint:
            data["hint"] = self.hint
        text = f"{self.message} {self.hint}" if self.hint else self.message
        return {"code": self.code, "message": text, "data": data}


class RpcError(GatewayError):
    """A request of the client's that cannot be served as sent.

    :param status: the HTTP status that goes with it where the transport and era have one.
    """

    kind = "invalid_request"

    def __init__(
        self, code: int, message: str, hint: str | None = None, *, status: int = 200, **data: Any
    ) -> None:
        super().__init__(message, hint, **data)
        self.code = code
        self.status = status

    def to_error(self) -> dict[str, Any]:
        text = f"{self.message} {self.hint}" if self.hint else self.message
        return {"code": self.code, "message": text, **({"data": self.data} if self.data else {})}


class UpstreamError(GatewayError):
    """A call did not reach an upstream server, or no answer came back."""

    kind = "upstream_error"
    retriable = True


class UpstreamUnavailable(UpstreamError):
    """The server is not running, cannot be reached or refused the handshake."""

    kind = "upstream_unavailable"
    pause: float = 0.0
    """Seconds before which another attempt is not worth its cost."""


class UpstreamTimeout(UpstreamError):
    """No answer within the call's time."""

    kind = "upstream_timeout"


class UpstreamProtocolError(UpstreamError):
    """The server answered something that is not MCP."""

    kind = "upstream_protocol_error"
    retriable = False


class ConfigError(GatewayError):
    """A configuration file that cannot be used. The message names file, line and what was expected."""

    kind = "config_error"


class StateError(GatewayError):
    """The state directory cannot be used: locked by another gateway, not writable, wrong owner."""

    kind = "state_error"


class NotFound(GatewayError):
    """A server or tool of that name does not exist."""

    kind = "not_found"


class ToolWithheld(GatewayError):
    """A tool that is known, and not served until a person approves its definition."""

    code = protocol.INVALID_PARAMS
    kind = "tool_withheld"


class NotApproved(UpstreamUnavailable):
    """The command of a server was not approved by a person, so it was not started."""

    kind = "not_approved"
    retriable = False
