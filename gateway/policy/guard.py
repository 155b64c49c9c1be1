"""Who may talk to the HTTP endpoint: Host and Origin allow-lists and the bearer token, on every route."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from gateway import jsonrpc, protocol
from gateway.endpoint.stream import Receive, Scope, Send
from gateway.policy.principal import bearer

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
OPEN_PATHS: Final = frozenset({"/healthz"})
"""Served without a token; they say nothing but that the gateway is alive."""

_HEADERS: Final = (
    b"authorization, content-type, accept, last-event-id, mcp-session-id, mcp-protocol-version, "
    b"mcp-method, mcp-name"
)
_PARAM_HEADER: Final = re.compile(rb"mcp-param-[!#$%&'*+.^_`|~0-9a-z-]+", re.IGNORECASE)


class Guard:
    """ASGI middleware. A request passes only when each of its three rules lets it.

    :param token: the bearer token, or None where authentication is switched off.
    :param hosts: host names, besides the loopback ones, that the gateway answers to.
    :param origins: origins, besides those on loopback hosts, whose pages may call it.
    """

    def __init__(self, app: object, token: str | None, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token is not None else None
        self._principal = bearer(token)
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._seen_hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] != "http":
            return
        host = origin = authorization = wanted = b""
        hosts = 0
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
                hosts += 1
            elif name == b"origin":
                origin = value
            elif name == b"authorization":
                authorization = value
            elif name == b"access-control-request-headers":
                wanted = value
        if hosts != 1 or not self._host_allowed(host):
            await refuse(send, 403, "This host name is not served here.", "Add it to allowed_hosts.")
            return
        if origin:
            if not self._origin_allowed(origin):
                await refuse(send, 403, "This origin may not call the gateway.", "Add it to allowed_origins.")
                return
            send = _with_cors(send, origin)
            if scope["method"] == "OPTIONS":
                await send({"type": "http.response.start", "status": 204, "headers": _preflight(wanted)})
                await send({"type": "http.response.body", "body": b""})
                return
        if (
            self._expected is not None
            and not hmac.compare_digest(authorization, self._expected)
            and scope["path"] not in OPEN_PATHS
        ):
            challenge = [(b"www-authenticate", b'Bearer realm="toolyard"')]
            await refuse(
                send,
                401,
                "The bearer token is missing or wrong.",
                "Send the token that 'toolyard serve' shows, or read it from the token file.",
                challenge,
            )
            return
        scope["toolyard.principal"] = self._principal
        await self._app(scope, receive, send)  # type: ignore[operator]

    def _host_allowed(self, value: bytes) -> bool:
        if value in self._seen_hosts:
            return True
        text = value.decode("latin-1").lower()
        name = (
            text[: text.rindex("]") + 1] if text.startswith("[") and "]" in text else text.partition(":")[0]
        )
        if name in self._hosts:
            if len(self._seen_hosts) < 64:
                self._seen_hosts.add(value)
            return True
        return False

    def _origin_allowed(self, value: bytes) -> bool:
        text = value.decode("latin-1").lower().rstrip("/")
        if text in self._origins:
            return True
        try:
            parts = urlsplit(text)
            return parts.scheme in ("http", "https") and (parts.hostname or "") in LOOPBACK
        except ValueError:
            return False


def _preflight(wanted: bytes) -> list[tuple[bytes, bytes]]:
    """What a page may send: our headers, and those that repeat a tool's arguments, named as it asks."""
    return [
        (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", b", ".join([_HEADERS, *_PARAM_HEADER.findall(wanted)])),
        (b"access-control-max-age", b"600"),
    ]


def _with_cors(send: Send, origin: bytes) -> Send:
    extra = [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"mcp-session-id, mcp-protocol-version, www-authenticate"),
        (b"vary", b"origin"),
    ]

    async def wrapped(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]  # type: ignore[misc]
        await send(message)

    return wrapped  # type: ignore[return-value]


async def refuse(
    send: Send, status: int, message: str, hint: str, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer with a JSON-RPC error that has no id (2025-11-25, Transports: Security Warning)."""
    body = jsonrpc.error(None, {"code": protocol.INVALID_REQUEST, "message": f"{message} {hint}"})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
