"""A client of one revision, over HTTP, that sends and shows the bytes of messages."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from yard import TOKEN, WAIT

META = "io.modelcontextprotocol/"
STATELESS = "2026-07-28"
CAPABILITIES = {"sampling": {}, "elicitation": {"form": {}, "url": {}}}
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def exact(text: str | bytes) -> Any:
    """JSON as Python values in which numbers are spelled as they were."""
    return json.loads(text, parse_float=lambda s: ("number", s), parse_int=lambda s: ("number", s))


def member(line: str, *path: str) -> str:
    """The JSON text of a member as it stands in a message, whose keys on the way stand there once."""
    decoder = json.JSONDecoder()
    for key in path:
        line = line[line.index(f'"{key}":') + len(key) + 3 :]
    return line[: decoder.raw_decode(line)[1]]


class RawCaller:
    """Speaks one revision; of the handshake era it is one session.

    :param answer: the JSON text of the result for a request it is sent.
    """

    def __init__(self, url: str, revision: str, capabilities: dict[str, Any] | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._address = (parts.hostname, parts.port)
        self._connection = http.client.HTTPConnection(*self._address, timeout=WAIT)
        self._ids = itertools.count(1)
        self.revision = revision
        self.capabilities = CAPABILITIES if capabilities is None else capabilities
        self.answer: Callable[[dict[str, Any]], str] = lambda message: "{}"
        self.seen: list[str] = []
        self._headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if not self.stateless:
            hello = {"protocolVersion": revision, "capabilities": self.capabilities}
            hello["clientInfo"] = {"name": "raw", "version": "0"}
            self.initialized = json.loads(self.request("initialize", json.dumps(hello)))
            self.notify("notifications/initialized")

    @property
    def stateless(self) -> bool:
        return self.revision == STATELESS

    def own_meta(self) -> dict[str, Any]:
        """What each request of 2026-07-28 says of the client."""
        return {
            f"{META}protocolVersion": STATELESS,
            f"{META}clientInfo": {"name": "raw", "version": "0"},
            f"{META}clientCapabilities": self.capabilities,
        }

    def params(self, fields: dict[str, str], meta: dict[str, str] | None = None) -> str:
        """Params as JSON text, of members that are JSON text; ``_meta`` as the revision wants it."""
        whole = dict(meta or {})
        if self.stateless:
            whole |= {key: json.dumps(value) for key, value in self.own_meta().items()}
        if whole or meta is not None:
            fields = {**fields, "_meta": spell(whole)}
        return spell(fields)

    def request(self, method: str, params: str = "{}") -> str:
        """The text of the answer; what comes before it is answered, and kept in ``seen``."""
        body = f'{{"jsonrpc":"2.0","id":{next(self._ids)},"method":"{method}","params":{params}}}'
        return self.post(body, self._mirrored(method, params))[1]

    def _mirrored(self, method: str, params: str) -> dict[str, str]:
        if not self.stateless:
            return {}
        headers = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method}
        if field := _NAMED.get(method):
            headers["Mcp-Name"] = json.loads(params)[field]
        return headers

    def notify(self, method: str, params: str = "{}") -> None:
        self.post(f'{{"jsonrpc":"2.0","method":"{method}","params":{params}}}', {})

    def post(self, body: str, headers: dict[str, str]) -> tuple[int, str]:
        """Status, and the text of the last message."""
        connection = self._connection
        connection.request("POST", "/mcp", body.encode(), {**self._headers, **headers})
        response = connection.getresponse()
        if session := response.headers.get("mcp-session-id"):
            self._headers |= {"Mcp-Session-Id": session, "Mcp-Protocol-Version": self.revision}
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            return response.status, response.read().decode()
        last = ""
        while line := response.readline():
            if not line.startswith(b"data:") or not line[5:].strip():
                continue
            last = line[5:].strip().decode()
            message = json.loads(last)
            if "method" in message:
                self.seen.append(last)
                if "id" in message:
                    self._reply(message)
        return response.status, last

    def _reply(self, message: dict[str, Any]) -> None:
        body = f'{{"jsonrpc":"2.0","id":{json.dumps(message["id"])},"result":{self.answer(message)}}}'
        aside = http.client.HTTPConnection(*self._address, timeout=WAIT)
        aside.request("POST", "/mcp", body.encode(), self._headers)
        aside.getresponse().read()
        aside.close()

    def close(self) -> None:
        self._connection.close()


def spell(fields: dict[str, str]) -> str:
    """An object of members that are JSON text."""
    return "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in fields.items()) + "}"
