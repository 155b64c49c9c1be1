"""A small MCP server on stdio, for the command line to be tried on."""

import json
import sys

TOOLS = [
    {
        "name": "echo",
        "description": "Say it back.\nAnd no more.",
        "inputSchema": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "What to say."}},
            "required": ["text"],
        },
    },
    {"name": "steps", "inputSchema": {"type": "object"}},
    {"name": "mixed", "description": "\x1b[31mRed", "inputSchema": {"type": "object"}},
    {"name": "fails", "inputSchema": {"type": "object"}},
]


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def call(params):
    name, token = params["name"], params.get("_meta", {}).get("progressToken")
    if name == "echo":
        text = json.dumps(params["arguments"]["text"])
        return f'{{"content":[{{"type":"text","text":{text}}}],"n":1.50}}'
    if name == "steps":
        for step in (1, 2):
            fields = {"progressToken": token, "progress": step, "total": 2}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": fields})
        return '{"content":[],"structuredContent":{"done":true}}'
    if name == "mixed":
        return json.dumps(
            {
                "content": [
                    {"type": "text", "text": "plain"},
                    {"type": "image", "data": "AAAA", "mimeType": "image/png"},
                    {"type": "resource_link", "uri": "file:///x", "name": "x"},
                ]
            }
        )
    return '{"content":[{"type":"text","text":"no luck"}],"isError":true}'


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = json.dumps(
            {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "echo-peer", "version": "1.2"},
                "instructions": "Echo kindly.",
            }
        )
    elif message["method"] == "tools/list":
        result = json.dumps({"tools": TOOLS})
    elif message["method"] == "tools/call":
        result = call(message["params"])
    else:
        send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "unknown"}})
        continue
    sys.stdout.write(f'{{"jsonrpc":"2.0","id":{json.dumps(message["id"])},"result":{result}}}\n')
    sys.stdout.flush()
