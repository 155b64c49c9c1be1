"""A stdio server whose tools stand in a JSON file; standard library only, so that it starts at once.

``shelf_peer.py FILE``. The tool ``restock`` tells the client that the file has changed. Every other tool
answers with its name and arguments, unless its name says something else: ``ask_first`` elicits before it
answers, ``slow`` reports progress and waits to be cancelled, ``fail`` answers with an error of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(sys.argv[1])
waiting: dict[Any, Any] = {}
calls: list[str] = []


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(ident: Any, value: Any, **more: Any) -> None:
    result = {"content": [{"type": "text", "text": json.dumps(value)}], **more}
    send({"id": ident, "result": result})


def call(ident: Any, params: dict[str, Any]) -> None:
    name, arguments = params["name"], params.get("arguments")
    if name != "calls":
        calls.append(name)
    if name == "restock":
        send({"method": "notifications/tools/list_changed"})
        text(ident, "restocked")
    elif name == "calls":
        text(ident, calls)
    elif name == "ask_first":
        waiting["q1"] = ident
        question = {"message": "Which?", "requestedSchema": {"type": "object", "properties": {}}}
        send({"id": "q1", "method": "elicitation/create", "params": question})
    elif name == "slow":
        token = (params.get("_meta") or {}).get("progressToken")
        waiting[ident] = True
        send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    elif name == "fail":
        text(ident, "it did not work", isError=True)
    else:
        text(ident, {"tool": name, "arguments": arguments})


for line in sys.stdin:
    message = json.loads(line)
    ident, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if method == "initialize":
        able = {"tools": {"listChanged": True}, "resources": {}, "prompts": {}}
        send(
            {
                "id": ident,
                "result": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": able,
                    "serverInfo": {"name": "shelf"},
                    "instructions": "Put everything back.",
                },
            }
        )
    elif method == "tools/list":
        send({"id": ident, "result": {"tools": json.loads(FILE.read_text())}})
    elif method == "resources/list":
        send({"id": ident, "result": {"resources": [{"uri": f"shelf://{FILE.stem}", "name": "shelf"}]}})
    elif method == "resources/read" and params["uri"] != f"shelf://{FILE.stem}":
        send({"id": ident, "error": {"code": -32002, "message": "not on this shelf"}})
    elif method == "resources/templates/list":
        send({"id": ident, "result": {"resourceTemplates": []}})
    elif method == "prompts/list":
        send({"id": ident, "result": {"prompts": [{"name": "tidy"}]}})
    elif method == "tools/call":
        call(ident, params)
    elif method == "notifications/cancelled":
        calls.append("cancelled")
    elif method is None and "q1" in waiting:
        text(waiting.pop("q1"), {"answered": message.get("result")})
    elif ident is not None:
        send({"id": ident, "result": {}})
