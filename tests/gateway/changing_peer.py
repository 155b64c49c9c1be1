"""A stdio server whose tools are what a file says at the moment it is asked; standard library only.

``changing_peer.py TOOLS.json``. Every tool answers with its name; ``_notify`` (not listed) makes the
server say that its list has changed, ``_fail`` answers with an error of the tool's own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def send(message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        result: object = {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "changing", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": json.loads(Path(sys.argv[1]).read_text())}
    elif method == "tools/call":
        if params["name"] == "_notify":
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        result = {"content": [{"type": "text", "text": params["name"]}], "isError": params["name"] == "fail"}
    else:
        send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "unknown"}})
        continue
    send({"jsonrpc": "2.0", "id": message["id"], "result": result})
