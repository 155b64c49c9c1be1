"""The client of a running gateway's control socket: HTTP/1.1 and JSON over a Unix socket, blocking."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.errors import GatewayError, NotFound
from gateway.face.link import connect
from gateway.paths import StateDir

ANSWER_SECONDS: Final = 30.0
"""How long the gateway may take for an answer that it gives from memory."""
ADD_SECONDS: Final = 60.0
"""Between two lines while a server is added: the gateway itself gives it 30 s to connect."""
CALL_SECONDS: Final = 24 * 3600.0
"""Between two lines of a call without a timeout of its own: the gateway's own limit comes first."""
_MARGIN: Final = 10.0


class NotRunning(GatewayError):
    """No gateway holds this state directory, or none that listens."""

    kind = "not_running"


class ControlError(GatewayError):
    """The gateway refused what was asked, or answered what cannot be understood."""

    kind = "control_error"


class Conflict(ControlError):
    """A server of that name exists already."""

    kind = "conflict"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a stream: what it says, and the text it was written in, to the last digit."""

    body: dict[str, Any]
    text: str


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("toolyard", timeout=seconds)
        self._path = path
        self._seconds = seconds

    def connect(self) -> None:
        link = connect(self._path)
        if link is None:
            raise NotRunning(
                f"No gateway is running (nothing listens on {self._path}).",
                "Start it with `toolyard serve`.",
            )
        link.settimeout(self._seconds)
        self.sock: socket.socket = link


class ControlClient:
    """The verbs of the control socket. Every method is one connection, closed when it returns.

    All raise NotRunning when nothing listens, NotFound and Conflict for the names they are given,
    ControlError for the rest.

    >>> ControlClient(StateDir.at()).status()["gateway"]["url"]
    'http://127.0.0.1:7420/mcp'
    """

    def __init__(self, state: StateDir) -> None:
        self._path = state.control_socket

    def status(self) -> dict[str, Any]:
        """The gateway, its servers and the conflicts among their names."""
        return self._ask("GET", "/status")

    def server(self, name: str) -> dict[str, Any]:
        """Everything known of one server."""
        return self._ask("GET", _server(name))

    def tools(self, server: str | None = None) -> list[dict[str, Any]]:
        """The tools as clients see them, of one server or of all."""
        query = "" if server is None else "?" + urlencode({"server": server})
        tools = self._ask("GET", f"/tools{query}").get("tools")
        return tools if isinstance(tools, list) else []

    def call(self, name: str, arguments: Any, timeout: float | None = None) -> Iterator[Line]:
        """Call a tool. Yields ``{"progress": …}`` lines, then one ``{"result": …}`` or ``{"error": …}``."""
        body = {"name": name, "arguments": arguments}
        if timeout is not None:
            body["timeout"] = timeout
        return self._follow("POST", "/call", body, CALL_SECONDS if timeout is None else timeout + _MARGIN)

    def add(self, entry: Mapping[str, Any]) -> Iterator[Line]:
        """Add a server and connect it. Yields ``{"state": …}`` lines, then ``{"server": …, "tools": …}``."""
        return self._follow("POST", "/servers", entry, ADD_SECONDS)

    def restart(self, name: str) -> Iterator[Line]:
        """End a server's connections and start it anew. Yields what `add` yields."""
        return self._follow("POST", f"{_server(name)}/restart", None, ADD_SECONDS)

    def enable(self, name: str) -> Iterator[Line]:
        """Switch a server on for good. Yields what `add` yields; Conflict for one of the servers file."""
        return self._follow("POST", f"{_server(name)}/enable", None, ADD_SECONDS)

    def disable(self, name: str) -> None:
        """Switch a server off for good. Conflict for one of the servers file."""
        self._ask("POST", f"{_server(name)}/disable")

    def flush_log(self, name: str) -> None:
        """Have everything a server said so far written to its log file."""
        connection = _Connection(self._path, ANSWER_SECONDS)
        try:
            _read(self._open(connection, "GET", f"{_server(name)}/logs?lines=0", None))
        finally:
            connection.close()

    def remove(self, name: str) -> None:
        """Take a server out of the store and close its connections."""
        self._ask("DELETE", _server(name))

    def approve(self, name: str) -> str:
        """Give leave to start a server's command. Returns what was approved, for a person to read."""
        return str(self._ask("POST", f"{_server(name)}/approve", seconds=ADD_SECONDS).get("detail", ""))

    def registry(self, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change the registry: a verb of ``/registry`` that answers at once."""
        return self._ask("POST", f"/registry/{verb}", dict(body), ADD_SECONDS)

    def registry_raw(self, verb: str, body: bytes) -> dict[str, Any]:
        """The same with a body that is JSON already, to the last digit."""
        return self._ask("POST", f"/registry/{verb}", body, ADD_SECONDS)

    def sync(self, server: str | None = None) -> Iterator[Line]:
        """Bring the registry in step. Yields ``{"progress": …}`` lines, then ``{"synced": [reports]}``."""
        return self._follow("POST", "/registry/sync", {"server": server} if server else {}, ADD_SECONDS)

    def keys(self) -> list[dict[str, Any]]:
        """The keys that seal session ids and handles, newest first; never their secrets."""
        return _keys(self._ask("GET", "/keys"))

    def rotate_keys(self) -> list[dict[str, Any]]:
        """Make a new key, which seals from now on. Returns the keys."""
        return _keys(self._ask("POST", "/keys/rotate"))

    def retire_key(self, key: str) -> list[dict[str, Any]]:
        """Remove a key: what it sealed opens no more. Returns the others. NotFound for an unknown one."""
        return _keys(self._ask("DELETE", f"/keys/{quote(key, safe='')}"))

    def stop(self) -> None:
        """End the gateway."""
        self._ask("POST", "/stop")

    def _ask(self, verb: str, path: str, body: Any = None, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        connection = _Connection(self._path, seconds)
        try:
            response = self._open(connection, verb, path, body)
            return _object(_read(response))
        finally:
            connection.close()

    def _follow(self, verb: str, path: str, body: Any, seconds: float) -> Iterator[Line]:
        connection = _Connection(self._path, seconds)
        try:
            response = self._open(connection, verb, path, body)
            ended = False
            while line := _read(response, one_line=True):
                body = _object(line)
                ended = "progress" not in body and "state" not in body
                yield Line(body, line.decode().strip())
            if not ended:
                raise _broken()
        finally:
            connection.close()

    def _open(self, connection: _Connection, verb: str, path: str, body: Any) -> http.client.HTTPResponse:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            connection.request(verb, path, data, headers)
            response = connection.getresponse()
        except TimeoutError:
            raise _silent() from None
        except (OSError, http.client.HTTPException):
            raise _broken() from None
        if response.status >= 400:
            raise _refusal(response.status, _read(response))
        return response


def _keys(answer: dict[str, Any]) -> list[dict[str, Any]]:
    keys = answer.get("keys")
    return keys if isinstance(keys, list) else []


def _server(name: str) -> str:
    return f"/servers/{quote(name, safe='')}"


def _read(response: http.client.HTTPResponse, *, one_line: bool = False) -> bytes:
    try:
        return response.readline() if one_line else response.read()
    except TimeoutError:
        raise _silent() from None
    except (OSError, http.client.HTTPException):
        raise _broken() from None


def _object(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ControlError(
            "The gateway's answer cannot be understood.",
            "It may be of another version: restart it, then see `toolyard doctor`.",
        )
    return body


def _refusal(status: int, data: bytes) -> GatewayError:
    error = _object(data).get("error")
    error = error if isinstance(error, dict) else {}
    message = str(error.get("message") or f"The gateway answered with HTTP status {status}.")
    hint = error.get("hint")
    kind = {404: NotFound, 409: Conflict}.get(status, ControlError)
    return kind(message, hint if isinstance(hint, str) else None, reason=error.get("type"))


def _silent() -> ControlError:
    return ControlError(
        "The gateway did not answer in time.", "See its log, or restart it; `toolyard doctor` says more."
    )


def _broken() -> ControlError:
    return ControlError(
        "The gateway went away before it answered.",
        "See its log; `toolyard status` shows whether it is back.",
    )
