"""The least of an MCP client: one handshake-era session on one keep-alive connection.

It does as little as it can, so that what is measured is the other side.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

VERSION = "2025-11-25"
LIMIT = 64 * 1024 * 1024
WAIT = 60.0


class WrongAnswer(Exception):
    """The other side answered, but not what was asked for."""


class Session:
    """Opened and closed as a context manager; serves one request at a time."""

    def __init__(self, url: str, prefix: str = "", token: str | None = None) -> None:
        self._url = urlsplit(url)
        self._prefix = prefix
        self._fields = {
            "Host": self._url.netloc,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if token is not None:
            self._fields["Authorization"] = f"Bearer {token}"
        self._set_head()
        self._ident = 0

    def _set_head(self) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self._fields.items())
        self._head = f"POST {self._url.path} HTTP/1.1\r\n{lines}Content-Length: ".encode()

    async def __aenter__(self) -> Session:
        async with asyncio.timeout(WAIT):
            self._reader, self._writer = await asyncio.open_connection(
                self._url.hostname, self._url.port, limit=LIMIT
            )
            hello = {
                "protocolVersion": VERSION,
                "capabilities": {},
                "clientInfo": {"name": "benchmark", "version": "1"},
            }
            await self.request("initialize", hello)
            self._fields["MCP-Protocol-Version"] = VERSION
            self._set_head()
            await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def request(self, method: str, params: Any) -> Any:
        """The result. Raises WrongAnswer."""
        self._ident += 1
        answer = await self._post({"jsonrpc": "2.0", "id": self._ident, "method": method, "params": params})
        if not isinstance(answer, dict) or answer.get("id") != self._ident or "result" not in answer:
            raise WrongAnswer(f"{method}: {str(answer)[:300]}")
        return answer["result"]

    async def call(self, tool: str, arguments: dict[str, Any], size: int | None = None) -> None:
        """A tools/call whose answer is checked: an echo for its text, else for its size."""
        result = await self.request("tools/call", {"name": self._prefix + tool, "arguments": arguments})
        text = result["content"][0]["text"]
        if result.get("isError") or (len(text) != size if size is not None else text != arguments["text"]):
            raise WrongAnswer(f"{tool}: {text[:300]}")

    async def _post(self, message: Any) -> Any:
        body = json.dumps(message, separators=(",", ":")).encode()
        self._writer.write(self._head + b"%d\r\n\r\n%b" % (len(body), body))
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, *lines = head.rstrip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if session := fields.get("mcp-session-id"):
            self._fields["Mcp-Session-Id"] = session
            self._set_head()
        if fields.get("transfer-encoding") == "chunked":
            data = await self._chunks()
        else:
            data = await self._reader.readexactly(int(fields.get("content-length", "0")))
        if status.split()[1] not in ("200", "202"):
            raise WrongAnswer(f"{status}: {data[:300]!r}")
        if fields.get("content-type", "").startswith("text/event-stream"):
            events = [line[5:] for line in data.splitlines() if line.startswith(b"data:")]
            data = next((event for event in events if b'"id"' in event), b"")
        return json.loads(data) if data else None

    async def _chunks(self) -> bytes:
        parts = []
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")
        return b"".join(parts)
