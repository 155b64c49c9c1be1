"""Peers for the face's tests: a gateway's relay socket held by the test, and a client on pipes."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WAIT = 180.0


class RelaySocket:
    """Listens where a gateway would; every connection is handed to the test."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.fspath(path))
        self._listener.listen()
        self._listener.settimeout(WAIT)

    def accept(self) -> Link:
        return Link(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.close()


class Link:
    """One face's connection, from the gateway's side."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(WAIT)
        self.connection = connection
        self._buffer = b""

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            chunk = self.connection.recv(1 << 20)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def message(self) -> Any:
        return json.loads(self.line())

    def send(self, line: str | bytes) -> None:
        data = line.encode() if isinstance(line, str) else line
        self.connection.sendall(data + b"\n")

    def answer(self, request: Any, result: Any) -> None:
        """As the gateway does: the id stands second."""
        ident = json.dumps(request["id"])
        body = json.dumps(result, separators=(",", ":"))
        self.send(f'{{"jsonrpc":"2.0","id":{ident},"result":{body}}}')

    def greet(self) -> Any:
        """Take the hello and a replayed or relayed initialize, answer it; return the hello."""
        hello = self.message()
        self.answer(self.message(), HANDSHAKE)
        return hello

    def close(self) -> None:
        self.connection.close()


HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "toolyard", "version": "0"},
}


class Client:
    """A client that launched the face: writes its stdin, reads its stdout line by line."""

    def __init__(self, state: Path, *flags: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "stdio", "--state-dir", str(state), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self._input, self._output = self.process.stdin, self.process.stdout
        self.said: list[bytes] = []
        self._listener = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self._listener.start()
        self._pending = b""

    def _listen(self, stderr: Any) -> None:
        for line in stderr:
            self.said.append(line)

    def write(self, data: bytes) -> None:
        self._input.write(data)
        self._input.flush()

    def send(self, message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def request(self, ident: Any, method: str, params: Any = None) -> None:
        message = {"jsonrpc": "2.0", "id": ident, "method": method}
        self.send(message if params is None else {**message, "params": params})

    def notify(self, method: str, params: Any = None) -> None:
        message = {"jsonrpc": "2.0", "method": method}
        self.send(message if params is None else {**message, "params": params})

    def line(self, wait: float = WAIT) -> bytes:
        deadline = time.monotonic() + wait
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._output], [], [], left)[0]:
                raise TimeoutError(f"no line; stderr was {self.said}")
            chunk = os.read(self._output.fileno(), 1 << 20)
            if not chunk:
                raise EOFError(f"stdout ended; stderr was {self.said}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def message(self, wait: float = WAIT) -> Any:
        return json.loads(self.line(wait))

    def silent(self) -> bool:
        """Whether everything written was read: a ping comes straight back."""
        self.request("silence?", "ping")
        return bool(self.message().get("id") == "silence?")

    def close(self) -> int:
        self._input.close()
        code = self.process.wait(WAIT)
        self._listener.join(WAIT)
        self._output.close()
        assert self.process.stderr
        self.process.stderr.close()
        return code

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            try:
                self._input.close()
            except OSError:
                pass
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def initialize(version: str = "2025-11-25") -> dict[str, Any]:
    return {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}


def stateless(**params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"_meta": meta, **params}
