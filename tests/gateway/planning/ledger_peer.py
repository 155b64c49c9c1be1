"""An MCP server on stdio that finds, keeps and is slow; what it keeps goes into a log on disk.

python ledger_peer.py LOG
"""

import json
import sys
import threading
import time

LOG = sys.argv[1]
OBJECT = {"type": "object"}
ID = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
TOOLS = [
    {"name": "find", "inputSchema": OBJECT, "outputSchema": ID, "annotations": {"readOnlyHint": True}},
    {"name": "slow", "inputSchema": OBJECT, "annotations": {"readOnlyHint": True}},
    {"name": "keep", "inputSchema": ID},
]
_lock = threading.Lock()


def send(message):
    with _lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def call(ident, name, arguments):
    if name == "slow":
        time.sleep(arguments.get("seconds", 0.2))
    if name == "keep":
        with open(LOG, "a") as log:
            log.write(f"{arguments['id']}\n")
        time.sleep(arguments.get("seconds", 0))
    value = {"id": 7} if name == "find" else arguments
    send({"id": ident, "result": {"content": [], "structuredContent": value}})


for line in sys.stdin:
    message = json.loads(line)
    method, ident = message.get("method"), message.get("id")
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        info = {"name": "ledger", "version": "1"}
        send(
            {
                "id": ident,
                "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info},
            }
        )
    elif method == "tools/list":
        send({"id": ident, "result": {"tools": TOOLS}})
    elif method == "tools/call":
        asked = message["params"]
        threading.Thread(target=call, args=(ident, asked["name"], asked["arguments"]), daemon=True).start()
    elif ident is not None:
        send({"id": ident, "result": {}})
