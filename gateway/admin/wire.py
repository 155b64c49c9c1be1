"""How the control socket speaks: JSON bodies, lines as they come, and our errors as answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway import jsonrpc, protocol
from gateway.errors import ConfigError, GatewayError, NotFound, RpcError, ToolWithheld
from gateway.jsonrpc import Shallow
from registry.errors import RegistryError


async def body_of(request: Request) -> Shallow:
    """The JSON object a request carries. Raises RpcError."""
    message = jsonrpc.parse(await request.body())
    if isinstance(message, list):
        raise RpcError(protocol.INVALID_REQUEST, "The body must be a JSON object.")
    return message


def json_answer(value: Any, status: int = 200) -> Response:
    """A value as the whole answer."""
    return Response(jsonrpc.encode(value), status, media_type="application/json")


def lines_answer(lines: AsyncIterator[bytes]) -> Response:
    """Values as lines, each sent when it is there."""

    async def terminated() -> AsyncIterator[bytes]:
        async for line in lines:
            yield line + b"\n"

    return StreamingResponse(terminated(), media_type="application/x-ndjson")


def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn our errors into answers."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except (GatewayError, RegistryError) as error:
            fields = {"type": error.kind, "message": error.message, "hint": error.hint}
            return json_answer({"error": fields}, _status(error))

    return answering


def _status(error: Exception) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, ToolWithheld):
        return 403
    if isinstance(error, RpcError):
        return error.status if error.status != 200 else 400
    return 400 if isinstance(error, ConfigError) else 500
