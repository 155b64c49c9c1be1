"""A stdio server of the handshake era that asks its clients, and serves many calls at a time.

Tools: ``ask`` asks once; ``ask_twice`` asks twice without waiting in between; ``ask_late`` asks when the file
named by its argument ``when`` is there, and where it is refused makes the file ``refused`` and waits for ``after``;
``leave`` asks and goes on although it was cancelled; ``wait`` answers when a file is there; ``pid`` says which
process this is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

TOOLS = ("ask", "ask_twice", "ask_late", "wait", "pid")
waiting: dict[str, asyncio.Future[Any]] = {}
running: dict[Any, asyncio.Task[None]] = {}
level = ""


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


async def ask(about: str) -> str:
    ident = f"q{len(waiting)}"
    future = waiting[ident] = asyncio.get_running_loop().create_future()
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    send(id=ident, method="elicitation/create", params={"message": about, "requestedSchema": schema})
    answer = await future
    if "error" in answer:
        raise PermissionError(answer["error"]["message"])
    return str(answer["result"].get("content", {}).get("name"))


async def there(path: str) -> None:
    while not Path(path).exists():
        await asyncio.sleep(0.01)


async def call(name: str, arguments: dict[str, Any]) -> str:
    who = str(arguments.get("who"))
    if name in ("ask_late", "wait"):
        if "began" in arguments:
            Path(arguments["began"]).touch()
        try:
            await there(arguments["when"])
        except asyncio.CancelledError:
            if not arguments.get("deaf"):
                raise
            await there(arguments["when"])
    if name == "ask_twice":
        asked = [asyncio.ensure_future(ask(f"first of {who}"))]
        await there(arguments["when"])
        asked.append(asyncio.ensure_future(ask(f"second of {who}")))
        return " and ".join(await asyncio.gather(*asked))
    if name in ("ask", "ask_late"):
        try:
            return await ask(f"from {who}")
        except PermissionError:
            if "refused" in arguments:
                Path(arguments["refused"]).touch()
                await there(arguments["after"])
            raise
    return f"{os.getpid()} {level}" if name == "pid" else "waited"


async def serve(ident: Any, params: dict[str, Any]) -> None:
    try:
        text = await call(params["name"], params.get("arguments") or {})
    except PermissionError as error:
        send(id=ident, error={"code": -32603, "message": str(error)})
    else:
        send(id=ident, result={"content": [{"type": "text", "text": text}]})
    finally:
        running.pop(ident, None)


async def main() -> None:
    global level
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        message = json.loads(line)
        ident, method, params = message.get("id"), message.get("method"), message.get("params") or {}
        if method is None:
            if not waiting[ident].done():
                waiting[ident].set_result(message)
        elif method == "initialize":
            info = {"name": "asking", "version": "1"}
            capabilities: dict[str, Any] = {"tools": {}, "logging": {}}
            send(
                id=ident,
                result={"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info},
            )
        elif method == "tools/call":
            running[ident] = asyncio.create_task(serve(ident, params))
        elif method == "notifications/cancelled":
            if task := running.get(params.get("requestId")):
                task.cancel()
        elif method == "logging/setLevel":
            level = params["level"]
            send(id=ident, result={})
        elif method == "tools/list":
            send(id=ident, result={"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in TOOLS]})
        elif ident is not None:
            send(id=ident, error={"code": -32601, "message": f"Method not found: {method}"})


asyncio.run(main())
