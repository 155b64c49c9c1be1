"""A running ``toolyard serve`` as a test sees it, the servers behind it, and ways to speak to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

T = TypeVar("T")
WAIT = 180.0
HERE = Path(__file__).parent
TOKEN = "a-token-for-tests-0123456789"
ERAS = ("legacy", "2026-07-28")


def until(what: str, check: Callable[[], T | None], wait: float = WAIT) -> T:
    """Ask again until there is an answer. Raises TimeoutError."""
    deadline = time.monotonic() + wait
    while time.monotonic() < deadline:
        if (found := check()) is not None:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {wait:g} s")


@dataclass(frozen=True)
class Yard:
    """A gateway that runs, or ran, in a directory of its own."""

    root: Path
    process: subprocess.Popen[str]
    environment: Mapping[str, str] = field(repr=False)

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def config(self) -> Path:
        return self.root / "servers.json"

    @property
    def url(self) -> str:
        return str(json.loads((self.state / "gateway.json").read_text())["url"])

    @property
    def stdio(self) -> list[str]:
        """The command of the thin face in front of this gateway."""
        return [sys.executable, "-m", "gateway", "stdio", "--state-dir", str(self.state)]

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def configure(self, servers: Mapping[str, Any] | str) -> None:
        """Write the servers file, in one go as editors do."""
        write_servers(self.root, servers)

    def toolyard(self, *arguments: str) -> Any:
        """What a CLI verb says with ``--json``."""
        command = [sys.executable, "-m", "gateway", *arguments, "--json", "--state-dir", str(self.state)]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=WAIT, check=True
        )
        return json.loads(done.stdout)

    def approve(self, *names: str) -> None:
        """Approve commands that a reload has brought, once they wait for it."""
        for name in names:
            until(f"{name} to wait for approval", lambda name=name: self._waits(name))
            command = [sys.executable, "-m", "gateway", "approve", name, "--state-dir", str(self.state)]
            subprocess.run(command, env=self.environment, capture_output=True, timeout=WAIT, check=True)

    def _waits(self, name: str) -> bool | None:
        states = {row["name"]: row["state"] for row in self.toolyard("status")["servers"]}
        return True if states.get(name) == "pending" else None

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)


def write_servers(root: Path, servers: Mapping[str, Any] | str) -> None:
    """Replace the servers file of a gateway."""
    text = servers if isinstance(servers, str) else json.dumps({"mcpServers": servers})
    (root / "servers.new").write_text(text)
    os.replace(root / "servers.new", root / "servers.json")


@contextlib.contextmanager
def serving(root: Path, servers: Mapping[str, Any] | None = None, *flags: str) -> Iterator[Yard]:
    """Run a gateway in a directory; what is there from a gateway before it stays in use."""
    root.mkdir(parents=True, exist_ok=True)
    if servers is not None:
        write_servers(root, servers)
    environment = {
        **os.environ,
        "TOOLYARD_CONFIG_DIR": str(root / "config"),
        "TOOLYARD_STATE_DIR": str(root / "state"),
    }
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(root / "servers.json")]
    command += ["--port", "0", "--state-dir", str(root / "state"), *flags]
    command += [] if "--no-auth" in flags else ["--token", TOKEN]
    with open(root / "log", "a") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout
    yard = Yard(root, process, environment)
    try:
        assert "http://" in process.stdout.readline(), yard.log
        yield yard
    finally:
        if process.poll() is None:
            yard.end()
        process.stdout.close()
    assert process.returncode in (0, -signal.SIGKILL), yard.log  # nobody but a test kills it
    assert "Traceback" not in yard.log, yard.log


@contextlib.contextmanager
def everything(name: str, *arguments: str) -> Iterator[str]:
    """An everything server over HTTP; its URL."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "everything_peer.py"), name, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(WAIT)
        process.stdout.close()


def everything_stdio(name: str) -> dict[str, Any]:
    """The entry of an everything server over stdio."""
    return {"command": sys.executable, "args": [str(HERE / "everything_peer.py"), name, "stdio"]}


def raw_stdio(*arguments: str) -> dict[str, Any]:
    """The entry of a raw peer."""
    return {"command": sys.executable, "args": [str(HERE / "raw_peer.py"), *arguments]}


@contextlib.asynccontextmanager
async def over_http(yard: Yard, era: str, **options: Any) -> AsyncIterator[Client]:
    """The SDK's client at the gateway's URL."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with create_mcp_http_client(headers) as http_client:
        transport = streamable_http_client(yard.url, http_client=http_client)
        async with Client(transport, mode=era, read_timeout_seconds=WAIT, **options) as client:
            yield client


@contextlib.asynccontextmanager
async def over_stdio(yard: Yard, era: str, **options: Any) -> AsyncIterator[Client]:
    """The SDK's client with ``toolyard stdio`` as its child."""
    command, *arguments = yard.stdio
    server = StdioServerParameters(command=command, args=arguments, env=dict(yard.environment))
    async with Client(server, mode=era, read_timeout_seconds=WAIT, **options) as client:
        yield client


class RawClient:
    """One handshake-era session over HTTP that shows the bytes of answers."""

    def __init__(self, yard: Yard) -> None:
        parts = urlsplit(yard.url)
        assert parts.hostname
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=WAIT)
        self._headers = {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "raw", "version": "0"},
        }
        self.initialized = json.loads(
            self.post(
                b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":%b}' % json.dumps(hello).encode()
            )
        )
        self.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def post(self, body: bytes) -> bytes:
        self._connection.request("POST", "/mcp", body, self._headers)
        response = self._connection.getresponse()
        if session := response.headers.get("mcp-session-id"):
            self._headers["Mcp-Session-Id"] = session
        answer = response.read()
        if response.headers.get_content_type() == "text/event-stream":  # the call took seconds
            return answer.rstrip().rpartition(b"data: ")[2]
        return answer

    def request(self, method: str, params: bytes = b"{}") -> bytes:
        """The whole answer to a request with id 7."""
        return self.post(b'{"jsonrpc":"2.0","id":7,"method":"%b","params":%b}' % (method.encode(), params))

    def tools(self) -> list[dict[str, Any]]:
        """The first page of the tools."""
        found: list[dict[str, Any]] = json.loads(self.request("tools/list"))["result"]["tools"]
        return found

    def names(self) -> list[str]:
        return [tool["name"] for tool in self.tools()]

    def call(self, name: str, **arguments: Any) -> Any:
        """The parsed answer to a call."""
        return json.loads(
            self.request("tools/call", json.dumps({"name": name, "arguments": arguments}).encode())
        )

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def raw_client(yard: Yard) -> Iterator[RawClient]:
    """A raw session, closed at the end."""
    client = RawClient(yard)
    try:
        yield client
    finally:
        client.close()


def text_of(result: Any) -> str:
    """The text of a tool result of the SDK's client."""
    return str(result.content[-1].text)


def names_of(items: Sequence[Any]) -> list[str]:
    return [item.name for item in items]
