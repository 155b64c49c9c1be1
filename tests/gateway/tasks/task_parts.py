"""A client of 2026-07-28 in the standard library, and the fixture server as a child."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from yard import WAIT, until

FIXTURE = Path(__file__).parent.parent / "fixture_server"
META = "io.modelcontextprotocol/"
EXTENSION = META + "tasks"
NAMED = {"tools/call": "name", "tasks/get": "taskId", "tasks/update": "taskId", "tasks/cancel": "taskId"}
OVER = ("completed", "failed", "cancelled")


class Refused(Exception):
    """A JSON-RPC error."""

    def __init__(self, error: Mapping[str, Any], status: int) -> None:
        super().__init__(f"{error} (HTTP {status})")
        self.code: int = error["code"]
        self.error = error
        self.status = status


class Client:
    """Sends one request at a time, each on a connection of its own.

    :param tasks: whether it declares the extension.
    """

    def __init__(self, url: str, tasks: bool = True, credential: str | None = None) -> None:
        self.url = url
        self.capabilities: dict[str, Any] = {"elicitation": {}, "sampling": {}}
        if tasks:
            self.capabilities["extensions"] = {EXTENSION: {}}
        self.headers = {"authorization": f"Bearer {credential}"} if credential else {}

    def without_tasks(self) -> Client:
        return Client(self.url, tasks=False)

    def open(self, method: str, **params: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request: the connection and the head of its response."""
        meta = {
            META + "protocolVersion": "2026-07-28",
            META + "clientCapabilities": self.capabilities,
            META + "clientInfo": {"name": "tests", "version": "1"},
            **params.pop("_meta", {}),
        }
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": method,
            **self.headers,
        }
        if field := NAMED.get(method):
            headers["mcp-name"] = params[field]
        parts = urlsplit(self.url)
        assert parts.hostname
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=WAIT)
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        connection.request("POST", parts.path, json.dumps(message), headers)
        return connection, connection.getresponse()

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        """The result. Raises Refused."""
        connection, response = self.open(method, **params)
        with contextlib.closing(connection):
            text = response.read().decode()
        if response.headers["content-type"].startswith("text/event-stream"):
            text = text.rpartition("data: ")[2]
        message = json.loads(text)
        if "error" in message:
            raise Refused(message["error"], response.status)
        return dict(message["result"])

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.request("tools/call", name=name, arguments=arguments)

    def created(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that works until its caller has the task: the task as it was created."""
        with tempfile.NamedTemporaryFile() as held:
            created = self.call(name, held=held.name, **arguments)
            assert created["resultType"] == "task", created
        return created

    def start(self, name: str, **arguments: Any) -> str:
        """The same: the id of the task."""
        return str(self.created(name, **arguments)["taskId"])

    def get(self, task: str) -> dict[str, Any]:
        return self.request("tasks/get", taskId=task)

    def update(self, task: str, **responses: Any) -> dict[str, Any]:
        return self.request("tasks/update", taskId=task, inputResponses=responses)

    def cancel(self, task: str) -> dict[str, Any]:
        return self.request("tasks/cancel", taskId=task)

    def when(self, task: str, *statuses: str) -> dict[str, Any]:
        """The task, once it stands at one of these."""

        def look() -> dict[str, Any] | None:
            found = self.get(task)
            return found if found["status"] in statuses else None

        return until(f"task to be {statuses}", look)

    def result(self, task: str) -> dict[str, Any]:
        """What a task comes to in the end."""
        done = self.when(task, *OVER)
        assert done["status"] == "completed", done
        return dict(done["result"])

    def ready(self, of: int = 1) -> None:
        """Wait until the tools of so many fixture servers are listed."""

        def look() -> bool | None:
            tools = self.request("tools/list")["tools"]
            return True if sum(tool["name"].endswith("slow_compute") for tool in tools) == of else None

        until("tools", look)


def text(result: Mapping[str, Any]) -> str:
    """The text of a tool's result."""
    return str(result["content"][0]["text"])


def accept(**content: Any) -> dict[str, Any]:
    """A person's answer."""
    return {"action": "accept", "content": content}


def entry_of(era: str) -> dict[str, Any]:
    """The entry of a fixture server over stdio."""
    return {"command": sys.executable, "args": [str(FIXTURE), "stdio", "--era", era]}


@contextlib.contextmanager
def fixture_http(era: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A fixture server over HTTP: its URL and its process."""
    command = [sys.executable, str(FIXTURE), "http", "--era", era]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()
