"""An MCP server that misbehaves on command, over stdio or HTTP; standard library alone.

    python fault_server.py stdio [--start MODE] [--start-file FILE] [--log FILE] [--brood]
    python fault_server.py http --port N [--log FILE]

Its tool ``do`` takes a ``mode`` and carries it out; ``echo`` and ``sleep`` always behave, and ``sleep`` with
``gate`` ends once there is a file of this name. MODE is what happens at start: ``ok``, ``dead`` (exit at
once), ``hang`` (never answer), ``gate:FILE`` (answer the handshake once there is such a file), ``brief``
(exit after the handshake). A start file holds the mode instead, so that it can change between two starts.
The log gets a line per call that was carried out, and per start.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = "2025-11-25"
MIB = 1 << 20
TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": name != "do"}}
    for name in ("do", "echo", "sleep")
]
SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]


class FaultServer:
    """What both transports share: the answers, and the faults that need no transport."""

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self.deaf = False
        self.output = asyncio.Lock()
        self.note(f"start {os.getpid()}")

    def note(self, line: str) -> None:
        if self._log is not None:
            with open(self._log, "a") as file:
                file.write(line + "\n")

    def offspring(self, new_session: bool) -> int:
        """A grandchild that ignores the end of everything."""
        return subprocess.Popen(
            SLEEPER, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=new_session
        ).pid

    async def tool(self, name: str, arguments: dict[str, Any]) -> str | None:
        """The text of a tool's answer; None where there shall be none."""
        self.note(f"call {name} {arguments.get('text', '')}")
        mode = arguments.get("mode", name)
        if mode == "sleep" and "gate" in arguments:
            await opened(arguments["gate"])
        elif mode == "sleep":
            await asyncio.sleep(float(arguments.get("seconds", 1)))
        elif mode == "hang":
            return None
        elif mode == "deaf":
            self.deaf = True
            return None
        elif mode == "exit":
            os._exit(3)
        elif mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif mode == "huge":
            return "x" * (int(arguments.get("mib", 64)) * MIB - 4096)
        elif mode == "flood-stderr":
            block = b"the sky is falling\n" * 4096
            for _ in range(int(arguments.get("mib", 16)) * MIB // len(block)):
                os.write(2, block)
                await asyncio.sleep(0)
        elif mode == "pid":
            return str(os.getpid())
        elif mode in ("child", "setsid"):
            return str(self.offspring(mode == "setsid"))
        return str(arguments.get("text", "done"))

    async def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The response to a request, or None."""
        method, ident = message.get("method"), message.get("id")
        if ident is None or method is None or self.deaf:
            return None
        result: dict[str, Any] = {}
        if method == "initialize":
            info = {"name": "fault-server", "version": "1"}
            result = {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": info}
        elif method == "tools/list":
            result = {"tools": TOOLS}
        elif method == "tools/call":
            params = message["params"]
            text = await self.tool(params["name"], params.get("arguments") or {})
            if text is None:
                return None
            result = {"content": [{"type": "text", "text": text}]}
        elif method != "ping":
            error = {"code": -32601, "message": f"no method {method}"}
            return {"jsonrpc": "2.0", "id": ident, "error": error}
        return {"jsonrpc": "2.0", "id": ident, "result": result}


async def opened(gate: str) -> None:
    """Until there is a file of this name."""
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)


# stdio


async def serve_stdio(server: FaultServer, start: str) -> None:
    """Until stdin ends."""
    loop = asyncio.get_running_loop()
    if start == "dead":
        print("I would rather not", file=sys.stderr, flush=True)
        os._exit(2)
    reader = asyncio.StreamReader(limit=128 * MIB)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        if start == "hang":
            continue
        message = json.loads(line)
        if start.startswith("gate:") and message.get("method") == "initialize":
            await opened(start[5:])
        task = asyncio.create_task(_answer_line(server, message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if start == "brief" and message.get("method") == "notifications/initialized":
            os._exit(4)


async def _answer_line(server: FaultServer, message: dict[str, Any]) -> None:
    arguments = (message.get("params") or {}).get("arguments") or {}
    mode = arguments.get("mode")
    if mode == "garbage":
        _write(b'Loading...\n{"jsonrpc": nonsense}\n[1,2\n\xff\xfe\x00\n{}\nnull\n"id"\n')
    elif mode == "flood-stdout":
        noise = b"tick tick tick tick tick tick tick\n" * 2048
        for _ in range(int(arguments.get("mib", 16)) * MIB // len(noise)):
            _write(noise)
    elif mode == "flood-notices":
        notice = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n' * 512
        for _ in range(int(arguments.get("times", 10240)) // 512):
            _write(notice)
    response = await server.answer(message)
    if response is None:
        return
    data = json.dumps(response).encode() + b"\n"
    async with server.output:  # an answer in two halves must not have another one in between
        if mode == "slow":
            half = len(data) // 2
            _write(data[:half])
            await asyncio.sleep(float(arguments.get("seconds", 1)))
            data = data[half:]
        _write(data)
    if mode == "last-words":
        os._exit(5)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


# HTTP


class HttpFace:
    """Streamable HTTP, every answer a plain JSON body."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._sessions: set[str] = set()
        self._numbers = itertools.count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has left
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        reply: Callable[..., None] = lambda *args, **more: _respond(writer, *args, **more)  # noqa: E731
        if not first.startswith("POST "):
            reply(405)
            return True
        message = json.loads(body)
        session = fields.get("mcp-session-id")
        if message.get("method") == "initialize":
            session = f"{os.getpid()}-{next(self._numbers)}"
            self._sessions.add(session)
        elif message.get("method") == "server/discover":
            reply(400, json.dumps(await self._server.answer(message)).encode())
            return True
        elif session not in self._sessions:
            reply(404)
            return True
        arguments = (message.get("params") or {}).get("arguments") or {}
        mode = arguments.get("mode")
        if mode == "reset":
            writer.transport.abort()
            return False
        if mode in ("404", "500", "503"):
            reply(int(mode), b"a proxy says no")
            return True
        if mode == "forget":
            self._sessions.clear()
        response = await self._server.answer(message)
        if response is None and "id" in message and "method" in message:
            await reader.read()  # hangs until the other side leaves
            return False
        if response is None:
            reply(202)
            return True
        data = json.dumps(response).encode()
        if mode == "garbage":
            data = b"<html>not\x00json \xff</html>"
        elif mode == "cut":
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
            )
            await writer.drain()
            return False
        elif mode == "slow":
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % len(data))
            for index in range(0, len(data), max(1, len(data) // 10)):
                writer.write(data[index : index + max(1, len(data) // 10)])
                await asyncio.sleep(float(arguments.get("seconds", 1)) / 10)
            return True
        reply(200, data, **({"Mcp-Session-Id": session} if session else {}))
        return True


def _respond(writer: asyncio.StreamWriter, status: int, body: bytes = b"", **headers: str) -> None:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def serve_http(server: FaultServer, port: int) -> None:
    """For ever; says its URL on stdout once it listens."""
    listener = await asyncio.start_server(
        HttpFace(server).serve, "127.0.0.1", port, limit=128 * MIB, backlog=1024
    )
    print(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp", flush=True)
    await listener.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("transport", choices=("stdio", "http"))
    parser.add_argument("--start", default="ok")
    parser.add_argument("--start-file", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--brood", action="store_true", help="start two grandchildren, one in a new session")
    options = parser.parse_args()
    start = options.start_file.read_text().strip() if options.start_file else options.start
    server = FaultServer(options.log)
    if options.brood:
        for new_session in (False, True):
            server.note(f"grandchild {server.offspring(new_session)}")
    serving = serve_stdio(server, start) if options.transport == "stdio" else serve_http(server, options.port)
    asyncio.run(serving)


if __name__ == "__main__":
    main()
