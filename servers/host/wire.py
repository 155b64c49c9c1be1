"""MCP over stdio: one JSON-RPC message a line, both wire eras.

The official SDK is not used here: importing it costs more than the whole second in which a service has to give
its first answer, and a service needs six methods.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import msgspec

HANDSHAKE_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS_VERSIONS: Final = ("2026-07-28",)
META: Final = "io.modelcontextprotocol/"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
UNSUPPORTED_VERSION: Final = -32022

MAX_LINE: Final = 64 << 20
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


class Refused(Exception):
    """A request that cannot be served as sent: a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class Wire:
    """The two streams. Writing is safe from several threads."""

    def __init__(self, source: BinaryIO | None = None, sink: BinaryIO | None = None) -> None:
        self._source = source or sys.stdin.buffer
        self._sink = sink or sys.stdout.buffer
        self._lock = threading.Lock()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Every message until the stream ends; what is no message is answered with an error."""
        for line in self._source:
            if not line.strip():
                continue
            if len(line) > MAX_LINE:
                self.error(None, Refused(INVALID_REQUEST, f"A message is longer than {MAX_LINE >> 20} MiB."))
                continue
            try:
                found = _decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
                self.error(None, Refused(PARSE_ERROR, f"This is no JSON: {problem}"))
                continue
            for message in found if isinstance(found, list) else [found]:
                if isinstance(message, dict):
                    yield message
                else:
                    self.error(None, Refused(INVALID_REQUEST, "A message must be an object."))

    def result(self, ident: Any, result: dict[str, Any]) -> None:
        """Answer a request."""
        self._write({"jsonrpc": "2.0", "id": ident, "result": result})

    def error(self, ident: Any, problem: Refused) -> None:
        """Refuse a request."""
        error: dict[str, Any] = {"code": problem.code, "message": problem.message}
        if problem.data is not None:
            error["data"] = problem.data
        self._write({"jsonrpc": "2.0", "id": ident, "error": error})

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification."""
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def _write(self, message: dict[str, Any]) -> None:
        line = _encode(message) + b"\n"
        with self._lock:
            try:
                self._sink.write(line)
                self._sink.flush()
            except (BrokenPipeError, ValueError):
                return  # the client has left; stdin ends, too, and with it the service


def is_stateless(params: dict[str, Any]) -> bool:
    """Whether a request is of the stateless era: its ``_meta`` names a protocol version.

    :raises Refused: it names one we do not speak.
    """
    meta = params.get("_meta")
    version = meta.get(META + "protocolVersion") if isinstance(meta, dict) else None
    if version is None:
        return False
    if version not in STATELESS_VERSIONS:
        raise Refused(
            UNSUPPORTED_VERSION,
            f"Protocol version '{version}' is not spoken here.",
            {"supported": list(STATELESS_VERSIONS), "requested": version},
        )
    return True
