"""Who may speak to the server: a bearer token, and only by a name that is its own.

The Host and Origin checks stop a web page from reaching a loopback server through the user's browser (DNS
rebinding; cross-site requests).
"""

from __future__ import annotations

import hmac
import json
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class Guard:
    """ASGI middleware. `/health` needs no token: a supervisor asks it."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, LOOPBACK | hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if fault := self._fault(headers, scope["path"]):
            status, message, code = fault
            body = json.dumps(
                {"error": {"message": message, "type": "invalid_request_error", "code": code}}
            ).encode()
            extra = [(b"www-authenticate", b"Bearer")] if status == 401 else []
            await send(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": [(b"content-type", b"application/json"), *extra],
                }
            )
            await send({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, send)

    def _fault(self, headers: dict[bytes, bytes], path: str) -> tuple[int, str, str] | None:
        host = urlsplit("//" + headers.get(b"host", b"").decode("latin1")).hostname or ""
        if host not in self.hosts:
            return (
                403,
                f"Host {host!r} is not this server's name. Add it with --allow-host.",
                "bad_host",
            )
        origin = headers.get(b"origin")
        if origin is not None and (urlsplit(origin.decode("latin1")).hostname or "") not in self.hosts:
            return 403, "Requests from web pages of other origins are refused.", "bad_origin"
        if self.token is not None and path != "/health":
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                return 401, "Send the server's token as 'Authorization: Bearer TOKEN'.", "invalid_api_key"
        return None
