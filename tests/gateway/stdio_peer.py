"""A stdio server that misbehaves as it is told; standard library only, so that it starts at once.

``stdio_peer.py [WORD…]``: every word is a way to misbehave from the start; the tools misbehave when called.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

WORDS = set(sys.argv[1:])
lock = threading.Lock()
out = sys.stdout.buffer
cancelled: list[object] = []
calls: list[str] = []
answers: list[object] = []
asking: list[object] = []
listed: list[float] = []


def write(data: bytes) -> None:
    with lock:
        out.write(data)
        out.flush()


def send(message: object) -> None:
    write(json.dumps(message).encode() + b"\n")


def result(ident: object, value: object) -> None:
    send({"jsonrpc": "2.0", "id": ident, "result": value})


def text(ident: object, value: object) -> None:
    result(
        ident, {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}
    )


def tool(name: str) -> dict[str, object]:
    return {"name": name, "inputSchema": {"type": "object"}}


TOOLS = [
    tool(name)
    for name in [
        "echo",
        "sleep",
        "hold",
        "die",
        "exit_quietly",
        "garbage",
        "binary",
        "stderr_flood",
        "long_line",
        "twice",
        "wrong_id",
        "never",
        "ask",
        "sample",
        "close_stdout",
        "deaf",
        "log",
        "progress",
        "storm",
        "seen",
        "pid",
        "grandchild",
        "big",
        "rpc_error",
        "bad_notifications",
        "huge_id",
        "spam",
    ]
]


def call(ident: object, name: str, arguments: dict[str, object], meta: dict[str, object]) -> None:
    calls.append(name)
    if name == "echo":
        text(ident, arguments)
    elif name == "sleep":
        threading.Timer(float(arguments.get("seconds", 1)), text, (ident, "slept")).start()
    elif name == "hold":
        threading.Thread(target=hold, args=(ident, str(arguments["gate"])), daemon=True).start()
    elif name == "die":
        sys.stderr.write("I die of " + str(arguments.get("cause", "boredom")))
        sys.stderr.flush()
        os._exit(3)
    elif name == "garbage":
        write(b'Hello, I am a print statement\n\n{not json\n[]\n[1,2]\n42\nnull\n{"a":1}\n')
        write(json.dumps({"jsonrpc": "2.0", "id": ident, "result": {"content": []}}).encode()[:-2])
        write(b"}}\nand after\n")
    elif name == "binary":
        write(b"\xff\xfe\x00\x80 nonsense \xc3\x28\n")
        text(ident, "fine")
    elif name == "stderr_flood":
        line = b"x" * 99 + b"\n"
        for _ in range(50 * 1024 * 1024 // 102400):
            os.write(2, line * 1024)
        text(ident, "flooded")
    elif name == "long_line":
        block = b"y" * (1 << 20)
        with lock:
            for _ in range(100):
                out.write(block)
            out.write(b"\n")
            out.flush()
        text(ident, "after")
    elif name == "twice":
        text(ident, "first")
        text(ident, "second")
    elif name == "wrong_id":
        for wrong in (999999, str(ident), None, 1.5, {"a": 1}, True, -1):
            text(wrong, "wrong")
        text(ident, "right")
    elif name == "huge_id":
        write(b'{"jsonrpc":"2.0","id":' + b"9" * 6000 + b',"result":{}}\n')
        token = b'"params":{"progress":1,"progressToken":' + b"9" * 6000 + b"}"
        write(b'{"jsonrpc":"2.0","method":"notifications/progress",' + token + b"}\n")
        text(ident, "right")
    elif name == "ask":
        send({"jsonrpc": "2.0", "id": "p1", "method": "ping"})
        asking.append(ident)
    elif name == "sample":
        send({"jsonrpc": "2.0", "id": 77, "method": "sampling/createMessage", "params": {}})
        asking.append(ident)
    elif name == "close_stdout":
        os.close(1)
    elif name == "deaf":
        text(ident, "deaf")
        time.sleep(3600)
    elif name == "log":
        for level in ("debug", "error"):
            params = {"level": level, "data": "line"}
            send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
        text(ident, "logged")
    elif name == "progress":
        for step in range(int(arguments.get("steps", 3))):
            params = {"progressToken": meta.get("progressToken"), "progress": step}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        text(ident, "done")
    elif name == "spam":
        params = {"progressToken": meta.get("progressToken"), "progress": 1, "message": "z" * 20000}
        line = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()
        for _ in range(int(arguments.get("times", 1))):
            write(line + b"\n")
        text(ident, "spammed")
    elif name == "bad_notifications":
        for params in ([], "text", 5, None, {"progressToken": []}, {"progressToken": None}):
            for method in (
                "notifications/progress",
                "notifications/message",
                "notifications/resources/updated",
            ):
                send({"jsonrpc": "2.0", "method": method, "params": params})
        send({"jsonrpc": "2.0", "method": 5})
        send({"jsonrpc": "2.0", "method": None, "id": None})
        send({"jsonrpc": "2.0", "method": "notifications/progress"})
        send({"jsonrpc": "2.0", "id": 0.5, "method": "notifications/message"})
        text(ident, "survived")
    elif name == "storm":
        for _ in range(int(arguments.get("times", 1000))):
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        text(ident, "stormed")
    elif name == "seen":
        text(ident, {"cancelled": cancelled, "calls": calls, "lists": listed})
    elif name == "pid":
        text(ident, str(os.getpid()))
    elif name == "grandchild":
        code = "import signal,time;signal.signal(15,signal.SIG_IGN);signal.signal(1,signal.SIG_IGN);time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
        text(ident, str(child.pid))
    elif name == "big":
        text(ident, "b" * int(arguments.get("bytes", 1 << 20)))
    elif name == "rpc_error":
        error = {"code": -31999, "message": "no", "data": {"deep": [1, {"x": None}]}, "extra": 1.50}
        send({"jsonrpc": "2.0", "id": ident, "error": error})


def until_there_is(gate: str) -> None:
    """Wait for a file of this name."""
    while not os.path.exists(gate):
        time.sleep(0.01)


def hold(ident: object, gate: str) -> None:
    until_there_is(gate)
    text(ident, "held")


def serve(message: dict[str, object]) -> None:
    ident, method = message.get("id"), message.get("method")
    params = message.get("params") or {}
    assert isinstance(params, dict)
    if method is None:
        answers.append(message)
        if asking:
            text(asking.pop(), answers)
    elif method == "initialize":
        if "hang" in WORDS:
            return
        if "refuse" in WORDS:
            send({"jsonrpc": "2.0", "id": ident, "error": {"code": -32000, "message": "go away"}})
            return
        capabilities: dict[str, object] = {"tools": {"listChanged": True}, "logging": {}}
        if "prompts" in WORDS:
            capabilities["prompts"] = {}
        value = {
            "protocolVersion": "2025-11-25",
            "capabilities": capabilities,
            "serverInfo": {"name": "peer"},
        }
        result(ident, {**value, "instructions": "Be kind."})
    elif method == "tools/list":
        listed.append(time.monotonic())
        if "silent_list" in WORDS:
            return
        for word in WORDS:
            if word.startswith("list_after:"):
                until_there_is(word.partition(":")[2])
        if "endless" in WORDS:
            result(ident, {"tools": [tool(f"t{len(listed)}")], "nextCursor": f"c{len(listed)}"})
        elif "loop" in WORDS:
            result(ident, {"tools": [tool("echo")], "nextCursor": "again"})
        elif "malformed" in WORDS:
            odd = [tool("echo"), None, 5, [], {}, {"name": 7}, {"name": None}, tool("echo"), tool(""), tool("a b/ü.\U0001f600"),
                   tool("n" * 4096), tool("x\u0000y"), {"name": "no_schema"}, tool("sleep")]  # fmt: skip
            result(ident, {"tools": odd})
        else:
            if "restless" in WORDS:
                send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            result(ident, {"tools": TOOLS})
    elif method == "prompts/list":
        send({"jsonrpc": "2.0", "id": ident, "error": {"code": -32601, "message": "not really"}})
    elif method == "tools/call":
        meta = params.get("_meta") or {}
        arguments = params.get("arguments") or {}
        assert isinstance(meta, dict)
        assert isinstance(arguments, dict)
        call(ident, str(params.get("name")), arguments, meta)
    elif method == "notifications/cancelled":
        cancelled.append(params)
    elif method == "notifications/initialized":
        if "short_lived" in WORDS:
            started()
            os._exit(4)
    elif ident is not None:
        result(ident, {})


def started() -> None:
    """Leave in the log when this was."""
    sys.stderr.write(f"started at {time.monotonic()}\n")
    sys.stderr.flush()


def main() -> None:
    if "stubborn" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "brood" in WORDS:
        code = "import signal,time;signal.signal(15,signal.SIG_IGN);time.sleep(600)"
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
    if "dead" in WORDS:
        started()
        sys.stderr.write("cannot find my shoes\n")
        sys.exit(7)
    if "chatty" in WORDS:
        write(b"Starting up...\n\n\xff\xff\n{\n")
    if "mute" in WORDS:
        time.sleep(3600)
    for line in sys.stdin.buffer:
        serve(json.loads(line))
        if "noisy" in WORDS:
            write(b"DEBUG handled a line\n")
    if "stubborn" in WORDS:
        time.sleep(600)
    os._exit(0)


main()
