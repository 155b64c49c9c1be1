"""Our catalog as a registry of MCP servers: GET ``/v0.1/servers`` and what is below it.

The paths and answers are those of the MCP registry's OpenAPI (2025-12-01). Who may ask, under which
host name and from which page is decided before it, for these paths as for every other.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from gateway import jsonrpc
from registry.errors import BadFilter, RegistryError

if TYPE_CHECKING:
    from registry.official.publish import Published

PREFIX: Final = "/v0.1/"
_LIST: Final = re.compile(r"/v0\.1/servers/?")
_SERVER: Final = re.compile(r"/v0\.1/servers/([^/]+/[^/]+)/versions(?:/(.+))?")
_NOT_FOUND: Final = {"error": "Server not found"}


class Subregistry:
    """ASGI application for the paths below ``/v0.1/``.

    :param listed: every server that is listed, by name; asked on each request, it reads the store.
    """

    def __init__(self, listed: Callable[[], Awaitable[list[Published]]]) -> None:
        self._listed = listed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, {"error": "This registry can only be read."}, [(b"allow", b"GET, HEAD")])
            return
        try:
            status, value = await self._get(scope)
        except BadFilter as error:
            status, value = 400, {"error": str(error)}
        except RegistryError as error:
            status, value = 503, {"error": str(error)}
        await _answer(send, status, value)

    async def _get(self, scope: Any) -> tuple[int, dict[str, Any]]:
        from registry.official import publish

        path = unquote(scope["raw_path"].partition(b"?")[0].decode("latin-1"))
        found = _SERVER.fullmatch(path)
        if found is None and not _LIST.fullmatch(path):
            return 404, {"error": "There is nothing at this path."}
        try:
            pairs = parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=20)
        except ValueError:
            raise BadFilter("There are more than 20 fields in the query.") from None
        query = publish.Query.parse(dict(pairs))
        entries = await self._listed()
        if found is None:
            return 200, publish.page(entries, query)
        name, version = found.groups()
        one = next((entry for entry in entries if entry.name == name), None)
        if one is None or version not in (None, "latest", one.version):
            return 404, _NOT_FOUND
        if version is None:
            return 200, {"servers": [one.value], "metadata": {"count": 1}}
        return 200, one.value


async def _answer(send: Any, status: int, value: Any, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    body = jsonrpc.encode(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *(extra or ())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
