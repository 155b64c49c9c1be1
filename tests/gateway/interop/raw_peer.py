"""An MCP server over stdio in the standard library alone: it says exactly the bytes it is told to.

    python raw_peer.py [--tools N] [--result FILE] [--heard FILE] [--dead FILE] [--definition JSON]

Tools: ``raw`` answers with the bytes of FILE as its result; ``hold`` answers once somebody has
written into the FIFO it is given; ``tNNN`` are many. What it is sent is appended to the file
``--heard``. While the file ``--dead`` exists it ends as soon as it is started.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import Any


def definitions(options: argparse.Namespace) -> list[bytes]:
    tools = [
        b'{"name":"raw","inputSchema":{"type":"object"}}',
        b'{"name":"hold","inputSchema":{"type":"object"}}',
    ]
    if options.definition:
        tools.append(options.definition.encode())
    for number in range(options.tools):
        schema = {"type": "object", "properties": {"id": {"type": "string", "description": f"No. {number}"}}}
        tool = {"name": f"t{number:03}", "description": "One of many.", "inputSchema": schema}
        tools.append(json.dumps(tool).encode())
    return tools


class Peer:
    """Answers one line at a time; what may block has a thread of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._lock = threading.Lock()

    def run(self) -> None:
        for line in sys.stdin.buffer:
            if self._options.heard:
                with open(self._options.heard, "ab") as heard:
                    heard.write(line)
            message = json.loads(line)
            if "id" in message:
                threading.Thread(target=self._serve, args=(message,), daemon=True).start()

    def _serve(self, message: dict[str, Any]) -> None:
        kind, value = self._answer(message["method"], message.get("params", {}))
        with self._lock:
            sys.stdout.buffer.write(b'{"jsonrpc":"2.0","id":%d,"%b":%b}\n' % (message["id"], kind, value))
            sys.stdout.buffer.flush()

    def _answer(self, method: str, params: dict[str, Any]) -> tuple[bytes, bytes]:
        if method == "initialize":
            result = {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "0"},
            }
            return b"result", json.dumps(result).encode()
        if method == "tools/list":
            return b"result", b'{"tools":[%b]}' % b",".join(definitions(self._options))
        if method == "tools/call" and params["name"] == "raw":
            return b"result", Path(self._options.result).read_bytes()
        if method == "tools/call" and params["name"] == "hold":
            text = Path(params["arguments"]["fifo"]).read_text()
            return b"result", json.dumps({"content": [{"type": "text", "text": text}]}).encode()
        if method == "tools/call":
            return b"result", b'{"content":[{"type":"text","text":"one of many"}]}'
        return b"error", b'{"code":-32601,"message":"Method not found"}'


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tools", type=int, default=0)
    for name in ("--result", "--heard", "--dead", "--definition"):
        parser.add_argument(name)
    options = parser.parse_args()
    if options.dead and Path(options.dead).exists():
        sys.exit(1)
    Peer(options).run()


if __name__ == "__main__":
    main()
