"""An MCP server of one era in the standard library alone: it answers with the bytes it is told to.

    python mirror_peer.py stdio|http --era handshake|stateless [--revision 2025-11-25]

- Tool ``mirror``: ``arguments.reply`` is JSON text, sent as the result as it stands; without it the
  result's one text is the line that was received.
- Tool ``ask``: ``arguments.ask`` is the JSON text of a request to the client, ``arguments.times`` how
  often it is asked; the result's one text is the JSON of the client's answer.
- ``resources/read`` of ``<era>:<hex>`` answers with the JSON text that the hex digits spell;
  ``prompts/get`` with that of ``arguments.reply``.
- ``error`` in the arguments, JSON text, is sent as the error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SCHEMA = {"type": "object"}
TOOLS: list[dict[str, Any]] = [
    {"name": "mirror", "inputSchema": SCHEMA, "x-vendor": {"a": 1.50}},
    {"name": "ask", "inputSchema": SCHEMA},
    {"name": "list", "inputSchema": SCHEMA, "outputSchema": {"type": "array"}},
    {"name": "odd", "inputSchema": {"type": "object", "properties": {"any": True, "none": False}}},
]
META = "io.modelcontextprotocol/"
STATELESS = "2026-07-28"
INFO = {"name": "mirror", "version": "1"}
CAPABILITIES = {"tools": {}, "prompts": {}, "resources": {}, "logging": {}, "completions": {}}
Send = Callable[[bytes], None]
ids = itertools.count(1)
waiting: dict[str, queue.Queue[bytes]] = {}
options: argparse.Namespace


def complete(fields: dict[str, Any]) -> bytes:
    """A result of our own, in our era."""
    return json.dumps({"resultType": "complete", **fields} if options.era == "stateless" else fields).encode()


def text(value: str) -> bytes:
    return complete({"content": [{"type": "text", "text": value}]})


def member(line: bytes, *path: str) -> str:
    """The JSON text of a member, as it stands in the line."""
    decoder = json.JSONDecoder()
    source = line.decode()
    for key in path:
        for place in range(len(source)):
            if source.startswith(json.dumps(key) + ":", place):
                source = source[place + len(json.dumps(key)) + 1 :]
                break
    return source[: decoder.raw_decode(source)[1]]


def asked(line: bytes, params: dict[str, Any], send: Send) -> bytes:
    """Put a request to the client in the way of our era, and say what it answered."""
    wanted = params["arguments"]["ask"]
    if options.era == "stateless":
        if "inputResponses" in params:
            return text(member(line, "params", "inputResponses"))
        result = b'{"resultType":"input_required","inputRequests":{"q":%b},"requestState":"s"}'
        return result % wanted.encode()
    ident = f"m{next(ids)}"
    box = waiting[ident] = queue.Queue()
    send(b'{"jsonrpc":"2.0","id":"%b",%b' % (ident.encode(), wanted.encode()[1:]))
    return text(box.get(timeout=60).decode())


def answer(line: bytes, message: dict[str, Any], send: Send) -> bytes:
    """The response to a request."""
    method, params = message["method"], message.get("params") or {}
    ident = json.dumps(message["id"]).encode()
    if options.era == "stateless" and META + "protocolVersion" not in (params.get("_meta") or {}):
        data = {"supported": [STATELESS], "requested": "?"}
        error = json.dumps({"code": -32022, "message": "Unsupported protocol version", "data": data})
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (ident, error.encode())
    arguments = params.get("arguments") or {}
    result = b""
    if "error" in arguments:
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (ident, arguments["error"].encode())
    if method == "initialize" and options.era == "handshake":
        hello = {"protocolVersion": options.revision, "capabilities": CAPABILITIES, "serverInfo": INFO}
        result = json.dumps(hello).encode()
    elif method == "server/discover" and options.era == "stateless":
        hello = {"supportedVersions": [STATELESS], "capabilities": CAPABILITIES, "ttlMs": 0}
        result = complete({**hello, "cacheScope": "private", "_meta": {META + "serverInfo": INFO}})
    elif method == "tools/list":
        result = complete({"tools": TOOLS})
    elif method == "prompts/list":
        result = complete({"prompts": [{"name": "mirrored"}]})
    elif method == "resources/list":
        result = complete({"resources": []})
    elif method == "resources/templates/list":
        result = complete({"resourceTemplates": [{"uriTemplate": options.era + ":{hex}", "name": "mirror"}]})
    elif method == "tools/call" and params["name"] == "ask":
        result = asked(line, params, send)
    elif method == "resources/read":
        result = bytes.fromhex(params["uri"].partition(":")[2])
    elif method in ("tools/call", "prompts/get"):
        result = arguments["reply"].encode() if "reply" in arguments else text(line.decode())
    elif method in ("ping", "logging/setLevel"):
        result = complete({})
    else:
        error = json.dumps({"code": -32601, "message": f"Method not found: {method}"}).encode()
        return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (ident, error)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (ident, result)


def answered(line: bytes, message: dict[str, Any]) -> None:
    """A response of the client's, as it stands."""
    box = waiting.pop(str(message["id"]), None)
    if box is not None:
        box.put(member(line, "result").encode() if "result" in message else b'{"error":1}')


def serve_stdio() -> None:
    """One line a message; each request in a thread of its own."""
    lock = threading.Lock()

    def send(line: bytes) -> None:
        with lock:
            sys.stdout.buffer.write(line.replace(b"\n", b" ") + b"\n")
            sys.stdout.buffer.flush()

    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "method" not in message:
            answered(line, message)
        elif "id" in message:
            threading.Thread(
                target=lambda line=line, message=message: send(answer(line, message, send)), daemon=True
            ).start()


class Handler(BaseHTTPRequestHandler):
    """Streamable HTTP: an event stream where something comes before the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        line = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(line)
        if "method" not in message or "id" not in message:
            if "method" not in message:
                answered(line, message)
            self.plain(202, b"")
            return
        if message["method"] == "subscriptions/listen":
            body = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}
            self.plain(404, json.dumps(body).encode())
            return
        self.streaming = False
        last = answer(line, message, self.send)
        if self.streaming:
            self.send(last)
            self.close_connection = True
        else:
            self.plain(200, last)

    def send(self, line: bytes) -> None:
        if not self.streaming:
            self.streaming = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
        self.wfile.write(b"event: message\ndata: " + line.replace(b"\n", b" ") + b"\n\n")
        self.wfile.flush()

    def plain(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.plain(405, b"")

    def do_DELETE(self) -> None:
        self.plain(204, b"")

    def log_message(self, *_: Any) -> None:
        """Nothing to say."""


def main() -> None:
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("transport", choices=["stdio", "http"])
    parser.add_argument("--era", choices=["handshake", "stateless"], required=True)
    parser.add_argument("--revision", default="2025-11-25")
    options = parser.parse_args()
    if options.transport == "stdio":
        serve_stdio()
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}/mcp", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
