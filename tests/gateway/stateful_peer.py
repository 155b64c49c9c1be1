"""A stdio server with state of its own: it counts its calls, keeps a resource, and asks for roots.

A ``progress`` call that names a ``gate`` goes on after its first notice once there is a file of this name.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

out = sys.stdout.buffer
told: list[object] = []
count = 0
waiting: list[object] = []
NAMES = ["elicit", "count", "die", "told", "update", "progress"]
if "chatty" in sys.argv:
    NAMES.append("extra")


def send(message: object) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def result(ident: object, value: object) -> None:
    send({"jsonrpc": "2.0", "id": ident, "result": value})


def text(ident: object, value: object) -> None:
    result(ident, {"content": [{"type": "text", "text": json.dumps(value)}]})


def call(ident: object, name: str, arguments: dict[str, Any], meta: dict[str, object]) -> None:
    global count
    if name == "count":
        count += 1
        text(ident, [os.getpid(), count])
    elif name == "elicit":
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        params = {"message": f"Who, of {arguments.get('rounds', 1)}?", "requestedSchema": schema}
        waiting[:] = [ident, int(arguments.get("rounds", 1))]
        send({"jsonrpc": "2.0", "id": f"e{waiting[1]}", "method": "elicitation/create", "params": params})
    elif name == "die":
        os._exit(3)
    elif name == "told":
        text(ident, told)
    elif name == "update":
        send({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "memo://1"}})
        text(ident, "updated")
    elif name == "progress":
        for step in range(int(arguments.get("steps", 1))):
            params = {"progressToken": meta.get("progressToken"), "progress": step}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            while "gate" in arguments and not os.path.exists(str(arguments["gate"])):
                time.sleep(0.01)
        text(ident, "done")


def serve(message: dict[str, object]) -> None:
    ident, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    assert isinstance(params, dict)
    if method == "initialize":
        told.append({"capabilities": params["capabilities"]})
        capabilities = {"tools": {}, "logging": {}, "resources": {"subscribe": True}}
        server = {"name": "stateful", "version": "1"}
        result(ident, {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": server})
    elif method == "notifications/initialized":
        if "asks" in sys.argv:
            send({"jsonrpc": "2.0", "id": "roots", "method": "roots/list"})
    elif method == "notifications/roots/list_changed":
        told.append({"roots": "changed"})
    elif method is None and str(ident).startswith("e"):
        told.append({"answer": message.get("result") or message.get("error")})
        caller, rounds = waiting
        assert isinstance(rounds, int)
        if rounds > 1:
            call(caller, "elicit", {"rounds": rounds - 1}, {})
        else:
            text(caller, message.get("result") or message.get("error"))
    elif method is None:
        told.append({"answer": message.get("result") or message.get("error")})
    elif method == "tools/list":
        result(ident, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in NAMES]})
    elif method == "resources/list":
        result(ident, {"resources": [{"uri": "memo://1", "name": "memo"}]})
    elif method in ("resources/subscribe", "resources/unsubscribe", "logging/setLevel"):
        told.append({method: params.get("uri") or params.get("level")})
        result(ident, {})
    elif method == "tools/call":
        call(ident, str(params["name"]), params.get("arguments") or {}, params.get("_meta") or {})
    elif ident is not None:
        result(ident, {})


for line in sys.stdin.buffer:
    serve(json.loads(line))
